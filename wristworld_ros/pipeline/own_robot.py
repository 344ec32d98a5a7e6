"""The robot's own surface in one stream: what anchors show of it, what the wrist camera sees of it, and what both tell."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from wristworld_ros.geometry.cameras import shift_principal_point
from wristworld_ros.geometry.surfaces import SurfaceMaps, SurfacePoints, close_gaps, cropped, footprint, render_points
from wristworld_ros.robot.appearance import RobotAppearance
from wristworld_ros.robot.depth_reference import robot_reference
from wristworld_ros.robot.known_cameras import KnownCameras, PlacedCameras
from wristworld_ros.robot.registration import CameraCorrection, surface_matches
from wristworld_ros.robot.surface import RobotSurface, draw_robot, facing, is_robot, surface_distances
from wristworld_ros.types import ConditionMap, PixelOrigin, RobotPoints

STRIDE = 2  # of the pixels of anchors in which the robot is drawn
_EVERY = 3  # sets: light and registration change slowly
_REACH = 0.6  # metres from the wrist camera: farther parts of the robot are not drawn into its view
_STILL_M = 0.0003  # metres that the robot may move before the wrist camera, and is not drawn again
_REDRAWN = 30  # sets after which it is drawn again, for the light
_GAP = 4  # pixels of a wrist image of 128: half as wide as the gaps between points of the surface that are closed


@dataclass(frozen=True)
class RobotInAnchors:
    """What V anchors show of the robot.

    depth: float32 [V, h, w], metres, of every `STRIDE`-th pixel of the maps, of the robot alone; 0 where it is not.
    measured: float32 [V, H, W], depth of the maps where it was measured, 0 elsewhere. is_robot: bool [V, H, W].
    """

    depth: Tensor
    measured: Tensor
    is_robot: Tensor


@dataclass(frozen=True)
class _Seen:
    """What a drawing of the robot depends on. points: thin points in view, float32 [N, 3], camera frame, metres; at: number of
    the set."""

    points: Tensor
    K: list
    hw: tuple[int, int]
    near: float
    at: int

    def shows(self, now: _Seen) -> bool:
        """Whether a drawing made then will do now."""
        same = (self.K, self.hw, self.near, self.points.shape) == (now.K, now.hw, now.near, now.points.shape)
        return same and now.at - self.at < _REDRAWN and bool(((self.points - now.points).abs() < _STILL_M).all())


def _in_view(points: Tensor, K: Tensor, hw: tuple[int, int], near: float) -> Tensor:
    """Which points [N, 3] of a camera's frame its image shows, bool [N]."""
    u, v, z = (points @ K.T.to(points)).unbind(1)
    return (z > near) & (z < _REACH) & (u > 0) & (u < hw[1] * z) & (v > 0) & (v < hw[0] * z)


