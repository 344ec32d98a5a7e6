"""Poses as data sets write them: position and roll, pitch, yaw; or a position and a quaternion."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def pose_from_xyz_rpy(values: np.ndarray) -> np.ndarray:
    """Poses [..., 4, 4] of positions and angles [..., 6]: metres; radians about the fixed x, y and z axes, in this order.

    A row that is not finite gives a pose of NaN.
    """
    values = np.asarray(values, np.float64)
    return _rigid(values[..., :3], values[..., 3:6], lambda angles: Rotation.from_euler('xyz', angles))


def pose_from_xyz_quaternion(values: np.ndarray) -> np.ndarray:
    """Poses [..., 4, 4] of positions and quaternions [..., 7]: metres; x y z w. A row that is not finite gives NaN."""
    values = np.asarray(values, np.float64)
    return _rigid(values[..., :3], values[..., 3:7], Rotation.from_quat)


def xyz_quaternion_from_pose(poses: np.ndarray) -> np.ndarray:
    """Positions and quaternions x y z w float64 [T, 7] of poses [T, 4, 4]; w is not negative. A pose of NaN gives NaN."""
    poses = np.asarray(poses, np.float64)
    out, good = np.full((len(poses), 7), np.nan), np.isfinite(poses).all((-1, -2))
    out[good, :3] = poses[good, :3, 3]
    if good.any():
        out[good, 3:] = Rotation.from_matrix(poses[good, :3, :3]).as_quat(canonical=True)
    return out


def inverse(poses: np.ndarray) -> np.ndarray:
    """Inverses of rigid poses, float64 [..., 4, 4]."""
    out = np.zeros_like(poses, dtype=np.float64)
    turned = np.swapaxes(poses[..., :3, :3], -1, -2)
    out[..., :3, :3], out[..., 3, 3] = turned, 1.0
    out[..., :3, 3] = -np.einsum('...ij,...j->...i', turned, poses[..., :3, 3])
    return out


def _rigid(positions: np.ndarray, turns: np.ndarray, rotation) -> np.ndarray:
    out = np.full((*positions.shape[:-1], 4, 4), np.nan)
    good = np.isfinite(positions).all(-1) & np.isfinite(turns).all(-1) & (np.abs(turns).sum(-1) < np.inf)
    if turns.shape[-1] == 4:
        good &= np.linalg.norm(turns, axis=-1) > 0
    out[good] = np.eye(4)
    if good.any():
        out[good, :3, :3] = rotation(turns[good]).as_matrix()
        out[good, :3, 3] = positions[good]
    return out
