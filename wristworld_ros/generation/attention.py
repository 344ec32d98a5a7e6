"""Attention of the Wan transformer with what streaming needs: frame positions, block masks, a KV cache.

diffusers' ``WanTransformer3DModel`` is used as it is. Its rotary embedding is replaced by ``WanRotary``, whose result is
handed to every block as an argument, so mask and cache travel with it (and survive gradient checkpointing).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .cache import KVCache


@dataclass
class AttentionPlan:
    """How one pass of the transformer attends.

    positions: int64 [frames], position in time of each frame (after the temporal patch), or None for 0, 1, 2, ...
    mask: bool [B or 1, 1, L, L], True where a query (row) sees a key, or None for all. cache: K/V of earlier chunks;
    the pass then holds one chunk, and no gradients.
    """

    positions: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    cache: KVCache | None = None


@dataclass
class _Rotation:
    """What ``WanRotary`` gives the blocks: rotations complex64 [1, 1, L, head_dim / 2], and the plan."""

    turns: torch.Tensor
    plan: AttentionPlan


class WanRotary(nn.Module):
    """Wan's 3-D rotary embedding for frames at any position.

    Angles come from integer positions in float64 when they are needed. Attention depends on differences of positions
    only, so a stream may count its frames forever: cached keys keep the rotation they were stored with, and at frame
    10^9 (a year at 30 frames/s) the rounding of position * frequency is 1e-7, that of float32. Nothing wraps.

    head_dim: channels a head; the last 2 * (head_dim // 6) are for x, as many before them for y, the rest for time.
    """

    def __init__(self, head_dim: int, patch_size: tuple[int, int, int], theta: float = 10000.0):
        super().__init__()
        side = 2 * (head_dim // 6)
        self.sizes = (head_dim - 2 * side, side, side)
        self.patch_size = patch_size
        self.theta = theta
        self.plan = AttentionPlan()

    def _turns(self, positions: torch.Tensor, size: int) -> torch.Tensor:
        exponents = torch.arange(0, size, 2, dtype=torch.float64, device=positions.device) / size
        angles = positions.double()[:, None] * self.theta**-exponents
        return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)

    def forward(self, hidden_states: torch.Tensor) -> _Rotation:
        """hidden_states: [B, C, T, H, W], before the patches. Returns rotations for its tokens, in their order."""
        frames, height, width = (n // p for n, p in zip(hidden_states.shape[2:], self.patch_size, strict=True))
        device = hidden_states.device
        t = torch.arange(frames, device=device) if self.plan.positions is None else self.plan.positions.to(device)
        grids = [
            self._turns(t, self.sizes[0]).view(frames, 1, 1, -1),
            self._turns(torch.arange(height, device=device), self.sizes[1]).view(1, height, 1, -1),
            self._turns(torch.arange(width, device=device), self.sizes[2]).view(1, 1, width, -1),
        ]
        turns = torch.cat([grid.expand(frames, height, width, -1) for grid in grids], dim=-1)
        return _Rotation(turns.reshape(1, 1, frames * height * width, -1), self.plan)


def _rotate(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turn neighbouring pairs of channels. x: [B, heads, L, head_dim]."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


class SelfAttention:
    """Processor of a self-attention layer: rotary embedding, then attention under the pass's plan."""

    def __init__(self, layer: int):
        self.layer = layer

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        """hidden_states: [B, L, C]. Returns the same shape."""
        split = (attn.heads, -1)
        q = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, split).transpose(1, 2)
        k = attn.norm_k(attn.to_k(hidden_states)).unflatten(2, split).transpose(1, 2)
        v = attn.to_v(hidden_states).unflatten(2, split).transpose(1, 2)
        q, k = _rotate(q, rotary_emb.turns), _rotate(k, rotary_emb.turns)
        q, k = q.to(v.dtype), k.to(v.dtype)
        if rotary_emb.plan.cache is not None:
            k, v = rotary_emb.plan.cache.append(self.layer, k, v)
            q = q.to(k.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=rotary_emb.plan.mask)
        out = out.transpose(1, 2).flatten(2).to(hidden_states.dtype)
        return attn.to_out[1](attn.to_out[0](out))


class CrossAttention:
    """Processor of a cross-attention layer.

    The context is [B, S, C], seen by all tokens, or [B, G, S, C]: the tokens are then G equal runs (chunks), and each
    run sees its own context only. Folding the runs into the batch needs no mask and does no work twice.
    """

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        """hidden_states: [B, L, C]. Returns the same shape."""
        shape = hidden_states.shape
        split = (attn.heads, -1)
        if encoder_hidden_states.ndim == 4:
            groups = encoder_hidden_states.shape[1]
            hidden_states = hidden_states.reshape(shape[0] * groups, shape[1] // groups, shape[2])
            encoder_hidden_states = encoder_hidden_states.flatten(0, 1)
        q = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, split).transpose(1, 2)
        k = attn.norm_k(attn.to_k(encoder_hidden_states)).unflatten(2, split).transpose(1, 2)
        v = attn.to_v(encoder_hidden_states).unflatten(2, split).transpose(1, 2)
        out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)
        out = out.transpose(1, 2).flatten(2).to(hidden_states.dtype)
        return attn.to_out[1](attn.to_out[0](out)).reshape(shape)


def install_attention(transformer: nn.Module) -> None:
    """Give a ``WanTransformer3DModel`` the rotary embedding and processors of this module (its weights stay)."""
    config = transformer.config
    transformer.rope = WanRotary(config.attention_head_dim, tuple(config.patch_size))
    for layer, block in enumerate(transformer.blocks):
        block.attn1.set_processor(SelfAttention(layer))
        block.attn2.set_processor(CrossAttention())


@contextmanager
def attention_plan(transformer: nn.Module, plan: AttentionPlan | None) -> Iterator[None]:
    """Within this, passes of the transformer attend as planned; None is the plain, bidirectional pass."""
    previous, transformer.rope.plan = transformer.rope.plan, plan or AttentionPlan()
    try:
        yield
    finally:
        transformer.rope.plan = previous
