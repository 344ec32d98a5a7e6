"""Where the rays of a wrist camera meet a stack of parallel planes, and where the anchors see those points.

Parallel planes share the directions of the rays: along each, a plane is one depth, and its point is seen by an anchor at a place that is
linear in that depth before the division by z (Hartley and Zisserman, Multiple View Geometry, section 13.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEAREST, FARTHEST = 0.015, 2.0  # metres along the wrist camera's axis within which a plane is looked for


@dataclass(frozen=True)
class SweepViews:
    """A sweep's geometry at one size of the wrist image.

    depth: float [B, D, h, w], metres along the wrist's axis to each plane, 0 where its ray does not meet it.
    uv: float [B, V, D, h, w, 2], pixels of the anchors, pixel i's centre is i.
    valid: bool [B, V, D, h, w], whether an anchor sees that point inside its image.
    """

    depth: Tensor
    uv: Tensor
    valid: Tensor

    def of_planes(self, numbers: Tensor) -> SweepViews:
        """The sweep of some planes of each pixel. numbers: int64 [B, k, h, w]."""
        # Not take_along_dim, which first wraps every number.
        each = numbers[:, None].expand(-1, self.uv.shape[1], -1, -1, -1)
        uv = self.uv.gather(2, each[..., None].expand(*each.shape, 2))
        return SweepViews(self.depth.gather(1, numbers), uv, self.valid.gather(2, each))


def thinned_grid(hw: tuple[int, int], full_hw: tuple[int, int], like: Tensor) -> Tensor:
    """Centres of an h x w grid over an image of `full_hw` pixels, homogeneous, [3, h * w]."""
    rows, columns = (
        (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) * (full / n) - 0.5
        for n, full in zip(hw, full_hw, strict=True)
    )
    v, u = torch.meshgrid(rows, columns, indexing='ij')
    return torch.stack([u.flatten(), v.flatten(), torch.ones_like(u).flatten()])


def sweep_views(
    wrist_K: Tensor, T_wrist_world: Tensor, anchor_K: Tensor, T_anchor_wrist: Tensor, plane: Tensor, heights: Tensor,
    hw: tuple[int, int], wrist_hw: tuple[int, int], anchor_hw: tuple[int, int],
) -> SweepViews:  # fmt: skip
    """The sweep's geometry.

    Args:
        wrist_K: [B, 3, 3], pixels of an image of `wrist_hw`.
        T_wrist_world: [B, 4, 4].
        anchor_K: [B, V, 3, 3], pixels of images of `anchor_hw`.
        T_anchor_wrist: [B, V, 4, 4], anchor from wrist, metres.
        plane: [B, 4], the plane n x = d that objects stand on, in the world: unit normal n and d, metres.
        heights: [D], metres above it along n.
        hw: Size to compute at, pixels.
        wrist_hw: Size that `wrist_K` is for.
        anchor_hw: Size of the anchors' images.
    """
    grid = thinned_grid(hw, wrist_hw, wrist_K)
    rays = torch.linalg.inv(wrist_K) @ grid  # [B, 3, N], z = 1
    R, t = T_wrist_world[:, :3, :3], T_wrist_world[:, :3, 3]
    normal = torch.einsum('bij,bj->bi', R, plane[:, :3])  # in the wrist camera
    offset = plane[:, 3] + (normal * t).sum(-1)  # of the plane there: n x = offset
    facing = torch.einsum('bi,bin->bn', normal, rays)
    facing = torch.where(facing.abs() < 1e-6, torch.full_like(facing, 1e-6), facing)
    depth = (offset[:, None] + heights)[..., None] / facing[:, None]  # [B, D, N]
    met = (depth > NEAREST) & (depth < FARTHEST)
    depth = torch.where(met, depth, 0.0)
    # A point is depth * ray, so its image in an anchor is K (R ray * depth + t) = (K R ray) depth + K t.
    turned = anchor_K @ T_anchor_wrist[..., :3, :3] @ rays[:, None]  # [B, V, 3, N]
    moved = anchor_K @ T_anchor_wrist[..., :3, 3:]  # [B, V, 3, 1]
    seen = turned[:, :, None] * depth[:, None, :, None] + moved[:, :, None]  # [B, V, D, 3, N]
    z = seen[..., 2, :]
    uv = seen[..., :2, :] / z.clamp(min=1e-3)[..., None, :]
    limit = uv.new_tensor([anchor_hw[1] - 1, anchor_hw[0] - 1])[:, None]
    valid = ((uv > -0.5) & (uv < limit + 0.5)).all(-2) & (z > 0.05) & met[:, None]
    shape = (*depth.shape[:2], *hw)
    return SweepViews(
        depth.reshape(shape),
        uv.movedim(-2, -1).unflatten(-2, hw),
        valid.unflatten(-1, hw),
    )


def sample_views(images: Tensor, views: SweepViews) -> Tensor:
    """Anchor images at the sweep's points, anything where not valid.

    Args:
        images: [B, V, C, H, W].
        views: Of these images' pixels.

    Returns:
        [B, V, D, C, h, w].
    """
    B, V, D, h, w = views.valid.shape
    size = images.new_tensor([images.shape[-1], images.shape[-2]])
    grid = (2 * views.uv + 1) / size - 1  # grid_sample's coordinates, align_corners=False
    sampled = torch.nn.functional.grid_sample(
        images.flatten(0, 1), grid.flatten(0, 1).reshape(B * V, D * h, w, 2).to(images), padding_mode='border',
        align_corners=False,
    )  # fmt: skip
    return sampled.reshape(B, V, images.shape[2], D, h, w).transpose(2, 3)
