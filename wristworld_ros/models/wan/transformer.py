"""The Wan transformer with what streaming needs: frame positions, block masks and a KV cache.

`WanTransformer` has the layers and weights of diffusers' `WanTransformer3DModel` and a forward pass of its own. How a
pass attends (`AttentionPlan`) is an argument of that pass, so streams in several threads may share one model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from torch import nn

from wristworld_ros.models.wan.config import GeneratorConfig
from wristworld_ros.models.wan.kv_cache import KVCache

# Base of the rotary embedding's frequencies.
_THETA = 10000.0


@dataclass(frozen=True)
class AttentionPlan:
    """How one pass of the transformer attends.

    Attributes:
        runs: Number of equal runs of frames into which a sequence is split along the batch, sequence-major
            ([B * runs, C, T / runs, h, w]). Each run has its own timestep and context, which is all that most of a
            block needs; only self-attention puts the runs of a sequence together.
        positions: int64 [frames], position in time of each frame of the whole sequence (after the temporal patch). None
            takes the cache's positions, or 0, 1, 2, ... without a cache.
        mask: bool [B or 1, runs, runs], True where a run (row) attends to a run (column); None for all. An array and not a
            tensor, because what is computed at all depends on its values.
        cache: Keys and values of earlier chunks. The pass then holds one chunk and computes no gradients.
    """

    runs: int = 1
    positions: torch.Tensor | None = None
    mask: np.ndarray | None = None
    cache: KVCache | None = None


@dataclass(frozen=True)
class _SelfAttentionInput:
    """What every block of one pass gets as its `rotary_emb` argument.

    Attributes:
        rotations: complex64 [1, 1, L, head_dim / 2], for all tokens of a sequence.
        plan: Of the pass.
    """

    rotations: torch.Tensor
    plan: AttentionPlan


class WanTransformer(WanTransformer3DModel):
    """Wan's video transformer, as published except for positions, masks and the cache of its self-attention.

    State-dict keys are those of `WanTransformer3DModel`, and so is `enable_gradient_checkpointing`.

    Args:
        settings: Sizes of the generator that this is part of.
    """

    def __init__(self, settings: GeneratorConfig):
        super().__init__(
            patch_size=settings.patch_size,
            num_attention_heads=settings.num_heads,
            attention_head_dim=settings.dim // settings.num_heads,
            in_channels=settings.in_channels,
            out_channels=settings.out_channels,
            text_dim=settings.text_dim,
            freq_dim=settings.freq_dim,
            ffn_dim=settings.ffn_dim,
            num_layers=settings.num_layers,
            eps=settings.eps,
        )
        del self.rope  # Its table ends at 1024 frames; `_rotations` takes its place.
        for layer, block in enumerate(self.blocks):
            block.attn1.set_processor(_SelfAttention(layer))

    def forward(
        self, latents: torch.Tensor, timestep: torch.Tensor, context: torch.Tensor, plan: AttentionPlan | None = None
    ) -> torch.Tensor:
        """One pass.

        Args:
            latents: [B * runs, in_channels, T / runs, h, w], in multiples of the patch size.
            timestep: [B * runs], or [B * runs, T / runs] per latent frame; 0 to 1000.
            context: [B * runs, S, text_dim].
            plan: How to attend; None for one bidirectional sequence.

        Returns:
            [B * runs, out_channels, T / runs, h, w] in the dtype of `latents`, whatever the dtype of the weights.
        """
        plan = plan or AttentionPlan()
        batch, patch, dtype = latents.shape[0], self.config.patch_size, self.patch_embedding.weight.dtype
        frames, height, width = (n // p for n, p in zip(latents.shape[2:], patch, strict=True))
        positions = _positions(plan, frames * plan.runs, latents.device)
        rotations = _rotations(positions, height, width, self.config.attention_head_dim)
        attention_input = _SelfAttentionInput(rotations, plan)

        tokens_per_sample = None
        if timestep.ndim == 2:
            timestep = timestep[:, :: patch[0]].repeat_interleave(height * width, dim=1)
            tokens_per_sample = timestep.shape[1]
        # Per sample ([B, ...]) or per token ([B, L, ...]): an embedding, and the shifts, scales and gates of blocks.
        time_embedding, modulation, context, _ = self.condition_embedder(
            timestep.float().flatten(), context.to(dtype), None, timestep_seq_len=tokens_per_sample
        )
        modulation = modulation.unflatten(-1, (6, -1))

        tokens = self.patch_embedding(latents.to(dtype)).flatten(2).transpose(1, 2).contiguous()
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                tokens = self._gradient_checkpointing_func(block, tokens, context, modulation, attention_input)
            else:
                tokens = block(tokens, context, modulation, attention_input)

        table = time_embedding.reshape(batch, -1, 1, time_embedding.shape[-1]) + self.scale_shift_table
        shift, scale = table.unbind(2)
        tokens = (self.norm_out(tokens.float()) * (1 + scale) + shift).type_as(tokens)
        cells = self.proj_out(tokens).reshape(batch, frames, height, width, *patch, -1)
        # [B, frames, height, width, t, y, x, C] -> [B, C, frames t, height y, width x].
        video = cells.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return video.to(latents.dtype)


def _positions(plan: AttentionPlan, frames: int, device: torch.device) -> torch.Tensor:
    """int64 [frames], positions in time of a sequence's frames."""
    if plan.positions is not None:
        return plan.positions.to(device)
    return torch.arange(frames, device=device) if plan.cache is None else plan.cache.positions


