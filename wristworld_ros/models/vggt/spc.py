"""Spatial Projection Consistency: pairs of pixels that show the same thing pull the wrist pose (paper sheet 2.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wristworld_ros.geometry import decode_pose, transform_points


@dataclass(frozen=True)
class Matches:
    """M pairs of one scene: a wrist pixel and the anchor pixel that shows the same point.

    wrist_uv, anchor_uv: float [M, 2] as (x, y), pixels. anchor_view: int64 [M], 0..V-1 over the anchors.
    confidence: float [M], the lower of the two. query: int64 [M], which query point the pair came from.
    """

    wrist_uv: Tensor
    anchor_uv: Tensor
    anchor_view: Tensor
    confidence: Tensor
    query: Tensor


def spc_loss(
    world_points: Tensor,
    wrist_pose_enc: Tensor,
    wrist_intrinsics: Tensor,
    wrist_uv: Tensor,
    anchor_uv: Tensor,
    anchor_view: Tensor,
    confidence: Tensor,
    *,
    image_hw: tuple[int, int],
    uv_weight: float = 30.0,
    behind_weight: float = 1.0,
    confidence_threshold: float = 0.2,
) -> Tensor:
    """The loss of one scene's pairs, a scalar (paper sheet 2.3, L_proj as released: one mean over all kept pairs).

    With X the world point of the anchor pixel, projected by the predicted wrist pose and the known wrist K:
    in front (z > 0): uv_weight * mean((u - wrist_uv)^2 over x, y) / (H^2 + W^2); behind: behind_weight * -z.

    world_points: float [1, V, H, W, 3], metres, from a pass on the anchors alone. wrist_pose_enc: [1, 1, 9], the last
    round. wrist_intrinsics: [1, 3, 3], pixels. wrist_uv, anchor_uv: [M, 2] as (x, y), pixels; the anchor's are clamped
    at the border. anchor_view: int64 [M] in 0..V-1. confidence: [M]; pairs with confidence > confidence_threshold are
    kept. image_hw: pixels. No pair kept: zero, with a zero gradient. Raises ValueError for wrong shapes.
    """
    pairs = len(wrist_uv)
    if world_points.ndim != 5 or world_points.shape[0] != 1 or world_points.shape[-1] != 3:
        raise ValueError(f'world_points is {list(world_points.shape)}; it must be [1, V, H, W, 3], one scene a call.')
    if wrist_pose_enc.shape != (1, 1, 9):
        raise ValueError(f'wrist_pose_enc is {list(wrist_pose_enc.shape)}; it must be [1, 1, 9], the last round.')
    if not (wrist_uv.shape == anchor_uv.shape == (pairs, 2) and anchor_view.shape == confidence.shape == (pairs,)):
        raise ValueError(
            f'wrist_uv {list(wrist_uv.shape)}, anchor_uv {list(anchor_uv.shape)}, anchor_view {list(anchor_view.shape)} '
            f'and confidence {list(confidence.shape)} must be [M, 2], [M, 2], [M] and [M].'
        )
    kept = confidence > confidence_threshold
    points = sample_points(world_points[0], anchor_uv, anchor_view)
    extrinsics, _ = decode_pose(wrist_pose_enc[0, 0], image_hw)
    camera = transform_points(extrinsics, points)
    z = camera[:, 2]
    front = z > 0
    # Where a branch is not taken its input is replaced, so that no infinite gradient leaks through ``where``.
    safe = torch.where(front, z, torch.ones_like(z))
    uv = (camera / safe[:, None] @ wrist_intrinsics[0].transpose(0, 1))[:, :2]
    squared = (uv - wrist_uv).square().mean(-1) / (image_hw[0] ** 2 + image_hw[1] ** 2)
    each = torch.where(front, uv_weight * squared, behind_weight * -z)
    total = torch.where(kept, each, torch.zeros_like(each)).sum()
    return total / kept.sum().clamp_min(1)


def sample_points(world_points: Tensor, uv: Tensor, view: Tensor) -> Tensor:
    """World points at sub-pixel places: bilinear, pixel i's centre is coordinate i, clamped at the border.

    world_points: float [V, H, W, 3]; uv: [M, 2] as (x, y), pixels; view: int64 [M] in 0..V-1. Returns [M, 3].
    """
    _, height, width, _ = world_points.shape
    x, y = uv[:, 0].clamp(0, width - 1), uv[:, 1].clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    share_x, share_y = (x - left)[:, None], (y - top)[:, None]
    left, top = left.long(), top.long()
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    upper = world_points[view, top, left] * (1 - share_x) + world_points[view, top, right] * share_x
    lower = world_points[view, bottom, left] * (1 - share_x) + world_points[view, bottom, right] * share_x
    return upper * (1 - share_y) + lower * share_y


def wrist_query_grid(image_hw: tuple[int, int], count: int = 32, margin: float = 32.0, device=None) -> Tensor:
    """Query points on the wrist image: count x count, from margin to size - margin on each axis, [1, count^2, 2] (x, y)."""
    height, width = image_hw
    if 2 * margin >= min(height, width):
        raise ValueError(
            f'A margin of {margin} pixels leaves nothing of a {height} x {width} image; give a smaller one.'
        )
    y = torch.linspace(margin, height - margin, count, device=device)
    x = torch.linspace(margin, width - margin, count, device=device)
    grid_y, grid_x = torch.meshgrid(y, x, indexing='ij')
    return torch.stack([grid_x, grid_y], -1).reshape(1, -1, 2)


def matches_from_tracks(
    track: Tensor,
    track_vis: Tensor,
    track_conf: Tensor,
    *,
    confidence_threshold: float = 0.2,
    visibility_threshold: float = 0.5,
) -> Matches:
    """Pairs of one scene from the track head on the views [wrist, anchor 1..V] (paper sheet 2.3).

    A pair of wrist and anchor is kept when visibility and confidence exceed their thresholds in both views.
    track: float [I, 1, 1 + V, N, 2] (all rounds; the last counts) or [1 + V, N, 2], pixels; track_vis, track_conf:
    [1, 1 + V, N] or [1 + V, N], 0..1. Threshold on the real Franka set: 0.1. Without gradient.
    """
    with torch.no_grad():
        if track.ndim == 5:
            track = track[-1]
        if track.ndim == 4:
            track, track_vis, track_conf = _single(track), _single(track_vis), _single(track_conf)
        if track.ndim != 3 or track_vis.shape != track.shape[:2] or track_conf.shape != track.shape[:2]:
            raise ValueError(
                f'track {list(track.shape)}, track_vis {list(track_vis.shape)}, track_conf {list(track_conf.shape)} must '
                f'be [1 + V, N, 2], [1 + V, N] and [1 + V, N], the wrist first.'
            )
        good = (track_vis > visibility_threshold) & (track_conf > confidence_threshold)
        view, query = (good[:1] & good[1:]).nonzero(as_tuple=True)
        confidence = torch.minimum(track_conf[0, query], track_conf[view + 1, query])
        return Matches(track[0, query], track[view + 1, query], view, confidence, query)


def _single(value: Tensor) -> Tensor:
    if value.shape[0] != 1:
        raise ValueError(
            f'matches_from_tracks takes one scene a call, got a batch of {value.shape[0]}; index it first.'
        )
    return value[0]
