"""The supervised losses beside SPC (paper sheet 2.3)."""

from __future__ import annotations

import torch
from torch import Tensor

DECAY = 0.6


def round_weights(rounds: int, decay: float = DECAY, device=None) -> Tensor:
    """decay^(rounds left) for every refinement round, [rounds]; the last round has weight one."""
    return decay ** torch.arange(rounds - 1, -1, -1, device=device, dtype=torch.float32)


def fov_loss(wrist_pose_enc: Tensor, fov: Tensor, *, weight: float = 10.0, decay: float = DECAY) -> Tensor:
    """L1 on the wrist's fields of view over all rounds, mean of the rounds weighted decay^(rounds left), times weight.

    wrist_pose_enc: [R, B, 1, 9]. fov: the known ones, vertical then horizontal, radians, [B, 1, 2] or [B, 2].
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
    """L1 on pose encodings over all rounds: the anchors' cameras (weight 5), or the wrist's pose without SPC.

    pose_enc: [R, B, V, 9]. target: [B, V, 9] with unit quaternions, w >= 0 (``geometry.encode_pose``). The sum of the
    means over translation, quaternion and field of view, each with its weight; mean of the rounds weighted
    decay^(rounds left), times weight.
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
