"""What is wrong in a LeRobot data set: between its files, and in the numbers of an episode. One sentence each, with its place."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.types as kinds

from wristworld_ros.data.formats.lerobot import layout
from wristworld_ros.data.formats.lerobot.layout import (
    FLOAT32_STEP,
    INDEX_COLUMNS,
    V20,
    V21,
    V30,
    VIDEO_COLUMNS,
    EpisodeRow,
    Info,
)
from wristworld_ros.data.formats.lerobot.stats import NAMES_V21
from wristworld_ros.data.formats.lerobot.tables import Table, column_names
from wristworld_ros.data.video_access import VideoFrames
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import read_json

_RATE_OFF = 0.005  # share by which a measured rate may differ from the one that is told


class SetFacts(Protocol):
    """What is asked of a set; `reader.LeRobotSet` has it."""

    path: Path
    info: Info
    rows: list[EpisodeRow]
    tolerance: float

    @property
    def tasks(self) -> dict[int, str] | str:
        """Texts of the tasks by number, or the sentence that says why they cannot be read."""

    @property
    def measured_rate(self) -> float:
        """Frames per second that the times in the tables say."""

    def video(self, file: str) -> VideoFrames:
        """A video by its relative path."""


def set_problems(data: SetFacts) -> Iterator[str]:
    """Sentences about what does not fit between the head, the tables and the files of a set."""
    yield from _totals(data)
    yield from _episode_numbers(data)
    yield from _missing_columns(data)
    yield from _missing_video_columns(data)
    yield from _names(data)
    yield from _statistics(data)
    yield from _rates(data)
    yield from _video_parts(data)


def episode_problems(data: SetFacts, row: EpisodeRow, seconds: np.ndarray, table: Table) -> Iterator[str]:
    """Sentences about the numbers of one episode.

    Args:
        data: The set.
        row: What its tables say of the episode.
        seconds: float64 [T], times of the frames.
        table: All columns of its rows but images.
    """
    if len(table) != row.length:
        yield f'{table.path} holds {len(table)} rows of it, and the table of episodes says {row.length}.'
    if 'timestamp' in table.names:
        yield from _times(data, seconds)
    yield from _counters(row, table)
    for name in table.names:
        yield from _not_finite(table, name)
    tasks = data.tasks
    if 'task_index' in table.names and isinstance(tasks, dict):
        unknown = sorted(set(table.array('task_index').reshape(-1).tolist()) - set(tasks))
        if unknown:
            yield f'its task_index is {unknown[0]}, which the table of tasks does not have.'


def _totals(data: SetFacts) -> Iterator[str]:
    info, rows = data.info, data.rows
    source = layout.INFO
    counted = {
        'total_episodes': (info.total_episodes, len(rows)),
        'total_frames': (info.total_frames, sum(row.length for row in rows)),
    }
    if isinstance(data.tasks, dict):
        counted['total_tasks'] = info.total_tasks, len(data.tasks)
    else:
        yield data.tasks
    for name, (told, found) in counted.items():
        if told != found:
            yield f'{source} says {name} {told}, and the tables hold {found}.'


def _episode_numbers(data: SetFacts) -> Iterator[str]:
    twice = [index for index, count in Counter(row.index for row in data.rows).items() if count > 1]
    if twice:
        yield f'The table of episodes has episode {twice[0]} twice.'
    wanted = 0
    for number, row in enumerate(data.rows):
        if row.index != number and not twice:
            yield f'The table of episodes has episode {row.index} where {number} is wanted.'
            return
        if row.first is not None and row.first != wanted:
            yield f'Episode {row.index} begins at frame {row.first} of the set (dataset_from_index), and {wanted} frames are before it.'
            return
        wanted += row.length


def _missing_columns(data: SetFacts) -> Iterator[str]:
    """Features that a data file does not have; each is told once, with the first episode that lacks it."""
    told: set[str] = set()
    seen: set[str] = set()
    for row in data.rows:
        if row.data_file in seen:
            continue
        seen.add(row.data_file)
        try:
            names = set(column_names(data.path / row.data_file))
        except UserError:
            continue  # the episode's own check says so
        for name in [*data.info.columns, *INDEX_COLUMNS]:
            if name not in names and name not in told:
                told.add(name)
                yield f"{row.data_file} lacks the column '{name}' (from episode {row.index} on)."


def _missing_video_columns(data: SetFacts) -> Iterator[str]:
    for key in data.info.videos:
        lacking = [row.index for row in data.rows if key not in row.videos]
        if lacking:
            names = ', '.join(f'videos/{key}/{name}' for name in VIDEO_COLUMNS[:3])
            who = 'every episode' if len(lacking) == len(data.rows) else f'episode {lacking[0]}'
            yield f"meta/episodes lacks {names}: nothing says where the video of camera '{key}' is, of {who}."


def _names(data: SetFacts) -> Iterator[str]:
    """Features that lerobot takes for images by their names."""
    if data.info.codebase_version != V21:  # which alone has it aggregate statistics to open a set
        return
    taken = [k for k, f in data.info.features.items() if 'image' in k and f.dtype not in ('image', 'video')]
    if not taken or not (data.path / layout.STATS_V21).exists():
        return
    first = json.loads((data.path / layout.STATS_V21).read_text().partition('\n')[0])['stats']
    for key in taken:
        if key in first and np.shape(first[key].get('mean')) != (3, 1, 1):
            yield f"'{key}' has 'image' in its name and is none: lerobot 0.3 does not open the set, for its statistics are not in the shape of an image's."


def _statistics(data: SetFacts) -> Iterator[str]:
    wanted = [key for key, feature in data.info.features.items() if feature.dtype not in ('string', 'language')]
    version = data.info.codebase_version
    if version != V21:
        yield from _set_statistics(data, wanted)
    if version == V20:
        return
    where = layout.EPISODES if version == V30 else layout.STATS_V21
    for key in wanted:
        lacking = [row.index for row in data.rows if key not in row.stats]
        if lacking:
            who = 'any episode' if len(lacking) == len(data.rows) else f'episode {lacking[0]}'
            yield f"{where} has no statistics of '{key}' of {who}."


def _set_statistics(data: SetFacts, wanted: list[str]) -> Iterator[str]:
    try:
        stats = read_json(data.path / layout.STATS, dict[str, Any], layout.FIX)
    except UserError as error:
        yield f'{error.what}.'
        return
    for key in wanted:
        entry = stats.get(key)
        if not isinstance(entry, dict):
            yield f"{layout.STATS} has no statistics of '{key}'."
            continue
        lacking = [name for name in NAMES_V21 if name not in entry]
        if lacking:
            yield f"{layout.STATS} lacks {', '.join(lacking)} of '{key}'."
        elif not all(_is_finite(entry[name]) for name in NAMES_V21):
            yield f"{layout.STATS} has statistics of '{key}' that are not finite."


def _is_finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return isinstance(value, int | float) and math.isfinite(value)


def _rates(data: SetFacts) -> Iterator[str]:
    """The rate in the head against that of the times in the tables; where these agree, against that of the videos."""
    fps, found = data.info.fps, data.measured_rate
    if abs(found / fps - 1) > _RATE_OFF:
        yield f'{layout.INFO} says {fps:g} frames a second, and the times of the episodes are {found:.4g} a second.'
    for key in data.info.videos:
        files = [row.videos[key].file for row in data.rows if key in row.videos]
        try:
            rate = data.video(files[0]).rate if files else None
        except UserError:
            continue
        if rate and abs(rate / found - 1) > _RATE_OFF:
            yield f'The times of the episodes are {found:.4g} a second, and {files[0]} has {rate:.4g} frames a second.'


def _video_parts(data: SetFacts) -> Iterator[str]:
    """The parts of a video that belong to episodes: as long as these, and one after the other."""
    fps = data.measured_rate
    for key in data.info.videos:
        ends: dict[str, tuple[int, float]] = {}
        feature = data.info.features[key]
        for row in data.rows:
            part = row.videos.get(key)
            if part is None:
                continue
            if part.end is None:
                continue
            frames = (part.end - part.start) * fps
            if abs(frames - row.length) > 0.5:
                yield (
                    f"The video of camera '{key}' of episode {row.index} is from {part.start:.4f} to {part.end:.4f} s of {part.file}, "
                    f'{frames:.1f} frames at {fps:g} a second, and the episode has {row.length}.'
                )
                break
            before, end = ends.get(part.file, (-1, 0.0))
            if part.start < end - 0.5 / fps:
                yield f"Episodes {before} and {row.index} overlap in {part.file}, the video of camera '{key}'."
                break
            ends[part.file] = row.index, part.end
        yield from _size(data, key, feature.image_hw)


def _size(data: SetFacts, key: str, image_hw: tuple[int, int]) -> Iterator[str]:
    for row in data.rows:
        if key not in row.videos:
            continue
        try:
            frames = data.video(row.videos[key].file)
        except UserError:
            continue
        if (frames.height, frames.width) != image_hw:
            yield f"{row.videos[key].file} is {frames.width}x{frames.height}, and camera '{key}' is to be {image_hw[1]}x{image_hw[0]}."
        return


def _times(data: SetFacts, seconds: np.ndarray) -> Iterator[str]:
    """Times of the frames against their numbers."""
    rate = data.measured_rate
    off = np.abs(seconds - np.arange(len(seconds)) / rate)
    wrong = np.flatnonzero(off > data.tolerance + FLOAT32_STEP * np.abs(seconds))
    if len(wrong):
        first = int(wrong[0])
        more = f', and {len(wrong) - 1} more are off' if len(wrong) > 1 else ''
        yield f'frame {first} is at {seconds[first]:.4f} s, {1000 * off[first]:.1f} ms off its place at {rate:.4g} frames a second{more}.'


def _counters(row: EpisodeRow, table: Table) -> Iterator[str]:
    firsts = {'frame_index': 0, 'index': row.first}
    for name, first in firsts.items():
        if name not in table.names or first is None:
            continue
        found = table.array(name).reshape(-1)
        wrong = np.flatnonzero(found != first + np.arange(len(found)))
        if len(wrong):
            yield f'{name} of row {wrong[0]} is {found[wrong[0]]}, and {first + wrong[0]} is wanted.'


def _not_finite(table: Table, name: str) -> Iterator[str]:
    kind = table.content.schema.field(name).type
    while hasattr(kind, 'value_type'):
        kind = kind.value_type
    if not (kinds.is_floating(kind) or kinds.is_integer(kind)):
        return
    try:
        values = table.array(name)
    except UserError as error:
        yield f'{error.what}.'
        return
    bad = np.argwhere(~np.isfinite(values.astype(np.float64)))
    if len(bad):
        place = ''.join(f'[{i}]' for i in bad[0][1:]) if values.ndim > 1 else ''
        more = f' ({len(bad)} values in all)' if len(bad) > 1 else ''
        yield f"'{name}{place}' of frame {bad[0][0]} is {values[tuple(bad[0])]}{more}."
