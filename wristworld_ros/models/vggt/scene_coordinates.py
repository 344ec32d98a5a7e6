"""Where each patch lies, in the wrist camera's frame: what teaches a small model's tokens, and steadies its wrist pose.

Trained from scratch the published heads see one pose a picture and hardly leave their prior; a target for every patch
gives the trunk a hundred. At run time the same hundred answers, held against the model's own points, pull the wrist head's
pose to where the cloud agrees with it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wristworld_ros.geometry import fit_rigid, transform_points
from wristworld_ros.models.vggt.aggregator import SPECIAL

# Metres: patches farther from the wrist hardly count; a disagreement this large halves what a patch counts.
REACH, TOLERANCE = 0.5, 0.05
ROUNDS = 5


class SceneCoordinateHead(nn.Module):
    """The middle of every patch in the wrist camera's frame and in the robot base's frame, metres."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: the last layer's, [B, V, P, dim]. Returns [B, V, P - 5, 6]: x y z from the wrist, x y z from the base."""
        return self.linear(tokens[:, :, SPECIAL:])


def patch_centers(maps: Tensor, patch_size: int) -> Tensor:
    """The entry in the middle of every patch: [B, V, H, W, ...] to [B, V, patches, ...], row-major."""
    middle = slice(patch_size // 2, None, patch_size)
    return maps[:, :, middle, middle].flatten(2, 3)


def refine_wrist(T_wrist_world: Tensor, points: Tensor, scene_coordinates: Tensor) -> Tensor:
    """Move a wrist pose to where the model's own points come to lie where it says they do, seen from the wrist.

    Iteratively reweighted Kabsch with Cauchy weights, started from the given pose. What counts downstream is not the pose
    alone but how the model's own cloud looks from it, and this is what the fit minimises.
    T_wrist_world: camera-from-world [4, 4]. points: [N, 3], world. places: [N, 3], the same in the wrist's frame; metres.
    Returns float64 [4, 4]; the given pose where the points are fewer than three or lie on one line.
    """
    T, points, scene_coordinates = T_wrist_world.double(), points.double(), scene_coordinates.double()
    near = torch.exp(-(scene_coordinates.norm(dim=-1) / REACH).square())
    for _ in range(ROUNDS):
        residual = (transform_points(T, points) - scene_coordinates).norm(dim=-1)
        try:
            fit = fit_rigid(points, scene_coordinates, near / (1 + (residual / TOLERANCE).square()))
        except ValueError:
            return T_wrist_world.double()
        T = torch.eye(4, dtype=T.dtype, device=T.device)
        T[:3, :3], T[:3, 3] = fit.rotation, fit.translation
    return T
