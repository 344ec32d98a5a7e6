"""Condition maps (WristWorld, arXiv 2510.07313): a coloured point cloud as a camera sees it.

Drawing all points far to near, as published, is the same as keeping for each pixel the nearest point whose footprint
covers it. So each point is scattered once into the pixel of its centre as one int64 (depth bits above, point index
below), where the smallest wins, and the footprint |dx| + |dy| <= radius is then a windowed minimum: ``radius`` times
the minimum over a pixel and its four neighbours. No sort, no loop over points, the same result in any order of
execution.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EMPTY = torch.iinfo(torch.int64).max
_CHUNK = 1 << 16  # points at a time on a CPU: the intermediate tensors then stay in the cache, three times faster


def condition_map(
    points: Tensor,
    colors: Tensor,
    intrinsics: Tensor,
    extrinsics: Tensor,
    *,
    image_hw: tuple[int, int],
    radius: int = 2,
    near: float = 0.01,
) -> tuple[Tensor, Tensor]:
    """Image and depth of a coloured cloud as a camera sees it; without gradient.

    A point covers the pixels with |dx| + |dy| <= radius around that of its centre, cut at the border; one whose centre
    lies outside 0 <= u < W, 0 <= v < H covers none. The nearest point wins a pixel, of equally near ones the one with
    the lowest index. Projection runs in float64, and the result does not depend on the order of execution.

    Args:
        points: Float32 [N, 3], world, metres; points that are not finite are ignored.
        colors: Uint8 [N, 3].
        intrinsics: K [3, 3], pixels; coordinates start at the image's edge.
        extrinsics: Camera-from-world [3, 4] or [4, 4], metres.
        image_hw: Height and width, pixels.
        radius: Of the footprint, pixels.
        near: Only points with z > near are drawn, metres.

    Returns:
        Uint8 [H, W, 3], black where empty, and float32 [H, W], the winner's camera z in metres, 0 where empty; both on
        the points' device.

    Raises:
        ValueError: A shape, dtype or size is wrong, or the tensors are on different devices.
    """
    _check(points, colors, intrinsics, extrinsics, image_hw, radius)
    height, width = image_hw
    with torch.no_grad():
        if len(points) == 0:
            return points.new_zeros((height, width, 3), dtype=torch.uint8), points.new_zeros((height, width))
        winners, z = _nearest(points, intrinsics, extrinsics, height, width, near)
        winners = _dilate(winners, radius).flatten()
        empty = winners == _EMPTY
        index = winners.bitwise_and_(_index_mask(len(points))).masked_fill_(empty, 0)
        image = colors.index_select(0, index).masked_fill_(empty[:, None], 0)
        depth = z.index_select(0, index).masked_fill_(empty, 0)
    return image.view(height, width, 3), depth.view(height, width)


def nearest_points(
    points: Tensor,
    radii: Tensor,
    intrinsics: Tensor,
    extrinsics: Tensor,
    *,
    image_hw: tuple[int, int],
    near: float = 0.01,
) -> tuple[Tensor, Tensor]:
    """Which point of a cloud each pixel of a camera shows, where every point has a footprint of its own; without gradient.

    The rules are those of `condition_map`.

    Args:
        points: Float32 [N, 3], world, metres; points that are not finite are ignored.
        radii: Int64 [N], of the footprints, pixels; small and few different ones, for each costs a pass.
        intrinsics: K [3, 3], pixels; coordinates start at the image's edge.
        extrinsics: Camera-from-world [3, 4] or [4, 4], metres.
        image_hw: Height and width, pixels.
        near: Only points with z > near are drawn, metres.

    Returns:
        Int64 [H, W], index of the point, -1 where there is none, and float32 [H, W], its camera z in metres, 0 likewise.
    """
    height, width = image_hw
    index = torch.full((height, width), -1, dtype=torch.int64, device=points.device)
    depth = points.new_zeros((height, width))
    with torch.no_grad():
        for radius in torch.bincount(radii).nonzero()[:, 0].tolist():
            chosen = (radii == radius).nonzero()[:, 0]
            winners, z = _nearest(points[chosen], intrinsics, extrinsics, height, width, near)
            winners = _dilate(winners, radius)
            hit = winners != _EMPTY
            own = winners.bitwise_and_(_index_mask(len(chosen))).masked_fill_(~hit, 0)
            nearer = hit & ((depth == 0) | (z[own] < depth))
            index = torch.where(nearer, chosen[own], index)
            depth = torch.where(nearer, z[own], depth)
    return index, depth


def _nearest(points, intrinsics, extrinsics, height, width, near):
    """The smallest packed value (depth, index) of each pixel, int64 [H, W], and every point's camera z, float32 [N]."""
    count, device = len(points), points.device
    buffer = torch.full((height * width + 1,), _EMPTY, dtype=torch.int64, device=device)
    depth = torch.empty(count, device=device)
    # Float64 bits of z sort like z; their lowest bits, far below float32's precision, make room for the index.
    mask = _index_mask(count)
    step = _CHUNK if device.type == 'cpu' else count
    for start in range(0, count, step):
        pixel, z = _centres(points[start : start + step], intrinsics, extrinsics, height, width, near)
        depth[start : start + step] = z
        index = torch.arange(start, start + len(z), device=device)
        packed = z.view(torch.int64).bitwise_and_(~mask).bitwise_or_(index)
        buffer.scatter_reduce_(0, pixel, packed, 'amin')
    return buffer[:-1].view(height, width), depth


