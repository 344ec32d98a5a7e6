"""Depth of a depth-estimation model in place of stage 1's: relative depth, of which the robot's own surface makes metres.

Joint states say where the robot is, and known cameras in which pixels it shows: there depth is known, and one scale and shift
for each image does the rest. No weights of stage 1 take part.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from wristworld_ros.pipeline.known_geometry import KnownGeometryStep, Prediction
from wristworld_ros.robot.depth_fit import fit_depth
from wristworld_ros.robot.known_cameras import KnownCameras
from wristworld_ros.types import AnchorSet

_LEAST_SHARE = 0.005  # of an image's pixels that must show the robot (or have measured depth)
_LEAST_RANGE = 0.05  # of their depths (5 % to 95 %) over the median: less determines no shift
_WORST_FIT = 0.1  # metres, median error over those pixels: a model that does not follow the robot follows nothing
_TRUST_M = 0.05  # error of the fit at which the confidence has fallen to 1 / e
_WIDTH = 320  # pixels: wider images are thinned for the fit


class DepthSource(Protocol):
    """What estimates relative depth, e.g. `robot.depth_model.DepthModel`."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Depth, or its inverse, up to scale and shift, float32 [V, H, W], of images uint8 [V, H, W, 3]."""


class ModelledDepth:
    """Predictions that take depth from a source of relative depth, and cameras from what is known.

    Args:
        source: Of relative depth.
        step: Of the same stream, which knows what the robot looks like to a camera.
    """

    def __init__(self, source: DepthSource, step: KnownGeometryStep):
        self._source, self._step = source, step

    def prediction(self, anchors: AnchorSet) -> tuple[Prediction | None, tuple[str, ...]]:
        """What the source says of a set, in metres.

        Returns:
            The prediction, without depth for views that show too little of the robot; None where no view has any. One
            sentence for everything that is missing.
        """
        if lacks := _lacking(anchors, self._step.wrist_hw):
            return None, (f'geometry_model is not used, for {lacks}; depth is that of stage 1.',)
        known = KnownCameras.of(anchors, self._step.wrist_hw)
        assert known.wrist is not None
        relative = self._source(anchors.images)
        stride = -(-anchors.images.shape[2] // _WIDTH)
        reference = self._reference(anchors, known, stride)
        depth, confidence = np.zeros_like(relative), np.ones_like(relative)
        missing = []
        for view, name in enumerate(anchors.names):
            fitted, error, reason = _in_metres(relative[view], reference[view], stride)
            if fitted is None:
                missing.append(f'geometry_model says nothing of anchor_{name}: {reason}.')
                continue
            depth[view] = fitted
            confidence[view] = 1 / (1 - min(np.exp(-error / _TRUST_M), 1 - 1e-6))
        if len(missing) == len(anchors.names):
            return None, tuple(missing)
        K = np.concatenate([known.wrist.K[None], known.K])
        T = np.concatenate([known.wrist.T_camera_world[None], known.T_camera_base])
        device = self._step.device
        prediction = Prediction(
            K, T, torch.from_numpy(depth).to(device), torch.from_numpy(confidence).to(device), metric=True
        )
        return prediction, tuple(missing)

    def _reference(self, anchors: AnchorSet, known: KnownCameras, stride: int) -> np.ndarray:
        """Known depth of every stride-th pixel, float32 [V, h, w], metres, 0 where unknown: measured, else the robot's."""
        K, T = torch.from_numpy(known.K), torch.from_numpy(known.T_camera_base)
        reference = (
            self._step.robot.reference(anchors.robot_points, K, T, stride, anchors.images.shape[1:3]).cpu().numpy()
        )
        if anchors.depth is not None:
            measured = anchors.depth[:, ::stride, ::stride]
            known_there = np.isfinite(measured) & (measured > 0)
            reference = np.where(known_there, measured, reference)
        return reference


def _in_metres(relative: np.ndarray, reference: np.ndarray, stride: int) -> tuple[np.ndarray | None, float, str]:
    """Relative depth [H, W] in metres, with the median error of the fit; or None, and why, without a full stop."""
    known = reference[reference > 0]
    needed = round(_LEAST_SHARE * reference.size)
    if known.size < needed:
        what = f'it shows the robot in {known.size * stride**2} pixels, of which {needed * stride**2} are needed'
        return None, 0.0, what
    low, middle, high = np.quantile(known, (0.05, 0.5, 0.95))
    if high - low < _LEAST_RANGE * middle:
        what = f'the robot in it lies between {low:.2f} and {high:.2f} m, which determines no scale'
        return None, 0.0, what
    fit = fit_depth(relative[::stride, ::stride], reference)
    if fit is None:
        return None, 0.0, 'its depth does not vary with that of the robot'
    if fit.residual > _WORST_FIT:
        what = f"its depth is {fit.residual:.2f} m off the robot's in the median, of which {_WORST_FIT:g} m are allowed"
        return None, 0.0, what
    return fit.apply(relative), fit.residual, ''


def _lacking(anchors: AnchorSet, wrist_hw: tuple[int, int]) -> str:
    """What a set lacks for modelled depth; '' for nothing."""
    known = KnownCameras.of(anchors, wrist_hw)
    lacks = []
    if known.wrist is None:
        lacks.append('the place of the wrist camera is unknown')
    for what, there in (('calibration', known.has_K), ('place', known.placed)):
        lacks += [
            f'the {what} of anchor_{name} is unknown' for name, ok in zip(anchors.names, there, strict=True) if not ok
        ]
    if anchors.robot_points is None and anchors.depth is None:
        lacks.append("the robot's surface is unknown")
    return ', '.join(lacks)
