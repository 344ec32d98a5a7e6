"""Adds a camera to a LeRobot data set: the set with a further video and further columns, all else as it was.

Files that do not change are hard links to the source's where the file system allows, else copies. Tables that get columns are
written with their old columns' values, types and row groups as they were. The new video lies along the boundaries of an existing
one: the same number of files, the same times in them.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pyarrow as pa

from wristworld_ros.data.formats.lerobot import layout
from wristworld_ros.data.formats.lerobot.features import arrow_metadata, vector_column
from wristworld_ros.data.formats.lerobot.layout import V30, path_in_set
from wristworld_ros.data.formats.lerobot.reader import LeRobotSet
from wristworld_ros.data.formats.lerobot.stats import NAMES, NAMES_V21, Stats, as_lists, combine
from wristworld_ros.data.formats.lerobot.tables import extend_table, read_table, table_rows
from wristworld_ros.data.formats.lerobot.tree import episodes_schema
from wristworld_ros.data.video_copy import JoinedVideo
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import json_text, read_json, read_json_lines

# What a file system answers that has no hard links, or none for this file.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
_HUGGINGFACE = b'huggingface'


@dataclass(frozen=True)
class AddedPart:
    """What one episode gets: videos with its frames alone by key, columns [T] or [T, N] by key, and statistics by key."""

    videos: dict[str, Path]
    columns: dict[str, np.ndarray]
    stats: dict[str, Stats]


@dataclass(frozen=True)
class AddedCamera:
    """What a set gets.

    videos: entries of `features` for the videos, of colour and of depth. columns: those for the columns. part: gives what an
    episode gets by its number; it may be asked several times.
    """

    videos: dict[str, dict[str, Any]]
    columns: dict[str, dict[str, Any]]
    part: Callable[[int], AddedPart]

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """All entries of `features`."""
        return {**self.videos, **self.columns}


def add_camera(data: LeRobotSet, folder: Path, camera: AddedCamera, along: str | None) -> None:
    """Write a set with a camera more.

    Args:
        data: The source, which is only read.
        folder: An empty directory, where the set goes.
        camera: What is added.
        along: The video whose boundaries are followed; None follows the data files (v3.0), for sets without a video.

    Raises:
        UserError: A file of the source cannot be read, or the tables do not say where the video is.
    """
    camera = AddedCamera(camera.videos, camera.columns, lru_cache(maxsize=8)(camera.part))
    changed = {layout.INFO, layout.STATS, layout.STATS_V21} | {row.data_file for row in data.rows}
    if data.info.codebase_version == V30:
        changed |= {str(path.relative_to(data.path)) for path in layout.episode_files(data.path)}
    _link_others(data.path, folder, changed)
    rows = _Rows(camera)
    for name in dict.fromkeys(row.data_file for row in data.rows):
        target = _place(folder, name)
        extend_table(data.path / name, target, rows.columns, lambda found: _described(found, camera, data))
    if data.info.codebase_version == V30:
        _add_v30(data, folder, camera, along)
    else:
        _add_v21(data, folder, camera)
    _write_stats(data, folder, camera)
    _write_info(data, folder, camera)


def check_addable(data: LeRobotSet, keys: list[str], columns: list[str]) -> None:
    """Check, before any work, that a set can get a camera.

    Args:
        data: The set.
        keys: Of the videos.
        columns: Names of the columns.

    Raises:
        UserError: It has one of them already.
    """
    taken = [name for name in (*keys, *columns) if name in data.info.features]
    if taken:
        raise UserError(f"{data.path} has '{taken[0]}' already", 'give another key')


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link to a file, links followed; a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        copyfile(source, target)


class _Rows:
    """Hands an added camera's columns out, row group by row group, by the episode that each row belongs to."""

    def __init__(self, camera: AddedCamera):
        self._camera = camera
        self._taken: dict[int, int] = {}

    def columns(self, table: pa.Table) -> dict[str, pa.Array]:
        """The new columns of some rows."""
        numbers = table.column('episode_index').to_numpy()
        parts: dict[str, list[np.ndarray]] = {name: [] for name in self._camera.columns}
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers)) + 1) if len(numbers) else ():
            episode = int(run[0])
            start = self._taken.get(episode, 0)
            self._taken[episode] = start + len(run)
            for name, values in self._camera.part(episode).columns.items():
                parts[name].append(values[start : start + len(run)])
        return {
            name: vector_column(_rows_of(parts[name], feature), feature['dtype']).values
            for name, feature in self._camera.columns.items()
        }


