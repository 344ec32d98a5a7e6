"""The condition map against the painter's loop: same picture, how much faster."""

from __future__ import annotations

import time

import numpy as np
import torch

from wristworld_ros.apps.bench.reference_renderer import render_reference
from wristworld_ros.geometry import condition_map

SIZE = (294, 518)  # height, width; two views of it are 304,584 points


def scene(seed: int = 0, hw: tuple[int, int] = SIZE, count: int = 2) -> dict[str, np.ndarray]:
    """`count` views' worth of a bumpy coloured surface before a camera of hw pixels: points float32 [N, 3], colors, K,
    T_camera_world."""
    rng = np.random.default_rng(seed)
    height, width = hw
    scale = width / SIZE[1]
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    views = []
    for shift in 7.3 * np.arange(count):
        depth = 0.6 + 0.15 * np.sin((columns + shift) / 37) * np.cos(rows / 23) + rng.normal(0, 0.004, hw)
        x, y = (columns - width / 2 + shift) / (400 * scale) * depth, (rows - height / 2) / (400 * scale) * depth
        views.append(np.stack([x, y, depth], -1).reshape(-1, 3))
    points = np.concatenate(views).astype(np.float32)
    colors = rng.integers(0, 256, (len(points), 3), dtype=np.uint8)
    K = np.array([[420.0 * scale, 0, width / 2], [0, 420.0 * scale, height / 2], [0, 0, 1]])
    T = np.eye(4)
    T[:3, 3] = 0.03, -0.02, 0.05
    return {'points': points, 'colors': colors, 'K': K, 'T': T}


def compare(repeats: int = 20, device: str = 'cpu') -> dict[str, float]:
    """Milliseconds of both on one scene, their ratio, and in how many pixels the pictures differ."""
    s = scene()
    tensors = [torch.from_numpy(s[k]).to(device) for k in ('points', 'colors', 'K', 'T')]

    def splat():
        image, _ = condition_map(*tensors, image_hw=SIZE, radius=2)
        return image.cpu().numpy()

    fast = splat()
    spent = []
    for _ in range(repeats):
        started = time.perf_counter()
        splat()
        spent.append(time.perf_counter() - started)
    started = time.perf_counter()
    slow, _ = render_reference(s['points'], s['colors'], s['K'], s['T'], image_hw=SIZE, radius=2)
    painter = time.perf_counter() - started
    splat_s = float(np.median(spent))
    return {
        'points': len(s['points']), 'height': SIZE[0], 'width': SIZE[1], 'splat_ms': splat_s * 1e3,
        'painter_ms': painter * 1e3, 'ratio': painter / splat_s, 'pixels_that_differ': int((fast != slow).any(-1).sum()),
    }  # fmt: skip
