"""Writes episodes of any format as the package's own, frame by frame: a directory of episode directories."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np

from wristworld_ros.data.episode import Episode, EpisodeCamera
from wristworld_ros.data.formats.native import JSON, OPEN_VERSION, TRACKS, CameraEntry, NativeEpisode
from wristworld_ros.data.lossless_video import write_depth_video, write_label_video
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

CRF = 12
_DEEPEST = 65.535  # metres that 16 bits of millimetres can hold


def write_native(
    path: str | Path,
    episodes: Iterable[Opened],
    crf: int = CRF,
    replace: bool = False,
    on_episode: Callable[[], object] = lambda: None,
) -> WriteReport:
    """Write a directory of episodes in the package's own format; it appears whole or not at all.

    Args:
        path: The directory, which must not exist.
        episodes: What opens each of them; one that cannot be read whole is left out.
        crf: H.264 quality, 0 (best) to 51. Depth is lossless, in millimetres.
        replace: Whether older episodes in its place give way.
        on_episode: Called after each episode.

    Raises:
        UserError: No episode could be written, or the disk refuses.
    """
    report = WriteReport()
    with new_directory(Path(path), replace, f'{0:06d}/{JSON}') as folder:

        def add(episode: Episode) -> None:
            with new_directory(folder / f'{report.episodes:06d}') as place:
                _write(place, episode, crf)
            report.episodes += 1
            report.frames += len(episode)

        write_each(Path(path), episodes, add, report, on_episode)
    return report


def _write(folder: Path, episode: Episode, crf: int) -> None:
    names, count = plain_names(episode), len(episode)
    if not count:
        raise UserError(f'{episode.name} has no frame', 'leave it out')
    cameras = colour_cameras(episode)
    if not cameras:
        raise UserError(f'{episode.path} has no camera in {episode.name}', 'give episodes with cameras')
    entries = [_write_camera(folder, episode, camera, names[camera.name], crf) for camera in cameras]
    tracks = _tracks(episode, {camera.name: names[camera.name] for camera in cameras})
    np.savez(folder / TRACKS, **tracks)
    head = {
        'version': OPEN_VERSION, 'task': episode.task, 'seed': episode.seed if isinstance(episode, NativeEpisode) else 0,
        'fps': float(episode.fps), 'success': episode.success, 'frames': count,
        'cameras': [asdict(entry) for entry in entries], 'meta': plain_meta(episode.meta),
        'language': list(episode.language), 'gripper_unit': episode.gripper_unit, 'hand_link': episode.hand_link,
        'gripper_link': episode.gripper_link,
    }  # fmt: skip
    (folder / JSON).write_text(json_text(head))


def _write_camera(folder: Path, episode: Episode, camera: EpisodeCamera, name: str, crf: int) -> CameraEntry:
    """Write a camera's videos, decoding a few frames at a time."""
    rgb_file, depth_file, objects_file = f'{name}.mp4', None, None
    write_video(folder / rgb_file, episode.rgb_frames(camera.name), episode.fps, crf, faststart=False)
    if camera.has_depth:
        depth_file = f'{name}.depth.mkv'
        maps = image_blocks(episode.read_depth, camera.name, len(episode))
        write_depth_video(folder / depth_file, (_held(depth) for depth in maps), episode.fps)
    if camera.has_objects:
        objects_file = f'{name}.objects.mkv'
        write_label_video(folder / objects_file, episode.objects(camera.name), episode.fps)
    role = cast(Any, camera.role)
    return CameraEntry(name, role, camera.width, camera.height, camera.has_depth, rgb_file, depth_file, objects_file)


def _held(depth: np.ndarray) -> np.ndarray:
    """What 16 bits of millimetres can hold; farther is unknown."""
    return np.where(depth <= _DEEPEST, depth, 0)


def _tracks(episode: Episode, names: dict[str, str]) -> dict[str, np.ndarray]:
    """Every array of the episode; of an episode of our own also those that only it has."""
    found: dict[str, np.ndarray] = dict(episode.tracks) if isinstance(episode, NativeEpisode) else {}
    found['stamps_ns'] = np.asarray(episode.stamps_ns, np.int64)
    for name in ('joints', 'gripper', 'T_base_hand', 'actions'):
        if (values := getattr(episode, name)) is not None:
            found[name] = values
    for camera, name in names.items():
        K, T, times = episode.K(camera), episode.T_camera_world(camera), episode.times_ns(camera)
        if K is not None:
            found[f'K_{name}'] = np.asarray(K, np.float64)
        if T is not None:
            found[f'T_camera_world_{name}'] = np.asarray(T, np.float64)
        if not np.array_equal(times, episode.stamps_ns):
            found[f'times_ns_{name}'] = np.asarray(times, np.int64)
    return found