def _centres(points, intrinsics, extrinsics, height, width, near):
    """Flat pixel of each point (H*W where it covers none), int64 [N], and camera z, float64 [N]."""
    # Row by row with plain element-wise kernels: several times faster than a [3, 3] by [3, N] product on a CPU.
    world = points.detach().T.to(torch.float64, memory_format=torch.contiguous_format)
    x, y, z = (_dot(world, row).add_(row[3]) for row in extrinsics[:3].double().unbind(0))
    u, v = (_dot((x, y, z), row).div_(z) for row in intrinsics[:2].double().unbind(0))
    # Comparisons with NaN are false, so points that are not finite drop out here.
    kept = (z > near) & (u >= 0) & (u < width) & (v >= 0) & (v < height) & (z < float('inf'))
    pixel = torch.where(kept, v.trunc_().mul_(width).add_(u.trunc_()), float(height * width))
    return pixel.long(), z


def _dot(axes, row: Tensor) -> Tensor:
    return torch.mul(axes[0], row[0]).addcmul_(axes[1], row[1]).addcmul_(axes[2], row[2])


def _index_mask(count: int) -> int:
    return (1 << max(count - 1, 1).bit_length()) - 1


def _dilate(winners: Tensor, radius: int) -> Tensor:
    """Minimum over |dx| + |dy| <= radius: ``radius`` minima over a pixel and its four neighbours."""
    for _ in range(radius):
        grown = winners.clone()
        for target, source in (
            (grown[1:], winners[:-1]),
            (grown[:-1], winners[1:]),
            (grown[:, 1:], winners[:, :-1]),
            (grown[:, :-1], winners[:, 1:]),
        ):
            torch.minimum(target, source, out=target)
        winners = grown
    return winners


def _check(points, colors, intrinsics, extrinsics, image_hw, radius):
    if points.ndim != 2 or points.shape[1] != 3 or not points.is_floating_point():
        raise ValueError(f'points is {points.dtype} {list(points.shape)}; it must be float32 [N, 3] in metres.')
    if colors.dtype != torch.uint8 or colors.shape != points.shape:
        raise ValueError(f'colors is {colors.dtype} {list(colors.shape)}; it must be uint8 {list(points.shape)}.')
    if intrinsics.shape != (3, 3):
        raise ValueError(f'intrinsics has shape {list(intrinsics.shape)}; it must be [3, 3].')
    if extrinsics.shape not in ((3, 4), (4, 4)):
        raise ValueError(f'extrinsics has shape {list(extrinsics.shape)}; it must be camera-from-world [3, 4].')
    devices = {str(t.device) for t in (points, colors, intrinsics, extrinsics)}
    if len(devices) > 1:
        raise ValueError(f'condition_map got tensors on {" and ".join(sorted(devices))}; put all four on one device.')
    if len(image_hw) != 2 or min(image_hw) < 1 or radius < 0:
        raise ValueError(
            f'image_hw is {tuple(image_hw)} and radius {radius}; sizes must be at least 1, radius 0 or more.'
        )
