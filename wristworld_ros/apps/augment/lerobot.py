"""LeRobot data sets get a camera: a video along the boundaries of another one, columns and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wristworld_ros.apps.augment.depth import CODE
from wristworld_ros.apps.augment.result import (
    COLUMNS,
    DEPTH_CODES,
    STATS,
    VIDEO,
    EpisodeResult,
    column_names,
    depth_key,
)
from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.apps.augment.source import AugmentSource, sha256_of
from wristworld_ros.data.episode import EpisodeCamera
from wristworld_ros.data.formats.lerobot.adding import AddedCamera, AddedPart, add_camera, check_addable
from wristworld_ros.data.formats.lerobot.features import video_feature
from wristworld_ros.data.formats.lerobot.layout import FIX, INFO, V21, V30
from wristworld_ros.data.formats.lerobot.reader import LeRobotSet
from wristworld_ros.data.formats.lerobot.stats import Stats, shaped_as_image
from wristworld_ros.data.formats.lerobot.writer import video_details
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import read_json

_SHAPES = {
    'valid': ('bool', 1), 'status': ('int64', 1), 'confidence': ('float32', 1), 'K': ('float64', 9),
    'T_camera_anchor': ('float64', 16), 'T_camera_base': ('float64', 16),
}  # fmt: skip


class LeRobotSource(AugmentSource):
    """A LeRobot data set, v3.0, v2.1 or v2.0."""

    folder, codes_depth = 'meta/wristworld', True

    def __init__(self, path: Path):
        self.data: LeRobotSet = LeRobotSet(path)
        if not len(self.data):
            raise UserError(f'{path} holds no episode', FIX)

    def marker(self, settings: AugmentSettings) -> str:
        """See `AugmentSource.marker`."""
        return INFO

    def check(self, settings: AugmentSettings) -> None:
        """See `AugmentSource.check`."""
        key, version = settings.out_key, self.data.info.codebase_version
        if settings.depth and version != V30:
            raise UserError(f'{self.data.path} is of version {version}, which has no depth videos', 'leave --depth out')
        keys = [key, depth_key(key)] if settings.depth else [key]
        check_addable(self.data, keys, list(column_names(key).values()))

    def depends(self, place: int, anchors: tuple[str, ...]) -> dict[str, Any]:
        """See `AugmentSource.depends`."""
        data, row = self.data, self.data.rows[place]
        keys = [*anchors, *(data.depth_of[key] for key in anchors if key in data.depth_of)]
        parts = {key: row.videos[key] for key in keys if key in row.videos}
        names = sorted({row.data_file, *(part.file for part in parts.values())})
        return {
            'episode': row.index, 'length': row.length, 'fps': data.info.fps,
            'videos': {key: [part.file, part.start, part.end] for key, part in parts.items()},
            'files': {name: sha256_of(data.path / name) for name in names if (data.path / name).is_file()},
        }  # fmt: skip

    def write(
        self,
        folder: Path,
        results: Sequence[EpisodeResult],
        work: Path,
        settings: AugmentSettings,
        anchors: tuple[str, ...],
    ) -> None:
        """See `AugmentSource.write`."""
        add_camera(self.data, folder, self._added(work, results, settings), self._along(anchors))

    def reopened(self, folder: Path) -> LeRobotSet:
        """See `AugmentSource.reopened`."""
        return LeRobotSet(folder)

    def camera(self, settings: AugmentSettings) -> str:
        """See `AugmentSource.camera`."""
        return settings.out_key

    def described(self) -> dict[str, Any]:
        """See `AugmentSource.described`."""
        return super().described() | {'info_sha256': sha256_of(self.data.path / INFO)}

    def number(self, place: int) -> int:
        """See `AugmentSource.number`."""
        return self.data.rows[place].index

    def length(self, place: int) -> int:
        """See `AugmentSource.length`."""
        return self.data.rows[place].length

    @property
    def fps(self) -> float:
        """See `AugmentSource.fps`."""
        return self.data.info.fps

    def _along(self, anchors: tuple[str, ...]) -> str | None:
        """The video whose boundaries the new one follows: the first anchor's that is a video, else any other."""
        videos = self.data.info.videos
        return next((key for key in anchors if key in videos), videos[0] if videos else None)

    def _added(self, work: Path, results: Sequence[EpisodeResult], settings: AugmentSettings) -> AddedCamera:
        """What the set gets. The pose in the robot's base is a column where every frame that has a camera has it."""
        told = [one.in_base for one in results if one.in_base is not None]
        in_base, key = bool(told) and all(told), settings.out_key
        names = column_names(key)
        kinds = {kind: shape for kind, shape in _SHAPES.items() if kind != 'T_camera_base' or in_base}
        columns = {
            names[kind]: {'dtype': dtype, 'shape': [width], 'names': None} for kind, (dtype, width) in kinds.items()
        }
        first = results[0]
        camera = EpisodeCamera(key, 'wrist', first.width, first.height, False)
        fps = int(self.fps) if self.fps == int(self.fps) else self.fps
        files = {key: VIDEO} | ({depth_key(key): DEPTH_CODES} if settings.depth else {})
        videos = {
            name: video_feature(
                camera, fps, video_details(work / first.folder / file), CODE if file == DEPTH_CODES else None
            )
            for name, file in files.items()
        }
        folders = {one.episode: work / one.folder for one in results}
        old = self.data.info.codebase_version == V21
        return AddedCamera(videos, columns, lambda number: _part(folders[number], files, list(columns), old))


def _part(folder: Path, videos: dict[str, str], columns: list[str], old: bool) -> AddedPart:
    """What a finished episode adds to a set, with some of its columns; `old`: to one of v2.1.

    Raises:
        UserError: A file of it is damaged.
    """
    stored = read_json(folder / STATS, dict[str, dict[str, Any]], 'remove its folder and start again')
    stats: dict[str, Stats] = {
        key: {name: np.array(value) for name, value in entry.items()} for key, entry in stored.items()
    }
    if old:
        stats |= {key: shaped_as_image(stats[key]) for key in columns if 'image' in key}
    with np.load(folder / COLUMNS) as file:
        return AddedPart(
            {key: folder / file for key, file in videos.items()}, {name: file[name] for name in columns}, stats
        )
