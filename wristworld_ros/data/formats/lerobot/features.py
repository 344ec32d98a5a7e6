"""What an episode of any format becomes in a LeRobot data set: its features, columns and cameras' keys."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from wristworld_ros.data.episode import Episode, EpisodeCamera
from wristworld_ros.data.formats.lerobot import columns
from wristworld_ros.data.formats.lerobot.depth import DepthCode
from wristworld_ros.data.formats.lerobot.layout import INDEX_COLUMNS, V30
from wristworld_ros.data.formats.lerobot.reader import LeRobotEpisode
from wristworld_ros.data.poses import xyz_quaternion_from_pose
from wristworld_ros.errors import UserError

_IMAGES = 'observation.images.'
_GRIPPER_LABEL = {unit: label for label, unit in columns.GRIPPER_LABELS.items()} | {'unknown': 'gripper'}
_ARROW = {
    'float32': pa.float32(), 'float64': pa.float64(), 'int64': pa.int64(), 'int32': pa.int32(), 'int16': pa.int16(),
    'int8': pa.int8(), 'uint8': pa.uint8(), 'bool': pa.bool_(), 'string': pa.string(),
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column of an episode: how `info.json` describes it, and its T values."""

    feature: dict[str, Any]
    values: pa.Array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.feature['shape'])


def camera_key(camera: EpisodeCamera) -> str:
    """A camera's key in a set: its name, if that is one already, else the name below `observation.images`."""
    name = re.sub(r'[^A-Za-z0-9_.-]', '_', camera.name)
    return name if name.startswith('observation.') else _IMAGES + name


def depth_key(camera: EpisodeCamera) -> str:
    """The key of a camera's depth video."""
    return camera_key(camera) + '_depth'


def written_cameras(episode: Episode) -> list[EpisodeCamera]:
    """The cameras that go into a set: all but those that stand elsewhere at every frame, and those with depth alone."""
    return [camera for camera in episode.cameras if camera.role != 'random' and camera.has_color]


def episode_columns(episode: Episode, frames: np.ndarray) -> dict[str, Column]:
    """The columns of some frames of an episode, but those that the set numbers itself (`INDEX_COLUMNS`).

    Those of a LeRobot data set are taken as they are, with features that nothing here knows. Else they are what `Episode` says.

    Raises:
        UserError: A column of a LeRobot data set is missing.
    """
    if isinstance(episode, LeRobotEpisode):
        return _stored_columns(episode, frames)
    found: dict[str, Column] = {}
    state, labels = [], []
    if episode.joints is not None:
        state.append(episode.joints)
        labels += [f'joint_{i}' for i in range(episode.joints.shape[1])]
    if episode.gripper is not None:
        state.append(episode.gripper[:, None])
        labels.append(_GRIPPER_LABEL[episode.gripper_unit])
    if state:
        found[columns.STATE] = vector_column(np.concatenate(state, axis=1)[frames], 'float32', labels)
    if episode.T_base_hand is not None:
        link = episode.hand_link or 'hand'
        names = [f'{link}.{axis}' for axis in ('x', 'y', 'z', 'qx', 'qy', 'qz', 'qw')]
        found[columns.HAND_POSE] = vector_column(
            xyz_quaternion_from_pose(episode.T_base_hand[frames]), 'float32', names
        )
    if episode.actions is not None:
        found[columns.ACTION] = vector_column(episode.actions[frames], 'float32', None)
    for camera in written_cameras(episode):
        key = camera_key(camera)
        K, T_camera_world = episode.K(camera.name), episode.T_camera_world(camera.name)
        if K is not None:
            found[columns.intrinsics_key(key)] = vector_column(K[frames].reshape(-1, 9), 'float64', None)
        if T_camera_world is not None:
            found[columns.pose_key(key)] = vector_column(T_camera_world[frames].reshape(-1, 16), 'float64', None)
    return found


