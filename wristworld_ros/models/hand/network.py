"""The network that corrects a guessed pose of the wrist camera in an anchor, in the manner of DeepIM (arXiv 1804.00175).

Instead of a rendering of the guess it is shown marks where points of the guessed hand would be, which needs no model of it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wristworld_ros.models.hand.crop import HALF_WIDTH, MARKS, MIDDLE, HandCrops, hand_crops

# Before the Franka hand, 5 cm from its axis, along which it looks; the fingers are in the upper half of its image.
STANDARD_MOUNT = ((0.0, -1.0, 0.0, 0.05), (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


@dataclass(frozen=True)
class HandConfig:
    """Sizes of a `HandNetwork`.

    size: pixels of a crop. widths: channels at 1/2, 1/4, ... of it. dense: of the layers behind. mount: T_hand_wrist, metres, of
    the wrist camera whose poses it gives: an anchor shows the hand, not how a camera is mounted to it.
    """

    mount: tuple[tuple[float, ...], ...] = STANDARD_MOUNT
    size: int = 96
    widths: tuple[int, ...] = (24, 48, 72, 96, 128)
    dense: int = 192


@dataclass(frozen=True)
class Correction:
    """What is wrong with guesses, in the crop's camera.

    axes: [N, 3, 2], what the x and y axes of the wrist camera lack in the guess, about the hand's middle (a difference of axes is
    linear in what an image shows and in the guess; a rotation between the two is not). across: [N, 2], how far its middle
    lies off, in half widths of the crop. closer: [N], log of its true distance over the guessed. scale: [N], expected error of the
    corrected hand's points, metres.
    """

    axes: Tensor
    across: Tensor
    closer: Tensor
    scale: Tensor


class _Down(nn.Module):
    def __init__(self, channels: int, out: int):
        super().__init__()
        self.shrink = nn.Conv2d(channels, out, 3, stride=2, padding=1)
        self.norm1, self.norm2 = nn.GroupNorm(8, out), nn.GroupNorm(8, out)
        self.conv1, self.conv2 = nn.Conv2d(out, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shrink(x)
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class HandNetwork(nn.Module):
    """Crops to corrections."""

    def __init__(self, config: HandConfig):
        super().__init__()
        self.config = config
        widths = (3 + len(MARKS), *config.widths)
        self.down = nn.Sequential(*(_Down(a, b) for a, b in itertools.pairwise(widths)))
        cells = (config.size // 2 ** len(config.widths)) ** 2
        self.squeeze = nn.Conv2d(widths[-1], 64, 1)
        self.dense = nn.Sequential(
            nn.Linear(64 * cells + 11, config.dense), nn.SiLU(), nn.Linear(config.dense, config.dense), nn.SiLU()
        )
        self.out = nn.Linear(config.dense, 10)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def own_from_mounted(self, T_hand_wrist: np.ndarray | None) -> np.ndarray:
        """From a wrist camera that is mounted so to one at the network's own mount on the same hand, [4, 4]; the identity for None."""
        return np.eye(4) if T_hand_wrist is None else np.linalg.inv(np.array(self.config.mount)) @ T_hand_wrist

    def forward(self, crops: HandCrops) -> Correction:
        image = crops.image.to(self.out.weight.dtype)
        features = F.silu(self.squeeze(self.down(image))).flatten(1)
        R = crops.T_crop_wrist[:, :3, :3].flatten(1)
        spread = HALF_WIDTH / crops.distance  # tangent of half the crop's field of view
        known = torch.cat([R, crops.distance[:, None], 4 * spread[:, None]], 1).to(features)
        out = self.out(self.dense(torch.cat([features, known], 1))).float()
        axes, across, closer, scale = out.split((6, 2, 1, 1), 1)
        return Correction(axes.unflatten(1, (3, 2)), across, closer[:, 0], F.softplus(scale[:, 0] - 3.0) + 1e-3)


def rotation_of(axes: Tensor) -> Tensor:
    """Rotations [N, 3, 3] whose x axis is the first of two vectors and whose xy plane holds both (arXiv 1812.07035); axes: [N, 3, 2]."""
    x = F.normalize(axes[..., 0], dim=-1)
    y = F.normalize(axes[..., 1] - (x * axes[..., 1]).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def corrected(crops: HandCrops, correction: Correction) -> Tensor:
    """Corrected poses T_anchor_wrist [N, 4, 4]."""
    T = crops.T_crop_wrist
    middle = T.new_tensor(MIDDLE)
    R = rotation_of(T[:, :3, :2] + correction.axes.to(T))
    spread = HALF_WIDTH / crops.distance
    across = correction.across.to(T) * spread[:, None]
    z = crops.distance * torch.exp(correction.closer.to(T))
    place = torch.cat([across * z[:, None], z[:, None]], 1)
    turned = torch.eye(4).to(T).repeat(len(T), 1, 1)
    turned[:, :3, :3] = R
    turned[:, :3, 3] = place - R @ middle
    return crops.T_crop_anchor.mT @ turned  # a rotation: its inverse is its transpose


def refine_pose(
    network: HandNetwork, images: Tensor, K: Tensor, T_anchor_wrist: Tensor, rounds: int = 3
) -> tuple[Tensor, Tensor]:
    """Poses after several corrections.

    Args:
        network: Of corrections.
        images: float [N, 3, H, W], 0 to 1.
        K: [N, 3, 3], pixels.
        T_anchor_wrist: [N, 4, 4], the guesses.
        rounds: How often each is corrected.

    Returns:
        T_anchor_wrist [N, 4, 4] and their expected errors [N], metres.
    """
    scale = T_anchor_wrist.new_zeros(len(T_anchor_wrist))
    for _ in range(rounds):
        crops = hand_crops(images, K, T_anchor_wrist, network.config.size)
        correction = network(crops)
        T_anchor_wrist, scale = corrected(crops, correction), correction.scale
    return T_anchor_wrist, scale
