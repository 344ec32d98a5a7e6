"""Writes episodes of any format as a folder of videos: a mapping, and of every episode a JSON file, and per camera a video and a JSON file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wristworld_ros.data.episode import Episode, EpisodeCamera
from wristworld_ros.data.formats.videos_mapping import MAPPING, VideoCamera, VideoMapping
from wristworld_ros.data.lossless_video import write_depth_video
from wristworld_ros.data.poses import xyz_quaternion_from_pose
from wristworld_ros.data.video import write_video
from wristworld_ros.data.writing import (
    Opened,
    WriteReport,
    colour_cameras,
    image_blocks,
    plain_meta,
    plain_names,
    write_each,
)
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import json_text
from wristworld_ros.runtime.files import new_directory

CRF = {'h264': 18, 'av1': 30}
PRESET = {'h264': 'fast', 'av1': '10'}
_GOP = 15  # frames from one key frame to the next: players can seek, and files stay small
_NUMBERS = {'joints': 'joints', 'gripper': 'gripper', 'hand_pose': 'T_base_hand', 'actions': 'actions'}


def write_videos(
    path: str | Path,
    episodes: Iterable[Opened],
    codec: str = 'h264',
    crf: int | None = None,
    replace: bool = False,
    on_episode: Callable[[], object] = lambda: None,
) -> WriteReport:
    """Write a folder of videos; it appears whole or not at all.

    Args:
        path: The folder, which must not exist.
        episodes: What opens each of them; one that cannot be read whole, or says other things than the first, is left out.
        codec: Of the images, h264 or av1. Depth is lossless, in millimetres.
        crf: Their quality, 0 is best; None is the codec's own.
        replace: Whether an older folder in its place gives way.
        on_episode: Called after each episode.

    Raises:
        UserError: No episode could be written, or the disk refuses.
    """
    with new_directory(Path(path), replace, MAPPING) as folder:
        writer = _Writer(folder, codec, CRF[codec] if crf is None else crf)
        write_each(Path(path), episodes, writer.add, writer.report, on_episode)
        write_mapping(folder / MAPPING, writer.mapping)
    return writer.report


def write_mapping(path: Path, mapping: VideoMapping) -> None:
    """Write a mapping as YAML, without what is not said."""
    said = {key: value for key, value in asdict(mapping).items() if value not in (None, '', ()) and key != 'root'}
    said['cameras'] = {
        name: {key: value for key, value in camera.items() if value is not None}
        for name, camera in said['cameras'].items()
    }
    if mapping.actions:
        said['actions'] = list(mapping.actions)
    path.write_text(yaml.safe_dump(said, sort_keys=False, width=120))


class _Writer:
    """mapping: of the first episode, which all others must have."""

    def __init__(self, folder: Path, codec: str, crf: int):
        self.report, self._folder, self._codec, self._crf = WriteReport(), folder, codec, crf
        self.mapping = VideoMapping({})

    def add(self, episode: Episode) -> None:
        """Add an episode, whole or not at all.

        Raises:
            UserError: It cannot be read, or says other things than the first one.
        """
        stem = f'{self.report.episodes:06d}'
        mapping = _mapping(episode)
        if self.report.episodes and mapping != self.mapping:
            raise UserError(f'{episode.name} {_difference(mapping, self.mapping)}', 'write it to a folder of its own')
        if any(camera.has_objects for camera in episode.cameras):
            self.report.note('Masks of objects are left out, for folders of videos have none.')
        names = plain_names(episode)
        with new_directory(self._folder / 'videos' / stem) as folder:
            for camera in colour_cameras(episode):
                self._write_camera(folder, episode, camera, names[camera.name])
        place = self._folder / 'annotation' / f'{stem}.json'
        place.parent.mkdir(exist_ok=True)
        place.write_text(json_text(_annotation(episode), None))
        self.mapping = mapping
        self.report.episodes += 1
        self.report.frames += len(episode)

    def _write_camera(self, folder: Path, episode: Episode, camera: EpisodeCamera, name: str) -> None:
        write_video(
            folder / f'{name}.mp4', episode.rgb_frames(camera.name), episode.fps, self._crf, PRESET[self._codec],
            codec=self._codec, gop=_GOP,
        )  # fmt: skip
        if camera.has_depth:
            maps = image_blocks(episode.read_depth, camera.name, len(episode))
            write_depth_video(folder / f'{name}.depth.mkv', maps, episode.fps)
        said: dict[str, Any] = {'times_ns': episode.times_ns(camera.name).tolist()}
        for key, values in (('K', episode.K(camera.name)), ('T_camera_base', episode.T_camera_world(camera.name))):
            if values is not None:
                said[key] = _matrices(values)
        (folder / f'{name}.json').write_text(json_text(said, None))


def _matrices(values: np.ndarray) -> list:
    """Matrices [T, n, n] row by row; one alone where it never changes."""
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    return rows[0].tolist() if (rows == rows[0]).all() else rows.tolist()


def _mapping(episode: Episode) -> VideoMapping:
    """What the annotation of an episode has, and where its videos lie."""
    names = plain_names(episode)
    cameras = {}
    for camera in colour_cameras(episode):
        file = f'videos/{{stem}}/{names[camera.name]}'
        depth = f'{file}.depth.mkv' if camera.has_depth else None
        cameras[names[camera.name]] = VideoCamera(f'{file}.mp4', camera.role, depth, f'{file}.json')
    if not cameras:
        raise UserError(f'{episode.path} has no camera in {episode.name}', 'give episodes with cameras')
    has = {key: None if getattr(episode, name) is None else key for key, name in _NUMBERS.items()}
    return VideoMapping(
        cameras, annotations='annotation/*.json', stamps='stamps_ns', joints=has['joints'], gripper=has['gripper'],
        gripper_unit=episode.gripper_unit if has['gripper'] else 'unknown', hand_pose=has['hand_pose'],
        hand_link=episode.hand_link if has['hand_pose'] else '', gripper_link=episode.gripper_link,
        actions=('actions',) if has['actions'] else (),
        language='language', success='success', meta='meta',
    )  # fmt: skip


def _difference(mapping: VideoMapping, first: VideoMapping) -> str:
    """In what an episode's mapping is not the first one's, the rest of a sentence."""
    mine, theirs = asdict(mapping), asdict(first)
    key = next(key for key in mine if mine[key] != theirs[key])
    if key == 'cameras':
        return f'has the cameras {", ".join(mine[key])}, and the first episode {", ".join(theirs[key])}, or other depth'
    return f'has {key} {mine[key]!r}, and the first episode {theirs[key]!r}'


def _annotation(episode: Episode) -> dict[str, Any]:
    said: dict[str, Any] = {
        'language': list(episode.language), 'success': episode.success, 'stamps_ns': episode.stamps_ns.tolist(),
        'meta': plain_meta(episode.meta),
    }  # fmt: skip
    for key, name in _NUMBERS.items():
        values = getattr(episode, name)
        if values is not None:
            said[key] = (xyz_quaternion_from_pose(values) if key == 'hand_pose' else values).tolist()
    return said
