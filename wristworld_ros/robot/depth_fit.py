"""Metres for relative depth: a robust scale and shift from the pixels whose depth is known.

Networks tell depth up to an affine map, of depth itself or, as those trained on disparity do, of its inverse. Both are fitted,
and the one that explains the known pixels better is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_POINTS = 50
_MAX_POINTS = 5000
_ROUNDS = 10
_DEPTHS = (0.05, 20.0)  # metres; what an applied fit may give


@dataclass(frozen=True)
class DepthFit:
    """metres = scale * relative + shift, or, where `inverse`, 1 / (scale * relative + shift).

    residual: median error over the known pixels, metres. count: of those pixels.
    """

    scale: float
    shift: float
    inverse: bool
    residual: float
    count: int

    def apply(self, relative: np.ndarray) -> np.ndarray:
        """Depth float32 like `relative`, metres, 0 where the fit gives none that is possible."""
        value = self.scale * relative + self.shift
        if self.inverse:
            value = 1 / np.where(value > 1e-6, value, np.inf)
        possible = (value >= _DEPTHS[0]) & (value <= _DEPTHS[1])
        return np.where(possible, value, 0).astype(np.float32)


def fit_depth(relative: np.ndarray, reference: np.ndarray) -> DepthFit | None:
    """Scale and shift that take relative depth to known depth, by least squares reweighted after Geman and McClure.

    Args:
        relative: float [H, W].
        reference: float [H, W], metres, 0 where unknown.

    Returns:
        None where fewer than `LEAST_POINTS` pixels are known, or where the prediction does not vary with them.
    """
    known = np.flatnonzero((reference > 0).ravel() & np.isfinite(relative).ravel() & np.isfinite(reference).ravel())
    if len(known) < LEAST_POINTS:
        return None
    known = known[:: max(1, len(known) // _MAX_POINTS)]
    x, metres = relative.ravel()[known].astype(np.float64), reference.ravel()[known].astype(np.float64)
    fits = [fit for inverse in (False, True) if (fit := _fit(x, metres, inverse)) is not None]
    return min(fits, key=lambda fit: fit.residual, default=None)


def _fit(x: np.ndarray, metres: np.ndarray, inverse: bool) -> DepthFit | None:
    target = 1 / metres if inverse else metres
    weights = 1 / metres if not inverse else metres  # errors relative to depth either way
    robust = np.ones_like(x)
    for _ in range(_ROUNDS):
        rows = np.stack([x, np.ones_like(x)], 1) * (weights * robust)[:, None]
        (scale, shift), _, rank, _ = np.linalg.lstsq(rows, target * weights * robust, rcond=1e-9)
        if rank < 2:
            return None
        error = np.abs(scale * x + shift - target) * weights
        width = max(1.4826 * np.median(error), 1e-6)
        robust = 1 / (1 + (error / (2 * width)) ** 2)
    fit = DepthFit(float(scale), float(shift), inverse, 0.0, len(x))
    if not inverse and fit.scale <= 0:
        return None  # what is farther would come out nearer
    residual = float(np.median(np.abs(fit.apply(x) - metres)))
    return DepthFit(fit.scale, fit.shift, inverse, residual, len(x))
