"""Places of uncalibrated anchors from the wrist's known path: what `motion_similarity` finds for each anchor, refined together.

Stage 1 says of every set where the wrist is before each anchor; the robot knows where it is in its base. A predicted position is
good across the anchor's line of sight and poor along it, so it counts as a direction first (as points do in resection), as
an orientation second, and as a distance, in the model's one scale, third. Where an anchor is calibrated (intrinsics), its
directions are corrected by the true focal length, which a single image tells badly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from wristworld_ros.robot.motion_similarity import MotionEstimate, MotionSettings, MotionSimilarity
from wristworld_ros.types import MotionPlacement

SETTINGS = MotionSettings(window=120.0, least=60, min_spread=0.06)
_MOST = 400  # samples of an anchor that the refinement takes, evenly from its window
_DIRECTION = 0.01  # tangent of the angle, deviation of a predicted direction where intrinsics are known
_BLIND_DIRECTION = 0.03  # and where they are not
_ANGLE = 0.2  # radians, of a predicted orientation
_DISTANCE = 0.1  # share, of a predicted distance
_EVERY_S = 10.0  # between two estimates, once there is one; a new one moves the world by millimetres
_EVERY_S_BEFORE = 1.0  # until there is one
_NORM = 1.538  # median length of a vector of three standard normal numbers


@dataclass(frozen=True)
class PlacedAnchors:
    """T_base_anchor: float64 [V, 4, 4], metres, NaN for anchors that are not placed. scale: metres to one unit of the model; None
    where none is placed. summary: of how it was found."""

    T_base_anchor: np.ndarray
    scale: float | None
    summary: MotionPlacement


class AnchorPlacement:
    """Collects what stage 1 says of the wrist, set by set, and places the anchors once the wrist has moved enough.

    One object per stream, used from one thread; memory and time are bounded by the settings.
    """

    def __init__(self, settings: MotionSettings = SETTINGS):
        self._settings = settings
        self.reset()

    def reset(self) -> None:
        """Forget everything: another stream, other cameras, or a clock that was set back."""
        self._motions: list[MotionSimilarity] = []
        self._calibrated: list[bool] = []
        self._found: PlacedAnchors | None = None
        self._found_ns = 0

    def update(
        self, stamp_ns: int, K: np.ndarray, T: np.ndarray, known_K: np.ndarray, T_base_wrist: np.ndarray
    ) -> PlacedAnchors:
        """Take one set in; what is known of the anchors' places after it.

        Args:
            stamp_ns: Of the set.
            K: Predicted intrinsics of the anchors, float64 [V, 3, 3], pixels.
            T: Predicted cameras, float64 [1 + V, 4, 4], wrist first, camera from any one world, the model's scale.
            known_K: Known intrinsics of the anchors, float64 [V, 3, 3], pixels, NaN where unknown.
            T_base_wrist: Known pose of the wrist camera, float64 [4, 4], metres.
        """
        calibrated = [bool(np.isfinite(k).all()) for k in known_K]
        if calibrated != self._calibrated or stamp_ns < self._found_ns:
            self.reset()
            self._calibrated = calibrated
            self._motions = [MotionSimilarity(self._settings) for _ in calibrated]
        T_wrist = np.linalg.inv(T[0])
        for motion, own, true, T_anchor in zip(self._motions, K, known_K, T[1:], strict=True):
            motion.add(stamp_ns, _along_true_rays(T_anchor @ T_wrist, own, true), T_base_wrist)
        used = self._found is not None and self._found.summary.used
        if self._found is None or stamp_ns - self._found_ns >= (_EVERY_S if used else _EVERY_S_BEFORE) * 1e9:
            self._found, self._found_ns = self._estimate(), stamp_ns
        assert self._found is not None
        return self._found

    def _estimate(self) -> PlacedAnchors:
        estimates = [motion.estimate() for motion in self._motions]
        usable = [view for view, estimate in enumerate(estimates) if estimate.usable]
        T = np.full((len(estimates), 4, 4), np.nan)
        scale: float | None = None
        residual = float('nan')
        if usable:
            samples = [self._motions[view].poses() for view in usable]
            widths = [_DIRECTION if self._calibrated[view] else _BLIND_DIRECTION for view in usable]
            T[usable], scale = _refined([estimates[view] for view in usable], samples, widths)
            residual = max(_residual(T[view], scale, *poses) for view, poses in zip(usable, samples, strict=True))
        reason = next((estimate.reason for estimate in estimates if not estimate.usable), '')
        if usable and not residual <= self._settings.max_residual:
            reason = (
                f"The model's wrist positions scatter by {residual:.3f} m about the known ones, of which "
                f'{self._settings.max_residual:g} m are allowed.'
            )
            T[:], scale = np.nan, None
        summary = MotionPlacement(
            used=bool(np.isfinite(T).any()),
            residual=residual if usable else max((e.residual for e in estimates), default=float('nan')),
            observability=min((e.observability for e in estimates), default=0.0),
            count=min((e.count for e in estimates), default=0),
            reason=reason,
        )
        return PlacedAnchors(T, scale, summary)


def _along_true_rays(T_anchor_wrist: np.ndarray, K: np.ndarray, true: np.ndarray) -> np.ndarray:
    """A predicted pose, moved to where its pixel lies by the true intrinsics, at the same depth; as it is where those are unknown."""
    if not np.isfinite(true).all():
        return T_anchor_wrist
    moved = T_anchor_wrist.copy()
    moved[:3, 3] = np.linalg.solve(true, K @ T_anchor_wrist[:3, 3])
    return moved


def _refined(
    estimates: list[MotionEstimate], samples: list[tuple[np.ndarray, np.ndarray]], widths: list[float]
) -> tuple[np.ndarray, float]:
    """T_base_anchor [V, 4, 4] and the one scale that explain all predictions of V anchors best.

    Args:
        estimates: Where to start.
        samples: Of each anchor, predicted T_anchor_wrist and known T_base_wrist, [N, 4, 4] each.
        widths: Of each anchor, the deviation of its predicted directions.
    """
    thinned = [tuple(poses[:: -(-len(poses) // _MOST)] for poses in pair) for pair in samples]
    starts = [np.linalg.inv(estimate.T_base_anchor0) for estimate in estimates]
    start = [np.concatenate([Rotation.from_matrix(T[:3, :3]).as_rotvec(), T[:3, 3]]) for T in starts]
    scale = np.log(np.mean([estimate.scale for estimate in estimates]))

    def errors(x: np.ndarray) -> np.ndarray:
        parts = [
            _errors(x[6 * view : 6 * view + 6], x[-1], *pair, width)
            for view, (pair, width) in enumerate(zip(thinned, widths, strict=True))
        ]
        return np.concatenate(parts)

    solved = least_squares(errors, np.concatenate([*start, [scale]]), loss='soft_l1', max_nfev=30, xtol=1e-6).x
    placed = np.tile(np.eye(4), (len(estimates), 1, 1))
    for T, x in zip(placed, solved[:-1].reshape(-1, 6), strict=True):
        T[:3, :3], T[:3, 3] = Rotation.from_rotvec(x[:3]).as_matrix(), x[3:]
    return np.linalg.inv(placed), float(np.exp(solved[-1]))


def _errors(x: np.ndarray, log_scale: float, predicted: np.ndarray, known: np.ndarray, width: float) -> np.ndarray:
    """Errors of predictions of one anchor, in their deviations.

    Args:
        x: Of the anchor, T_anchor_base as rotation vector and translation, [6].
        log_scale: Of metres to one unit of the model.
        predicted: T_anchor_wrist, [N, 4, 4].
        known: T_base_wrist, [N, 4, 4].
        width: Deviation of a direction.
    """
    R = Rotation.from_rotvec(x[:3]).as_matrix()
    true = known[:, :3, 3] @ R.T + x[3:]
    z, model_z = np.maximum(true[:, 2], 0.05), np.maximum(predicted[:, 2, 3], 0.05 / np.exp(log_scale))
    directions = (true[:, :2] / z[:, None] - predicted[:, :2, 3] / model_z[:, None]) / width
    turned = np.swapaxes(predicted[:, :3, :3], 1, 2) @ (R @ known[:, :3, :3])
    # Sines of the angles about each axis, so that wild ones are bounded.
    angles = (turned - np.swapaxes(turned, 1, 2))[:, (2, 0, 1), (1, 2, 0)] / 2 / _ANGLE
    distances = (np.log(model_z) + log_scale - np.log(z)) / _DISTANCE
    return np.concatenate([directions.ravel(), angles.ravel(), distances])


def _residual(T_base_anchor: np.ndarray, scale: float, predicted: np.ndarray, known: np.ndarray) -> float:
    """Robust standard deviation of a predicted wrist position along one axis, metres."""
    found = scale * predicted[:, :3, 3] @ T_base_anchor[:3, :3].T + T_base_anchor[:3, 3]
    return float(np.median(np.linalg.norm(found - known[:, :3, 3], axis=1))) / _NORM