def _rows_of(parts: list[np.ndarray], feature: dict[str, Any]) -> np.ndarray:
    width = feature['shape'][0]
    return np.concatenate([np.empty((0, width), feature['dtype']), *(part.reshape(-1, width) for part in parts)])


def _link_others(source: Path, folder: Path, changed: set[str]) -> None:
    for path in regular_files(source):
        name = path.relative_to(source)
        if str(name) not in changed:
            link_or_copy(path, folder / name)


def regular_files(folder: Path) -> Iterator[Path]:
    """All regular files below a folder; links to folders are followed, each once."""
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(root))
        folders[:] = sorted(name for name in folders if os.path.realpath(os.path.join(root, name)) not in seen)
        yield from (path for name in sorted(names) if (path := Path(root, name)).is_file())


def _place(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _described(found: dict[bytes, bytes], camera: AddedCamera, data: LeRobotSet) -> dict[bytes, bytes]:
    """Metadata of a data file's schema with the new columns, where it describes its columns."""
    try:
        known = json.loads(found[_HUGGINGFACE])
        features = known['info']['features']
    except (KeyError, TypeError, ValueError):
        return found
    added = json.loads(arrow_metadata(camera.columns, data.info.codebase_version)['huggingface'])
    features |= added['info']['features']
    return found | {_HUGGINGFACE: json.dumps(known).encode()}


@dataclass(frozen=True)
class _Place:
    """Where an episode's video is: numbers of the file, and seconds in it."""

    chunk: int
    file: int
    start: float
    end: float


def _add_v30(data: LeRobotSet, folder: Path, camera: AddedCamera, along: str | None) -> None:
    places = _by_episode({key: _write_videos(data, folder, camera, key, along) for key in camera.videos})
    number, place = next(iter(places.items()))
    schema = episodes_schema(_episode_entry(camera, number, place))

    def more(table: pa.Table) -> dict[str, pa.Array]:
        numbers = table.column('episode_index').to_pylist()
        rows = [_episode_entry(camera, number, places[number]) for number in numbers]
        added = pa.Table.from_pylist(rows, schema=schema)
        return dict(zip(added.column_names, added.columns))

    for source in layout.episode_files(data.path):
        extend_table(source, _place(folder, str(source.relative_to(data.path))), more)


def _by_episode(places: dict[str, dict[int, _Place]]) -> dict[int, dict[str, _Place]]:
    """Places by episode and video, of places by video and episode."""
    numbers = next(iter(places.values()))
    return {number: {key: found[number] for key, found in places.items()} for number in numbers}


def _episode_entry(camera: AddedCamera, number: int, places: dict[str, _Place]) -> dict[str, Any]:
    """What the row of an episode gets."""
    stats = camera.part(number).stats
    row: dict[str, Any] = {}
    for key, place in places.items():
        row |= {
            f'videos/{key}/chunk_index': place.chunk, f'videos/{key}/file_index': place.file,
            f'videos/{key}/from_timestamp': place.start, f'videos/{key}/to_timestamp': place.end,
        }  # fmt: skip
    for key in camera.features:
        row |= {f'stats/{key}/{name}': value for name, value in as_lists(stats[key]).items()}
    return row


def _write_videos(
    data: LeRobotSet, folder: Path, camera: AddedCamera, key: str, along: str | None
) -> dict[int, _Place]:
    """Join the episodes' videos to as many files as the other video has; returns where each episode is."""
    fps, template = data.info.fps, data.info.video_path or layout.VIDEO_PATH
    found: dict[int, _Place] = {}
    for (chunk, file), group in sorted(_groups(data, along).items()):
        name = path_in_set(template, data.path / layout.INFO, video_key=key, chunk_index=chunk, file_index=file)
        joined = JoinedVideo(_place(folder, name), fps)
        try:
            for start, number, end in sorted(group):
                part, begin = camera.part(number), joined.frames / fps
                length = len(next(iter(part.columns.values())))
                if not joined.append(part.videos[key], 0.0, length):
                    raise UserError(f'The video of episode {number} cannot be joined to {name}', 'start again')
                # The other video's own figures where these are the times of the frames, which they are but in damaged sets.
                same = abs(start - begin) * fps < 1e-3 and abs(end - start - length / fps) * fps < 1e-3
                found[number] = _Place(chunk, file, *((start, end) if same else (begin, joined.frames / fps)))
        finally:
            joined.close()
    return found


def _groups(data: LeRobotSet, along: str | None) -> dict[tuple[int, int], list[tuple[float, int, float]]]:
    """Which episodes share a file, by its numbers: when each begins in it, its number, and when it ends, seconds."""
    prefix = f'videos/{along}' if along else 'data'
    groups: dict[tuple[int, int], list[tuple[float, int, float]]] = {}
    ends: dict[tuple[int, int], float] = {}
    for path in layout.episode_files(data.path):
        names = [f'{prefix}/{name}' for name in layout.VIDEO_COLUMNS]
        table = read_table(path, ['episode_index', 'length', *names])
        for entry in table_rows(table):
            chunk, file, start, end = (entry.get(name) for name in names)
            if chunk is None or file is None or (along and start is None):
                raise UserError(
                    f"{path} lacks the columns {prefix}/*, which say where the video of camera '{along}' is, of episode "
                    f'{entry["episode_index"]}', layout.FIX,
                )  # fmt: skip
            place = int(chunk), int(file)
            start = ends.get(place, 0.0) if start is None else float(start)
            end = start + entry['length'] / data.info.fps if end is None else float(end)
            ends[place] = end
            groups.setdefault(place, []).append((start, int(entry['episode_index']), end))
    return groups


def _add_v21(data: LeRobotSet, folder: Path, camera: AddedCamera) -> None:
    template, info = data.info.video_path or layout.VIDEO_PATH_V21, data.info
    for row in data.rows:
        values = {'episode_chunk': row.index // info.chunks_size, 'episode_index': row.index}
        for key, video in camera.part(row.index).videos.items():
            name = path_in_set(template, data.path / layout.INFO, video_key=key, **values)
            link_or_copy(video, folder / name)
    source = data.path / layout.STATS_V21
    if not source.exists():  # v2.0 has none
        return
    lines, _ = read_json_lines(source, dict[str, Any], layout.FIX)
    for line in lines:
        stats = camera.part(line['episode_index']).stats
        line['stats'] |= {key: as_lists(stats[key], NAMES_V21) for key in camera.features}
    _place(folder, layout.STATS_V21).write_text(''.join(json_text(line, None) for line in lines))


def _write_stats(data: LeRobotSet, folder: Path, camera: AddedCamera) -> None:
    """`meta/stats.json` with the new statistics, where the version or the set has one."""
    source, is_v30 = data.path / layout.STATS, data.info.codebase_version == V30
    if not (is_v30 or source.exists()):
        return
    stats = read_json(source, dict[str, Any], layout.FIX) if source.exists() else {}
    names = NAMES if is_v30 else NAMES_V21
    found: dict[str, list[Stats]] = {key: [] for key in camera.features}
    for row in data.rows:
        part = camera.part(row.index)
        for key, entries in found.items():
            entries.append(part.stats[key])
    stats |= {key: as_lists(combine(entries), names) for key, entries in found.items()}
    _place(folder, layout.STATS).write_text(json_text(stats, 4))


def _write_info(data: LeRobotSet, folder: Path, camera: AddedCamera) -> None:
    info = read_json(data.path / layout.INFO, dict[str, Any], layout.FIX)
    is_v30 = data.info.codebase_version == V30
    info['video_path'] = info.get('video_path') or (layout.VIDEO_PATH if is_v30 else layout.VIDEO_PATH_V21)
    if 'total_videos' in info:
        info['total_videos'] += len(data.rows) * len(camera.videos)
    info['features'] |= camera.features
    _place(folder, layout.INFO).write_text(json_text(info, 4))
