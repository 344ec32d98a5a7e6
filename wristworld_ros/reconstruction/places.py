"""Where each patch lies in the wrist camera's frame: a dense way to the wrist pose, beside the published head.

The published wrist head reads one pose out of all tokens. Trained from scratch on little data it hardly leaves its
prior; a target for every patch does, and the rigid motion that carries the model's own points onto the predicted places
is a wrist pose that fits the model's own cloud, which is what SPC asks for (paper section 2.3). Small models have both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..geometry import fit_rigid, to_homogeneous
from .aggregator import SPECIAL

_NEAR = 0.1  # metres; a patch counts by 1 / (near + its distance from the wrist)^2
_FAR = 1.2  # metres from the wrist; farther patches are not taught and do not count


class PlaceHead(nn.Module):
    """The middle of every patch in the wrist camera's frame and in the robot base's frame, metres."""

    def __init__(self, dim: int):
        super().__init__()
        self.place = nn.Linear(dim, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: the last layer's, [B, V, P, dim]. Returns [B, V, P - 5, 6]: x y z from the wrist, x y z from the base."""
        return self.place(tokens[:, :, SPECIAL:])


def patch_middles(maps: Tensor, patch_size: int) -> Tensor:
    """The entry in the middle of every patch: [B, V, H, W, ...] to [B, V, patches, ...], row-major."""
    middle = slice(patch_size // 2, None, patch_size)
    return maps[:, :, middle, middle].flatten(2, 3)


def wrist_from_places(points: Tensor, places: Tensor) -> Tensor | None:
    """T_wrist_world [4, 4] (float64): the rigid motion that carries points onto their places, nearer ones counting more.

    points: [N, 3], the model's own points at the patches' middles; places: [N, 3], the same in the wrist's frame. None
    where fewer than 4 patches lie within reach of the wrist, or all on one line.
    """
    distance = places.norm(dim=-1)
    weights = torch.where(distance < _FAR, (_NEAR + distance) ** -2, torch.zeros_like(distance))
    if int((weights > 0).sum()) < 4:
        return None
    try:
        fit = fit_rigid(points, places, weights)
    except ValueError:  # on one line
        return None
    return to_homogeneous(torch.cat([fit.rotation, fit.translation[:, None]], 1))
