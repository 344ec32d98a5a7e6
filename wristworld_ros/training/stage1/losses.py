"""Losses of stage 1: the simulator's geometry stands in for VGGT's pretraining, the wrist pose learns by SPC."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wristworld_ros.geometry import (
    intrinsics_to_fov,
    invert_rigid,
    pose_error,
    project,
    quaternion_to_matrix,
    to_homogeneous,
    transform_points,
    unproject_depth,
)
from wristworld_ros.models.vggt.losses import round_weights
from wristworld_ros.models.vggt.model import own_points
from wristworld_ros.models.vggt.scene_coordinates import patch_centers

_GRID = 32  # SPC queries a side on the wrist image, as published (arXiv 2510.07313)


@dataclass(frozen=True)
class Stage1Weights:
    """Weights of the terms. `spc` 0 is the paper's "w/o SPC": the direct pose terms alone.

    radius: metres from the wrist camera within which geometry counts in full; farther away it counts less and less, down
    to a tenth, because the wrist camera will never see it.
    """

    depth: float = 4.0
    points: float = 2.0
    radius: float = 0.6
    confidence: float = 0.3
    rotation: float = 0.7
    translation: float = 1.2
    fov: float = 0.5
    wrist_rotation: float = 1.0
    wrist_translation: float = 1.5
    spc: float = 0.3
    tokens: float = 2.0


def world_points(batch: dict[str, Tensor]) -> Tensor:
    """True points of every anchor pixel in the first anchor's frame, [B, V, H, W, 3]; meaningless where depth is 0."""
    return unproject_depth(batch['depth'], batch['K'], batch['T_camera_anchor'])


def weighted_mean(error: Tensor, weight: Tensor) -> Tensor:
    """Mean of an error over pixels, by weight (0 where there is no truth)."""
    return (error * weight).sum() / weight.sum().clamp(min=1)


