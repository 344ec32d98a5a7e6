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
from wristworld_ros.geometry.cameras import resize_intrinsics
from wristworld_ros.geometry.cloud import CloudSettings
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.geometry.support import lowest_over_support, support_height
from wristworld_ros.geometry.surfaces import (
    SurfaceMaps,
    SurfacePoints,
    nearest_of,
    render_points,
    sample_surfaces,
    visible_windows,
)
from wristworld_ros.models.hand import HandNetwork
from wristworld_ros.models.sweep import SweepNetwork
from wristworld_ros.pipeline.hand_registration import HandRegistration
from wristworld_ros.pipeline.own_robot import OwnRobot, RobotInAnchors
from wristworld_ros.pipeline.swept import PlaneSweep, SweptView, agreed_confidence, mean_confidence, trusted_coverage
from wristworld_ros.robot.depth_fit import fit_depth
from wristworld_ros.robot.depth_gaps import bridge_gaps
from wristworld_ros.robot.known_cameras import KnownCameras, PlacedCameras, place_cameras
from wristworld_ros.robot.scene_memory import SceneMemory
from wristworld_ros.types import AnchorSet, Camera, ConditionMap, Geometry, PixelOrigin, Reconstruction

KNOWN_NEAR = 0.02  # metres: near plane where the wrist camera is known; a larger one deletes what is being grasped
ENOUGH = 0.5  # of the wrist's view: where that much is measured, stage 1 does not run
COMPLETE = 0.9  # of the anchors' pixels: where depth is so complete, stage 1 has nothing to add
_MEMORY_S = 30.0  # age at which what is remembered has lost two thirds of its confidence
_CLOUD_WIDE = 128  # pixels: about the width of the maps of the reconstruction's cloud
_MOST_WIDE = 400  # pixels: wider depth is thinned, for the wrist does not resolve it
_MEASURED_EDGE = 0.03  # share of measured depth by which neighbours of one surface differ at most, noise included
_LEAST_ROBOT = 100  # pixels of predicted depth that show the robot, for a scale from them
_SUPPORT_STRIDE = 4  # pixels: points that the table is looked for in
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
    swept: bool = False

    @property
    def coverage(self) -> float:
        """Share of the wrist's pixels that come from measurement, memory or robot, or are predicted with confidence."""
        return trusted_coverage(self.condition)

    @property
    def confidence(self) -> float:
        """Mean of the pixels that are hit, 0 where none is; times the anchors' agreement where a sweep compared them."""
        return agreed_confidence(self.condition, self.agreements) if self.swept else mean_confidence(self.condition)


