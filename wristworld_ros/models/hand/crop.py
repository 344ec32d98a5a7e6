"""Crops of anchor images around the hand, as a camera that faces it would see them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MIDDLE = (0.0, 0.0, 0.06)  # metres in the wrist camera's frame: what crops are centred on, a place between the fingers
HALF_WIDTH = 0.24  # metres at the hand's distance from the middle of a crop to its rim
MARKS = (
    (0.0, 0.0, 0.0),
    (0.08, 0.0, 0.06),
    (0.0, 0.08, 0.06),
    (0.0, 0.0, 0.16),
)  # metres, wrist frame; a plane of a crop each
_MARK_SIZE = 2.5  # pixels, standard deviation of a mark


@dataclass(frozen=True)
class HandCrops:
    """Crops of N anchors.

    image: float [N, 3 + marks, S, S]: colours centred on 0, then where points of the guessed hand would be.
    T_crop_anchor: [N, 4, 4], a rotation. T_crop_wrist: [N, 4, 4], the guessed pose in the crop's camera. distance: [N], metres.
    """

    image: Tensor
    T_crop_anchor: Tensor
    T_crop_wrist: Tensor
    distance: Tensor


def hand_crops(images: Tensor, K: Tensor, T_anchor_wrist: Tensor, size: int) -> HandCrops:
    """Crops around a guessed hand.

    Args:
        images: float [N, 3, H, W], 0 to 1.
        K: [N, 3, 3], pixels, pixel i's centre is i.
        T_anchor_wrist: [N, 4, 4], the guess, anchor from wrist, metres.
        size: Pixels a side.
    """
    middle = T_anchor_wrist[:, :3, :3] @ T_anchor_wrist.new_tensor(MIDDLE) + T_anchor_wrist[:, :3, 3]
    distance = middle.norm(dim=-1).clamp(min=0.1)
    R = _facing(middle / distance[:, None])
    T_crop_anchor = torch.eye(4).to(R).repeat(len(R), 1, 1)
    T_crop_anchor[:, :3, :3] = R
    T_crop_wrist = T_crop_anchor @ T_anchor_wrist
    # The homography of a camera that is turned but not moved: K R^T of the crop's rays.
    focal = distance * (size / 2) / HALF_WIDTH
    pixels = torch.arange(size, dtype=R.dtype, device=R.device) - (size - 1) / 2
    v, u = torch.meshgrid(pixels, pixels, indexing='ij')
    rays = torch.stack([u.flatten(), v.flatten(), torch.ones_like(u).flatten()]).expand(len(R), -1, -1).clone()
    rays[:, :2] /= focal[:, None, None]
    seen = K @ R.mT @ rays
    uv = seen[:, :2] / seen[:, 2:].clamp(min=1e-3)
    limit = uv.new_tensor([images.shape[-1], images.shape[-2]])
    grid = ((2 * uv.mT + 1) / limit - 1).unflatten(1, (size, size))
    crop = F.grid_sample(images - 0.5, grid.to(images), padding_mode='zeros', align_corners=False)
    return HandCrops(
        torch.cat([crop, _marks(T_crop_wrist, focal, size).to(crop)], 1), T_crop_anchor, T_crop_wrist, distance
    )


def _facing(axis: Tensor) -> Tensor:
    """The smallest rotation [N, 3, 3] that turns a unit vector [N, 3] of positive z to the z axis."""
    x, y, z = axis.unbind(-1)
    scale = 1 / (1 + z).clamp(min=1e-3)
    return torch.stack(
        [1 - x * x * scale, -x * y * scale, -x, -x * y * scale, 1 - y * y * scale, -y, x, y, z], -1
    ).unflatten(-1, (3, 3))


def _marks(T_crop_wrist: Tensor, focal: Tensor, size: int) -> Tensor:
    points = T_crop_wrist[:, None, :3, :3] @ T_crop_wrist.new_tensor(MARKS)[..., None]
    points = points[..., 0] + T_crop_wrist[:, None, :3, 3]  # [N, marks, 3]
    uv = points[..., :2] / points[..., 2:].clamp(min=0.05) * focal[:, None, None] + (size - 1) / 2
    pixels = torch.arange(size, dtype=uv.dtype, device=uv.device)
    across, down = (torch.exp(-(((pixels - uv[..., i, None]) / _MARK_SIZE) ** 2) / 2) for i in (0, 1))
    return down[..., :, None] * across[..., None, :]
