"""Depth maps as surfaces that another camera sees: neighbouring pixels span quads, and each quad is sampled as finely as that
camera resolves it.

A cloud of one point a pixel has gaps where the other camera is nearer than the one that measured it, and is needlessly dense
where it is farther away. Sampling each quad by the size of its image closes the gaps and costs about one point per pixel that
is seen. Quads that reach over an edge of depth are left out: what lies between an object and the table behind it is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from wristworld_ros.geometry.cameras import shift_principal_point, unproject_depth
from wristworld_ros.geometry.splat import nearest_points
from wristworld_ros.types import ConditionMap

SPACING = 1.0  # pixels between the samples of a quad along its longest side; 0.7 takes twice the time and shows no more
LEVELS = (1, 2, 3, 4, 6, 9, 14)  # samples along each side of a quad; larger ones get the last, and a footprint
_COARSE = 8  # pixels
_MARGIN = 8  # pixels around the image in which surfaces are still sampled


@dataclass(frozen=True)
class SurfaceMaps:
    """What V cameras know of the surfaces that they see.

    depth: float32 [V, H, W], along each camera's own axis, metres, 0 where nothing is known. colors: uint8 [V, H, W, 3].
    origin: uint8 [V, H, W], `PixelOrigin`. confidence: float32 [V, H, W], 0 to 1. K: [V, 3, 3], pixels; pixel i's centre is i.
    T: [V, 4, 4], camera-from-world, metres.
    """

    depth: Tensor
    colors: Tensor
    origin: Tensor
    confidence: Tensor
    K: Tensor
    T: Tensor

    @cached_property
    def points(self) -> Tensor:
        """Float32 [V, H, W, 3], world, metres; NaN where nothing is known."""
        points = unproject_depth(self.depth, self.K.to(self.depth), self.T.to(self.depth))
        return points.masked_fill((self.depth == 0)[..., None], float('nan'))

    def window(self, view: int, rows: slice, columns: slice) -> SurfaceMaps:
        """A part of one of the maps."""
        K = self.K[view : view + 1].clone()
        K[:, 0, 2] -= columns.start
        K[:, 1, 2] -= rows.start
        return self._part((slice(view, view + 1), rows, columns), K, self.T[view : view + 1])

    def thinned(self, step: int) -> SurfaceMaps:
        """Every step-th pixel of all maps, along each side, from the first one on."""
        K = self.K.clone()
        K[:, :2] /= step
        return self._part((slice(None), slice(None, None, step), slice(None, None, step)), K, self.T)

    def _part(self, pixels: tuple[slice, slice, slice], K: Tensor, T: Tensor) -> SurfaceMaps:
        return SurfaceMaps(self.depth[pixels], self.colors[pixels], self.origin[pixels], self.confidence[pixels], K, T)


@dataclass(frozen=True)
class SurfacePoints:
    """Coloured points that know where they come from.

    points: float32 [N, 3], world, metres. colors: uint8 [N, 3]. origin: uint8 [N], `PixelOrigin`. confidence: float32 [N],
    0 to 1. radii: int64 [N], of their footprints, pixels.
    """

    points: Tensor
    colors: Tensor
    origin: Tensor
    confidence: Tensor
    radii: Tensor

    @classmethod
    def joined(cls, parts: list[SurfacePoints]) -> SurfacePoints:
        """All points of several."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    @classmethod
    def none(cls, device: torch.device) -> SurfacePoints:
        """No points."""
        points, bytes_, whole = torch.zeros(0, 3), torch.zeros(0, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)
        return cls(*(t.to(device) for t in (points, points.to(torch.uint8), bytes_, torch.zeros(0), whole)))


def visible_windows(maps: SurfaceMaps, K: Tensor, T: Tensor, hw: tuple[int, int]) -> list[SurfaceMaps]:
    """The parts of the maps that a camera may see, one for each map that it sees anything of; arguments as of
    `sample_surfaces`.

    Every `_COARSE`-th pixel is looked at, with a margin around them and around the camera's image.
    """
    coarse = maps.thinned(_COARSE)
    u, v, z = _projected(coarse.points, K, T)
    inside = (z > 0) & (u > -hw[1] / 2) & (u < 1.5 * hw[1]) & (v > -hw[0] / 2) & (v < 1.5 * hw[0])
    windows = []
    for view, seen in enumerate(inside):
        rows, columns = (seen.any(axis).nonzero()[:, 0] for axis in (1, 0))
        if len(rows):
            part = (slice(max(0, _COARSE * (int(i[0]) - 1)), _COARSE * (int(i[-1]) + 2)) for i in (rows, columns))
            windows.append(maps.window(view, *part))
    return windows


