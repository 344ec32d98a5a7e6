"""DROID's raw recordings: a folder per episode with `metadata_<uuid>.json`, `trajectory.h5` and `recordings/MP4/<serial>.mp4`.

Ports of DROID to LeRobot are read by `formats.lerobot`. What the recordings say of where the cameras beside the robot are is known to
be wrong in many episodes: it is told as a claim in `meta`, and is no pose of the camera.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from wristworld_ros.data.episode import DataSet, Episode, EpisodeCamera, Role, check_indices
from wristworld_ros.data.poses import pose_from_xyz_rpy
from wristworld_ros.data.video_access import MissingFrameError, VideoFrames
from wristworld_ros.errors import UserError, require_package
from wristworld_ros.input_files import check_file, check_name, read_json

TRAJECTORY, _VIDEOS = 'trajectory.h5', 'recordings/MP4'
_FIX = 'restore it from where it came'
_RATE = 15.0  # steps a second
# Cameras' names -> the key of their serial number, and where they are.
_CAMERAS: dict[str, tuple[str, Role]] = {
    'exterior_1': ('ext1_cam_serial', 'anchor'), 'exterior_2': ('ext2_cam_serial', 'anchor'), 'wrist': ('wrist_cam_serial', 'wrist'),
}  # fmt: skip
_STATE = 'observation/robot_state/'
_COLUMNS = {'joints': 'joint_positions', 'gripper': 'gripper_position', 'hand': 'cartesian_position'}
_ACTIONS = ('action/joint_position', 'action/gripper_position')
_STAMPS = 'observation/timestamp/robot_state/read_start'  # milliseconds


class DroidSet(DataSet):
    """Raw episodes of DROID, anywhere below a folder, or one of them.

    Raises:
        UserError: There is none.
    """

    format = 'DROID raw'

    def __init__(self, path: str | Path):
        require_package('h5py', 'data', 'Reading raw DROID recordings')
        self.path = Path(path)
        self.folders = sorted(file.parent for file in self.path.rglob(TRAJECTORY))
        if not self.folders:
            raise UserError(f'There is no {TRAJECTORY} in {self.path}', 'give a folder of raw DROID episodes')

    def __len__(self) -> int:
        return len(self.folders)

    def episode(self, index: int) -> DroidEpisode:
        """See `DataSet.episode`."""
        folder = self.folders[index]
        said = _metadata(folder)
        numbers, extrinsics = _trajectory(folder / TRAJECTORY)
        count = len(numbers['joints'])
        videos, cameras, claimed = {}, [], {}
        for name, (key, role) in _CAMERAS.items():
            serial = said.get(key)
            if serial is None:
                continue
            serial = check_name(str(serial), f'{key} of {folder}')
            videos[name] = _video(folder / _VIDEOS / f'{serial}.mp4')
            cameras.append(EpisodeCamera(name, role, videos[name].width, videos[name].height, False))
            if role == 'anchor' and f'{serial}_left' in extrinsics:
                claimed[name] = pose_from_xyz_rpy(extrinsics[f'{serial}_left'][0])
        if not cameras:
            raise UserError(f'The metadata of {folder} names no camera', _FIX)
        stamps = numbers.get('stamps')
        return DroidEpisode(
            path=folder,
            name=f'episode {folder.name}',
            cameras=tuple(cameras),
            fps=_RATE,
            stamps_ns=np.arange(count) * round(1e9 / _RATE)
            if stamps is None
            else np.round(stamps).astype(np.int64) * 1_000_000,
            language=tuple(filter(None, (str(said.get('current_task') or ''),))),
            success=bool(said['success']) if 'success' in said else None,
            joints=numbers['joints'],
            gripper=numbers['gripper'].reshape(-1),
            gripper_unit='closed',
            T_base_hand=pose_from_xyz_rpy(numbers['hand']),
            hand_link='panda_link8',
            gripper_link='panda_link8',
            actions=numbers.get('actions'),
            meta={'robot_type': 'panda', 'uuid': said.get('uuid'), 'claimed_T_base_camera': claimed},
            videos=videos,
        )


@dataclass(frozen=True, kw_only=True)
class DroidEpisode(Episode):
    """A raw episode of DROID; image i of every video belongs to step i."""

    videos: dict[str, VideoFrames]

    def read(self, camera: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `Episode.read`."""
        name, numbers = self.camera(camera).name, check_indices(indices, len(self))
        try:
            return self.videos[name].read(numbers)
        except MissingFrameError as error:
            what = f"Frame {numbers[error.place]} of {self.name}, camera '{name}', is missing: {error.what}"
            raise MissingFrameError(what, error.fix, error.place) from None

    def broken_frames(self, camera: str) -> list[tuple[int, str]]:
        """See `Episode.broken_frames`."""
        video = self.videos[self.camera(camera).name]
        missing = [(i, f'the video has {len(video)} images') for i in range(len(video), len(self))]
        return video.broken_times(video.times[: len(self)]) + missing

    def counts(self) -> Iterator[str]:
        """See `Episode.counts`."""
        for name, video in self.videos.items():
            # The last image is sometimes of after the last step.
            if len(video) > len(self) + 1:
                yield f"camera '{name}' has {len(video)} images, and there are {len(self)} steps."


def is_droid(path: Path) -> bool:
    """Whether a folder is a raw episode of DROID, or holds some a few folders down."""
    patterns = (TRAJECTORY, *(f'{"*/" * depth}{TRAJECTORY}' for depth in range(1, 5)))
    return path.is_dir() and any(next(path.glob(pattern), None) for pattern in patterns)


@lru_cache(maxsize=64)
def _video(path: Path) -> VideoFrames:
    return VideoFrames(path)


def _metadata(folder: Path) -> dict[str, Any]:
    files = sorted(folder.glob('metadata_*.json'))
    if not files:
        raise UserError(f'{folder} has no metadata_<uuid>.json', _FIX)
    return read_json(files[0], dict[str, Any], _FIX)


def _trajectory(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Numbers by name, float64 [T, ...], and what is said of the cameras' places by serial number, [T, 6]."""
    import h5py  # an optional package: `DroidSet` asks for it

    check_file(path, _FIX)
    try:
        with h5py.File(path, 'r') as file:
            found = {name: _column(file, path, _STATE + key) for name, key in _COLUMNS.items()}
            actions = [_column(file, path, key) for key in _ACTIONS if key in file]
            if actions:
                found['actions'] = np.concatenate([values.reshape(len(values), -1) for values in actions], axis=1)
            if _STAMPS in file:
                found['stamps'] = _column(file, path, _STAMPS)
            group = file.get('observation/camera_extrinsics')
            places = {key: np.asarray(group[key], np.float64) for key in group} if group is not None else {}
    except OSError as error:
        raise UserError(f'{path} cannot be read as HDF5 ({str(error).splitlines()[0].rstrip(".")})', _FIX) from None
    lengths = {name: len(values) for name, values in found.items()}
    if len(set(lengths.values())) > 1 or not lengths['joints']:
        raise UserError(f'{path} has {", ".join(f"{count} rows of {name}" for name, count in lengths.items())}', _FIX)
    return found, {
        key: values for key, values in places.items() if values.ndim == 2 and values.shape[1] == 6 and len(values)
    }


def _column(file, path: Path, key: str) -> np.ndarray:
    if not hasattr(file.get(key), 'shape'):  # missing, or a group
        raise UserError(f'{path} lacks {key}', _FIX)
    return np.asarray(file[key], np.float64)