def _rotations(positions: torch.Tensor, height: int, width: int, head_dim: int) -> torch.Tensor:
    """Wan's 3-D rotary embedding for frames at any position.

    Angles are computed from integer positions in float64 for each pass. Attention depends on differences of positions
    only, so a stream may count its frames without end: cached keys keep the rotation that they were stored with, and at
    frame 10^9 (a year at 30 frames/s) the rounding of position * frequency is 1e-7, that of float32. Nothing wraps.

    Args:
        positions: int64 [frames], in time.
        height: Tokens per column of a frame.
        width: Tokens per row of a frame.
        head_dim: Channels per head: the last 2 * (head_dim // 6) are for x, as many before them for y, the rest for
            time.

    Returns:
        complex64 [1, 1, frames * height * width, head_dim / 2].
    """
    frames, device = len(positions), positions.device
    side = 2 * (head_dim // 6)
    parts = [
        _axis_rotations(positions, head_dim - 2 * side).view(frames, 1, 1, -1),
        _axis_rotations(torch.arange(height, device=device), side).view(1, height, 1, -1),
        _axis_rotations(torch.arange(width, device=device), side).view(1, 1, width, -1),
    ]
    rotations = torch.cat([part.expand(frames, height, width, -1) for part in parts], dim=-1)
    return rotations.reshape(1, 1, frames * height * width, -1)


def _axis_rotations(positions: torch.Tensor, channels: int) -> torch.Tensor:
    """complex64 [len(positions), channels / 2] of one axis."""
    exponents = torch.arange(0, channels, 2, dtype=torch.float64, device=positions.device) / channels
    angles = positions.double()[:, None] * _THETA**-exponents
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def _rotate(x: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """Rotate neighbouring pairs of channels. x: [B, heads, L, head_dim]."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotations).flatten(-2).to(x.dtype)


class _SelfAttention:
    """Processor of a self-attention layer: rotary embedding, then attention as the pass's plan says.

    Cross-attention keeps the library's processor.

    Args:
        layer: Index of the block, under which its keys and values are cached.
    """

    def __init__(self, layer: int):
        self.layer = layer

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        rotary_emb: _SelfAttentionInput | None = None,
    ) -> torch.Tensor:
        """Names and order of the arguments are the library's.

        Args:
            attn: The layer, which owns the projections and norms.
            hidden_states: [B * runs, L / runs, C].
            encoder_hidden_states: Not used; of cross-attention.
            attention_mask: Not used; the plan has the mask.
            rotary_emb: Rotations and plan of the pass.

        Returns:
            [B * runs, L / runs, C].
        """
        plan, rotations = rotary_emb.plan, rotary_emb.rotations

        def heads(x: torch.Tensor) -> torch.Tensor:
            """[B * runs, L / runs, C] -> [B, heads, L, head_dim]."""
            return x.unflatten(0, (-1, plan.runs)).flatten(1, 2).unflatten(2, (attn.heads, -1)).transpose(1, 2)

        v = heads(attn.to_v(hidden_states))
        q = _rotate(heads(attn.norm_q(attn.to_q(hidden_states))), rotations).to(v.dtype)
        k = _rotate(heads(attn.norm_k(attn.to_k(hidden_states))), rotations).to(v.dtype)
        if plan.cache is not None:
            k, v = plan.cache.append(self.layer, k, v)
            q = q.to(k.dtype)
        out = F.scaled_dot_product_attention(q, k, v) if plan.mask is None else _attend_runs(q, k, v, plan.mask)
        out = out.transpose(1, 2).reshape(hidden_states.shape).to(hidden_states.dtype)
        return attn.to_out[1](attn.to_out[0](out))


def _attend_runs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: np.ndarray) -> torch.Tensor:
    """Attention between whole runs of tokens; no work (and no mask) is spent on runs that nobody attends to.

    Args:
        q: Queries [B, heads, runs * n, head_dim].
        k: Keys, likewise.
        v: Values, likewise.
        mask: bool [B or 1, runs, runs].

    Returns:
        The shape of `q`.
    """
    runs = mask.shape[-1]
    size = q.shape[2] // runs
    queries, keys, values = (x.split(size, dim=2) for x in (q, k, v))
    outputs = []
    for run, query in enumerate(queries):
        attended = mask[:, run].any(0).nonzero()[0].tolist()
        # Samples that attend to less than others (dropped history) need a mask; all queries of the run share it.
        part = mask[:, run, attended]
        allowed = None
        if not part.all():
            allowed = torch.from_numpy(part.repeat(size, 1)[:, None, None]).to(q.device).expand(q.shape[0], 1, size, -1)
        key, value = (torch.cat([x[i] for i in attended], dim=2) for x in (keys, values))
        outputs.append(F.scaled_dot_product_attention(query, key, value, attn_mask=allowed))
    return torch.cat(outputs, dim=2)
