"""The robot's own surface in what cameras see of it: which measured points are the arm, and its depth alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from wristworld_ros.geometry.splat import nearest_points
from wristworld_ros.geometry.surfaces import footprint
from wristworld_ros.robot.board import Intrinsics
from wristworld_ros.types import RobotPoints

# Metres: what is measured this near to the robot's surface is the robot, where little is known.
SURFACE_DISTANCE = 0.015
_LEAST_DISTANCE = 0.006  # the same for a camera that measures exactly
_SAME_HUE = 0.04  # difference of a colour's share of the whole up to which two hues are the same
_DARK = 12  # grey levels that stand for the camera's noise
_DEVIATIONS = 4  # median distances from the robot's surface within which the robot is measured
_FACING = -0.05  # cosine of the angle to the camera's ray from which on a surface point turns away
_NEAR = 0.05  # metres before a camera
_BEHIND = 0.03  # metres behind the nearest point of its cell, from which on a point is hidden


@dataclass(frozen=True)
class PointSet:
    """Points of the robot's surface.

    points: float32 [N, 3], base frame, metres. normals: float32 [N, 3], or None. colors: uint8 [N, 3]. links: int64 [N],
    index into the names of the surface. spacing: float32 [N], metres between neighbouring points.
    """

    points: Tensor
    normals: Tensor | None
    colors: Tensor
    links: Tensor
    spacing: Tensor


class RobotSurface:
    """One robot's surface on a device: whole, and thinned for cameras that see it from afar.

    What depends on the robot alone is found once; `move` puts it where a set has it.

    Args:
        robot: Its points, which keep their order and links.
        device: Where it is drawn.

    Attributes:
        names: Of the links.
        whole: All points.
        thin: About `THIN` of them.
        speed: Metres per second: how fast the fastest tenth of the points moves, at least.
    """

    THIN = 12_000

    def __init__(self, robot: RobotPoints, device: torch.device):
        self._of, self._device = robot.links, device
        links, group = np.unique(robot.links, return_inverse=True)
        self.names = tuple(map(str, links))
        self._group = torch.from_numpy(group.reshape(-1)).to(device)
        self._spacing = torch.from_numpy(point_spacing(robot)).to(device)
        self._step = max(1, len(robot.links) // self.THIN)
        self.speed = 0.0
        self._stamp_ns: int | None = None
        self._members = [(self._group == link).nonzero()[:, 0] for link in range(len(links))]
        self.move(robot)

    def is_of(self, robot: RobotPoints) -> bool:
        """Whether these are the points of the same robot."""
        return robot.links is self._of or np.array_equal(robot.links, self._of)

    def move(self, robot: RobotPoints, stamp_ns: int | None = None) -> None:
        """Put the surface where the robot is; at a time, nanoseconds, where the speed is wanted."""
        points = torch.from_numpy(robot.points).to(self._device)
        normals = None if robot.normals is None else torch.from_numpy(robot.normals).to(self._device)
        colors = torch.from_numpy(robot.colors).to(self._device)
        self.whole = PointSet(points, normals, colors, self._group, self._spacing)
        few = slice(None, None, self._step)
        if stamp_ns is not None:
            if self._stamp_ns is not None and stamp_ns > self._stamp_ns:
                moved = (points[few] - self.thin.points).norm(dim=1)
                self.speed = float(torch.quantile(moved, 0.9)) * 1e9 / (stamp_ns - self._stamp_ns)
            self._stamp_ns = stamp_ns
        self.thin = PointSet(
            points[few], None if normals is None else normals[few], colors[few], self._group[few],
            self._spacing[few] * self._step**0.5,
        )  # fmt: skip

    def near(self, centre: Tensor, reach: float) -> Tensor:
        """Indices [M] of all points of the links that come within reach, metres, of a place [3]."""
        close = (self.thin.points - centre.to(self.thin.points)).square().sum(1) < reach**2
        links = torch.unique(self.thin.links[close]).tolist()
        return torch.cat([self._members[link] for link in links]) if links else self._group[:0]


def is_robot(depth: Tensor, images: Tensor, robot: Tensor, colors: Tensor, distance: Tensor) -> Tensor:
    """Which pixels of V anchors show the robot, a little wrong.

    What the gripper holds lies as near to its surface and is kept where it can be told: where an anchor sees it, the robot alone
    would not be seen at that depth, or not in that hue.

    Args:
        depth: Float32 [V, H, W], metres, 0 where unknown.
        images: Uint8 [V, H, W, 3].
        robot: Float32 [V, h, w], `draw_robot` of the same images, h = ceil(H / stride).
        colors: Uint8 [V, h, w, 3], of the robot there.
        distance: [V], a pixel is the robot where its depth is that near to the robot's at it or beside it, metres.

    Returns:
        bool [V, H, W].
    """
    stride = -(-depth.shape[1] // robot.shape[1])
    small, seen = depth[:, ::stride, ::stride], images[:, ::stride, ::stride]
    distance = distance[:, None, None]
    # Beside it, for on a surface seen obliquely a pixel to the side is centimetres in depth.
    nearest = -F.max_pool2d(torch.where(robot > 0, -robot, -torch.inf)[:, None], 3, 1, 1)[:, 0]
    farthest = F.max_pool2d(robot[:, None], 3, 1, 1)[:, 0]
    found = (robot > 0) & (small > nearest - distance) & (small < farthest + distance)
    found &= (_hue(seen) - _hue(colors)).abs().amax(-1) < _SAME_HUE
    return F.interpolate(found[:, None].float(), depth.shape[1:], mode='nearest')[:, 0] > 0


def _hue(colors: Tensor) -> Tensor:
    """Shares of red, green and blue, float32 [..., 3], whatever the brightness; dark pixels have none."""
    colors = colors.float() + _DARK
    return colors / colors.sum(-1, keepdim=True)


def surface_distances(residuals: np.ndarray) -> np.ndarray:
    """How near to the robot's surface cameras measure it, float64 [V], metres, by their median distances from it (NaN unknown).

    The better a camera measures, the less of what the gripper holds is taken for the robot.
    """
    return np.nan_to_num(np.clip(_DEVIATIONS * residuals, _LEAST_DISTANCE, SURFACE_DISTANCE), nan=SURFACE_DISTANCE)


def point_spacing(robot: RobotPoints) -> np.ndarray:
    """Distance between neighbouring points, float32 [N], metres: the same for all points of a link."""
    spacing = np.empty(len(robot.points), np.float32)
    links, group = np.unique(robot.links, return_inverse=True)
    for number in range(len(links)):
        own = np.flatnonzero(group.reshape(-1) == number)
        distance = (
            cKDTree(robot.points[own]).query(robot.points[own], k=min(2, len(own)))[0] if len(own) > 1 else np.zeros(1)
        )
        spacing[own] = np.quantile(distance[..., -1], 0.9)
    return spacing


def facing(surface: Tensor, normals: Tensor | None, T_camera_base: Tensor) -> Tensor:
    """Which surface points turn towards a camera, bool [M]; all where normals are unknown.

    Args:
        surface: Float32 [M, 3], base frame, metres.
        normals: Float32 [M, 3], outward, of unit length, or None.
        T_camera_base: [4, 4].
    """
    if normals is None:
        return torch.ones(len(surface), dtype=torch.bool, device=surface.device)
    rays = torch.linalg.inv(T_camera_base.double())[:3, 3].to(surface) - surface
    return (rays * normals).sum(1) > _FACING * rays.norm(dim=1)


def visible_points(
    points: np.ndarray, normals: np.ndarray, camera: Intrinsics, T_base_camera: np.ndarray, spacing: float
) -> np.ndarray:
    """Which surface points a camera sees of a robot alone: in view, facing it, and not behind nearer ones.

    Args:
        points: Float64 [M, 3], base frame, metres.
        normals: Float64 [M, 3], outward, of unit length.
        camera: Its intrinsics.
        T_base_camera: Float64 [4, 4].
        spacing: Metres between neighbouring points.

    Returns:
        Indices [N] into the points.
    """
    index = np.flatnonzero(((T_base_camera[:3, 3] - points) * normals).sum(1) > 0)
    local = (points[index] - T_base_camera[:3, 3]) @ T_base_camera[:3, :3]
    front = local[:, 2] > _NEAR
    index, local = index[front], local[front]
    if not len(index):
        return index
    pixels = camera.project(local)
    inside = (pixels > -0.5).all(1) & (pixels < np.array([camera.width, camera.height]) - 0.5).all(1)
    # Cells several points wide, so that the near side has no holes.
    cell = max(1.0, 3 * spacing * camera.K[0, 0] / float(np.median(local[:, 2])))
    index, z, cells = index[inside], local[inside, 2], ((pixels[inside] + 0.5) / cell).astype(int)
    nearest = np.full((int(camera.height / cell) + 1, int(camera.width / cell) + 1), np.inf)
    np.minimum.at(nearest, (cells[:, 1], cells[:, 0]), z)
    return index[z < nearest[cells[:, 1], cells[:, 0]] + _BEHIND]


def robot_depth(
    surface: Tensor, spacing: Tensor, K: Tensor, T_camera_base: Tensor, hw: tuple[int, int], stride: int = 2
) -> Tensor:
    """Depth of the robot as a camera would see it alone; see `draw_robot`."""
    return draw_robot(surface, spacing, K, T_camera_base, hw, stride)[1]


def draw_robot(
    surface: Tensor, spacing: Tensor, K: Tensor, T_camera_base: Tensor, hw: tuple[int, int], stride: int = 2
) -> tuple[Tensor, Tensor]:
    """The robot as a camera would see it alone.

    Args:
        surface: Float32 [M, 3], base frame, metres.
        spacing: Float32 [M], metres between neighbouring points.
        K: [3, 3], pixels; pixel i's centre is i.
        T_camera_base: [4, 4].
        hw: Size of the image, pixels.
        stride: Of the pixels that are drawn.

    Returns:
        Which point is seen, int64 [ceil(H / stride), ceil(W / stride)], -1 where the robot is not, and its depth, float32,
        metres, 0 likewise; pixel (i, j) is that of the image at (i * stride, j * stride).
    """
    K = K.double().clone()
    K[:2] /= stride
    K[:2, 2] += 0.5  # the splat's coordinates start at the image's edge
    z = surface.double() @ T_camera_base[2, :3].double() + T_camera_base[2, 3]
    coarse = (-(-hw[0] // stride), -(-hw[1] // stride))
    radii = footprint(spacing, z, K, 6)
    return nearest_points(surface, radii, K, T_camera_base[:3], image_hw=coarse, near=0.05)