class KnownGeometryStep:
    """One stream of anchor sets that carry more than images.

    Args:
        wrist_hw: Size of the wrist image, pixels.
        cloud: Edges of surfaces, and the near plane where the wrist camera is predicted.
        near: Near plane in its place, metres; None for `KNOWN_NEAR` where the wrist camera is known.
        device: Where maps are rendered.
        remember: Whether scene memory is kept.
        refine: Whether given places of anchors are corrected by how they see the robot.
        sweep: For the wrist's view of anchors whose depth is not measured; None for points of predicted depth.
        table_height: Of the plane that objects stand on in the robot's base frame, metres; None to find it.
        hand: By which given places of anchors without depth are corrected, if `refine`; None for none.

    Attributes:
        robot: What the stream knows of the robot's own surface.
    """

    def __init__(
        self,
        wrist_hw: tuple[int, int],
        cloud: CloudSettings,
        near: float | None,
        device: torch.device,
        remember: bool = True,
        refine: bool = True,
        sweep: SweepNetwork | None = None,
        table_height: float | None = None,
        hand: HandNetwork | None = None,
    ):
        self.wrist_hw, self.cloud, self.device = wrist_hw, cloud, device
        self._near = near
        self._memory = SceneMemory() if remember else None
        self.robot = OwnRobot(device, refine)
        self._hand = HandRegistration(hand, device) if hand is not None and refine else None
        self._sweep = None if sweep is None else PlaneSweep(sweep, device, table_height)

    def reset(self) -> None:
        """Forget the scene, the robot's colours and what was learnt of the cameras' poses."""
        self.robot.reset()
        if self._memory:
            self._memory.reset()
        if self._sweep:
            self._sweep.reset()
        if self._hand:
            self._hand.reset()

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
        placed = self.robot.corrected(placed, known)
        # The robot's surface in measured depth corrects the places better than the hand's looks do.
        by_surface = anchors.depth is not None and anchors.robot_points is not None
        if self._hand and not by_surface and _all_cameras(known):
            placed = self._hand.corrected(placed, anchors.images, anchors.T_hand_wrist)
        stride = -(-hw[1] // _MOST_WIDE) if anchors.depth is not None else 1
        maps = self._maps(anchors, placed, prediction, stride)
        K, T = torch.from_numpy(placed.K).to(self.device), torch.from_numpy(placed.T).to(self.device)
        layers, surface = [maps], None
        if anchors.robot_points is not None and placed.world == 'base':
            surface = self.robot.place(anchors.robot_points, anchors.stamp_ns)
            shown = self.robot.observe(anchors.stamp_ns, surface, maps, known)
            layers = [_without(maps, shown.is_robot)]
            if self._memory:
                layers += self._recalled(anchors.stamp_ns, maps, shown)
        residuals = np.full(len(anchors.names), np.nan) if surface is None else self.robot.residuals.copy()
        wrist = Camera(placed.K[0], placed.T[0], self.wrist_hw[1], self.wrist_hw[0])
        near = self._near or (KNOWN_NEAR if known.wrist is not None else self.cloud.near)
        swept = self._swept(anchors, placed, known, maps, wrist)
        condition = self._render(layers, K[0], T[0], near) if swept is None else swept.condition
        if surface is not None:
            condition = nearest_of(self.robot.seen_by_wrist(surface, K[0], T[0], self.wrist_hw, near), condition)
        few = maps.thinned(max(1, maps.depth.shape[2] // _CLOUD_WIDE))
        reconstruction = self._reconstruction(few, wrist, placed)
        if swept is None:
            as_it_is = replace(self.cloud, edge=0.0, near=near)
            agreements = cloud_agreement(few.points, few.colors, K[0], T[0], self.wrist_hw, as_it_is).cpu().numpy()
        else:
            agreements = swept.agreements
        finite = bool(np.isfinite(placed.K).all() and np.isfinite(placed.T).all())
        geometry = _geometry(known, maps)
        return KnownObservation(reconstruction, condition, geometry, residuals, agreements, finite, swept is not None)

    def _swept(
        self, anchors: AnchorSet, placed: PlacedCameras, known: KnownCameras, maps: SurfaceMaps, wrist: Camera
    ) -> SweptView | None:
        """The wrist's view by plane sweep; None where depth is measured, or not all cameras are known."""
        if self._sweep is None or not _all_cameras(known):
            return None
        if bool((maps.origin == PixelOrigin.MEASURED).any()):
            return None
        hw = anchors.images.shape[1:3]
        cameras = tuple(Camera(k, t, hw[1], hw[0]) for k, t in zip(placed.K[1:], placed.T[1:], strict=True))
        guess = _table_height(maps) if self._sweep.searches else None
        robot = anchors.robot_points
        lowest = np.inf if robot is None else lowest_over_support(robot.points)
        return self._sweep(anchors.images, cameras, wrist, guess, lowest)

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
            measured = torch.from_numpy(np.ascontiguousarray(bridge_gaps(anchors.depth)[:, thin, thin])).to(self.device)
            measured = measured.float()
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
        T = torch.from_numpy(placed.T[1:])
        return SurfaceMaps(depth, colors, origin, confidence, K_maps.to(self.device), T.to(self.device))

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
        reference = self.robot.reference(anchors.robot_points, K, torch.from_numpy(placed.T[1:]), 1, hw)
        for view, (known, predicted) in enumerate(zip(reference, prediction.depth, strict=True)):
            both = (known > 0) & (predicted > 0)
            if int(both.sum()) >= _LEAST_ROBOT:
                scales[view] = float((known[both] / predicted[both]).median())
        return scales

    def _recalled(self, stamp_ns: int, maps: SurfaceMaps, shown: RobotInAnchors) -> list[SurfaceMaps]:
        assert self._memory is not None
        robot = F.interpolate(shown.depth[:, None], shown.measured.shape[1:], mode='nearest')[:, 0]
        depth, colors, age = self._memory.update(stamp_ns, shown.measured, maps.colors, robot, maps.K, maps.T)
        if not bool((depth > 0).any()):
            return []
        origin = torch.where(depth > 0, PixelOrigin.MEMORY, PixelOrigin.EMPTY).to(torch.uint8)
        return [SurfaceMaps(depth, colors, origin, torch.exp(-age / _MEMORY_S), maps.K, maps.T)]

    def _render(self, layers: list[SurfaceMaps], K: Tensor, T: Tensor, near: float) -> ConditionMap:
        """What the wrist camera sees of the surfaces."""
        measured = bool((layers[0].origin == PixelOrigin.MEASURED).any())
        edge = min(self.cloud.edge, _MEASURED_EDGE) if measured else self.cloud.edge
        windows = [window for layer in layers for window in visible_windows(layer, K, T, self.wrist_hw)]
        parts = [sample_surfaces(window, edge, K, T, self.wrist_hw, near) for window in windows]
        return render_points(SurfacePoints.joined([SurfacePoints.none(self.device), *parts]), K, T, self.wrist_hw, near)

    def _reconstruction(self, maps: SurfaceMaps, wrist: Camera, placed: PlacedCameras) -> Reconstruction:
        height, width = maps.depth.shape[1:]
        cameras = tuple(Camera(k, t, width, height) for k, t in zip(maps.K.cpu().numpy(), placed.T[1:], strict=True))
        confidence = torch.where(
            maps.origin == PixelOrigin.MEASURED, torch.inf, 1 / (1 - maps.confidence).clamp(min=1e-6)
        )
        return Reconstruction(wrist, cameras, maps.points, confidence, maps.colors, placed.world, placed.metric)


def _table_height(maps: SurfaceMaps) -> float | None:
    """Height of the level that most of the points near the robot lie at, metres in its base frame."""
    return support_height(maps.thinned(_SUPPORT_STRIDE).points.reshape(-1, 3).cpu().numpy())


def _all_cameras(known: KnownCameras) -> bool:
    return known.wrist is not None and bool((known.has_K & known.placed).all())


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
