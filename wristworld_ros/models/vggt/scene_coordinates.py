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
    near = nearness(scene_coordinates)
    T = fit_frame(points, scene_coordinates, near * _robust(T_wrist_world.double(), points, scene_coordinates), near)
    return T_wrist_world.double() if T is None else T


def fit_frame(points: Tensor, coordinates: Tensor, first: Tensor, weights: Tensor) -> Tensor | None:
    """The rigid motion that takes points to their predicted coordinates in another frame, by reweighted Kabsch.

    Args:
        points: Float [N, 3], metres.
        coordinates: Float [N, 3], metres.
        first: Float64 [N], weights of the first fit.
        weights: Float64 [N], how much each point counts by itself.

    Returns:
        Float64 [4, 4]; None where fewer than three points count or all lie on one line.
    """
    T = None
    for _ in range(ITERATIONS):
        try:
            fit = fit_rigid(
                points.double(), coordinates.double(), first if T is None else weights * _robust(T, points, coordinates)
            )
        except DegenerateFitError:
            return None
        T = torch.eye(4, dtype=torch.float64, device=points.device)
        T[:3, :3], T[:3, 3] = fit.rotation, fit.translation
    return T


def nearness(scene_coordinates: Tensor) -> Tensor:
    """How much points [N, 3] in the wrist camera's frame count, float64 [N]: what the wrist will see lies near."""
    return torch.exp(-(scene_coordinates.double().norm(dim=-1) / CUTOFF).square())


def _robust(T: Tensor, points: Tensor, coordinates: Tensor) -> Tensor:
    residual = (transform_points(T, points.double()) - coordinates.double()).norm(dim=-1)
    return 1 / (1 + (residual / TOLERANCE).square())
