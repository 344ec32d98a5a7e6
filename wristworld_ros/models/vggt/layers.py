"""Transformer layers that several parts of the model share: the pre-norm block with 2-D rotary position embedding, and
attention under the parameter names of ``torch.nn.MultiheadAttention``."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROTARY_BASE = 100.0


@lru_cache(maxsize=32)
def rotary_tables(
    grid_hw: tuple[int, int], special: int, views: int, head_dim: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the 2-D rotary position embedding; half of each head turns with y, half with x.

    Every view has ``special`` tokens at position (0, 0), then its patches at (row + 1, column + 1). The tables of the
    last 32 sizes are kept, outside the state dict.

    Args:
        grid_hw: Rows and columns of a view's patches.
        special: Tokens in front of a view's patches.
        views: How many views follow each other.
        head_dim: Channels of one attention head.
        device: Where the tables are needed.
        dtype: What they are needed in; the angles are float32.

    Returns:
        Two tensors [views * (special + rows * columns), 2, head_dim / 4].
    """
    # A table that is first needed in inference mode must also serve training later.
    with torch.inference_mode(False), torch.no_grad():
        half = head_dim // 2
        inverse = ROTARY_BASE ** (-torch.arange(0, half, 2, dtype=torch.float32, device=device) / half)
        y, x = torch.meshgrid(
            torch.arange(1, grid_hw[0] + 1, device=device),
            torch.arange(1, grid_hw[1] + 1, device=device),
            indexing='ij',
        )
        positions = torch.stack([y, x], -1).flatten(0, 1).float()
        positions = torch.cat([positions.new_zeros(special, 2), positions]).repeat(views, 1)
        angles = positions[..., None] * inverse
        return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotary embedding. x: [..., N, D]; cos, sin: [N, 2 (y, x), D / 4]. Returns [..., N, D]."""
    a, b = x.unflatten(-1, (2, 2, -1)).unbind(-2)
    return torch.stack((a * cos - b * sin, b * cos + a * sin), -2).flatten(-3)


class Mlp(nn.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, dim: int, hidden: int, out: int | None = None):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out or dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch."""

    def __init__(self, dim: int, init: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init)))

    def add(self, x: Tensor, branch: Tensor) -> Tensor:
        """x + gamma * branch, in one pass over the memory."""
        return torch.addcmul(x, branch, self.gamma)


class Attention(nn.Module):
    """Self-attention with one qkv projection; optional LayerNorm on each head's q and k, optional rotary embedding."""

    def __init__(self, dim: int, heads: int, qk_norm: bool = False):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.q_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """x: [B, N, dim]; rotary: cosines and sines of `rotary_tables`. Returns [B, N, dim]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        x = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)
        return self.proj(x.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """x + ls1 * attention(norm1(x)), then x + ls2 * mlp(norm2(x)); the MLP is four times as wide."""

    def __init__(self, dim: int, heads: int, layerscale: float, qk_norm: bool = False, eps: float = 1e-5):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, qk_norm)
        self.ls1 = LayerScale(dim, layerscale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, 4 * dim)
        self.ls2 = LayerScale(dim, layerscale)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None = None) -> Tensor:
        x = self.ls1.add(x, self.attn(self.norm1(x), rotary))
        return self.ls2.add(x, self.mlp(self.norm2(x)))


class CrossAttention(nn.Module):
    """Attention of x to a context, or to itself, under the parameter names of ``torch.nn.MultiheadAttention``."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x: [B, N, dim]; context: [B, M, dim], None for self-attention. Returns [B, N, dim]."""
        dim = x.shape[-1]
        if context is None:
            q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        else:
            q = F.linear(x, self.in_proj_weight[:dim], self.in_proj_bias[:dim])
            k, v = F.linear(context, self.in_proj_weight[dim:], self.in_proj_bias[dim:]).chunk(2, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.out_proj(x.transpose(1, 2).flatten(-2))
