"""Reads LeRobot data sets: the tables when the set is opened, an episode's rows with the episode, frames when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from wristworld_ros.data.episode import DataSet, DepthCamera, Episode, EpisodeCamera, check_indices, role_of
from wristworld_ros.data.formats.lerobot import columns
from wristworld_ros.data.formats.lerobot.check import episode_problems, set_problems
from wristworld_ros.data.formats.lerobot.depth import DepthCode, depth_code, metres
from wristworld_ros.data.formats.lerobot.layout import (
    FIX,
    FLOAT32_STEP,
    INFO,
    EpisodeRow,
    Info,
    read_info,
    read_rows,
    read_tasks,
)
from wristworld_ros.data.formats.lerobot.tables import Table, read_table, table_rows
from wristworld_ros.data.images import decode_image
from wristworld_ros.data.video_access import TOLERANCE, MissingFrameError, VideoFrames
from wristworld_ros.errors import UserError


class LeRobotSet(DataSet):
    """A LeRobot data set of version 3.0 or 2.1.

    Cameras are called by their keys, e.g. 'observation.images.wrist_left'. A depth video whose name is a camera's with `depth` is that
    camera's depth; any other is a camera of its own without images in colour.

    Args:
        path: Its directory.
        tolerance: How far a frame's time in its video may be from the time in the table, seconds; lerobot's own default.

    Attributes:
        info: The head of the set. rows: Its episodes, in order.

    Raises:
        UserError: The head or the tables cannot be read; see `layout.read_info` and `layout.read_rows`.
    """

    def __init__(self, path: str | Path, tolerance: float = TOLERANCE):
        self.path, self.tolerance = Path(path), tolerance
        self.info: Info = read_info(self.path)
        self.rows: list[EpisodeRow] = read_rows(self.path, self.info)
        self.format = f'LeRobot {self.info.codebase_version}'
        self.depth_of = _pair_depth(self.info)

    def __len__(self) -> int:
        return len(self.rows)

    def episode(self, index: int) -> LeRobotEpisode:
        """See `DataSet.episode`."""
        row = self.rows[index]
        cameras = self.info.cameras
        numbers = [*columns.robot_columns(), *columns.calibration_columns(cameras), 'timestamp', 'frame_index']
        table = read_table(self.path / row.data_file, numbers, row.index)
        if not len(table):
            raise UserError(f'{table.path} holds no row of episode {row.index}', FIX)
        calibrations = {camera: columns.calibration(table, camera) for camera in cameras}
        return LeRobotEpisode(
            path=self.path,
            name=f'episode {row.index}',
            cameras=self.cameras,
            fps=self.info.fps,
            stamps_ns=_stamps_ns(table, self.info.fps),
            language=row.tasks,
            meta={
                'robot_type': self.info.robot_type,
                'claimed_T_base_camera': columns.claimed_extrinsics(table, cameras),
            },
            source=self,
            row=row,
            seconds=_seconds(table, self.info.fps),
            calibrations=calibrations,
            **columns.robot_fields(table, self.info),
        )

    def problems(self) -> Iterator[str]:
        """See `DataSet.problems`."""
        return set_problems(self)

    @cached_property
    def cameras(self) -> tuple[EpisodeCamera, ...]:
        """The cameras of every episode of the set."""
        found = []
        for key in self.info.cameras:
            height, width = self.info.features[key].image_hw
            found.append(EpisodeCamera(key, role_of(key), width, height, key in self.depth_of))
        for key in set(self.info.depth_videos) - set(self.depth_of.values()):
            height, width = self.info.features[key].image_hw
            found.append(DepthCamera(key, 'other', width, height, True))
        return tuple(found)

    @cached_property
    def measured_rate(self) -> float:
        """Frames per second that the times of the first episode with three frames or more say; the head's where none does."""
        for row in self.rows:
            try:
                steps = np.diff(
                    _seconds(read_table(self.path / row.data_file, ['timestamp'], row.index), self.info.fps)
                )
            except UserError:
                continue
            if len(steps) > 1 and np.median(steps) > 0:
                rate = 1 / float(np.median(steps))
                # The head's is taken where the times confirm it, for theirs is rounded.
                return self.info.fps if abs(rate / self.info.fps - 1) < 1e-3 else rate
        return self.info.fps

    @cached_property
    def tasks(self) -> dict[int, str] | str:
        """Texts of the tasks by number, or the sentence that says why they cannot be read."""
        try:
            return read_tasks(self.path, self.info)
        except UserError as error:
            return f'{error.what}.'

    def video(self, file: str) -> VideoFrames:
        """A video of the set by its relative path; it is not open.

        Raises:
            UserError: It is missing, or nothing in it can be decoded.
        """
        return _video(self.path / file)

    def depth_code(self, key: str) -> DepthCode | None:
        """How a depth video is coded; see `depth.depth_code`."""
        return depth_code(self.info.features[key], f"{self.path / INFO}: the depth video '{key}'")


