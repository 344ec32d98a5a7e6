"""Scene coordinates: where the centre of every patch lies in the wrist camera's frame.

Not part of the published system. The published heads predict one wrist pose per set of images, which is too little to
train a small model from scratch: it hardly leaves its prior. A target for every patch supervises the trunk densely. At
run time the same predictions, matched with the model's own points, refine the wrist head's pose, as scene-coordinate
regression does in camera relocalisation (Shotton et al. 2013), with least squares on 3-D pairs in place of PnP.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wristworld_ros.geometry.alignment import DegenerateFitError, fit_rigid
from wristworld_ros.geometry.poses import transform_points
from wristworld_ros.models.vggt.aggregator import SPECIAL

# Metres. Patches farther from the wrist than the cutoff hardly count; a residual of the tolerance halves a weight.
CUTOFF, TOLERANCE = 0.5, 0.05
ITERATIONS = 5


class SceneCoordinateHead(nn.Module):
    """The centre of every patch in the wrist camera's frame and in the robot base's frame, metres."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: the last layer's, [B, V, P, dim]. Returns [B, V, P - 5, 6]: x y z of the wrist, x y z of the base."""
        return self.linear(tokens[:, :, SPECIAL:])


def patch_centers(maps: Tensor, patch_size: int) -> Tensor:
    """The entry at the centre of every patch: [B, V, H, W, ...] to [B, V, patches, ...], row-major."""
    centers = slice(patch_size // 2, None, patch_size)
    return maps[:, :, centers, centers].flatten(2, 3)


def refine_wrist(T_wrist_world: Tensor, points: Tensor, scene_coordinates: Tensor) -> Tensor:
    """Refine a wrist pose so that the model's own points come to lie at their predicted scene coordinates.

    Iteratively reweighted Kabsch with Cauchy weights, started from the given pose. The condition map shows the model's
    own points from this pose, so agreement with these points is what counts, more than the pose itself.

    Args:
        T_wrist_world: Camera-from-world [4, 4], the start.
        points: Float [N, 3], world, metres.
        scene_coordinates: Float [N, 3], the same points in the wrist camera's frame as predicted, metres.

    Returns:
        Camera-from-world float64 [4, 4]; the given pose where fewer than three points count or all lie on one line.
    """
    T, points, scene_coordinates = T_wrist_world.double(), points.double(), scene_coordinates.double()
    near = torch.exp(-(scene_coordinates.norm(dim=-1) / CUTOFF).square())
    for _ in range(ITERATIONS):
        residual = (transform_points(T, points) - scene_coordinates).norm(dim=-1)
        try:
            fit = fit_rigid(points, scene_coordinates, near / (1 + (residual / TOLERANCE).square()))
        except DegenerateFitError:
            return T_wrist_world.double()
        T = torch.eye(4, dtype=T.dtype, device=T.device)
        T[:3, :3], T[:3, 3] = fit.rotation, fit.translation
    return T
