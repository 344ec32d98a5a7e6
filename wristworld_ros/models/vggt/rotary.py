"""Two-dimensional rotary position embedding of the aggregator (base 100, half of each head for y, half for x)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

BASE = 100.0


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each token's head by its position. x: [..., N, D]; cos, sin: [N, 2 (y, x), D / 4]. Returns [..., N, D]."""
    a, b = x.unflatten(-1, (2, 2, -1)).unbind(-2)
    return torch.stack((a * cos - b * sin, b * cos + a * sin), -2).flatten(-3)


@lru_cache(maxsize=32)
def rotary_tables(
    grid_hw: tuple[int, int], special: int, views: int, head_dim: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines for ``views`` views of ``special`` tokens at (0, 0) and a grid of patches at (row+1, column+1).

    Returns two tensors [views * (special + h * w), 2, head_dim / 4]. Kept for the last 32 sizes, outside the state dict.
    """
    with torch.inference_mode(False), torch.no_grad():
        half = head_dim // 2
        inverse = BASE ** (-torch.arange(0, half, 2, dtype=torch.float32, device=device) / half)
        y, x = torch.meshgrid(
            torch.arange(1, grid_hw[0] + 1, device=device),
            torch.arange(1, grid_hw[1] + 1, device=device),
            indexing='ij',
        )
        positions = torch.stack([y, x], -1).flatten(0, 1).float()
        positions = torch.cat([positions.new_zeros(special, 2), positions]).repeat(views, 1)
        angles = positions[..., None] * inverse
        return angles.cos().to(dtype), angles.sin().to(dtype)
