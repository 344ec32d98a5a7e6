"""Metric scale and the anchors' place from the wrist's motion, where nobody calibrated the anchors.

The model predicts the wrist camera in the first anchor's frame, in a scale of its own; the robot knows where that camera is in
its base. Over seconds in which the wrist moves, one similarity joins the two paths.

The residual tells scatter. An error that a model repeats in every frame, or a motion that it shrinks, is taken into the
similarity and not seen: a usable estimate is one that the motion determines, not one that is right.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from wristworld_ros.geometry.alignment import DegenerateFitError, Similarity, fit_similarity, nearest_rotation

_ROUNDS = 12
_FIRST_WIDTH = 8.0  # of the robust weights, in their last width: wide enough to start from all points
_LAST_WIDTH = 2.0  # robust standard deviations
_NORM = 1.538  # median length of a vector of three such numbers
_SCALES = (0.1, 10.0)  # what a scale can be


@dataclass(frozen=True)
class MotionSettings:
    """When the motion of the wrist says enough.

    window: seconds of motion that are kept. most: samples kept at most. least: samples needed. still: metres; a sample nearer
    to the last one kept adds nothing. min_spread: metres, least `observability`. max_residual: metres, largest
    `residual`. moved_after: seconds of samples that must all have left the fit before a camera counts as moved.
    moved_ratio: by how many residuals. orientations: whether the wrist's orientations count beside its positions.
    """

    window: float = 60.0
    most: int = 600
    least: int = 30
    still: float = 0.002
    min_spread: float = 0.03
    max_residual: float = 0.15
    moved_after: float = 2.0
    moved_ratio: float = 4.0
    orientations: bool = True


@dataclass(frozen=True)
class MotionEstimate:
    """What the window says.

    similarity: base = scale * rotation @ anchor + translation, of points in the first anchor's frame in the model's scale; None
    where the positions determine none. residual: robust standard deviation of a predicted wrist position along one axis,
    metres. observability: second singular value of the spread of the known positions (standard deviation along
    their second axis), metres: 0 on a line. count: samples. reason: why it is not usable, one sentence; '' when it is.
    """

    similarity: Similarity | None
    residual: float
    observability: float
    count: int
    reason: str = ''

    @property
    def usable(self) -> bool:
        """Whether it may replace what is predicted."""
        return not self.reason

    @property
    def scale(self) -> float:
        """Metres to one unit of the model; NaN where undetermined."""
        return float(self.similarity.scale) if self.similarity is not None else float('nan')

    def place(self, T_anchor0_anchor: np.ndarray) -> np.ndarray:
        """Predicted poses of cameras in the first anchor's frame [..., 4, 4] as T_base_anchor float64 [..., 4, 4], metres.

        Raises:
            ValueError: The positions determined no similarity.
        """
        if self.similarity is None:
            raise ValueError(f'There is no similarity to place cameras with. {self.reason}')
        placed = np.array(T_anchor0_anchor, dtype=np.float64)
        rotation = self.similarity.rotation.numpy()
        placed[..., :3, 3] = self.scale * placed[..., :3, 3] @ rotation.T + self.similarity.translation.numpy()
        placed[..., :3, :3] = rotation @ placed[..., :3, :3]
        return placed

    @property
    def T_base_anchor0(self) -> np.ndarray:
        """Pose of the first anchor in the robot's base, float64 [4, 4], metres."""
        return self.place(np.eye(4))


