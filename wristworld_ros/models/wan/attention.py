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

from wristworld_ros.models.wan.kv_cache import KVCache


@dataclass
class AttentionPlan:
    """How one pass of the transformer attends.

    runs: a sequence may be handed over as so many equal runs of frames along the batch, sequence-major ([B * runs, C,
    T / runs, h, w]). Each run then has its own timestep and context, which is all the rest of a block needs; only
    self-attention puts the runs together. positions: int64 [frames], position in time of each frame of the whole
    sequence (after the temporal patch), or None for the cache's, or without one 0, 1, 2, ... mask: bool [B or 1, runs, runs] on the CPU, True where a run (row) sees a run, or None for all. cache: K/V of earlier chunks;
    the pass then holds one chunk, and no gradients.
    """

    runs: int = 1
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

    def _positions(self, frames: int, device: torch.device) -> torch.Tensor:
        if self.plan.positions is not None:
            return self.plan.positions.to(device)
        return torch.arange(frames, device=device) if self.plan.cache is None else self.plan.cache.positions

    def forward(self, hidden_states: torch.Tensor) -> _Rotation:
        """hidden_states: [B * runs, C, T / runs, H, W], before the patches. Returns rotations for a sequence's tokens."""
        frames, height, width = (n // p for n, p in zip(hidden_states.shape[2:], self.patch_size, strict=True))
        device, frames = hidden_states.device, frames * self.plan.runs
        t = self._positions(frames, device)
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


def _attend_runs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Attention in which whole runs of tokens see each other or not, without work (or a mask) for what is not seen.

    q, k, v: [B, heads, runs * n, head_dim]. mask: bool [B or 1, runs, runs] on the CPU. Returns q's shape.
    """
    runs = mask.shape[-1]
    size = q.shape[2] // runs
    queries, keys, values = (x.split(size, dim=2) for x in (q, k, v))
    outputs = []
    for run, query in enumerate(queries):
        seen = mask[:, run].any(0).nonzero().flatten().tolist()
        # Samples that see less than others (dropped history) need a mask; it is the same for all of the run's queries.
        part = mask[:, run, seen]
        allowed = None if part.all() else part.repeat_interleave(size, 1)[:, None, None].to(q.device)
        key, value = (torch.cat([x[i] for i in seen], dim=2) for x in (keys, values))
        if allowed is not None:
            allowed = allowed.expand(q.shape[0], 1, size, -1)
        outputs.append(F.scaled_dot_product_attention(query, key, value, attn_mask=allowed))
    return torch.cat(outputs, dim=2)


class SelfAttention:
    """Processor of a self-attention layer: rotary embedding, then attention under the pass's plan.

    Cross-attention keeps the library's own.
    """

    def __init__(self, layer: int):
        self.layer = layer

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        """hidden_states: [B * runs, L / runs, C]. Returns the same shape."""
        plan = rotary_emb.plan

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(0, (-1, plan.runs)).flatten(1, 2).unflatten(2, (attn.heads, -1)).transpose(1, 2)

        v = heads(attn.to_v(hidden_states))
        q = _rotate(heads(attn.norm_q(attn.to_q(hidden_states))), rotary_emb.turns).to(v.dtype)
        k = _rotate(heads(attn.norm_k(attn.to_k(hidden_states))), rotary_emb.turns).to(v.dtype)
        if plan.cache is not None:
            k, v = plan.cache.append(self.layer, k, v)
            q = q.to(k.dtype)
        out = F.scaled_dot_product_attention(q, k, v) if plan.mask is None else _attend_runs(q, k, v, plan.mask)
        out = out.transpose(1, 2).reshape(hidden_states.shape).to(hidden_states.dtype)
        return attn.to_out[1](attn.to_out[0](out))


def install_attention(transformer: nn.Module) -> None:
    """Give a ``WanTransformer3DModel`` this module's rotary embedding and self-attention (its weights stay)."""
    config = transformer.config
    transformer.rope = WanRotary(config.attention_head_dim, tuple(config.patch_size))
    for layer, block in enumerate(transformer.blocks):
        block.attn1.set_processor(SelfAttention(layer))


@contextmanager
def attention_plan(transformer: nn.Module, plan: AttentionPlan | None) -> Iterator[None]:
    """Within this, passes of the transformer attend as planned; None is the plain, bidirectional pass."""
    previous, transformer.rope.plan = transformer.rope.plan, plan or AttentionPlan()
    try:
        yield
    finally:
        transformer.rope.plan = previous
