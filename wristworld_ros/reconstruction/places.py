"""Where each patch lies: a dense target that teaches small models what the pose heads must read from the tokens.

Trained from scratch the published heads see one pose a picture and hardly leave their prior; a target for every patch
gives the trunk a hundred. It is for training alone: a finished model is built without it.
"""

from __future__ import annotations

from torch import Tensor, nn

from .aggregator import SPECIAL


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
