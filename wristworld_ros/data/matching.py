"""Which images of cameras that run by themselves belong to a frame."""

from __future__ import annotations

import numpy as np


def nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Places in `times` (rising, at least one) of those nearest to each wanted time, int64 [N]; of two alike the earlier."""
    after = np.searchsorted(times, wanted).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    return np.where(np.abs(times[before] - wanted) <= np.abs(times[after] - wanted), before, after).astype(np.int64)
