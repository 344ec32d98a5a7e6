"""Folders of videos get a camera: of every episode a video and a JSON file, and an entry in the mapping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from wristworld_ros.apps.augment.result import DEPTH, VIDEO, EpisodeResult, read_columns
from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.apps.augment.source import AugmentSource, sha256_of
from wristworld_ros.data.formats.lerobot.adding import link_or_copy, regular_files
from wristworld_ros.data.formats.lerobot.columns import short_name
from wristworld_ros.data.formats.videos import VideoSet
from wristworld_ros.data.formats.videos_mapping import MAPPING, VideoCamera
from wristworld_ros.data.formats.videos_writer import write_mapping
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import json_text


class FolderSource(AugmentSource):
    """A folder of videos with a mapping, or in the layout of Ctrl-World's examples."""

    folder = 'wristworld'

    def __init__(self, path: Path):
        self.data: VideoSet = VideoSet(path)

    def marker(self, settings: AugmentSettings) -> str:
        """See `AugmentSource.marker`."""
        return MAPPING

    def check(self, settings: AugmentSettings) -> None:
        """See `AugmentSource.check`."""
        name, data = short_name(settings.out_key), self.data
        if name in data.mapping.cameras:
            raise UserError(
                f"{data.path} has the camera '{name}' already",
                'give another name, as in --out-key observation.images.wrist_virtual_2',
            )
        if (data.root / name).exists():
            raise UserError(
                f'{data.root / name} is there already',
                'give another name, as in --out-key observation.images.wrist_virtual_2',
            )
        pattern = data.mapping.episodes
        if pattern and any(PurePath(new).match(pattern) for new in (name, self.folder)):
            raise UserError(
                f'{data.path} has episodes {pattern}, which {name} would be', 'give them a folder of their own'
            )
        files = [data.file(place, f'{name}/{{folder}}/{{stem}}') for place in data.places]
        if len(set(files)) < len(files):
            raise UserError(
                f'{data.path} has two episodes {max(files, key=files.count)}', 'give their folders two names'
            )

    def depends(self, place: int, anchors: tuple[str, ...]) -> dict[str, Any]:
        """See `AugmentSource.depends`."""
        data = self.data
        at, cameras = data.places[place], data.mapping.cameras
        files = [at] if at.is_file() else []
        clock = next(iter(cameras.values())).video
        patterns = {
            clock,
            *(p for key in anchors for p in (cameras[key].video, cameras[key].depth, cameras[key].data) if p),
        }
        files += [data.root / data.file(at, pattern) for pattern in sorted(patterns)]
        content = {str(path.relative_to(data.root)): sha256_of(path) for path in files if path.is_file()}
        return {'episode': place, 'files': content, 'mapping': repr(replace(data.mapping, root=None))}

    def write(
        self,
        folder: Path,
        results: Sequence[EpisodeResult],
        work: Path,
        settings: AugmentSettings,
        anchors: tuple[str, ...],
    ) -> None:
        """See `AugmentSource.write`."""
        data, name = self.data, short_name(settings.out_key)
        for path in regular_files(data.root):
            relative = path.relative_to(data.root)
            if str(relative) != MAPPING:
                link_or_copy(path, folder / relative)
        pattern = f'{name}/{{folder}}/{{stem}}'
        for place, result in enumerate(results):
            file = folder / data.file(data.places[place], pattern)
            if result.frames:
                link_or_copy(work / result.folder / VIDEO, file.with_name(f'{file.name}.mp4'))
                if settings.depth:
                    link_or_copy(work / result.folder / DEPTH, file.with_name(f'{file.name}.depth.mkv'))
                said = self._said(place, result, work / result.folder, settings)
                file.with_name(f'{file.name}.json').write_text(json_text(said, None))
        camera = VideoCamera(
            f'{pattern}.mp4', 'wrist', f'{pattern}.depth.mkv' if settings.depth else None, f'{pattern}.json'
        )
        write_mapping(folder / MAPPING, replace(data.mapping, cameras=data.mapping.cameras | {name: camera}, root=None))

    def reopened(self, folder: Path) -> VideoSet:
        """See `AugmentSource.reopened`."""
        return VideoSet(folder)

    def camera(self, settings: AugmentSettings) -> str:
        """See `AugmentSource.camera`."""
        return short_name(settings.out_key)

    def length(self, place: int) -> int:
        """See `AugmentSource.length`."""
        try:
            return len(self.data.episode(place))
        except UserError:
            return 0

    def _said(self, place: int, result: EpisodeResult, folder: Path, settings: AugmentSettings) -> dict[str, Any]:
        """What the camera's JSON file says, a list entry per frame. The pose in the robot's base is there where it is known of every frame."""
        columns = read_columns(folder, settings.out_key)
        said: dict[str, Any] = {}
        said['times_ns'] = self.data.episode(place).stamps_ns.tolist()
        for kind, values in columns.items():
            if kind != 'T_camera_base' or result.in_base:
                said[kind] = values[:, 0].tolist() if values.shape[1] == 1 else values.tolist()
        return said
