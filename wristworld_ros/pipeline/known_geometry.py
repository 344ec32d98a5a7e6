"""Reconstruction of anchor sets of which more is known than images: measured depth, camera poses, the wrist, the robot.

What is known stands; stage 1 supplies the rest, and does not run where measured depth, memory and the robot's own surface show
enough of the wrist's view. Every pixel of the condition map says where it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wristworld_ros.geometry.agreement import cloud_agreement
from wristworld_ros.geometry.cameras import resize_intrinsics, unproject_depth
from wristworld_ros.geometry.cloud import CloudSettings
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.geometry.surfaces import (
    SurfaceMaps,
    SurfacePoints,
    close_gaps,
    footprint,
    nearest_of,
    render_points,
    sample_surfaces,
)
from wristworld_ros.robot.appearance import RobotAppearance
from wristworld_ros.robot.depth_fit import fit_depth
from wristworld_ros.robot.depth_reference import robot_reference
from wristworld_ros.robot.known_cameras import KnownCameras, PlacedCameras, place_cameras
from wristworld_ros.robot.registration import CameraCorrection, surface_matches
from wristworld_ros.robot.scene_memory import SceneMemory
from wristworld_ros.robot.surface import facing, is_robot, point_spacing, robot_depth, surface_distances
from wristworld_ros.types import AnchorSet, Camera, ConditionMap, Geometry, PixelOrigin, Reconstruction, RobotPoints

KNOWN_NEAR = 0.02  # metres: near plane where the wrist camera is known; a larger one deletes what is being grasped
ENOUGH = 0.5  # of the wrist's view: where that much is measured, stage 1 does not run
COMPLETE = 0.9  # of the anchors' pixels: where depth is so complete, stage 1 has nothing to add
TRUSTED = 0.3  # confidence, 0 to 1, from which on a pixel counts as covered
_MEMORY_S = 30.0  # age at which what is remembered has lost two thirds of its confidence
_MOST_WIDE = 400  # pixels: wider depth is thinned, for the wrist does not resolve it
_ROBOT_REACH = 0.6  # metres from the wrist camera: farther parts of the robot are not drawn into its view
_GAP = 4  # pixels of a wrist image of 128: half as wide as the gaps between such points that are closed
_DEPTH_STRIDE = 2
_LEAST_ROBOT = 100  # pixels of predicted depth that show the robot, for a scale from them
_FINER = 2  # pixels of the maps to one of predicted depth, along each side, for their colours


@dataclass(frozen=True)
class Prediction:
    """What stage 1 says of a set: cameras float64 K [1 + V, 3, 3] (wrist first; anchors in pixels of the set's images) and T
    [1 + V, 4, 4] camera from the first anchor's camera; depth and confidence (at least 1) float32 [V, h, w]. metric: whether depth
    is in metres already, 0 where there is none, and cameras in the robot's base."""

    K: np.ndarray
    T: np.ndarray
    depth: Tensor
    confidence: Tensor
    metric: bool = False


@dataclass(frozen=True)
class KnownObservation:
    """Reconstruction and condition map of a set, and what became of what is known; see `WristFrame`."""

    reconstruction: Reconstruction
    condition: ConditionMap
    geometry: Geometry
    residuals: np.ndarray
    agreements: np.ndarray
    finite: bool = True

    @property
    def coverage(self) -> float:
        """Share of the wrist's pixels that come from measurement, memory or robot, or are predicted with confidence."""
        assert self.condition.confidence is not None
        return float((self.condition.confidence >= TRUSTED).float().mean())

    @property
    def confidence(self) -> float:
        """Mean of the pixels that are hit; 0 where none is."""
        assert self.condition.confidence is not None
        hit = self.condition.depth > 0
        return float(self.condition.confidence[hit].mean()) if bool(hit.any()) else 0.0


class KnownGeometryStep:
    """One stream of anchor sets that carry more than images.

    Args:
        wrist_hw: Size of the wrist image, pixels.
        cloud: Edges of surfaces, and the near plane where the wrist camera is predicted.
        near: Near plane in its place, metres; None for `KNOWN_NEAR` where the wrist camera is known.
        device: Where maps are rendered.
        remember: Whether scene memory is kept.
    """

    def __init__(
        self,
        wrist_hw: tuple[int, int],
        cloud: CloudSettings,
        near: float | None,
        device: torch.device,
        remember: bool = True,
    ):
        self.wrist_hw, self.cloud, self.device = wrist_hw, cloud, device
        self._near = near
        self._memory = SceneMemory() if remember else None
        self._appearance = RobotAppearance()
        self._links: np.ndarray | None = None
        self._corrections: list[CameraCorrection] = []

    def reset(self) -> None:
        """Forget the scene, the robot's colours and what was learnt of the cameras' poses."""
        self._corrections = []
        self._appearance.reset()
        if self._memory:
            self._memory.reset()

    def measured(self, anchors: AnchorSet) -> KnownObservation | None:
        """The observation from what is known alone; None where stage 1 has to help."""
        known = KnownCameras.of(anchors, self.wrist_hw)
        if known.wrist is None or anchors.depth is None or not (known.has_K & known.placed).all():
            return None
        if not all((depth > 0).any() for depth in anchors.depth):
            return None
        T = np.concatenate([known.wrist.T_camera_world[None], known.T_camera_base])
        placed = PlacedCameras(np.concatenate([known.wrist.K[None], known.K]), T, 1.0, 'base', True)
        observation = self._observe(anchors, placed, known, None)
        complete = (anchors.depth[:, ::8, ::8] > 0).mean() >= COMPLETE
        return observation if complete or observation.coverage >= ENOUGH else None

    def completed(self, anchors: AnchorSet, prediction: Prediction, scale: float | None = None) -> KnownObservation:
        """The observation from what is known and what stage 1 says of the rest.

        Args:
            anchors: The set.
            prediction: Of the rest.
            scale: Metres to one unit of the prediction, where the wrist's motion told it; measured depth tells better.
        """
        known = KnownCameras.of(anchors, self.wrist_hw)
        scale = 1.0 if prediction.metric else _metric_scale(anchors, prediction) or scale
        placed = place_cameras(prediction.K, prediction.T, known, scale)
        return self._observe(anchors, placed, known, prediction)

    def _observe(
        self, anchors: AnchorSet, placed: PlacedCameras, known: KnownCameras, prediction: Prediction | None
    ) -> KnownObservation:
        hw = tuple(anchors.images.shape[1:3])
        placed = self._corrected(placed, known)
        stride = -(-hw[1] // _MOST_WIDE) if anchors.depth is not None else 1
        maps = self._maps(anchors, placed, prediction, stride)
        size = tuple(maps.depth.shape[1:])
        K, T = torch.from_numpy(placed.K).to(self.device), torch.from_numpy(placed.T).to(self.device)
        K_maps = _thinned(K[1:], stride) if anchors.depth is not None else resize_intrinsics(K[1:], hw, size)
        surface, normals = self._robot(anchors, placed)
        residuals = np.full(len(anchors.names), np.nan)
        layers = [maps]
        robot_points = anchors.robot_points
        if surface is not None:
            spacing = self._spacing(robot_points)
            shown = [facing(surface, normals, t) for t in T[1:]]
            robot = torch.stack([
                robot_depth(surface[own], spacing[own], k, t, size, _DEPTH_STRIDE)
                for own, k, t in zip(shown, K_maps, T[1:], strict=True)
            ])  # fmt: skip
            measured = torch.where(maps.origin == PixelOrigin.MEASURED, maps.depth, 0.0)
            small = measured[:, ::_DEPTH_STRIDE, ::_DEPTH_STRIDE]
            placed_views = known.placed & known.has_K
            fits = residuals.copy()
            for view in np.flatnonzero(placed_views):
                matches = surface_matches(
                    surface, normals, robot[view], small[view], K_maps[view], T[1 + view], _DEPTH_STRIDE
                )
                residuals[view] = matches.residual(known.T_camera_base[view])
                fits[view] = matches.residual(placed.T[1 + view])
                self._corrections[view].update(anchors.stamp_ns, matches, known.T_camera_base[view])
            self._appearance.observe(robot_points, maps.colors, robot, small, K_maps, T[1:], _DEPTH_STRIDE)
            layers = [_without(maps, is_robot(maps.depth, robot, torch.from_numpy(surface_distances(fits)).to(robot)))]
            if self._memory:
                layers += self._recalled(anchors.stamp_ns, maps, measured, robot, K_maps, T[1:])
        wrist = Camera(placed.K[0], placed.T[0], self.wrist_hw[1], self.wrist_hw[0])
        near = self._near or (KNOWN_NEAR if known.wrist is not None else self.cloud.near)
        condition = self._render(layers, surface, normals, robot_points, K[0], T[0], near)
        reconstruction = self._reconstruction(maps, wrist, placed, K_maps)
        thin = slice(None, None, max(1, size[1] // 128))
        agreements = cloud_agreement(
            maps.points[:, thin, thin],
            maps.colors[:, thin, thin],
            K[0],
            T[0],
            self.wrist_hw,
            replace(self.cloud, edge=0.0, near=near),
        )
        finite = bool(np.isfinite(placed.K).all() and np.isfinite(placed.T).all())
        geometry = _geometry(known, maps)
        return KnownObservation(reconstruction, condition, geometry, residuals, agreements.cpu().numpy(), finite)

    def _corrected(self, placed: PlacedCameras, known: KnownCameras) -> PlacedCameras:
        """The cameras, with those that are known where the robot's surface says that they are."""
        if len(self._corrections) != len(known.K):
            self._corrections = [CameraCorrection() for _ in known.K]
        T = placed.T.copy()
        for view in np.flatnonzero(known.placed):
            T[1 + view] = self._corrections[view].T @ T[1 + view]
        return replace(placed, T=T)

    def _maps(
        self, anchors: AnchorSet, placed: PlacedCameras, prediction: Prediction | None, stride: int
    ) -> SurfaceMaps:
        """Depth of every anchor: measured where it is, predicted elsewhere, fitted to what is measured in the same image."""
        hw = tuple(anchors.images.shape[1:3])
        if anchors.depth is None:
            assert prediction is not None
            size = (_FINER * prediction.depth.shape[1], _FINER * prediction.depth.shape[2])
            size = (min(size[0], hw[0]), min(size[1], hw[1]))
            colors = torch.from_numpy(resize_images(anchors.images, size)).to(self.device)
            measured = torch.zeros(len(colors), *size, device=self.device)
            K_maps = resize_intrinsics(torch.from_numpy(placed.K[1:]), hw, size)
        else:
            thin = slice(stride // 2, None, stride)
            measured = torch.from_numpy(np.ascontiguousarray(anchors.depth[:, thin, thin])).to(self.device).float()
            measured = torch.where(torch.isfinite(measured) & (measured > 0), measured, 0.0)
            colors = torch.from_numpy(np.ascontiguousarray(anchors.images[:, thin, thin])).to(self.device)
            K_maps = _thinned(torch.from_numpy(placed.K[1:]), stride)
        depth, confidence = measured, torch.ones_like(measured)
        origin = torch.where(measured > 0, PixelOrigin.MEASURED, PixelOrigin.EMPTY).to(torch.uint8)
        if prediction is not None:
            scales = self._robot_scales(anchors, placed, prediction)
            predicted = self._predicted(prediction, measured, placed.scale, scales)
            share = 1 - 1 / F.interpolate(prediction.confidence[:, None], predicted.shape[1:], mode='bilinear')[:, 0]
            fill = (measured == 0) & (predicted > 0)
            depth = torch.where(fill, predicted, measured)
            confidence = torch.where(fill, share, confidence)
            origin = torch.where(fill, PixelOrigin.PREDICTED, origin).to(torch.uint8)
        points = unproject_depth(depth, K_maps.to(depth), torch.from_numpy(placed.T[1:]).to(depth))
        points = points.masked_fill((depth == 0)[..., None], float('nan'))
        return SurfaceMaps(points, depth, colors, origin, confidence)

    def _predicted(self, prediction: Prediction, measured: Tensor, scale: float, robot_scales: list[float]) -> Tensor:
        """Predicted depth at the size of the maps, in metres: fitted to what is measured in the image, else scaled so that
        the robot in it is where it must be, else by the scale of the cameras."""
        if prediction.metric:
            return F.interpolate(prediction.depth[:, None], measured.shape[1:], mode='nearest')[:, 0]
        predicted = F.interpolate(prediction.depth[:, None], measured.shape[1:], mode='bilinear', align_corners=False)[
            :, 0
        ]
        fitted = []
        for own, reference, robot_scale in zip(predicted, measured, robot_scales, strict=True):
            fit = fit_depth(own.cpu().numpy(), reference.cpu().numpy()) if bool((reference > 0).any()) else None
            if fit is not None:
                fitted.append(torch.from_numpy(fit.apply(own.cpu().numpy())).to(own))
            else:
                fitted.append(own * (scale if np.isnan(robot_scale) else robot_scale))
        return torch.stack(fitted)

    def _robot_scales(self, anchors: AnchorSet, placed: PlacedCameras, prediction: Prediction) -> list[float]:
        """Metres of the robot's depth in each anchor to one of the predicted depth there; NaN where too little of it shows.

        A scale alone: the arm's depths span too little of the scene's for a shift.
        """
        scales = [float('nan')] * len(anchors.names)
        if placed.world != 'base' or anchors.robot_points is None or prediction.metric:
            return scales
        hw = (prediction.depth.shape[1], prediction.depth.shape[2])
        K = resize_intrinsics(torch.from_numpy(placed.K[1:]), tuple(anchors.images.shape[1:3]), hw)
        reference = self.robot_reference(anchors, K, torch.from_numpy(placed.T[1:]), 1, hw)
        for view, (known, predicted) in enumerate(zip(reference, prediction.depth, strict=True)):
            both = (known > 0) & (predicted > 0)
            if int(both.sum()) >= _LEAST_ROBOT:
                scales[view] = float((known[both] / predicted[both]).median())
        return scales

    def _recalled(
        self, stamp_ns: int, maps: SurfaceMaps, measured: Tensor, robot: Tensor, K: Tensor, T: Tensor
    ) -> list[SurfaceMaps]:
        assert self._memory is not None
        robot = F.interpolate(robot[:, None], measured.shape[1:], mode='nearest')[:, 0]
        depth, colors, age = self._memory.update(stamp_ns, measured, maps.colors, robot, K, T)
        if not bool((depth > 0).any()):
            return []
        points = unproject_depth(depth, K.to(depth), T.to(depth)).masked_fill((depth == 0)[..., None], float('nan'))
        origin = torch.where(depth > 0, PixelOrigin.MEMORY, PixelOrigin.EMPTY).to(torch.uint8)
        return [SurfaceMaps(points, depth, colors, origin, torch.exp(-age / _MEMORY_S))]

    def _robot(self, anchors: AnchorSet, placed: PlacedCameras) -> tuple[Tensor | None, Tensor | None]:
        """The robot's surface points and normals, where the world is its base."""
        robot = anchors.robot_points
        if robot is None or placed.world != 'base':
            return None, None
        normals = None if robot.normals is None else torch.from_numpy(robot.normals).to(self.device)
        return torch.from_numpy(robot.points).to(self.device), normals

    def robot_reference(
        self, anchors: AnchorSet, K: Tensor, T_camera_base: Tensor, stride: int, hw: tuple[int, int]
    ) -> Tensor:
        """Known depth of the robot's surface in every stride-th pixel of V anchors, float32 [V, h, w], metres, 0 where unknown.

        Args:
            anchors: Whose robot points are used; none give no depth.
            K: [V, 3, 3], pixels of the images.
            T_camera_base: [V, 4, 4].
            stride: Of the pixels.
            hw: Size of the images that K is for, pixels.
        """
        robot = anchors.robot_points
        if robot is None:
            return torch.zeros(len(K), -(-hw[0] // stride), -(-hw[1] // stride), device=self.device)
        surface, spacing = torch.from_numpy(robot.points).to(self.device), self._spacing(robot)
        normals = None if robot.normals is None else torch.from_numpy(robot.normals).to(self.device)
        K, T_camera_base = K.to(self.device), T_camera_base.to(self.device)
        shown = [facing(surface, normals, t) for t in T_camera_base]
        return torch.stack([
            robot_reference(surface[own], spacing[own], k, t, hw, stride)
            for own, k, t in zip(shown, K, T_camera_base, strict=True)
        ])  # fmt: skip

    def _spacing(self, robot: RobotPoints) -> Tensor:
        """Of the robot's points, measured once for one robot, whose points keep their order."""
        if self._links is None or len(self._links) != len(robot.links):
            self._links, self._spacings = robot.links, torch.from_numpy(point_spacing(robot)).to(self.device)
        return self._spacings

    def _render(
        self,
        layers: list[SurfaceMaps],
        surface: Tensor | None,
        normals: Tensor | None,
        robot: RobotPoints | None,
        K: Tensor,
        T: Tensor,
        near: float,
    ) -> ConditionMap:
        """What the wrist camera sees of the surfaces and of the robot's own surface."""
        parts = [sample_surfaces(layer, self.cloud.edge, K, T, self.wrist_hw, near) for layer in layers]
        seen = render_points(SurfacePoints.joined(parts), K, T, self.wrist_hw, near)
        if surface is None:
            return seen
        assert robot is not None
        return nearest_of(self._own_surface(surface, normals, robot, K, T, near), seen)

    def _own_surface(
        self, surface: Tensor, normals: Tensor | None, robot: RobotPoints, K: Tensor, T: Tensor, near: float
    ) -> ConditionMap:
        """What the wrist camera sees of the robot alone."""
        centre = torch.linalg.inv(T)[:3, 3].to(surface)
        shown = ((surface - centre).norm(dim=1) < _ROBOT_REACH) & facing(surface, normals, T)
        own, spacing = surface[shown], self._spacing(robot)[shown]
        colors = torch.from_numpy(self._appearance.colors(robot)).to(self.device)[shown]
        z = own.double() @ T[2, :3] + T[2, 3]
        sure = torch.ones(len(own), device=self.device)
        kind = torch.full((len(own),), int(PixelOrigin.ROBOT), dtype=torch.uint8, device=self.device)
        gap = round(_GAP * self.wrist_hw[1] / 128)
        radii = (footprint(spacing, z, K, 2 * gap) - gap).clamp(min=1)  # what closing leaves open
        seen = render_points(SurfacePoints(own, colors, kind, sure, radii), K, T, self.wrist_hw, near)
        return close_gaps(seen, gap)

    def _reconstruction(
        self, maps: SurfaceMaps, wrist: Camera, placed: PlacedCameras, K_maps: Tensor
    ) -> Reconstruction:
        height, width = maps.depth.shape[1:]
        cameras = tuple(Camera(k, t, width, height) for k, t in zip(K_maps.cpu().numpy(), placed.T[1:], strict=True))
        confidence = torch.where(
            maps.origin == PixelOrigin.MEASURED, torch.inf, 1 / (1 - maps.confidence).clamp(min=1e-6)
        )
        return Reconstruction(wrist, cameras, maps.points, confidence, maps.colors, placed.world, placed.metric)


def _without(maps: SurfaceMaps, drop: Tensor) -> SurfaceMaps:
    """The maps without some of their pixels."""
    return replace(
        maps, depth=maps.depth.masked_fill(drop, 0.0), origin=maps.origin.masked_fill(drop, int(PixelOrigin.EMPTY))
    )


def _geometry(known: KnownCameras, maps: SurfaceMaps) -> Geometry:
    if known.wrist is None or not known.placed.any():
        return Geometry.RGB
    measured = (maps.origin == PixelOrigin.MEASURED).flatten(1).any(1).cpu().numpy()
    return Geometry.RGBD if (measured & known.placed).any() else Geometry.CALIBRATED


def _metric_scale(anchors: AnchorSet, prediction: Prediction) -> float | None:
    """Median of measured over predicted depth; None where nothing is measured."""
    if anchors.depth is None:
        return None
    predicted = F.interpolate(prediction.depth[:, None], anchors.depth.shape[1:], mode='bilinear', align_corners=False)[
        :, 0
    ]
    measured = torch.from_numpy(anchors.depth).to(predicted)
    both = (measured > 0) & torch.isfinite(measured) & (predicted > 0)
    return float((measured[both] / predicted[both]).median()) if int(both.sum()) >= 100 else None


def _thinned(K: Tensor, stride: int) -> Tensor:
    """K [V, 3, 3] of images of which every stride-th pixel is kept, from the pixel stride // 2 on."""
    K = K.clone()
    K[:, :2, 2] -= stride // 2
    K[:, :2] /= stride
    return K
