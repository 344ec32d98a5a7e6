"""Fitting one set of points or cameras onto another, and pose errors; computed in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wristworld_ros.geometry.poses import camera_centre, rotation_angle


class DegenerateFitError(ValueError):
    """The points do not determine the transform: fewer than three count, or all lie on one line."""


@dataclass(frozen=True)
class Similarity:
    """target = scale * rotation @ source + translation.

    Attributes:
        scale: Float64 [].
        rotation: Float64 [3, 3].
        translation: Float64 [3].
    """

    scale: Tensor
    rotation: Tensor
    translation: Tensor

    def points(self, points: Tensor) -> Tensor:
        """Source points [..., 3] in the target's frame, in the same dtype."""
        moved = self.scale * (points.double() @ self.rotation.T) + self.translation
        return moved.to(points.dtype)

    def cameras(self, T_camera_source: Tensor) -> Tensor:
        """Camera-from-source [..., 3 or 4, 4] as camera-from-target, rigid and in the target's scale."""
        pose = T_camera_source.double()
        rotation = pose[..., :3, :3] @ self.rotation.T
        centre = self.scale * (camera_centre(pose) @ self.rotation.T) + self.translation
        moved = pose.clone()
        moved[..., :3, :3] = rotation
        moved[..., :3, 3] = -(rotation @ centre[..., None]).squeeze(-1)
        return moved.to(T_camera_source.dtype)


def fit_similarity(
    source: Tensor, target: Tensor, weights: Tensor | None = None, with_scale: bool = True
) -> Similarity:
    """Least-squares similarity from source to target points (Umeyama 1991); without scale: weighted Kabsch.

    Args:
        source: Float [N, 3].
        target: Float [N, 3], the same points in the same order.
        weights: Float [N], not negative; None weighs all points alike.
        with_scale: False holds the scale at one.

    Raises:
        DegenerateFitError: Fewer than three points have weight, or all lie on one line.
        ValueError: A shape is wrong, or a weight is negative.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3:
        raise ValueError(f'source {list(source.shape)} and target {list(target.shape)} must both be [N, 3].')
    source, target = source.double(), target.double()
    weights = torch.ones_like(source[:, 0]) if weights is None else weights.double()
    if weights.shape != source.shape[:1] or bool((weights < 0).any()):
        raise ValueError(f'weights has shape {list(weights.shape)}; it must be [{len(source)}] and not negative.')
    if int((weights > 0).sum()) < 3:
        raise DegenerateFitError(
            f'fit_similarity needs 3 points with weight, got {int((weights > 0).sum())}; use align_cameras.'
        )
    weights = weights / weights.sum()
    source_mean, target_mean = weights @ source, weights @ target
    source_centred, target_centred = source - source_mean, target - target_mean
    spread = torch.linalg.svdvals(source_centred * weights.sqrt()[:, None])
    if spread[1] <= 1e-9 * spread[0].clamp_min(1e-300):
        raise DegenerateFitError(
            'fit_similarity got points on one line, which do not determine the rotation; use align_cameras.'
        )
    rotation, singular = nearest_rotation(target_centred.T @ (weights[:, None] * source_centred))
    variance = (weights[:, None] * source_centred**2).sum()
    scale = singular / variance if with_scale else torch.ones_like(variance)
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def fit_rigid(source: Tensor, target: Tensor, weights: Tensor | None = None) -> Similarity:
    """Weighted Kabsch: `fit_similarity` with the scale held at one."""
    return fit_similarity(source, target, weights, with_scale=False)


def align_camera_centres(T_camera_estimated: Tensor, T_camera_true: Tensor) -> Similarity:
    """Similarity from the estimated world to the true one by the camera centres alone.

    Args:
        T_camera_estimated: Camera-from-world [V, 3 or 4, 4].
        T_camera_true: The same cameras.

    Raises:
        DegenerateFitError: Fewer than three cameras, or all on one line.
    """
    return fit_similarity(camera_centre(T_camera_estimated), camera_centre(T_camera_true))


def align_cameras(T_camera_estimated: Tensor, T_camera_true: Tensor) -> Similarity:
    """Similarity from the estimated world to the true one by orientations, then centres; one camera is enough.

    Rotation: the chordal mean of each camera's own. Scale and translation: least squares of the centres; the scale is
    one where there is one camera or all have the same centre.

    Args:
        T_camera_estimated: Camera-from-world [V, 3 or 4, 4].
        T_camera_true: The same cameras.
    """
    estimated, true = T_camera_estimated.double(), T_camera_true.double()
    rotation, _ = nearest_rotation((true[:, :3, :3].transpose(1, 2) @ estimated[:, :3, :3]).sum(0))
    source, target = camera_centre(estimated), camera_centre(true)
    rotated = source @ rotation.T
    rotated_centred, target_centred = rotated - rotated.mean(0), target - target.mean(0)
    spread = (rotated_centred**2).sum()
    fitted = (rotated_centred * target_centred).sum() / spread.clamp_min(1e-300)
    scale = torch.where((spread > 1e-18) & (fitted > 0), fitted, torch.ones_like(fitted))
    return Similarity(scale, rotation, target.mean(0) - scale * rotated.mean(0))


def pose_error(T_camera_estimated: Tensor, T_camera_true: Tensor) -> tuple[Tensor, Tensor]:
    """Errors of poses: rotation in degrees and distance of the camera centres in metres, each [...].

    Args:
        T_camera_estimated: Camera-from-world [..., 3 or 4, 4].
        T_camera_true: The same cameras in the same world.
    """
    degrees = torch.rad2deg(rotation_angle(T_camera_estimated, T_camera_true))
    return degrees, (camera_centre(T_camera_estimated) - camera_centre(T_camera_true)).norm(dim=-1)


def nearest_rotation(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The rotation R that maximises trace(R^T M), and that trace."""
    left, singular, right = torch.linalg.svd(matrix)
    sign = torch.ones_like(singular)
    sign[-1] = torch.linalg.det(left @ right).sign()
    return (left * sign) @ right, (singular * sign).sum()