class OwnRobot:
    """One stream's knowledge of the robot.

    Args:
        device: Where it is drawn.
        refine: Whether given places of anchors are corrected by how they see the robot.

    residuals: float64 [V], metres, how far each anchor sees the robot from where its given pose puts it; NaN unknown.
    """

    def __init__(self, device: torch.device, refine: bool = True):
        self._device, self._refine = device, refine
        self._appearance = RobotAppearance()
        self._surface: RobotSurface | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the robot's colours and what was learnt of the cameras' poses."""
        self._appearance.reset()
        self._corrections: list[CameraCorrection] = []
        self._sets = 0
        self._drawn_before: tuple[_Seen, ConditionMap] | None = None
        self.residuals = np.empty(0)
        self._fits = np.empty(0)

    def place(self, robot: RobotPoints, stamp_ns: int | None = None) -> RobotSurface:
        """The surface of a set, at its stamp where that is given, on the device."""
        if self._surface is None or not self._surface.is_of(robot):
            self._surface = RobotSurface(robot, self._device)
            self._appearance.reset()
            self._drawn_before = None
        self._surface.move(robot, stamp_ns)
        return self._surface

    def corrected(self, placed: PlacedCameras, known: KnownCameras) -> PlacedCameras:
        """The cameras, with those that are known where the robot's surface says that they are."""
        if len(self._corrections) != len(known.K):
            self._corrections = [CameraCorrection() for _ in known.K]
            self.residuals, self._fits = np.full(len(known.K), np.nan), np.full(len(known.K), np.nan)
        T = placed.T.copy()
        for view in np.flatnonzero(known.placed):
            T[1 + view] = self._corrections[view].T @ T[1 + view]
        return replace(placed, T=T)

    def observe(self, stamp_ns: int, surface: RobotSurface, maps: SurfaceMaps, known: KnownCameras) -> RobotInAnchors:
        """Take in what the maps of V anchors, whose world is the robot's base, show of the robot."""
        K, T = maps.K, maps.T
        size = (maps.depth.shape[1], maps.depth.shape[2])
        drawn = [self._drawn(surface, k, t, size) for k, t in zip(K, T, strict=True)]
        depth, colors = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        measured = torch.where(maps.origin == PixelOrigin.MEASURED, maps.depth, 0.0)
        if self._sets % _EVERY == 0:
            self._learn(stamp_ns, surface, maps, known, depth, measured[:, ::STRIDE, ::STRIDE], K, T)
        self._sets += 1
        near = torch.from_numpy(surface_distances(self._fits)).to(depth)
        return RobotInAnchors(depth, measured, is_robot(maps.depth, maps.colors, depth, colors, near))

    def _drawn(self, surface: RobotSurface, K: Tensor, T: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Depth [h, w], metres, and colour [h, w, 3] of the robot alone in one anchor, in the present light."""
        thin = surface.thin
        own = facing(thin.points, thin.normals, T).nonzero()[:, 0]
        index, depth = draw_robot(thin.points[own], thin.spacing[own], K, T, size, STRIDE)
        if not len(own):
            return depth, torch.zeros(*depth.shape, 3, dtype=torch.uint8, device=self._device)
        shown = own[index.clamp(min=0).flatten()]
        return depth, self._appearance.colors(surface, thin, shown).reshape(*depth.shape, 3)

    def _learn(self, stamp_ns, surface, maps, known, depth, measured, K, T) -> None:
        for view in np.flatnonzero(known.placed & known.has_K):
            thin, given = surface.thin, known.T_camera_base[view]
            matches = surface_matches(thin.points, thin.normals, depth[view], measured[view], K[view], T[view], STRIDE)
            self.residuals[view] = matches.residual(given)
            self._fits[view] = matches.residual(T[view].cpu().numpy())
            if self._refine:
                self._corrections[view].update(stamp_ns, matches, given, surface.speed)
        self._appearance.observe(surface, maps.colors, depth, measured, K, T, STRIDE)

    def reference(self, robot: RobotPoints | None, K: Tensor, T: Tensor, stride: int, hw: tuple[int, int]) -> Tensor:
        """Known depth of the robot's surface in every stride-th pixel of V anchors, float32 [V, h, w], metres, 0 where unknown.

        Args:
            robot: Its points; None gives no depth.
            K: [V, 3, 3], pixels of the images.
            T: [V, 4, 4], camera-from-base.
            stride: Of the pixels.
            hw: Size of the images that K is for, pixels.
        """
        if robot is None:
            return torch.zeros(len(K), -(-hw[0] // stride), -(-hw[1] // stride), device=self._device)
        whole = self.place(robot).whole
        K, T = K.to(self._device), T.to(self._device)
        shown = [facing(whole.points, whole.normals, t) for t in T]
        return torch.stack([
            robot_reference(whole.points[own], whole.spacing[own], k, t, hw, stride)
            for own, k, t in zip(shown, K, T, strict=True)
        ])  # fmt: skip

    def seen_by_wrist(
        self, surface: RobotSurface, K: Tensor, T: Tensor, hw: tuple[int, int], near: float
    ) -> ConditionMap:
        """What the wrist camera, K [3, 3] and T [4, 4], sees of the robot alone, in the light that the anchors see it in.

        The hand stands still before a camera that it carries: what was drawn is shown again while nothing in view has moved.
        """
        local = surface.thin.points @ T[:3, :3].T.to(surface.thin.points) + T[:3, 3].to(surface.thin.points)
        seen = _Seen(local[_in_view(local, K, hw, near)], K.tolist(), hw, near, self._sets)
        if self._drawn_before is None or not self._drawn_before[0].shows(seen):
            self._drawn_before = seen, self._draw(surface, K, T, hw, near)
        return self._drawn_before[1]

    def _draw(self, surface: RobotSurface, K: Tensor, T: Tensor, hw: tuple[int, int], near: float) -> ConditionMap:
        close = surface.near(torch.linalg.inv(T)[:3, 3], _REACH)
        points, normals = surface.whole.points[close], surface.whole.normals
        shown = facing(points, None if normals is None else normals[close], T)
        close, points = close[shown], points[shown]
        z = points.double() @ T[2, :3] + T[2, 3]
        gap = round(_GAP * hw[1] / 128)
        radii = (footprint(surface.whole.spacing[close], z, K, 2 * gap) - gap).clamp(min=1)  # what closing leaves open
        kind = torch.full((len(points),), int(PixelOrigin.ROBOT), dtype=torch.uint8, device=self._device)
        sure = torch.ones(len(points), device=self._device)
        colors = self._appearance.colors(surface, surface.whole, close)
        own = SurfacePoints(points, colors, kind, sure, radii)
        # With a margin, or gaps at the border of the image would have a surface on one side only.
        margin = 2 * gap
        framed = render_points(own, shift_principal_point(K, margin), T, (hw[0] + 2 * margin, hw[1] + 2 * margin), near)
        return cropped(close_gaps(framed, gap), margin)