def sample_surfaces(
    maps: SurfaceMaps, edge: float, K: Tensor, T: Tensor, hw: tuple[int, int], near: float
) -> SurfacePoints:
    """Points of the surfaces, as finely as a camera resolves them, where that camera may see them.

    Args:
        maps: The surfaces.
        edge: A quad whose corners differ in depth by this share of it or more is no surface; 0 keeps all.
        K: Of the camera that looks, [3, 3], pixels; pixel i's centre is i.
        T: Of it, camera-from-world [4, 4].
        hw: Its size, pixels.
        near: Its near plane, metres.
    """
    u, v, z = _projected(maps.points, K, T)
    inside = (
        (z > near) & (u > -_MARGIN) & (u < hw[1] + _MARGIN) & (v > -_MARGIN) & (v < hw[0] + _MARGIN) & (maps.depth > 0)
    )
    corners = _quads(inside, maps.depth, edge)
    flat_u, flat_v = u.flatten(), v.flatten()
    size = _quad_sizes(flat_u[corners], flat_v[corners])
    points, colors = maps.points.reshape(-1, 3), maps.colors.reshape(-1, 3)
    origin, confidence = maps.origin.flatten(), maps.confidence.flatten()
    wanted = torch.bucketize(size / SPACING, size.new_tensor(LEVELS[:-1]))  # the first level that is fine enough
    parts = []
    for level, samples in enumerate(LEVELS):
        own = corners[:, wanted == level]
        weights = _bilinear(samples, points)
        count = weights.shape[0]
        place = torch.einsum('sc,cqx->qsx', weights, points[own]).reshape(-1, 3)
        colour = torch.einsum('sc,cqx->qsx', weights, colors[own].float()).reshape(-1, 3)
        radius = 0 if level < len(LEVELS) - 1 else 2
        parts.append(
            SurfacePoints(
                place, colour.round().to(torch.uint8), origin[own[0]].repeat_interleave(count),
                confidence[own].amin(0).repeat_interleave(count),
                torch.full((len(place),), radius, dtype=torch.int64, device=place.device),
            )
        )  # fmt: skip
    return SurfacePoints.joined(parts)


def render_points(points: SurfacePoints, K: Tensor, T: Tensor, hw: tuple[int, int], near: float) -> ConditionMap:
    """The points as a camera sees them; arguments as of `sample_surfaces`."""
    K = shift_principal_point(K, 0.5)  # the splat's coordinates start at the image's edge
    index, depth = nearest_points(points.points, points.radii, K, T[:3], image_hw=hw, near=near)
    if not len(points.points):
        zeros = torch.zeros_like(depth)
        return ConditionMap(zeros[..., None].expand(*hw, 3).to(torch.uint8), depth, zeros.to(torch.uint8), zeros)
    hit, index = index >= 0, index.clamp(min=0)
    return ConditionMap(
        image=torch.where(hit[..., None], points.colors[index], 0),
        depth=depth,
        origin=torch.where(hit, points.origin[index], 0),
        confidence=torch.where(hit, points.confidence[index], 0.0),
    )


def close_gaps(seen: ConditionMap, reach: int, apart: float = 0.003) -> ConditionMap:
    """A surface that was drawn as single points, without the gaps between them, through which its far side is seen.

    Grey-level closing of the inverse depth: gaps narrower than the window get the surface around them, and the outline stays.

    Args:
        seen: What was drawn.
        reach: The window reaches that far to either side, pixels.
        apart: A pixel is a gap where the surface around it is nearer by more than that, metres.
    """
    if reach < 1:
        return seen
    assert seen.origin is not None and seen.confidence is not None
    inverse = torch.where(seen.depth > 0, 1 / seen.depth.clamp(min=1e-6), 0.0)
    framed = F.pad(inverse[None, None], (2 * reach,) * 4, mode='replicate')[0, 0]
    inside = slice(2 * reach, -2 * reach)
    closed = -_window_maximum(-_window_maximum(framed, reach), reach)[inside, inside]
    depth = torch.where(closed > 0, 1 / closed.clamp(min=1e-6), 0.0)
    gap = (closed > 0) & ((seen.depth == 0) | (seen.depth - depth > apart))
    around = ((seen.depth > 0) & ~gap).float()
    planes = torch.cat([seen.image.permute(2, 0, 1).float(), seen.confidence[None], torch.ones_like(around)[None]])
    *means, share = _window_mean(planes * around, reach)
    mean = torch.stack(means) / share.clamp(min=1e-6)
    return ConditionMap(
        image=torch.where(gap[..., None], mean[:3].permute(1, 2, 0).round().to(torch.uint8), seen.image),
        depth=torch.where(gap, depth, seen.depth),
        origin=torch.where(gap, _window_maximum(seen.origin.float(), reach).to(torch.uint8), seen.origin),
        confidence=torch.where(gap, mean[3], seen.confidence),
    )