@dataclass(frozen=True, kw_only=True)
class LeRobotEpisode(Episode):
    """An episode of a LeRobot data set.

    source: the set. row: what its tables say. seconds: float64 [T], times of the frames since the episode's begin, as stored.
    calibrations: K and T_camera_world of each camera, or None.
    """

    source: LeRobotSet
    row: EpisodeRow
    seconds: np.ndarray
    calibrations: dict[str, tuple[np.ndarray | None, np.ndarray | None]]

    def read(self, camera: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `Episode.read`."""
        name, numbers = self.camera(camera).name, check_indices(indices, len(self))
        feature = self.source.info.features[name]
        if feature.is_depth:
            raise UserError(
                f"Camera '{name}' of {self.path} has depth alone, and images are asked for", 'read its depth'
            )
        return self._from_video(name, numbers, 'rgb24') if feature.dtype == 'video' else self._from_table(name, numbers)

    def read_depth(self, camera: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `Episode.read_depth`."""
        entry, numbers = self.camera(camera), check_indices(indices, len(self))
        if not entry.has_depth:
            return super().read_depth(camera, indices)
        key = self.source.depth_of.get(entry.name, entry.name)
        code = self.source.depth_code(key)
        return metres(self._from_video(key, numbers, 'gray16le' if code is None else 'gray12le'), code)

    def K(self, camera: str) -> np.ndarray | None:
        """See `Episode.K`."""
        return self.calibrations.get(self.camera(camera).name, (None, None))[0]

    def T_camera_world(self, camera: str) -> np.ndarray | None:
        """See `Episode.T_camera_world`."""
        return self.calibrations.get(self.camera(camera).name, (None, None))[1]

    def broken_frames(self, camera: str) -> list[tuple[int, str]]:
        """See `Episode.broken_frames`."""
        name = self.camera(camera).name
        if self.source.info.features[name].dtype != 'video':
            return super().broken_frames(camera)
        # By number: a time that is off is a fault of the table's, which `problems` tells, and not of the video.
        seconds = np.round(self.seconds * self.source.measured_rate) / self.source.measured_rate
        found = []
        for key in filter(None, (name, self.source.depth_of.get(name))):
            if key in self.row.videos:  # else `problems` of the set says so, once
                frames, times, tolerance = self._place(key, seconds)
                found += frames.broken_times(times, tolerance)
        return sorted(found)

    def problems(self) -> Iterator[str]:
        """See `Episode.problems`."""
        try:
            table = self.table()
        except UserError as error:
            return iter([f'{error.what}.'])
        return episode_problems(self.source, self.row, self.seconds, table)

    def table(self) -> Table:
        """All columns of the episode's rows but images; errors as in `tables.read_table`."""
        images = {key for key, feature in self.source.info.features.items() if feature.is_image}
        return read_table(self.path / self.row.data_file, None, self.row.index, leave_out=images)

    def _place(self, key: str, seconds: np.ndarray) -> tuple[VideoFrames, np.ndarray, float]:
        """A video's file, where times of this episode are in it, and how far they may be off."""
        part = self.row.videos.get(key)
        if part is None:
            raise UserError(
                f'{self.path}: meta/episodes lacks the columns videos/{key}/*, which say where the video of {self.name}, '
                f"camera '{key}', is",
                FIX,
            )
        times = part.start + seconds
        return (
            self.source.video(part.file),
            times,
            self.source.tolerance + FLOAT32_STEP * float(np.abs(times).max(initial=0)),
        )

    def _from_video(self, key: str, numbers: np.ndarray, pixels: str) -> np.ndarray:
        frames, times, tolerance = self._place(key, self.seconds[numbers])
        try:
            return frames.read_at(times, tolerance, pixels)
        except MissingFrameError as error:
            what = f"Frame {numbers[error.place]} of {self.name}, camera '{key}', is missing: {error.what}"
            raise MissingFrameError(what, error.fix, error.place) from None

    def _from_table(self, key: str, numbers: np.ndarray) -> np.ndarray:
        entry = self.camera(key)
        table = read_table(self.path / self.row.data_file, [key, 'episode_index'], self.row.index)
        if key not in table.names:
            raise UserError(f"{table.path} lacks the column '{key}', the images of {self.name}", FIX)
        out = np.empty((len(numbers), entry.height, entry.width, 3), np.uint8)
        chosen = replace(table, content=table.content.take(numbers))
        for place, cell in enumerate(table_rows(chosen)):
            source = f"frame {numbers[place]} of {self.name}, camera '{key}', of {table.path}"
            out[place] = _decode_cell(cell[key], source, out.shape[1:])
        return out


@lru_cache(maxsize=64)
def _video(path: Path) -> VideoFrames:
    return VideoFrames(path)


def _decode_cell(cell: Any, source: str, shape: tuple[int, ...]) -> np.ndarray:
    data = cell.get('bytes') if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        raise UserError(f'{source} holds no image', FIX)
    image = decode_image(data, source)
    if image.shape != shape:
        raise UserError(f'{source} is {image.shape[1]}x{image.shape[0]}, and {shape[1]}x{shape[0]} is announced', FIX)
    return image


def _pair_depth(info: Info) -> dict[str, str]:
    """Cameras' keys -> the keys of their depth videos, whose last part is the camera's with `depth` before or behind it."""
    pairs = {}
    for camera in info.cameras:
        last = camera.rpartition('.')[2]
        for key in info.depth_videos:
            if key.rpartition('.')[2] in (f'{last}_depth', f'depth_{last}') or key in (
                f'{camera}.depth',
                f'observation.depth.{last}',
            ):
                pairs[camera] = key
    return pairs


def _seconds(table: Table, fps: float) -> np.ndarray:
    """Times of an episode's frames, float64 [T] seconds; by number and rate where the column is missing, which a check tells."""
    if 'timestamp' not in table.names:
        return np.arange(len(table)) / fps
    seconds = table.array('timestamp').astype(np.float64).reshape(-1)
    even = np.round(seconds * fps) / fps
    # Undo the rounding to 32 bits.
    return np.where(np.abs(even - seconds) <= FLOAT32_STEP * np.abs(seconds), even, seconds)


def _stamps_ns(table: Table, fps: float) -> np.ndarray:
    seconds = _seconds(table, fps)
    if not np.isfinite(seconds).all():
        frame = int(np.flatnonzero(~np.isfinite(seconds))[0])
        raise UserError(f'{table.path}: the time of frame {frame} is {seconds[frame]}', FIX)
    return np.round(seconds * 1e9).astype(np.int64)