def frame_tasks(episode: Episode, frames: np.ndarray) -> list[str]:
    """What the robot does at some frames. A LeRobot data set says it frame by frame, other formats once for an episode."""
    if isinstance(episode, LeRobotEpisode) and isinstance(episode.source.tasks, dict):
        table = episode.table()
        if 'task_index' in table.names:
            texts = episode.source.tasks
            numbers = table.array('task_index').reshape(-1)[frames]
            return [texts.get(int(number), episode.task) for number in numbers]
    return [episode.task] * len(frames)


def index_columns(fps: float, episode: int, first: int, tasks: np.ndarray) -> dict[str, Column]:
    """The columns that every set has: times, and numbers of frame, episode and task.

    Args:
        fps: Frames per second.
        episode: Its number.
        first: Number of its first frame in the whole set.
        tasks: int64 [T], number of each frame's task.
    """
    numbers = np.arange(len(tasks))
    values: dict[str, np.ndarray] = {
        'timestamp': (numbers / fps).astype(np.float32),
        'frame_index': numbers,
        'episode_index': np.full(len(tasks), episode),
        'index': first + numbers,
        'task_index': tasks,
    }
    return {name: vector_column(values[name][:, None], dtype, None) for name, dtype in INDEX_COLUMNS.items()}


def video_feature(
    camera: EpisodeCamera, fps: float, details: dict[str, Any], depth: DepthCode | None = None
) -> dict[str, Any]:
    """How `info.json` describes a video.

    Args:
        camera: Whose it is.
        fps: Frames per second.
        details: `codec` and `pix_fmt` of its files.
        depth: How its depth is coded; None for colour.
    """
    channels = 1 if depth else 3
    info = {
        'video.height': camera.height, 'video.width': camera.width, 'video.codec': details['codec'],
        'video.pix_fmt': details['pix_fmt'], 'video.fps': fps, 'video.channels': channels, 'has_audio': False,
        'is_depth_map': depth is not None, 'video.is_depth_map': depth is not None,
    }  # fmt: skip
    if depth:
        info |= {f'video.{name}': value for name, value in vars(depth).items()} | {'depth_unit': 'mm'}
    shape = [camera.height, camera.width, channels]
    return {'dtype': 'video', 'shape': shape, 'names': ['height', 'width', 'channels'], 'info': info}


def arrow_metadata(features: dict[str, dict[str, Any]], version: str) -> dict[str, str]:
    """What the `datasets` library wants to find in the schema of a data file.

    Args:
        features: Of the columns.
        version: Of the format; v2.1 is also read by releases that know lists by their older name.
    """

    def described(feature: dict[str, Any]) -> dict[str, Any]:
        value = {'dtype': feature['dtype'], '_type': 'Value'}
        shape = list(feature['shape'])
        if shape == [1] or feature['dtype'] == 'string':
            return value
        if len(shape) > 1:
            return {'shape': shape, 'dtype': feature['dtype'], '_type': f'Array{len(shape)}D'}
        return {'feature': value, 'length': shape[0], '_type': 'List' if version == V30 else 'Sequence'}

    return {'huggingface': json.dumps({'info': {'features': {key: described(f) for key, f in features.items()}}})}


def vector_column(values: np.ndarray, dtype: str, names: list[str] | None = None) -> Column:
    """A column of vectors [T, N], or of numbers where N is 1, with names of their entries."""
    width = values.shape[1]
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), type=_ARROW[dtype])
    array = flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)
    return Column({'dtype': dtype, 'shape': [width], 'names': names}, array)


def _stored_columns(episode: LeRobotEpisode, frames: np.ndarray) -> dict[str, Column]:
    info, table = episode.source.info, episode.table()
    found = {}
    for key in info.columns:
        feature = info.features[key]
        if key in INDEX_COLUMNS or feature.is_image:
            continue
        if key not in table.names:
            raise UserError(f"{table.path} lacks the column '{key}' of {episode.name}", 'leave the episode out')
        values = table.arrow(key).take(pa.array(frames))
        found[key] = Column({'dtype': feature.dtype, 'shape': list(feature.shape), 'names': feature.names}, values)
    return found
