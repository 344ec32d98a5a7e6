"""What is known of one anchor set when it has been reconstructed: everything that the second half of the stream needs of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from wristworld_ros.types import (
    AnchorSet,
    Camera,
    ConditionMap,
    FrameStatus,
    Geometry,
    MotionPlacement,
    Reconstruction,
    Verdict,
)

NOT_FINITE = Verdict(
    FrameStatus.NOT_FINITE,
    'Stage 1 produced numbers that are not finite (NaN or infinity), so there is neither a wrist camera nor a cloud.',
)


@dataclass(frozen=True)
class Observation:
    """Everything the second half of the stream needs of one anchor set.

    condition: the cloud seen by the wrist camera. coverage: share of the wrist's pixels that a point hits or, where more is
    known than images, a point that is measured or predicted with confidence, 0 to 1. confidence: see `visible_confidence`.
    agreements: float64 [V], of each anchor with the others, 0 to 1, NaN where there is nothing to compare; see
    `cloud_agreement`. verdict: valid, or why stage 1 gave nothing; reconstruction and condition are then blank. geometry,
    residuals, missing, placement: see `WristFrame`. anchor_verdict: valid, or what is wrong with the anchor images themselves.
    seconds: time of each part. arrived: `time.perf_counter()` when the set came. starts_stream: whether a new video begins with
    it.
    """

    anchors: AnchorSet
    reconstruction: Reconstruction
    condition: ConditionMap
    coverage: float
    confidence: float
    agreements: np.ndarray
    verdict: Verdict = Verdict()
    geometry: Geometry = Geometry.RGB
    residuals: np.ndarray = field(default_factory=lambda: np.empty(0))
    missing: tuple[str, ...] = ()
    placement: MotionPlacement | None = None
    anchor_verdict: Verdict = Verdict()
    seconds: dict[str, float] = field(default_factory=dict)
    arrived: float = 0.0
    starts_stream: bool = False

    @property
    def agreement(self) -> float:
        """Of the anchor that agrees least with the others, 0 to 1; NaN where there is nothing to compare."""
        known = self.agreements[np.isfinite(self.agreements)]
        return float(known.min()) if len(known) else float('nan')


def empty_reconstruction(reconstruction: Reconstruction) -> Reconstruction:
    """A reconstruction of the same sizes without content: cameras and points at the origin, no confidence."""
    cameras = [_empty_camera(c.height, c.width) for c in (reconstruction.wrist, *reconstruction.anchors)]
    points, confidence = torch.zeros_like(reconstruction.points), torch.ones_like(reconstruction.confidence)
    return Reconstruction(cameras[0], tuple(cameras[1:]), points, confidence, reconstruction.colors)


def empty_condition(reconstruction: Reconstruction) -> ConditionMap:
    """A condition map without a hit, at the size of the wrist camera."""
    hw = (reconstruction.wrist.height, reconstruction.wrist.width)
    device = reconstruction.points.device
    return ConditionMap(torch.zeros(*hw, 3, dtype=torch.uint8, device=device), torch.zeros(*hw, device=device))


def empty_observation(anchors: AnchorSet, wrist_hw: tuple[int, int], verdict: Verdict) -> Observation:
    """The observation of a set that could not be reconstructed: cameras at the origin, one point per view, on the CPU."""
    views, height, width = anchors.images.shape[:3]
    reconstruction = Reconstruction(
        wrist=_empty_camera(*wrist_hw),
        anchors=(_empty_camera(height, width),) * views,
        points=torch.zeros(views, 1, 1, 3),
        confidence=torch.ones(views, 1, 1),
        colors=torch.zeros(views, 1, 1, 3, dtype=torch.uint8),
    )
    return blank_observation(anchors, reconstruction, verdict, {})


def blank_observation(
    anchors: AnchorSet, reconstruction: Reconstruction, verdict: Verdict, seconds: dict[str, float]
) -> Observation:
    agreements = np.full(len(anchors.names), np.nan)
    condition = empty_condition(reconstruction)
    return Observation(anchors, reconstruction, condition, 0.0, 0.0, agreements, verdict, seconds=seconds)


def _empty_camera(height: int, width: int) -> Camera:
    K = np.array([[height, 0, (width - 1) / 2], [0, height, (height - 1) / 2], [0, 0, 1]], np.float64)
    return Camera(K, np.eye(4), width, height)
