"""Noise of depth cameras, taken out of measured depth: over time where nothing moves, then between neighbours of one surface.

Half a percent of depth is five millimetres at a metre, which the wrist camera, ten times nearer, sees as several pixels.
How noisy a camera is, its own images tell; nothing has to be set.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wristworld_ros.geometry.poses import has_moved

_KEPT = 8  # images in the mean of a pixel, at most
_SAME = 3.0  # standard deviations within which a pixel still measures the surface that it did
_MOST_NOISE = 0.02  # share of depth: of what differs by more, motion is the likelier cause
_UNIT = 0.001  # metres: the least step of 16-bit depth
_RECOLORED = 24  # grey levels: a pixel that differs by more shows something else
_WINDOW = 5  # pixels, of neighbours
_SPREAD = 1.5  # pixels, standard deviation of a neighbour's weight
_ONE_SURFACE = 2.5  # standard deviations, likewise of its depth
_SAMPLED = 4  # pixels: stride of those that noise is measured at
_TO_SIGMA = 1.4826  # median absolute deviation -> standard deviation of a normal distribution


@dataclass
class _View:
    """What one anchor's images so far amount to. mean: metres, 0 where unknown. count: images in it. last: the newest image."""

    mean: np.ndarray
    count: np.ndarray
    last: np.ndarray
    gray: np.ndarray
    T_base_anchor: np.ndarray | None


class DepthFilter:
    """Filter of one stream's depth. Memory is bounded: a few images per anchor.

    A pixel whose depth or colour changes begins again, as does an anchor that moves, one of another size, and all where
    the stamp does not rise.
    """

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._views: list[_View] = []
        self._stamp_ns = -1

    def __call__(
        self, stamp_ns: int, depth: np.ndarray, images: np.ndarray, T_base_anchor: np.ndarray | None = None
    ) -> np.ndarray:
        """Filtered depth of a set.

        Args:
            stamp_ns: Of the set.
            depth: Float32 [V, H, W], metres, 0 or not finite where unknown.
            images: Uint8 [V, H, W, 3].
            T_base_anchor: [V, 4, 4], where the anchors stand; None where nobody knows.

        Returns:
            Likewise, 0 where unknown.
        """
        depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
        poses = [None] * len(depth) if T_base_anchor is None else list(T_base_anchor)
        grays = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        known = stamp_ns > self._stamp_ns and len(self._views) == len(depth)
        before = self._views if known else [None] * len(depth)
        self._views = [_updated(*of_view) for of_view in zip(before, depth, grays, poses, strict=True)]
        self._stamp_ns = stamp_ns
        return np.stack([_smoothed(view) for view in self._views])


def _updated(before: _View | None, depth: np.ndarray, gray: np.ndarray, pose: np.ndarray | None) -> _View:
    """An anchor's running mean with one more image in it."""
    if before is None or before.mean.shape != depth.shape or _has_moved(before.T_base_anchor, pose):
        return _View(depth, (depth > 0).astype(np.float32), depth, gray, pose)
    noise = _noise_between(before.last, depth)
    allowed = _SAME * noise * depth * np.sqrt(1 + 1 / np.maximum(before.count, 1)) + _UNIT
    same = (depth > 0) & (before.mean > 0) & (np.abs(depth - before.mean) <= allowed)
    same &= cv2.absdiff(gray, before.gray) < _RECOLORED
    count = np.where(same, np.minimum(before.count + 1, _KEPT), (depth > 0)).astype(np.float32)
    mean = np.where(same, before.mean + (depth - before.mean) / np.maximum(count, 1), depth).astype(np.float32)
    return _View(mean, count, depth, gray, pose)


def _has_moved(before: np.ndarray | None, now: np.ndarray | None) -> bool:
    return has_moved(before, now) if before is not None and now is not None else before is not now


def _noise_between(before: np.ndarray, depth: np.ndarray) -> float:
    """Standard deviation of one image's depth, as a share of it, from the difference of two that show mostly the same."""
    before, depth = before[::_SAMPLED, ::_SAMPLED], depth[::_SAMPLED, ::_SAMPLED]
    both = (before > 0) & (depth > 0)
    if not both.any():
        return 0.0
    noise = _TO_SIGMA * np.median(np.abs(depth[both] / before[both] - 1)) / np.sqrt(2)
    return float(min(noise, _MOST_NOISE))


def _smoothed(view: _View) -> np.ndarray:
    """An anchor's running mean, what noise is left in it taken out: more of it where fewer images are in the mean."""
    known = view.mean > 0
    logs = np.log(np.where(known, view.mean, 1), dtype=np.float32)
    new, steady = (_averaged(logs, known, _noise_within(depth)) for depth in (view.last, view.mean))
    share = np.clip((view.count - 1) / (_KEPT - 1), 0, 1)
    return np.where(known, np.exp(new + share * (steady - new)), 0).astype(np.float32)


def _averaged(logs: np.ndarray, known: np.ndarray, noise: float) -> np.ndarray:
    """The logarithm of depth, each pixel the mean of neighbours that noise alone parts from it; edges stay."""
    if noise == 0:
        return logs
    sigma = _ONE_SURFACE * noise
    far = logs[known].max() + 10 * sigma  # too far from all others to count
    return cv2.bilateralFilter(np.where(known, logs, far), _WINDOW, sigma, _SPREAD, borderType=cv2.BORDER_REPLICATE)


def _noise_within(depth: np.ndarray) -> float:
    """Standard deviation of depth as a share of it, from second differences along rows, which are 0 on surfaces without noise."""
    left, here, right = (depth[::_SAMPLED, i : depth.shape[1] - 2 + i : _SAMPLED] for i in range(3))
    known = (left > 0) & (here > 0) & (right > 0)
    if not known.any():
        return 0.0
    second = (left[known] - 2 * here[known] + right[known]) / here[known]
    return float(min(_TO_SIGMA * np.median(np.abs(second)) / np.sqrt(6), _MOST_NOISE))
