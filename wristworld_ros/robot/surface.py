"""The robot's own surface in what cameras see of it: which measured points are the arm, and how far the two lie apart."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from wristworld_ros.geometry.splat import nearest_points
from wristworld_ros.geometry.surfaces import footprint

SURFACE_DISTANCE = 0.015  # metres: a measured point this near to the robot's surface is the robot
SPACING = 0.006  # metres between surface points, about; see RobotModel
_RESIDUAL_LIMIT = 0.2  # metres: differences count as this at most
_LEAST_PIXELS = 100  # of the robot with depth, for a residual
_MAX_POINTS = 12_000  # drawn into an anchor


def near_surface(points: np.ndarray, surface: np.ndarray, distance: float = SURFACE_DISTANCE) -> np.ndarray:
    """Which points lie within a distance of the nearest surface point.

    Args:
        points: float [N, 3], metres.
        surface: float [M, 3], metres.
        distance: Metres.

    Returns:
        bool [N].
    """
    near = np.zeros(len(points), bool)
    if not len(points) or not len(surface):
        return near
    candidates = np.flatnonzero(_in_marked_cells(points, surface, distance))
    if len(candidates):
        found, _ = cKDTree(surface).query(points[candidates], distance_upper_bound=distance * (1 + 1e-6), workers=1)
        near[candidates] = found <= distance
    return near


def _in_marked_cells(points: np.ndarray, surface: np.ndarray, cell: float) -> np.ndarray:
    """Whether a point lies in or beside a cubic cell that holds a surface point: nothing nearer than `cell` is missed."""
    low = surface.min(0) - 2 * cell
    marked = np.floor((surface - low) / cell).astype(np.int64)
    shape = marked.max(0) + 3
    grid = np.zeros(shape, bool)
    grid[tuple(marked.T)] = True
    for axis in range(3):
        spread = grid.copy()
        ahead = [slice(None)] * 3
        behind = [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        spread[tuple(ahead)] |= grid[tuple(behind)]
        spread[tuple(behind)] |= grid[tuple(ahead)]
        grid = spread
    at = np.floor((points - low) / cell)
    inside = ((at >= 0) & (at < shape)).all(1)  # comparisons with NaN are false
    found = np.zeros(len(points), bool)
    found[inside] = grid[tuple(at[inside].astype(np.int64).T)]
    return found


def robot_depth(surface: Tensor, K: Tensor, T_camera_base: Tensor, hw: tuple[int, int], stride: int = 2) -> Tensor:
    """Depth of the robot as a camera would see it alone.

    Args:
        surface: Float32 [M, 3], base frame, metres.
        K: [3, 3], pixels; pixel i's centre is i.
        T_camera_base: [4, 4].
        hw: Size of the image, pixels.
        stride: Of the pixels that are drawn.

    Returns:
        Float32 [ceil(H / stride), ceil(W / stride)], metres, 0 where the robot is not; pixel (i, j) is that of the image at
        (i * stride, j * stride).
    """
    thinning = max(1, len(surface) // _MAX_POINTS)
    surface = surface[::thinning]
    spacing = SPACING * thinning**0.5
    K = K.double().clone()
    K[:2] /= stride
    K[:2, 2] += 0.5  # the splat's coordinates start at the image's edge
    z = surface.double() @ T_camera_base[2, :3].double() + T_camera_base[2, 3]
    coarse = (-(-hw[0] // stride), -(-hw[1] // stride))
    radii = footprint(spacing, z, K, 6)
    _, depth = nearest_points(surface, radii, K, T_camera_base[:3], image_hw=coarse, near=0.05)
    return depth


def registration_residual(robot: Tensor, measured: Tensor) -> float:
    """How far a camera sees the robot from where it must be.

    Args:
        robot: Float32 [h, w], `robot_depth`.
        measured: Float32 [h, w], depth of the same pixels, 0 where unknown; metres both.

    Returns:
        The median difference, metres; NaN where too few pixels have both. The outermost pixels of the robot do not count.
    """
    inner = -torch.nn.functional.max_pool2d(-(robot > 0).float()[None, None], 5, 1, 2)[0, 0]
    both = (inner > 0) & (measured > 0)
    if int(both.sum()) < _LEAST_PIXELS:
        return float('nan')
    return float((measured - robot)[both].abs().clamp(max=_RESIDUAL_LIMIT).median())
