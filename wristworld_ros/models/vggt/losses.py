"""The losses that the wrist pose is fine-tuned with: Spatial Projection Consistency (SPC) and round-weighted L1 terms.

Wrist extrinsics measured on a robot do not fit the scale of a reconstruction, so WristWorld (arXiv 2510.07313) gives
the wrist pose no direct label. Pairs of a wrist pixel and an anchor pixel that show the same point supervise it: the
anchor pixel's world point, projected by the predicted wrist camera, must fall on the wrist pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wristworld_ros.geometry.cameras import decode_pose
from wristworld_ros.geometry.poses import transform_points

DECAY = 0.6  # of the weights of earlier refinement rounds, as published
# Metres. In front of the camera but nearer than this, SPC continues 1/z by its tangent; see `spc_loss`. It is the near
# plane of the published condition map, so nothing that close is ever seen.
MIN_DEPTH = 0.01


@dataclass(frozen=True)
class Matches:
    """M pairs of one scene: a wrist pixel and the anchor pixel that shows the same point.

    Attributes:
        wrist_uv: Float [M, 2] as (x, y), pixels.
        anchor_uv: Float [M, 2] as (x, y), pixels.
        anchor_view: Int64 [M], 0..V-1 over the anchors.
        confidence: Float [M], the lower one of the two views, 0..1.
        query: Int64 [M], the query point that the pair came from.
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
    """Spatial Projection Consistency of one scene: the mean over its pairs, as in the published training code.

    With X = (x, y, z) the world point of the anchor pixel in the predicted wrist camera's frame, a pair costs

    * in front (z > 0): uv_weight * mean over both axes of (uv - wrist_uv)^2 / (H^2 + W^2), where uv = K X / z;
    * behind (z <= 0): -behind_weight * z.

    As z falls to 0 in front, the published form grows without limit (1/z^2, its gradient 1/z^3), and one such pair
    would decide the whole step. Here, below MIN_DEPTH = 0.01 m, 1/z is continued by its tangent, (2 - z / MIN_DEPTH) /
    MIN_DEPTH. From MIN_DEPTH on nothing changes. Below it, value and gradient continue without a jump, uv is at most
    twice as far from the principal point as at MIN_DEPTH, and both value and gradient are finite for every z. The
    tangent is preferred to a constant (a clamped depth), which would give z no gradient in a band between two regions
    that both push the point forward: with the tangent, a pair whose uv overshoots is pushed away from the camera plane,
    as published, and x and y are pulled towards the pixel's ray. The published jump at z = 0, from the projection's
    cost to none, stays: it has no gradient, and either side of it leads forward.

    Args:
        world_points: Float [1, V, H, W, 3], metres, from a pass on the anchors alone.
        wrist_pose_enc: Float [1, 1, 9], the last round's.
        wrist_intrinsics: Float [1, 3, 3], K of the real wrist camera, pixels.
        wrist_uv: Float [M, 2] as (x, y), pixels.
        anchor_uv: Float [M, 2] as (x, y), pixels; clamped at the border.
        anchor_view: Int64 [M] in 0..V-1.
        confidence: Float [M]; pairs above ``confidence_threshold`` count.
        image_hw: Height and width of the images, pixels.
        uv_weight: Weight of pairs in front.
        behind_weight: Weight of pairs behind, per metre.
        confidence_threshold: See ``confidence``.

    Returns:
        A scalar; zero, with a zero gradient, where no pair counts.

    Raises:
        ValueError: A shape is wrong.
    """
    _check_pairs(world_points, wrist_pose_enc, wrist_uv, anchor_uv, anchor_view, confidence)
    kept = confidence > confidence_threshold
    points = sample_points(world_points[0], anchor_uv, anchor_view)
    extrinsics, _ = decode_pose(wrist_pose_enc[0, 0], image_hw)
    camera = transform_points(extrinsics, points)
    z = camera[:, 2]
    front = z > 0
    # Where a branch of `where` is not taken its input is replaced, so that no infinite or NaN gradient leaks through.
    depth = torch.where(front, z, torch.ones_like(z))
    below = depth.clamp_max(MIN_DEPTH)
    divisor = torch.where(depth < MIN_DEPTH, MIN_DEPTH**2 / (2 * MIN_DEPTH - below), depth)
    K = wrist_intrinsics[0]
    uv = (camera[:, :2] / divisor[:, None]) @ K[:2, :2].transpose(0, 1) + K[:2, 2]
    squared = (uv - wrist_uv).square().mean(-1) / (image_hw[0] ** 2 + image_hw[1] ** 2)
    each = torch.where(front, uv_weight * squared, behind_weight * -z)
    total = torch.where(kept, each, torch.zeros_like(each)).sum()
    return total / kept.sum().clamp_min(1)


