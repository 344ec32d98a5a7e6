"""Lines without depth that a driver leaves where it registers coarse depth to finer colour images."""

from __future__ import annotations

import numpy as np

ONE_SURFACE = 0.02  # share of depth by which pixels of one surface that are two apart differ at most


def bridge_gaps(depth: np.ndarray) -> np.ndarray:
    """Depth with gaps of one pixel bridged, across rows and then across columns, where both sides are one surface.

    Registration moves each depth pixel to where colour sees it. Where colour has more pixels to the degree, whole rows and
    columns between them stay empty, and a surface falls apart into tiles.

    Args:
        depth: Float32 [V, H, W], metres, 0 where unknown.

    Returns:
        Likewise; the argument itself where nothing is bridged.
    """
    for axis in (1, 2):
        depth = _bridged(depth, axis)
    return depth


def _bridged(depth: np.ndarray, axis: int) -> np.ndarray:
    views = np.moveaxis(depth, axis, 0)
    before, here, after = views[:-2], views[1:-1], views[2:]
    gaps = (here == 0) & (before > 0) & (after > 0)
    near, far = np.minimum(before[gaps], after[gaps]), np.maximum(before[gaps], after[gaps])
    same = far - near <= ONE_SURFACE * near
    if not same.any():
        return depth
    filled = depth.copy()
    target = np.moveaxis(filled, axis, 0)[1:-1]
    target[gaps] = np.where(same, (near + far) / 2, 0)
    return filled
