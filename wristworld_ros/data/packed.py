"""Recorded episodes as memory-mapped arrays, so that training reads any frame at once.

Video decodes only in sequence; training wants single frames in random order. `pack_episodes` decodes each episode once,
resizes it to the model's resolution, and leaves plain .npy files that every loader process shares through the page cache.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from wristworld_ros.data.arrays import read_arrays
from wristworld_ros.data.cache import cache_key
from wristworld_ros.data.episode import Episode
from wristworld_ros.data.formats.native import list_episodes, read_episode
from wristworld_ros.errors import UserError
from wristworld_ros.geometry import resize_intrinsics
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.input_files import check_file
from wristworld_ros.runtime.children import die_with
from wristworld_ros.runtime.files import clear_leftovers, new_directory
from wristworld_ros.runtime.progress import ProgressBar

_MILLIMETRES = 1000.0
_PACK_AGAIN = 'delete the folder that it is in; it is packed again'
_WORKSPACE_X = 0.55  # metres in front of the robot's base


@dataclass(frozen=True)
class PackedEpisode:
    """One episode's frames on disk. Views are the anchors followed by the random cameras.

    rgb: uint8 [V, T, H, W, 3]. depth: uint16 [V, T, H, W], millimetres, 0 unknown.
    wrist_rgb: uint8 [T, h, w, 3]. wrist_depth: uint16 [T, h, w]. wrist_objects: uint8 [T, h, w], see `CameraTrack`, all 0 where
    the recording does not have them.
    K: float64 [V, T, 3, 3] and T_camera_world: float64 [V, T, 4, 4]; wrist_K, wrist_T_camera_world likewise without V.
    T_hand_wrist: float64 [4, 4], where the wrist camera is mounted; not there where the recording does not say it.
    """

    path: Path

    def _array(self, name: str) -> np.ndarray:
        # Mapped at each use: thousands of episodes held open would run out of file handles.
        path = check_file(self.path / f'{name}.npy', _PACK_AGAIN)
        try:
            return np.load(path, mmap_mode='r', allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise UserError(f'{path} cannot be read as an array ({str(error).rstrip(".")})', _PACK_AGAIN) from None

    @property
    def rgb(self) -> np.ndarray:
        return self._array('rgb')

    @property
    def depth(self) -> np.ndarray:
        return self._array('depth')

    @property
    def wrist_rgb(self) -> np.ndarray:
        return self._array('wrist_rgb')

    @property
    def wrist_depth(self) -> np.ndarray:
        return self._array('wrist_depth')

    @property
    def wrist_objects(self) -> np.ndarray:
        return self._array('wrist_objects')

    @cached_property
    def cameras(self) -> dict[str, np.ndarray]:
        return read_arrays(self.path / 'cameras.npz', _PACK_AGAIN)

    @property
    def anchors(self) -> int:
        """How many of the views are fixed anchors; they come first."""
        return int(self.cameras['anchors'])

    @property
    def azimuth(self) -> np.ndarray:
        """Azimuth of each view around the workspace, degrees, [V, T]; 0 faces the robot."""
        T = self.cameras['T_camera_world']
        centre = -np.einsum('vtji,vtj->vti', T[..., :3, :3], T[..., :3, 3])
        return np.degrees(np.arctan2(centre[..., 1], centre[..., 0] - _WORKSPACE_X))

    def remounted(self, T_hand_wrist: np.ndarray) -> np.ndarray:
        """Poses of a wrist camera that were mounted so, T_camera_world [T, 4, 4]; of the recorded one where its mount is not known."""
        recorded = self.cameras['wrist_T_camera_world']
        mount = self.cameras.get('T_hand_wrist')
        return recorded if mount is None else np.linalg.inv(T_hand_wrist) @ mount @ recorded

    @property
    def length(self) -> int:
        return len(self.cameras['wrist_K'])


def pack_episode(source: Path, target: Path, size: tuple[int, int], wrist_size: tuple[int, int]) -> Path:
    """`pack_recording` of an episode directory of our own format; its cameras at random places become views too."""
    return target if target.exists() else pack_recording(read_episode(source), target, size, wrist_size)


def pack_recording(episode: Episode, target: Path, size: tuple[int, int], wrist_size: tuple[int, int]) -> Path:
    """Decode one episode into `target`, which appears whole or not at all; one that is there is left alone.

    Args:
        episode: Of any format, with a wrist camera, and of all its cameras calibration and depth.
        target: The directory to make.
        size: Width and height of the views.
        wrist_size: Width and height of the wrist images.

    Raises:
        UserError: The episode cannot be read, or has no wrist camera, no calibration or no depth.
    """
    if target.exists():
        return target
    source = episode.path
    anchors = [c for c in episode.cameras if c.role == 'anchor']
    views = anchors + [c for c in episode.cameras if c.role == 'random']
    wrist = next((c for c in episode.cameras if c.role == 'wrist'), None)
    if wrist is None or not anchors:
        raise UserError(
            f'Episode {source} has no {"anchor" if wrist else "wrist"} camera', 'pack episodes that have both'
        )

    def rgb(camera, to):
        return resize_images(episode.rgb(camera.name), to[::-1])

    def millimetres(camera, to):
        depth = resize_images(episode.depth(camera.name), to[::-1], nearest=True)
        return np.minimum(depth * _MILLIMETRES + 0.5, 65535).astype(np.uint16)

    def intrinsics(camera, to):
        K = torch.from_numpy(episode.calibration(camera.name)[0])
        return resize_intrinsics(K, (camera.height, camera.width), to[::-1]).numpy()

    def objects(camera, to):
        if not camera.has_objects:
            return np.zeros((len(episode), *to[::-1]), np.uint8)
        return resize_images(episode.objects(camera.name), to[::-1], nearest=True)

    with new_directory(target) as folder:
        np.save(folder / 'rgb.npy', np.stack([rgb(c, size) for c in views]))
        np.save(folder / 'depth.npy', np.stack([millimetres(c, size) for c in views]))
        np.save(folder / 'wrist_rgb.npy', rgb(wrist, wrist_size))
        np.save(folder / 'wrist_depth.npy', millimetres(wrist, wrist_size))
        np.save(folder / 'wrist_objects.npy', objects(wrist, wrist_size))
        np.savez(
            folder / 'cameras.npz',
            anchors=len(anchors),
            K=np.stack([intrinsics(c, size) for c in views]),
            T_camera_world=np.stack([episode.calibration(c.name)[1] for c in views]),
            wrist_K=intrinsics(wrist, wrist_size),
            wrist_T_camera_world=episode.calibration(wrist.name)[1],
            **({'T_hand_wrist': np.array(mount)} if (mount := episode.meta.get('T_hand_wrist')) else {}),
        )
    return target


def pack_episodes(
    source: Path, target: Path, size: tuple[int, int], wrist_size: tuple[int, int], workers: int = 2
) -> list[PackedEpisode]:
    """Pack every episode below `source` that is not packed yet; returns all of them in order of name.

    What is there counts as packed only if it was made from the same files and at the same sizes (`cache_key`).
    """
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    clear_leftovers(target)
    sources = [Path(s) for s in list_episodes(source)]
    targets = [target / f'{s.name}-{cache_key(s, size=size, wrist_size=wrist_size, mounts=True)}' for s in sources]
    todo = [(s, t) for s, t in zip(sources, targets, strict=True) if not t.exists()]
    if todo:
        # Not forked: a process with threads, as of DDS or an encoder, leaves its children broken locks.
        with ProcessPoolExecutor(workers, get_context('spawn'), die_with, (os.getpid(),)) as pool:
            jobs = [pool.submit(pack_episode, s, t, size, wrist_size) for s, t in todo]
            for job in ProgressBar(as_completed(jobs), total=len(jobs), desc='packing episodes', unit='episode'):
                job.result()
    return [PackedEpisode(t) for t in targets]
