"""How far a camera sees the robot's surface from where joints and calibration put it."""

from __future__ import annotations

import torch
from torch import Tensor

_FACING = (
    0.4  # cosine of the angle to the camera's ray: surfaces seen more obliquely tell more of pixels than of places
)
_VISIBLE_M = (
    0.015  # a point that far behind the nearest surface at its pixel is hidden; footprints bring that one forward
)
_LIMIT_M = 0.2  # distances count as this at most
_LEAST_POINTS = 100  # for a residual
_MOST_POINTS = 20_000


def registration_residual(
    surface: Tensor,
    normals: Tensor | None,
    robot: Tensor,
    measured: Tensor,
    K: Tensor,
    T_camera_base: Tensor,
    stride: int,
) -> float:
    """Distance between the surface that a camera measures and the robot's.

    It is taken from each visible surface point to the measured one at its pixel, along the surface's normal: that of neither
    a pixel's width nor of the footprints that points are drawn with.

    Args:
        surface: Float32 [M, 3], the robot's, base frame, metres.
        normals: Float32 [M, 3], outward, of unit length, or None: then the distance is along the camera's axis.
        robot: Float32 [h, w], its depth as `robot_depth` draws it, 0 where it is not.
        measured: Float32 [h, w], depth of the same pixels, 0 where unknown; metres both.
        K: [3, 3], pixels of the image.
        T_camera_base: [4, 4].
        stride: Of the pixels of `robot` in the image.

    Returns:
        The median, metres; NaN where too few points are seen.
    """
    thin = slice(None, None, max(1, len(surface) // _MOST_POINTS))
    R, t = T_camera_base[:3, :3].to(surface), T_camera_base[:3, 3].to(surface)
    points = surface[thin] @ R.T + t
    if normals is None:
        outward, turned = points.new_tensor([0.0, 0.0, -1.0]).expand_as(points), points[:, 2] > 0
    else:
        outward = normals[thin] @ R.T
        turned = -(points * outward).sum(1) > _FACING * points.norm(dim=1)
    pixels = points @ K.to(surface).T
    column, row = ((pixels[:, i] / pixels[:, 2].clamp(min=1e-6) / stride).round().long() for i in (0, 1))
    height, width = robot.shape
    seen = turned & (points[:, 2] > 0.05) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    drawn, depth = robot[row, column], measured[row, column]
    seen &= (drawn > 0) & (points[:, 2] < drawn + _VISIBLE_M) & (depth > 0)
    if int(seen.sum()) < _LEAST_POINTS:
        return float('nan')
    image = torch.stack([column * stride, row * stride, torch.ones_like(row)], 1).to(surface)
    found = image @ torch.linalg.inv(K.double()).to(surface).T * depth[:, None]
    distance = ((found - points) * outward).sum(1).abs()
    return float(distance[seen].clamp(max=_LIMIT_M).median())