class MotionSimilarity:
    """Collects the wrist's predicted and known poses set by set, and fits them when asked.

    One object per stream, used from one thread. Memory and time are bounded by `MotionSettings.most`.
    """

    def __init__(self, settings: MotionSettings = MotionSettings()):
        self.settings = settings
        self._samples: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=settings.most)

    def __len__(self) -> int:
        return len(self._samples)

    def reset(self) -> None:
        """Forget everything: another stream, other cameras, or cameras that were moved."""
        self._samples.clear()

    def add(self, stamp_ns: int, T_anchor_wrist: np.ndarray, T_base_wrist: np.ndarray) -> bool:
        """Take one set in; whether it was kept.

        A stamp before the last one means that the clock was set back, and everything before is forgotten. A sample that is
        not finite, too soon for `most` of them to span the window, or at the place of the last one, is left out.

        Args:
            stamp_ns: Of the set.
            T_anchor_wrist: Predicted pose of the wrist camera in the first anchor's frame, [4, 4], the model's scale.
            T_base_wrist: Known pose of the same camera in the robot's base, [4, 4], metres.
        """
        if self._samples and stamp_ns < self._samples[-1][0]:
            self.reset()
        window = self.settings.window * 1e9
        while self._samples and stamp_ns - self._samples[0][0] > window:
            self._samples.popleft()
        predicted, known = np.array(T_anchor_wrist, np.float64), np.array(T_base_wrist, np.float64)
        if not (np.isfinite(predicted).all() and np.isfinite(known).all()):
            return False
        if self._samples:
            last_ns, _, last = self._samples[-1]
            too_soon = stamp_ns - last_ns < 0.99 * window / self.settings.most
            if too_soon or np.linalg.norm(known[:3, 3] - last[:3, 3]) < self.settings.still:
                return False
        self._samples.append((stamp_ns, predicted, known))
        return True

    def estimate(self) -> MotionEstimate:
        """The similarity over the window, and whether it may be used.

        A camera that was moved is seen when all recent samples have left a fit that was good before; what is older is
        then forgotten.
        """
        found = self._fit()
        if found.similarity is not None and self._has_moved(found):
            recent = self._recent()
            self._samples = deque([s for s, new in zip(self._samples, recent, strict=True) if new], self.settings.most)
            found = self._fit()
        return found

    def poses(self) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and known poses of the window as they were added, [N, 4, 4] each."""
        return np.stack([s[1] for s in self._samples]), np.stack([s[2] for s in self._samples])

    def _fit(self) -> MotionEstimate:
        settings, count = self.settings, len(self._samples)
        if count < settings.least:
            reason = f'The wrist moved through {count} places in {settings.window:g} s, of which {settings.least} are needed.'
            return MotionEstimate(None, float('nan'), 0.0, count, reason)
        predicted, known = self.poses()
        spread = np.linalg.svd((known[:, :3, 3] - known[:, :3, 3].mean(0)) / np.sqrt(count), compute_uv=False)
        observability = float(spread[1])
        try:
            similarity, residual = _robust_similarity(predicted, known, settings.orientations)
        except DegenerateFitError:
            similarity, residual = None, float('nan')
        reason = ''
        if observability < settings.min_spread or similarity is None:
            reason = (
                f'The wrist moved {spread[0]:.3f} m along one axis and {observability:.3f} m along a second one (standard '
                f'deviations), of which {settings.min_spread:g} m are needed.'
            )
        elif not residual <= settings.max_residual:
            reason = (
                f"The model's wrist positions scatter by {residual:.3f} m about the known ones, of which "
                f'{settings.max_residual:g} m are allowed.'
            )
        elif not _SCALES[0] <= float(similarity.scale) <= _SCALES[1]:
            reason = f"The model's scale would be off by {float(similarity.scale):.2g}, which cannot be."
        return MotionEstimate(similarity, residual, observability, count, reason)

    def _recent(self) -> np.ndarray:
        stamps = np.array([s[0] for s in self._samples])
        return stamps > stamps[-1] - self.settings.moved_after * 1e9

    def _has_moved(self, found: MotionEstimate) -> bool:
        assert found.similarity is not None
        recent = self._recent()
        if recent.all() or recent.sum() < 5:
            return False
        predicted, known = self.poses()
        errors = np.linalg.norm(found.place(predicted)[:, :3, 3] - known[:, :3, 3], axis=1)
        usual = max(float(np.median(errors[~recent])), 0.005)
        return bool(np.quantile(errors[recent], 0.2) > self.settings.moved_ratio * usual)


def _robust_similarity(predicted: np.ndarray, known: np.ndarray, orientations: bool) -> tuple[Similarity, float]:
    """Similarity from predicted to known poses [N, 4, 4], and the robust deviation of a predicted position, metres.

    Predictions are noisy and known poses are not, so predictions are explained by known poses and the answer is turned
    round: the other way noise would shrink the scale. Geman-McClure weights whose width shrinks from round to round.
    """
    p, k = torch.from_numpy(predicted[:, :3, 3]), torch.from_numpy(known[:, :3, 3])
    weights, turns = torch.ones(len(p), dtype=torch.float64), torch.ones(len(p), dtype=torch.float64)
    for width in np.geomspace(_FIRST_WIDTH, _LAST_WIDTH, _ROUNDS):
        inverse = fit_similarity(k, p, weights)
        if orientations:
            inverse, turns = _with_orientations(inverse, predicted, known, weights, turns, float(width))
        errors = (inverse.points(k) - p).norm(dim=1)
        deviation = max(float(errors.median()) / _NORM, 1e-9)
        weights = (1 + (errors / (width * deviation * _NORM)) ** 2) ** -2
    scale, rotation = 1 / inverse.scale, inverse.rotation.T
    return Similarity(scale, rotation, -scale * rotation @ inverse.translation), deviation * float(scale)


def _with_orientations(
    inverse: Similarity,
    predicted: np.ndarray,
    known: np.ndarray,
    weights: torch.Tensor,
    turns: torch.Tensor,
    width: float,
) -> tuple[Similarity, torch.Tensor]:
    """The same similarity (known to predicted) with its rotation from positions and orientations together, each weighed by
    its own scatter, and the next weights of the orientations."""
    p, k = torch.from_numpy(predicted[:, :3, 3]), torch.from_numpy(known[:, :3, 3])
    Rp, Rk = torch.from_numpy(predicted[:, :3, :3]), torch.from_numpy(known[:, :3, :3])
    mean = weights / weights.sum()
    p_mean, k_mean = mean @ p, mean @ k
    p_centred, k_centred = p - p_mean, k - k_mean
    position = max(float((inverse.points(k) - p).norm(dim=1).median()) / _NORM, 1e-9)
    angles = _angles(Rp, inverse.rotation @ Rk)
    angle = max(float(angles.median()) / _NORM, 1e-9)
    # Half the squared error over the variance: of rotations |Rp - R Rk|^2 is twice the squared angle.
    matrix = inverse.scale * p_centred.T @ (weights[:, None] * k_centred) / position**2
    matrix = matrix + torch.einsum('n,nij,nkj->ik', turns, Rp, Rk) / (2 * angle**2)
    rotation, _ = nearest_rotation(matrix)
    turned = k_centred @ rotation.T
    scale = (weights[:, None] * turned * p_centred).sum() / (weights[:, None] * k_centred**2).sum()
    turns = (1 + (_angles(Rp, rotation @ Rk) / (width * angle * _NORM)) ** 2) ** -2
    return Similarity(scale, rotation, p_mean - scale * rotation @ k_mean), turns


def _angles(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Angle between rotations [N, 3, 3], radians [N]."""
    return 2 * torch.asin(((first - second).flatten(1).norm(dim=1) / 8**0.5).clamp(max=1))