def depth_loss(depth: Tensor, confidence: Tensor, truth: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """L1 of the log depth and VGGT's confidence term c*e - alpha*log c; both weighted means over pixels [B, V, H, W]."""
    error = (depth.log() - truth.clamp(min=0.05).log()).abs()
    certain = confidence.clamp(max=100) * error.detach() - alpha * torch.log(confidence)
    return weighted_mean(error, weight), weighted_mean(certain, (weight > 0).float())


def importance(truth: Tensor, valid: Tensor, T_wrist_anchor: Tensor, radius: float) -> Tensor:
    """How much each anchor pixel matters to the wrist camera: 1 near it, a tenth far away, 0 where invalid.

    Args:
        truth: Points in the first anchor's frame, [B, V, H, W, 3], metres.
        valid: Bool [B, V, H, W].
        T_wrist_anchor: [B, 4, 4].
        radius: Metres; see `Stage1Weights`.

    Returns:
        [B, V, H, W].
    """
    distance = transform_points(T_wrist_anchor[:, None, None], truth).norm(dim=-1)
    return valid * (0.1 + 0.9 * torch.exp(-(distance / radius).square()))


def pose_terms(pose_enc: Tensor, T: Tensor, fov: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean L1 of rotation matrix entries, translation (metres) and log field of view; later rounds weigh more.

    The rotation is compared as a matrix because a quaternion and its negative are the same rotation.

    Args:
        pose_enc: [R, B, S, 9] of R refinement rounds.
        T: Camera-from-anchor [B, S, 4, 4].
        fov: [B, S, 2], radians.
    """
    weights = round_weights(len(pose_enc), device=pose_enc.device)
    weights = weights / weights.sum()
    R = quaternion_to_matrix(pose_enc[..., 3:7])
    rotation = (R - T[None, ..., :3, :3]).abs().mean((1, 2, 3, 4))
    norm = (pose_enc[..., 3:7].square().sum(-1) - 1).square().mean((1, 2))
    translation = (pose_enc[..., :3] - T[None, ..., :3, 3]).abs().mean((1, 2, 3))
    focal = (pose_enc[..., 7:].clamp(min=0.05).log() - fov.log()[None]).abs().mean((1, 2, 3))
    return (((rotation + 0.05 * norm) * weights).sum(), (translation * weights).sum(), (focal * weights).sum())


def true_matches(batch: dict[str, Tensor], tolerance: float = 0.03) -> tuple[Tensor, Tensor, Tensor]:
    """Where a 32x32 grid of wrist pixels is visible in each anchor, from the simulator's depth.

    They take the place of VGGT's tracks (arXiv 2510.07313), for there is no pretrained tracker at this size.

    Returns:
        wrist uv [B, N, 2], anchor uv [B, V, N, 2] and visible [B, V, N].
    """
    wrist_hw, (H, W) = batch['wrist_depth'].shape[-2:], batch['depth'].shape[-2:]
    row = torch.linspace(1, wrist_hw[0] - 2, _GRID).round().long()
    column = torch.linspace(1, wrist_hw[1] - 2, _GRID).round().long()
    depth = batch['wrist_depth'][:, row][:, :, column].flatten(1)
    world = unproject_depth(batch['wrist_depth'], batch['wrist_K'], batch['T_wrist_anchor'])
    world = world[:, row][:, :, column].flatten(1, 2)
    uv, z = project(world[:, None], batch['K'], batch['T_camera_anchor'])
    limit = uv.new_tensor([W - 1, H - 1])
    inside = ((uv > 0) & (uv < limit)).all(-1) & (z > 0.05)
    pixel = uv.round().long().clamp_min(0).minimum(limit.long())
    found = batch['depth'].flatten(2).gather(2, pixel[..., 1] * W + pixel[..., 0])
    seen = inside & ((found - z).abs() < tolerance * z) & (depth > 0.02)[:, None]
    wrist_uv = torch.stack(torch.meshgrid(column, row, indexing='xy'), -1).flatten(0, 1).to(depth)
    return wrist_uv.expand(len(depth), -1, -1), uv, seen


def reprojection_errors(points: Tensor, anchor_uv: Tensor, pose_enc: Tensor, wrist_K: Tensor, wrist_uv: Tensor):
    """The model's points at the anchor pixels, projected by the predicted wrist camera, against where they belong.

    Args:
        points: [B, V, H, W, 3], first anchor's frame.
        anchor_uv: [B, V, N, 2].
        pose_enc: [B, 9].
        wrist_K: [B, 3, 3].
        wrist_uv: [B, N, 2].

    Returns:
        Errors [B, V, N, 2], pixels, and depth z [B, V, N], metres.
    """
    B, V, H, W, _ = points.shape
    grid = 2 * anchor_uv / anchor_uv.new_tensor([W - 1, H - 1]) - 1
    sampled = F.grid_sample(
        points.flatten(0, 1).permute(0, 3, 1, 2), grid.flatten(0, 1)[:, None], align_corners=True, padding_mode='border'
    )
    sampled = sampled[:, :, 0].mT.unflatten(0, (B, V))
    T = torch.cat([quaternion_to_matrix(pose_enc[..., 3:7]), pose_enc[..., :3, None]], -1)
    camera = transform_points(T[:, None], sampled)
    z = camera[..., 2]
    focal = torch.stack([wrist_K[:, 0, 0], wrist_K[:, 1, 1]], -1)[:, None, None]
    uv = camera[..., :2] / z.clamp(min=0.02)[..., None] * focal + wrist_K[:, None, None, :2, 2]
    return uv - wrist_uv[:, None], z


def spc_term(points, pose_enc, batch, softness: float = 4.0) -> tuple[Tensor, Tensor]:
    """SPC on true matches with a logarithm over the pixel error, and the median pixel error for the log.

    The published square is for fine-tuning a pretrained model; from scratch its outliers outweigh the rest, so errors
    enter as log(1 + e / softness). Points behind the camera are penalized by their depth, as published.
    """
    wrist_uv, anchor_uv, seen = true_matches(batch)
    error, z = reprojection_errors(points, anchor_uv, pose_enc, batch['wrist_K'], wrist_uv)
    pixels = error.square().sum(-1).add(1e-6).sqrt()
    terms = torch.where(z > 0.02, torch.log1p(pixels / softness), 3.0 - z)
    loss = (terms * seen).sum() / seen.sum().clamp(min=1)
    return loss, torch.where(seen & (z > 0.02), pixels.detach(), float('nan')).nanmedian()


def token_targets(batch: dict[str, Tensor], truth: Tensor, valid: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Scene coordinates of the pixel in the middle of every patch, in the wrist's and in the robot base's frame.

    A dense target teaches the tokens what the wrist head must read from them; the head alone hardly leaves its prior in
    an hour.

    Returns:
        [B, V, P, 6], metres, and a mask [B, V, P].
    """
    world, mask = patch_centers(truth, patch), patch_centers(valid, patch)
    T_base_anchor = invert_rigid(batch['T_anchor_base'])[:, None]
    wrist = transform_points(batch['T_wrist_anchor'][:, None], world)
    base = transform_points(T_base_anchor, world)
    return torch.cat([wrist, base], -1), mask & (wrist.norm(dim=-1) < 1.5)


def stage1_losses(out, batch: dict[str, Tensor], weights: Stage1Weights, patch: int) -> dict[str, Tensor]:
    """Every weighted term by name, "total", and measures for the log (detached).

    Args:
        out: A `ReconstructionOutput` with camera, wrist, depth and scene coordinates.
        batch: As `data.collate` gives it.
        weights: Of the terms.
        patch: Pixels of a patch.
    """
    truth = world_points(batch)
    valid = (batch['depth'] > 0.05) & (batch['depth'] < 8)
    weight = importance(truth, valid, batch['T_wrist_anchor'], weights.radius)
    depth, confidence = depth_loss(out.depth[..., 0], out.depth_conf, batch['depth'], weight, weights.confidence)
    H, W = batch['depth'].shape[-2:]
    points = own_points(out, (H, W))
    residual = weighted_mean((points - truth).abs().sum(-1), weight)
    rotation, translation, fov = pose_terms(
        out.camera_pose_enc, batch['T_camera_anchor'], intrinsics_to_fov(batch['K'], (H, W))
    )
    wrist_fov = intrinsics_to_fov(batch['wrist_K'], tuple(batch['wrist_depth'].shape[-2:]))[:, None]
    wrist_rotation, wrist_translation, wrist_fov_term = pose_terms(
        out.wrist_pose_enc, batch['T_wrist_anchor'][:, None], wrist_fov
    )
    spc, pixels = spc_term(points, out.wrist_pose_enc[-1, :, 0], batch)
    target, mask = token_targets(batch, truth, valid, patch)
    tokens = ((out.scene_coordinates - target).abs().sum(-1) * mask).sum() / mask.sum().clamp(min=1)
    terms = {
        'depth': weights.depth * depth,
        'confidence': weights.confidence * confidence,
        'points': weights.points * residual,
        'camera': weights.rotation * rotation + weights.translation * translation + weights.fov * fov,
        'wrist': weights.wrist_rotation * wrist_rotation
        + weights.wrist_translation * wrist_translation
        + weights.fov * wrist_fov_term,
        'spc': weights.spc * spc,
        'tokens': weights.tokens * tokens,
    }
    error = weighted_mean((points - truth).norm(dim=-1), weight)
    metres, degrees = pose_figures(out.wrist_pose_enc[-1], batch['T_wrist_anchor'][:, None])
    second, _ = pose_figures(out.camera_pose_enc[-1, :, -1:], batch['T_camera_anchor'][:, -1:])
    shown = {
        'depth_log': depth,
        'points_m': error,
        'second_m': second,
        'wrist_m': metres,
        'wrist_deg': degrees,
        'spc_px': pixels,
        'tokens_m': tokens / 2,
    }
    return terms | {'total': sum(terms.values())} | {k: v.detach() for k, v in shown.items()}


@torch.no_grad()
def pose_figures(pose_enc: Tensor, T: Tensor) -> tuple[Tensor, Tensor]:
    """Median error of camera centres (metres) and rotations (degrees); pose_enc [B, S, 9], T [B, S, 4, 4]."""
    guess = torch.cat([quaternion_to_matrix(pose_enc[..., 3:7]), pose_enc[..., :3, None]], -1)
    degrees, metres = pose_error(to_homogeneous(guess), T)
    return metres.median(), degrees.median()
