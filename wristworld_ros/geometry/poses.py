"""Rotations, quaternions (x y z w) and rigid transforms."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_TINY = 1e-12
_MOVED_M, _MOVED_RAD = 0.002, 0.003  # a camera whose pose changes by more has moved
_ELSEWHERE_M, _ELSEWHERE_RAD = 0.03, np.radians(10)  # of a mount: from there the hand is another picture


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Rotation matrix of a quaternion of any length; a zero quaternion gives the identity.

    As in VGGT's pose encoding, the formula divides by the squared norm.

    Args:
        quaternion: Float [..., 4] as x y z w.

    Returns:
        Float [..., 3, 3].
    """
    _need_last(quaternion, 4, 'quaternion')
    x, y, z, w = quaternion.unbind(-1)
    s = 2.0 / (quaternion * quaternion).sum(-1).clamp_min(_TINY)
    rows = [
        1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w),
        s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w),
        s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def matrix_to_quaternion(rotation: Tensor) -> Tensor:
    """Unit quaternion with w >= 0 of a rotation matrix, by Shepperd's method (1978), the largest of four divisors.

    The gradient is finite for every rotation.

    Args:
        rotation: Float [..., 3, 3].

    Returns:
        Float [..., 4] as x y z w.
    """
    if rotation.shape[-2:] != (3, 3):
        raise ValueError(f'rotation has shape {list(rotation.shape)}; it must be [..., 3, 3].')
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = rotation.flatten(-2).unbind(-1)
    # Row c is the quaternion times 4 times its own c-th entry, so every row is the quaternion up to its length.
    xx, yy, zz, ww = 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22, 1 + m00 + m11 + m22
    candidates = torch.stack(
        [
            torch.stack([xx, m01 + m10, m02 + m20, m21 - m12], -1),
            torch.stack([m01 + m10, yy, m12 + m21, m02 - m20], -1),
            torch.stack([m02 + m20, m12 + m21, zz, m10 - m01], -1),
            torch.stack([m21 - m12, m02 - m20, m10 - m01, ww], -1),
        ],
        -2,
    )
    best = torch.stack([xx, yy, zz, ww], -1).argmax(-1)
    chosen = candidates.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    unit = chosen / chosen.norm(dim=-1, keepdim=True)
    return torch.where(unit[..., 3:] < 0, -unit, unit)


def to_homogeneous(transform: Tensor) -> Tensor:
    """[..., 3, 4] (or [..., 4, 4], returned as it is) to [..., 4, 4] with the last row 0 0 0 1."""
    _need_transform(transform)
    if transform.shape[-2] == 4:
        return transform
    last = transform.new_zeros(*transform.shape[:-2], 1, 4)
    last[..., 3] = 1
    return torch.cat([transform, last], -2)


def invert_rigid(transform: Tensor) -> Tensor:
    """T_b_a of T_a_b. transform: float [..., 3, 4] or [..., 4, 4], rigid, metres; the shape is kept."""
    _need_transform(transform)
    rotation = transform[..., :3, :3].transpose(-1, -2)
    inverse = torch.cat([rotation, -rotation @ transform[..., :3, 3:]], -1)
    return to_homogeneous(inverse) if transform.shape[-2] == 4 else inverse


def compose(first: Tensor, second: Tensor) -> Tensor:
    """T_a_c = T_a_b @ T_b_c, each [..., 3, 4] or [..., 4, 4]; the result has the first one's row count."""
    product = to_homogeneous(first) @ to_homogeneous(second)
    return product[..., : first.shape[-2], :]


def transform_points(transform: Tensor, points: Tensor) -> Tensor:
    """Points of frame b in frame a. transform: T_a_b [..., 3, 4] or [..., 4, 4]; points [..., N, 3], metres."""
    _need_transform(transform)
    return points @ transform[..., :3, :3].transpose(-1, -2) + transform[..., None, :3, 3]


def camera_centre(T_camera_world: Tensor) -> Tensor:
    """Centre of a camera in the world, [..., 3], metres, of camera-from-world [..., 3, 4] or [..., 4, 4]."""
    _need_transform(T_camera_world)
    return -(T_camera_world[..., :3, :3].transpose(-1, -2) @ T_camera_world[..., :3, 3:]).squeeze(-1)


def rotation_angle(first: Tensor, second: Tensor) -> Tensor:
    """Angle of the rotation between two poses, radians in 0..pi, exact near 0 and near pi.

    first, second: float [..., 3, 3], [..., 3, 4] or [..., 4, 4]. Returns float [...].
    """
    relative = first[..., :3, :3].transpose(-1, -2) @ second[..., :3, :3]
    quaternion = matrix_to_quaternion(relative)
    return 2 * torch.atan2(quaternion[..., :3].norm(dim=-1), quaternion[..., 3])


def _need_last(value: Tensor, size: int, name: str) -> None:
    if value.shape[-1:] != (size,):
        raise ValueError(f'{name} has shape {list(value.shape)}; its last dimension must be {size}.')


def _need_transform(transform: Tensor) -> None:
    if transform.ndim < 2 or transform.shape[-1] != 4 or transform.shape[-2] not in (3, 4):
        raise ValueError(f'transform has shape {list(transform.shape)}; it must be [..., 3, 4] or [..., 4, 4].')


def looking_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """T_world_camera, float64 [4, 4], of a level camera that faces a target; metres, z of the world up, OpenCV axes.

    A camera that looks straight down or up has the world's x at the top of its image.

    Args:
        position: [3], where it is.
        target: [3], another place.
    """
    z = (target - position) / np.linalg.norm(target - position)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x = x / np.linalg.norm(x) if np.linalg.norm(x) > 1e-3 else np.array([0.0, -1.0, 0.0])
    T = np.eye(4)
    T[:3, :3] = np.stack([x, np.cross(z, x), z], 1)
    T[:3, 3] = position
    return T


def has_moved(before: np.ndarray, now: np.ndarray) -> bool:
    """Whether a camera's poses, [4, 4] each, in metres, differ by more than a standing camera's do."""
    metres = np.linalg.norm((now @ np.linalg.inv(before))[:3, 3])
    return bool(metres > _MOVED_M or _angle(before, now) > _MOVED_RAD)


def mounted_elsewhere(mount: np.ndarray | None, learnt: np.ndarray | None) -> bool:
    """Whether a camera is mounted, [4, 4] in metres, where the hand looks other than from a mount that was learnt; False where one of
    the two is not known."""
    if mount is None or learnt is None:
        return False
    metres = np.linalg.norm(mount[:3, 3] - learnt[:3, 3])
    return bool(metres > _ELSEWHERE_M or _angle(learnt, mount) > _ELSEWHERE_RAD)


def _angle(first: np.ndarray, second: np.ndarray) -> float:
    return float(rotation_angle(*(torch.as_tensor(pose, dtype=torch.float64) for pose in (first, second))))
