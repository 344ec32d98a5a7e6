"""The painter's loop: the slow, obvious way to draw a condition map. The baseline the benchmark compares with.

It paints the points far to near, one at a time, as the published system does. Nothing in the package uses it.
"""

from __future__ import annotations

import numpy as np


def render_reference(points, colors, intrinsics, extrinsics, *, image_hw, radius=2, near=0.01):
    """Same contract as ``condition_map``, in numpy arrays: uint8 [H, W, 3] and float32 [H, W]."""
    height, width = image_hw
    camera = points.astype(np.float64) @ extrinsics[:3, :3].astype(np.float64).T + extrinsics[:3, 3].astype(np.float64)
    z = camera[:, 2]
    with np.errstate(all='ignore'):
        uvw = camera @ intrinsics.astype(np.float64).T
        u, v = uvw[:, 0] / z, uvw[:, 1] / z
        kept = np.isfinite(z) & (z > near) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    index = np.flatnonzero(kept)
    order = index[np.lexsort((-index, -z[index]))]  # far to near; of equally near ones the lowest index last
    columns, rows = u[order].astype(int).tolist(), v[order].astype(int).tolist()
    image = np.zeros((height, width, 3), np.uint8)
    depth = np.zeros((height, width), np.float32)
    spans = [(dy, radius - abs(dy)) for dy in range(-radius, radius + 1)]
    for x, y, color, near_z in zip(columns, rows, colors[order], z[order].tolist(), strict=True):
        for dy, reach in spans:
            if 0 <= y + dy < height:
                left = max(x - reach, 0)
                image[y + dy, left : x + reach + 1] = color
                depth[y + dy, left : x + reach + 1] = near_z
    return image, depth