def _check_pairs(world_points, wrist_pose_enc, wrist_uv, anchor_uv, anchor_view, confidence) -> None:
    pairs = len(wrist_uv)
    if world_points.ndim != 5 or world_points.shape[0] != 1 or world_points.shape[-1] != 3:
        raise ValueError(f'world_points is {list(world_points.shape)}; it must be [1, V, H, W, 3], one scene a call.')
    if wrist_pose_enc.shape != (1, 1, 9):
        raise ValueError(f'wrist_pose_enc is {list(wrist_pose_enc.shape)}; it must be [1, 1, 9], the last round.')
    if not (wrist_uv.shape == anchor_uv.shape == (pairs, 2) and anchor_view.shape == confidence.shape == (pairs,)):
        raise ValueError(
            f'wrist_uv {list(wrist_uv.shape)}, anchor_uv {list(anchor_uv.shape)}, anchor_view '
            f'{list(anchor_view.shape)} and confidence {list(confidence.shape)} must be [M, 2], [M, 2], [M] and [M].'
        )


def sample_points(world_points: Tensor, uv: Tensor, view: Tensor) -> Tensor:
    """World points at sub-pixel positions: bilinear, pixel i's centre is coordinate i, clamped at the border.

    Args:
        world_points: Float [V, H, W, 3].
        uv: Float [M, 2] as (x, y), pixels.
        view: Int64 [M] in 0..V-1.

    Returns:
        Float [M, 3].
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
    """Query points for the tracker: a regular grid on the wrist image, as published.

    Args:
        image_hw: Height and width of the image, pixels.
        count: Points along each axis.
        margin: Distance of the outermost points from the border, pixels.
        device: Where the points are needed.

    Returns:
        Float [1, count^2, 2] as (x, y), row by row.

    Raises:
        ValueError: The margin leaves nothing of the image.
    """
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
    """Pairs of one scene from the track head on the views [wrist, anchor 1..V]; without gradient.

    A pair is kept where visibility and confidence exceed their thresholds in both views.

    Args:
        track: Float [I, 1, 1 + V, N, 2], of which the last round counts, or [1 + V, N, 2]; pixels.
        track_vis: Float [1, 1 + V, N] or [1 + V, N], 0..1.
        track_conf: As ``track_vis``.
        confidence_threshold: 0.2 as published; 0.1 on its real Franka set.
        visibility_threshold: 0.5 as published.

    Raises:
        ValueError: A shape is wrong, or there is more than one scene.
    """
    with torch.no_grad():
        if track.ndim == 5:
            track = track[-1]
        if track.ndim == 4:
            track, track_vis, track_conf = _single(track), _single(track_vis), _single(track_conf)
        if track.ndim != 3 or track_vis.shape != track.shape[:2] or track_conf.shape != track.shape[:2]:
            raise ValueError(
                f'track {list(track.shape)}, track_vis {list(track_vis.shape)}, track_conf {list(track_conf.shape)} '
                f'must be [1 + V, N, 2], [1 + V, N] and [1 + V, N], the wrist first.'
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


def round_weights(rounds: int, decay: float = DECAY, device=None) -> Tensor:
    """decay^(rounds left) of every refinement round, [rounds]; the last round has weight one."""
    return decay ** torch.arange(rounds - 1, -1, -1, device=device, dtype=torch.float32)


def fov_loss(wrist_pose_enc: Tensor, fov: Tensor, *, weight: float = 10.0, decay: float = DECAY) -> Tensor:
    """L1 on the wrist camera's fields of view: weight times the mean over the rounds, weighted by `round_weights`.

    Args:
        wrist_pose_enc: Float [R, B, 1, 9], every round's.
        fov: Float [B, 1, 2] or [B, 2], the known ones, vertical then horizontal, radians.
        weight: 10 as published.
        decay: See `round_weights`.

    Returns:
        A scalar.
    """
    error = (wrist_pose_enc[..., 7:] - fov.reshape(1, -1, 1, 2)).abs().mean((1, 2, 3))
    return weight * (round_weights(len(error), decay, error.device) * error).mean()


def camera_loss(
    pose_enc: Tensor,
    target: Tensor,
    *,
    weight: float = 5.0,
    translation_weight: float = 1.0,
    rotation_weight: float = 1.0,
    fov_weight: float = 0.5,
    decay: float = DECAY,
) -> Tensor:
    """L1 on pose encodings: of the anchor cameras, or of the wrist camera where SPC is off.

    Args:
        pose_enc: Float [R, B, V, 9], every round's.
        target: Float [B, V, 9] with unit quaternions, w >= 0, as `geometry.encode_pose` gives them.
        weight: Of the whole; 5 for anchor cameras as published.
        translation_weight: Of the mean over the translation.
        rotation_weight: Of the mean over the quaternion.
        fov_weight: Of the mean over the fields of view.
        decay: See `round_weights`.

    Returns:
        A scalar: weight times the mean over the rounds, weighted by `round_weights`.

    Raises:
        ValueError: The shapes differ.
    """
    if pose_enc.shape[1:] != target.shape:
        raise ValueError(
            f'pose_enc {list(pose_enc.shape)} and target {list(target.shape)} must be [R, B, V, 9], [B, V, 9].'
        )
    error = (pose_enc - target).abs().mean((1, 2))
    each = (
        translation_weight * error[:, :3].mean(1)
        + rotation_weight * error[:, 3:7].mean(1)
        + fov_weight * error[:, 7:].mean(1)
    )
    return weight * (round_weights(len(each), decay, each.device) * each).mean()
