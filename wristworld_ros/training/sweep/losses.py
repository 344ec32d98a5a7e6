"""Losses of the plane sweep, weighted by what a wrist camera is there for: the objects."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wristworld_ros.data.formats.native import ROBOT
from wristworld_ros.geometry import unproject_depth
from wristworld_ros.models.sweep import SweepNetwork, SweepOutput, sweep_views


@dataclass(frozen=True)
class SweepWeights:
    """Weights of the terms, and of pixels in them.

    objects: of a pixel that shows an object; the surroundings count 1. robot: of the robot's own hand, which no anchor shows as
    the wrist does.
    """

    color: float = 4.0
    plane: float = 0.5
    edges: float = 1.0
    error: float = 0.1
    objects: float = 6.0
    robot: float = 0.02


def predict(network: SweepNetwork, batch: dict[str, Tensor]) -> SweepOutput:
    """The network's output on a batch of `data.collate`."""
    wrist_hw, anchor_hw = tuple(batch['wrist'].shape[-2:]), tuple(batch['rgb'].shape[-2:])
    cameras = (batch['wrist_K'], batch['T_wrist_world'], batch['K'], batch['T_anchor_wrist'], batch['plane'])
    half, full = (
        sweep_views(*cameras, network.heights, hw, wrist_hw, anchor_hw)
        for hw in ((wrist_hw[0] // 2, wrist_hw[1] // 2), wrist_hw)
    )
    return network(batch['rgb'], half, full)


def plane_targets(batch: dict[str, Tensor], heights: Tensor) -> tuple[Tensor, Tensor]:
    """Where on the stack of planes the true surface lies, shared between the two nearest planes.

    Returns:
        float [B, D + 1, H, W], the last for the robot's hand, and float [B, H, W], 1 where the truth is known.
    """
    world = unproject_depth(batch['depth'], batch['wrist_K'], batch['T_wrist_world'])
    height = torch.einsum('bhwi,bi->bhw', world, batch['plane'][:, :3]) - batch['plane'][:, 3, None, None]
    above = torch.searchsorted(heights, height.contiguous()).clamp(1, len(heights) - 1)
    share = ((height - heights[above - 1]) / (heights[above] - heights[above - 1])).clamp(0, 1)
    target = F.one_hot(above, len(heights)) * share[..., None] + F.one_hot(above - 1, len(heights)) * (
        1 - share[..., None]
    )
    robot = (batch['objects'] == ROBOT)[..., None]
    target = torch.cat([target * ~robot, robot.to(target)], -1).movedim(-1, 1)
    return target, (batch['depth'] > 0).to(target)


def pixel_weights(objects: Tensor, weights: SweepWeights) -> Tensor:
    """[B, H, W]: how much each pixel counts."""
    held = (objects > 0) & (objects != ROBOT)
    weight = torch.ones_like(objects, dtype=torch.float32)
    weight = torch.where(held, weights.objects, weight)
    return torch.where(objects == ROBOT, weights.robot, weight)


def sweep_losses(
    network: SweepNetwork, batch: dict[str, Tensor], weights: SweepWeights, out: SweepOutput
) -> dict[str, Tensor]:
    """Every weighted term by name, "total", and measures for the log (detached)."""
    target, known = plane_targets(batch, network.heights)
    met = out.logits[:, :-1] > -1e3
    possible = known * ((target[:, :-1] * met).sum(1) + target[:, -1] > 0.5)
    weight = pixel_weights(batch['objects'], weights)
    entropy = -(target * out.logits.log_softmax(1).clamp(min=-30)).sum(1)
    plane_weight = torch.where(batch['objects'] == ROBOT, 0.5, weight) * possible
    difference = (out.image - batch['wrist']).abs().mean(1)
    shown = weight * met.any(1)
    edges = sum(
        (((out.image - batch['wrist']).diff(dim=d)).abs().mean(1) * shown.narrow(d, 1, shown.shape[d] - 1)).sum()
        for d in (-1, -2)
    )
    certain = (difference.detach() / out.scale + out.scale.log()) * met.any(1)
    terms = {
        'color': weights.color * (difference * shown).sum() / shown.sum(),
        'edges': weights.edges * edges / shown.sum(),
        'plane': weights.plane * (entropy * plane_weight).sum() / plane_weight.sum(),
        'error': weights.error * certain.mean(),
    }
    objects = (weight == weights.objects).float()
    figures = {
        'object_l1': (difference * objects).sum() / objects.sum().clamp(min=1),
        'table_l1': (difference * (batch['objects'] == 0)).sum() / (batch['objects'] == 0).sum().clamp(min=1),
        'object_depth_m': ((out.depth - batch['depth']).abs() * objects * met.any(1)).sum()
        / objects.sum().clamp(min=1),
    }
    return terms | {'total': sum(terms.values())} | {k: v.detach() for k, v in figures.items()}
