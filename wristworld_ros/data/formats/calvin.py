"""CALVIN: a file `episode_XXXXXXX.npz` a step, and `ep_start_end_ids.npy`, which says where episodes begin and end.

The static camera is the anchor, the gripper's the wrist camera; both have depth. Where they are is not said. Its texts belong to
parts of an episode: `meta['segments']` lists them as (first frame, last frame, text).
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wristworld_ros.data.arrays import read_arrays
from wristworld_ros.data.episode import DataSet, Episode, EpisodeCamera, check_indices
from wristworld_ros.data.poses import pose_from_xyz_rpy
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import check_file

STARTS = 'ep_start_end_ids.npy'
_TEXTS = 'lang_annotations/auto_lang_ann.npy'
_FIX = 'restore it from where it came'
_RATE = 30.0
_CAMERAS = {'static': ('rgb_static', 'depth_static', 'anchor'), 'gripper': ('rgb_gripper', 'depth_gripper', 'wrist')}
_OBS = 15  # numbers of robot_obs: position, angles, gripper's width, 7 joints, gripper's action
# All that a pickled array of texts, numbers and arrays needs.
_HARMLESS = {
    (module, name)
    for module in (
        'numpy',
        'numpy.core.multiarray',
        'numpy._core.multiarray',
        'numpy.core.numeric',
        'numpy._core.numeric',
    )
    for name in ('_reconstruct', 'ndarray', 'dtype', 'scalar', '_frombuffer')
}


class CalvinSet(DataSet):
    """A folder of steps with `ep_start_end_ids.npy`, such as `training` or `validation`.

    Raises:
        UserError: The file of starts and ends cannot be read.
    """

    format = 'CALVIN'

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.bounds = _bounds(self.path / STARTS)

    def __len__(self) -> int:
        return len(self.bounds)

    def episode(self, index: int) -> CalvinEpisode:
        """See `DataSet.episode`; the numbers of all steps are read."""
        first, last = (int(number) for number in self.bounds[index])
        files = [self.path / f'episode_{number:07d}.npz' for number in range(first, last + 1)]
        steps = [_step(file, ('robot_obs', 'rel_actions')) for file in files]
        robot = np.stack([step['robot_obs'] for step in steps])
        images = _step(
            files[0], [key for rgb, depth, _ in _CAMERAS.values() for key in (rgb, depth)], all_of_them=False
        )
        cameras = tuple(
            EpisodeCamera(name, role, images[rgb].shape[1], images[rgb].shape[0], depth in images)  # type: ignore[arg-type]
            for name, (rgb, depth, role) in _CAMERAS.items()
            if rgb in images
        )
        if not cameras:
            raise UserError(f'{files[0]} holds no image', _FIX)
        segments = [(a - first, b - first, text) for a, b, text in self.segments if first <= a and b <= last]
        return CalvinEpisode(
            path=self.path,
            name=f'episode {index}',
            cameras=cameras,
            fps=_RATE,
            stamps_ns=np.round(np.arange(len(files)) / _RATE * 1e9).astype(np.int64),
            joints=robot[:, 7:14],
            gripper=robot[:, 6],
            gripper_unit='metres',
            T_base_hand=None,
            actions=np.stack([step['rel_actions'] for step in steps]),
            meta={'segments': segments, 'T_world_tcp': pose_from_xyz_rpy(robot[:, :6])},
            files=tuple(files),
        )

    @cached_property
    def segments(self) -> list[tuple[int, int, str]]:
        """Numbers of the first and last step, and the text, of every part that has one."""
        path = self.path / _TEXTS
        if not path.exists():
            return []
        said = _pickled(path)
        try:
            texts, places = said['language']['ann'], said['info']['indx']
            return [(int(first), int(last), str(text)) for (first, last), text in zip(places, texts, strict=True)]
        except (KeyError, TypeError, ValueError, IndexError):
            raise UserError(f'{path} does not hold language/ann and info/indx', _FIX) from None


@dataclass(frozen=True, kw_only=True)
class CalvinEpisode(Episode):
    """An episode of CALVIN. files: of its steps."""

    files: tuple[Path, ...]

    def read(self, camera: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `Episode.read`."""
        entry = self.camera(camera)
        key, shape = _CAMERAS[entry.name][0], (entry.height, entry.width, 3)
        return self._stack(key, indices, shape, np.uint8)

    def read_depth(self, camera: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `Episode.read_depth`."""
        entry = self.camera(camera)
        if not entry.has_depth:
            return super().read_depth(camera, indices)
        depth = self._stack(_CAMERAS[entry.name][1], indices, (entry.height, entry.width), np.float32)
        return np.where(np.isfinite(depth) & (depth > 0), depth, 0)

    def _stack(self, key: str, indices: Sequence[int] | np.ndarray, shape: tuple[int, ...], kind: type) -> np.ndarray:
        numbers = check_indices(indices, len(self))
        out: np.ndarray = np.empty((len(numbers), *shape), kind)
        for place, number in enumerate(numbers):
            image = _step(self.files[number], (key,))[key]
            if image.shape != shape:
                raise UserError(
                    f'{self.files[number]}: {key} is {list(image.shape)}, and {list(shape)} is wanted', _FIX
                )
            out[place] = image
        return out


def is_calvin(path: Path) -> bool:
    """Whether a folder is one of CALVIN's."""
    return (path / STARTS).is_file()


def _bounds(path: Path) -> np.ndarray:
    check_file(path, _FIX)
    try:
        bounds = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f'{path} cannot be read ({str(error).rstrip(".")})', _FIX) from None
    if bounds.ndim != 2 or bounds.shape[1] != 2 or bounds.dtype.kind not in 'iu' or (bounds[:, 0] > bounds[:, 1]).any():
        raise UserError(
            f'{path} holds {bounds.dtype} {list(bounds.shape)}, and rows of first and last step are wanted', _FIX
        )
    return bounds


def _step(path: Path, keys: Sequence[str], all_of_them: bool = True) -> dict[str, np.ndarray]:
    arrays = read_arrays(path, _FIX, keys)
    lacking = [key for key in keys if key not in arrays]
    if lacking and all_of_them:
        raise UserError(f'{path} lacks {", ".join(lacking)}', _FIX)
    if 'robot_obs' in arrays and arrays['robot_obs'].shape != (_OBS,):
        raise UserError(f'{path}: robot_obs is {list(arrays["robot_obs"].shape)}, and [{_OBS}] is wanted', _FIX)
    return arrays


class _Unpickler(pickle.Unpickler):
    """Takes arrays and plain values, and runs nothing that a file names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f'it names {module}.{name}')
        return super().find_class(module, name)


def _pickled(path: Path) -> Any:
    check_file(path, _FIX)
    try:
        with path.open('rb') as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            read(file)
            return _Unpickler(file).load().item()
    except (OSError, ValueError, EOFError, AttributeError, ImportError, pickle.UnpicklingError) as error:
        raise UserError(f'{path} cannot be read ({str(error).rstrip(".")})', _FIX) from None