def cropped(seen: ConditionMap, margin: int) -> ConditionMap:
    """A map without its outermost pixels."""
    inside = slice(margin, -margin or None)
    return ConditionMap(**{f.name: getattr(seen, f.name)[inside, inside] for f in fields(ConditionMap)})


def nearest_of(first: ConditionMap, second: ConditionMap) -> ConditionMap:
    """Of two maps of one camera, what is nearer at each pixel; of equally near ones the first."""
    behind = (second.depth > 0) & ((first.depth == 0) | (second.depth < first.depth))
    chosen = {
        f.name: torch.where(
            behind[..., None] if f.name == 'image' else behind, getattr(second, f.name), getattr(first, f.name)
        )
        for f in fields(ConditionMap)
    }
    return ConditionMap(**chosen)


def _window_maximum(image: Tensor, reach: int) -> Tensor:
    rows = F.max_pool2d(image[None, None], (2 * reach + 1, 1), 1, (reach, 0))
    return F.max_pool2d(rows, (1, 2 * reach + 1), 1, (0, reach))[0, 0]


def _window_mean(planes: Tensor, reach: int) -> Tensor:
    rows = F.avg_pool2d(planes[None], (2 * reach + 1, 1), 1, (reach, 0))
    return F.avg_pool2d(rows, (1, 2 * reach + 1), 1, (0, reach))[0]


def footprint(spacing: Tensor, z: Tensor, K: Tensor, most: int) -> Tensor:
    """Radius in pixels, int64 like z, that makes samples of a surface `spacing` metres apart meet at depth z."""
    pixels = spacing.to(z) * float(K[0, 0]) / z.clamp(min=1e-3)
    return (0.8 * pixels).ceil().clamp(0, most).long()


def _projected(points: Tensor, K: Tensor, T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel coordinates u, v and depth z of points [..., 3], in their dtype; what they mean where z <= 0 is undefined."""
    P = (K.double() @ T[:3].double()).to(points.dtype)
    x, y, z = points.unbind(-1)
    w = x * P[2, 0] + y * P[2, 1] + z * P[2, 2] + P[2, 3]
    u = (x * P[0, 0] + y * P[0, 1] + z * P[0, 2] + P[0, 3]) / w
    v = (x * P[1, 0] + y * P[1, 1] + z * P[1, 2] + P[1, 3]) / w
    return u, v, w


def _quads(inside: Tensor, depth: Tensor, edge: float) -> Tensor:
    """Flat indices of the four corners of every quad that is a surface in view, int64 [4, Q]."""
    height, width = depth.shape[1:]
    windows = (slice(None), slice(None, -1), slice(None, -1)), (slice(None), slice(None, -1), slice(1, None)), \
        (slice(None), slice(1, None), slice(None, -1)), (slice(None), slice(1, None), slice(1, None))  # fmt: skip
    keep = inside[windows[0]] & inside[windows[1]] & inside[windows[2]] & inside[windows[3]]
    if edge > 0:
        corners = [depth[w] for w in windows]
        low = torch.minimum(torch.minimum(corners[0], corners[1]), torch.minimum(corners[2], corners[3]))
        high = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3]))
        keep &= high - low < edge * low
    view, row, column = keep.nonzero().unbind(1)
    first = (view * height + row) * width + column
    return torch.stack([first, first + 1, first + width, first + width + 1])


def _quad_sizes(u: Tensor, v: Tensor) -> Tensor:
    """Longest side in pixels of quads with corners u, v [4, Q]."""
    sides = [torch.hypot(u[a] - u[b], v[a] - v[b]) for a, b in ((0, 1), (2, 3), (0, 2), (1, 3))]
    return torch.stack(sides).amax(0)


def _bilinear(samples: int, like: Tensor) -> Tensor:
    """Weights [samples^2, 4] of a quad's corners at the centres of samples x samples cells."""
    at = (torch.arange(samples, device=like.device, dtype=like.dtype) + 0.5) / samples
    if samples == 1:
        at = at * 0  # the pixel itself, not a mean of four
    y, x = (grid.flatten() for grid in torch.meshgrid(at, at, indexing='ij'))
    return torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], 1)
