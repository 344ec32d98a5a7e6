"""Which columns of a LeRobot data set are the robot's joints, gripper, pose and actions, and the cameras' calibration.

The format leaves the names to whoever records. Known are those of LeRobot's own recordings (entries of `observation.state` with
names), of the two ports of DROID, and of what `write_lerobot` writes.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from wristworld_ros.data.formats.lerobot.layout import Info
from wristworld_ros.data.formats.lerobot.tables import Table
from wristworld_ros.data.poses import pose_from_xyz_quaternion, pose_from_xyz_rpy

STATE, ACTION = 'observation.state', 'action'
_JOINTS = ('observation.state.joint_position', 'observation.state.joint_positions', 'joint_position')
_GRIPPER = ('observation.state.gripper_position', 'gripper_position')
_CARTESIAN = ('observation.state.cartesian_position', 'cartesian_position')
_ACTIONS = (ACTION, 'actions')
_JOINT_LABEL = re.compile(r'([a-z0-9]+_)?j(oint)?_?\d+(\.pos)?')
_DROID_LINK = 'panda_link8'
# What `write_lerobot` adds where it is known.
GRIPPER_LABELS = {'gripper_m': 'metres', 'gripper_closed': 'closed'}
HAND_POSE = 'observation.state.hand_pose'
_EXTRINSICS = 'camera_extrinsics.'


def short_name(key: str) -> str:
    """A camera's key without what all cameras have in common."""
    return key.removeprefix('observation.images.').removeprefix('observation.')


def camera_column(camera: str, what: str) -> str:
    """The column of something that is said of a camera.

    'image' is no part of it: lerobot takes each feature with that in its name for one, and refuses statistics of another shape.
    """
    return f'camera.{short_name(camera).replace("image", "img")}.{what}'


def intrinsics_key(camera: str) -> str:
    """The column of a camera's K, float64 [9]."""
    return camera_column(camera, 'K')


def pose_key(camera: str) -> str:
    """The column of a camera's pose, float64 [16]: camera from robot base."""
    return camera_column(camera, 'T_camera_base')


def is_droid(info: Info) -> bool:
    """Whether a set has the names of LeRobot's or openpi's port of DROID."""
    return {_CARTESIAN[0], _GRIPPER[0]} <= set(info.features) or 'exterior_image_1_left' in info.features


def robot_fields(table: Table, info: Info) -> dict[str, Any]:
    """The fields of `Episode` that say what the robot did, as far as they are there.

    Raises:
        UserError: A column holds something else than numbers.
    """
    fields: dict[str, Any] = {}
    if joints := _first(table, _JOINTS):
        fields['joints'] = _vectors(table, joints)
    if gripper := _first(table, _GRIPPER):
        fields |= {'gripper': _vectors(table, gripper)[:, 0], 'gripper_unit': 'closed' if is_droid(info) else 'unknown'}
    if STATE in table.names and STATE in info.features:
        fields = _labelled(_vectors(table, STATE), info.features[STATE].labels) | fields
    if HAND_POSE in table.names:
        fields |= {'T_base_hand': _poses(_vectors(table, HAND_POSE))}
        labels = info.features[HAND_POSE].labels if HAND_POSE in info.features else []
        fields['hand_link'] = labels[0].rpartition('.')[0] if labels else ''
    elif cartesian := _first(table, _CARTESIAN):
        fields |= {
            'T_base_hand': _poses(_vectors(table, cartesian)),
            'hand_link': _DROID_LINK if is_droid(info) else '',
            'gripper_link': _DROID_LINK if is_droid(info) else '',
        }
    if actions := _first(table, _ACTIONS):
        fields['actions'] = _vectors(table, actions)
    return fields


def calibration(table: Table, camera: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """K [T, 3, 3] and T_camera_world [T, 4, 4] of a camera, where `write_lerobot` wrote them."""
    K, T = intrinsics_key(camera), pose_key(camera)
    return (
        _vectors(table, K).reshape(-1, 3, 3) if K in table.names else None,
        _vectors(table, T).reshape(-1, 4, 4) if T in table.names else None,
    )


def claimed_extrinsics(table: Table, cameras: list[str]) -> dict[str, np.ndarray]:
    """T_base_camera [4, 4] of the cameras beside the robot, as ports of DROID claim it.

    They are known to be wrong in many episodes, so they are told as a claim and not as the camera's pose. That of the wrist camera
    does not move with the hand, and is left out.
    """
    found = {}
    for camera in cameras:
        key = _EXTRINSICS + short_name(camera)
        if key in table.names and len(table) and 'wrist' not in camera:
            values = _vectors(table, key)
            if values.shape[1] == 6:
                found[camera] = pose_from_xyz_rpy(values[0])
    return found


def calibration_columns(cameras: list[str]) -> list[str]:
    """Names of all columns that `calibration` and `claimed_extrinsics` look at."""
    return [key for c in cameras for key in (intrinsics_key(c), pose_key(c), _EXTRINSICS + short_name(c))]


def robot_columns() -> list[str]:
    """Names of all columns that `robot_fields` looks at."""
    return [*_JOINTS, *_GRIPPER, *_CARTESIAN, *_ACTIONS, STATE, HAND_POSE]


def _labelled(values: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """Joints and gripper among the named entries of one vector."""
    fields: dict[str, Any] = {}
    joints = [i for i, label in enumerate(labels) if _JOINT_LABEL.fullmatch(label.lower())]
    grippers = [i for i, label in enumerate(labels) if 'gripper' in label.lower()]
    if joints:
        fields['joints'] = values[:, joints]
    if len(grippers) == 1:
        unit = GRIPPER_LABELS.get(labels[grippers[0]], 'unknown')
        fields |= {'gripper': values[:, grippers[0]], 'gripper_unit': unit}
    return fields


def _poses(values: np.ndarray) -> np.ndarray | None:
    if values.shape[1] == 6:
        return pose_from_xyz_rpy(values)
    return pose_from_xyz_quaternion(values) if values.shape[1] == 7 else None


def _first(table: Table, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in table.names), None)


def _vectors(table: Table, name: str) -> np.ndarray:
    """A column as float64 [T, N]."""
    values = table.array(name).astype(np.float64)
    return values.reshape(len(values), -1)
