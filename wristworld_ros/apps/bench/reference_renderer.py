"""The reference renderer: a condition map rendered point by point, and how much faster the splat is.

It renders the points from far to near, one at a time, as the published system does. It is what the splat is compared with,
by the benchmark and by the tests; nothing else uses it.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from wristworld_ros.apps.bench.inputs import PUBLISHED_ANCHOR, bumpy_surface
from wristworld_ros.geometry import condition_map

SIZE = PUBLISHED_ANCHOR  # height, width of the compared map


def render_reference(points, colors, intrinsics, extrinsics, *, image_hw, radius=2, near=0.01):
    """Same contract as `geometry.condition_map`, in numpy arrays: uint8 [H, W, 3] and float32 [H, W]."""
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
    for x, y, color, point_z in zip(columns, rows, colors[order], z[order].tolist(), strict=True):
        for dy, half_width in spans:
            if 0 <= y + dy < height:
                left = max(x - half_width, 0)
                image[y + dy, left : x + half_width + 1] = color
                depth[y + dy, left : x + half_width + 1] = point_z
    return image, depth


def compare_renderers(repeats: int = 20, device: str = 'cpu') -> dict[str, float]:
    """Milliseconds of the splat and of the reference renderer on one cloud, their ratio, and in how many pixels the images
    differ."""
    surface = bumpy_surface(SIZE)
    arrays = (surface.points, surface.colors, surface.K, surface.T_camera_world)
    tensors = [torch.from_numpy(array).to(device) for array in arrays]

    def splat() -> np.ndarray:
        image, _ = condition_map(*tensors, image_hw=SIZE, radius=2)
        return image.cpu().numpy()

    fast = splat()
    spent = []
    for _ in range(repeats):
        started = time.perf_counter()
        splat()
        spent.append(time.perf_counter() - started)
    started = time.perf_counter()
    slow, _ = render_reference(*arrays, image_hw=SIZE, radius=2)
    reference_s, splat_s = time.perf_counter() - started, float(np.median(spent))
    return {
        'points': len(surface.points), 'height': SIZE[0], 'width': SIZE[1], 'splat_ms': splat_s * 1e3,
        'reference_ms': reference_s * 1e3, 'ratio': reference_s / splat_s,
        'pixels_that_differ': int((fast != slow).any(-1).sum()),
    }  # fmt: skip
