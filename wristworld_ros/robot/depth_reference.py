"""Depth that is known in an image because the robot is there: what relative or predicted depth is scaled by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wristworld_ros.robot.surface import robot_depth

_VISIBLE_M = 0.02  # a point that far behind the robot's depth at its pixel is on the far side


def robot_reference(
    surface: Tensor, spacing: Tensor, K: Tensor, T_camera_base: Tensor, hw: tuple[int, int], stride: int
) -> Tensor:
    """Depth of the robot's surface points at their own pixels.

    `robot_depth` draws every point as a patch, which shows whatever lies nearest in it: good to tell what is visible, and
    biased towards the camera on slanted surfaces. Here each visible point gives its own depth to one pixel. The outermost
    pixels of the robot, which may show what is behind it, give none.

    Args:
        surface: Float32 [M, 3], points that face the camera, base frame, metres.
        spacing: Float32 [M], metres between neighbouring points.
        K: [3, 3], pixels; pixel i's centre is i.
        T_camera_base: [4, 4].
        hw: Size of the image, pixels.
        stride: Of the pixels of the result, in those of the image.

    Returns:
        Float32 [ceil(H / stride), ceil(W / stride)], metres, 0 where unknown; pixel (i, j) is that of the image at
        (i * stride, j * stride).
    """
    drawn = robot_depth(surface, spacing, K, T_camera_base, hw, stride)
    inner = -F.max_pool2d(-(drawn > 0).float()[None, None], 3, 1, 1)[0, 0] > 0
    P = K.double() @ T_camera_base[:3].double()
    uvz = surface.double() @ P[:, :3].T + P[:, 3]
    z = uvz[:, 2].clamp(min=1e-6)
    u, v = (uvz[:, 0] / z / stride).round().long(), (uvz[:, 1] / z / stride).round().long()
    height, width = drawn.shape
    inside = (uvz[:, 2] > 0.05) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    u, v, z = u[inside], v[inside], z[inside].to(drawn)
    visible = inner[v, u] & (z < drawn[v, u] + _VISIBLE_M)
    reference = torch.full((height * width,), torch.inf, device=drawn.device)
    # Of several points at one pixel the nearest one is seen.
    reference.scatter_reduce_(0, (v * width + u)[visible], z[visible], 'amin')
    return torch.where(reference.isinf(), 0.0, reference).reshape(height, width)
