"""Chunk-by-chunk (causal) generation: the streaming step, and the pass that trains all chunks of a clip at once.

A chunk is a run of `chunk_frames` latent frames that are denoised together. It attends to itself and to the clean
latents of up to `history_chunks` chunks before it, through the keys and values of self-attention; its context holds the
anchor tokens of its own frames only, with times counted from the chunk's first frame. So nothing depends on how long a
stream is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from wristworld_ros.errors import UserError
from wristworld_ros.models.wan import sampling
from wristworld_ros.models.wan.generator import WristGenerator
from wristworld_ros.models.wan.kv_cache import KVCache
from wristworld_ros.models.wan.transformer import AttentionPlan


def new_cache(
    gen: WristGenerator,
    latent_hw: tuple[int, int],
    batch: int = 1,
    chunk_frames: int | None = None,
    history_chunks: int | None = None,
    dtype: torch.dtype | None = None,
) -> KVCache:
    """An empty cache for the streams of one batch.

    Args:
        gen: The generator.
        latent_hw: Height and width of a latent frame.
        batch: Streams side by side; with guidance each stream counts twice.
        chunk_frames: Latent frames per chunk; None for the configuration's.
        history_chunks: Chunks of history; None for the configuration's.
        dtype: Of the cache; None for that of the weights.

    Raises:
        UserError: The patch size does not divide the chunk.
    """
    s = gen.settings
    chunk_frames = s.chunk_frames if chunk_frames is None else chunk_frames
    sizes = (chunk_frames, *latent_hw)
    if any(n % p for n, p in zip(sizes, s.patch_size, strict=True)):
        raise UserError(
            f'A chunk of {list(sizes)} latent cells (frames, height, width) is not a multiple of patch {s.patch_size}',
            'change the frames per chunk or the size of the wrist image',
        )
    frames, height, width = (n // p for n, p in zip(sizes, s.patch_size, strict=True))
    weight = gen.transformer.patch_embedding.weight
    history = s.history_chunks if history_chunks is None else history_chunks
    return KVCache(
        layers=s.num_layers,
        batch=batch,
        heads=s.num_heads,
        head_dim=s.dim // s.num_heads,
        chunk_tokens=frames * height * width,
        chunk_frames=frames,
        history_chunks=history,
        dtype=dtype or weight.dtype,
        device=weight.device,
        sink_chunks=min(s.sink_chunks, history),
    )


def chunk_contexts(
    gen: WristGenerator,
    features: torch.Tensor | None,
    frames: list[int],
    text_context: torch.Tensor | None = None,
    keep: torch.Tensor | None = None,
) -> torch.Tensor:
    """The context of each chunk of a clip: text, then the anchor tokens of the chunk's own frames.

    Args:
        gen: The generator.
        features: [B, V, T, clip_dim] of all anchor frames, or None (no anchor tokens; batch 1, expands).
        frames: Video frames of each chunk, e.g. [4, 4, 4]; their sum is T. With Wan's autoencoder the first chunk of c
            latent frames has 1 + 4 (c - 1), the others have 4 c.
        text_context: [B or 1, L, text_dim], or None for the model's own.
        keep: bool [B], False where a sample's anchor tokens are left out (dropout, ablation); None keeps all.

    Returns:
        [B, G, context_length, text_dim], G = len(frames).

    Raises:
        ValueError: The frames do not add up to T.
    """
    bare = gen.context(text_context, None)[:, None].expand(-1, len(frames), -1, -1)
    if features is None:
        return bare
    if sum(frames) != features.shape[2]:
        raise ValueError(f'chunk_contexts got {features.shape[2]} anchor frames for chunks of {frames}.')
    parts = features.split(frames, dim=2)
    if len(set(frames)) == 1 and text_context is None:
        merged = gen.context(None, gen.anchor_tokens(torch.stack(parts, dim=1).flatten(0, 1)))
        contexts = merged.unflatten(0, (features.shape[0], len(frames)))
    else:
        contexts = torch.stack([gen.context(text_context, gen.anchor_tokens(part)) for part in parts], dim=1)
    if keep is not None:
        contexts = torch.where(keep[:, None, None, None], contexts, bare.to(contexts.dtype))
    return contexts


def block_causal_mask(
    chunks: int, history_chunks: int, visible: np.ndarray | None = None, sink_chunks: int = 0
) -> np.ndarray:
    """Which chunk attends to which in the sequence [clean chunks | noisy chunks].

    Clean chunk i attends to clean chunks i - history .. i, as when it was committed in a stream; noisy chunk i attends
    to clean chunks i - history .. i - 1 and itself. Sinks, the first chunks, take the place of the oldest.

    Args:
        chunks: Chunks of a clip.
        history_chunks: Chunks of history.
        visible: int [B] or [B, chunks], chunks of history that each noisy chunk may attend to; None for all.
        sink_chunks: How many of the history are the clip's first ones.

    Returns:
        bool [B or 1, 2 * chunks, 2 * chunks], True where the row attends to the column.
    """
    index = np.arange(chunks)
    age = index[:, None] - index[None, :]
    kept = (age <= history_chunks - sink_chunks) | (index < sink_chunks)[None]
    clean, past = (age >= 0) & kept, ((age >= 1) & kept)[None]
    if visible is not None:
        past = past & (age[None] <= visible.reshape(visible.shape[0], -1, 1))
    top = np.concatenate([clean, np.zeros_like(clean)], axis=1)
    itself = np.eye(chunks, dtype=bool)
    rows = [np.concatenate([top, np.concatenate([one, itself], axis=1)]) for one in past]
    return np.stack(rows)


def block_causal_predict(
    gen: WristGenerator,
    noisy: torch.Tensor,
    clean: torch.Tensor,
    condition_latents: torch.Tensor | None,
    timestep: torch.Tensor,
    contexts: torch.Tensor,
    chunk_frames: int | None = None,
    history_chunks: int | None = None,
    visible: torch.Tensor | None = None,
) -> torch.Tensor:
    """Train every chunk of a clip in one pass (teacher forcing): chunk i is predicted from the clean chunks before it.

    Args:
        gen: The generator.
        noisy: [B, C, T, h, w], T a multiple of chunk_frames.
        clean: [B, C, T, h, w]. May carry a little noise, so that the model learns to cope with its own errors.
        condition_latents: [B, condition_channels, T, h, w], or None for zeros.
        timestep: [B], or [B, G] per chunk; 0 to 1000, of the noisy latents. The clean ones have 0.
        contexts: [B, G, S, text_dim] of `chunk_contexts`.
        chunk_frames: Latent frames per chunk; None for the configuration's.
        history_chunks: Chunks of history; None for the configuration's.
        visible: int [B] or [B, G], chunks of history each noisy chunk may attend to (history dropping: 0).

    Returns:
        What the network predicts for the noisy latents (`gen.settings.prediction`), [B, C, T, h, w]; `gen.to_velocity`
        and `gen.to_sample` convert. Equal to the predictions in `generate_chunk` when the same chunks are committed.

    Raises:
        ValueError: Frames that are not a multiple of the chunk, or another number of contexts.
    """
    s = gen.settings
    chunk_frames = s.chunk_frames if chunk_frames is None else chunk_frames
    history_chunks = s.history_chunks if history_chunks is None else history_chunks
    batch, frames = noisy.shape[0], noisy.shape[2]
    if frames % chunk_frames or chunk_frames % s.patch_size[0]:
        raise ValueError(f'block_causal_predict got {frames} frames; give a multiple of chunk_frames {chunk_frames}.')
    chunks = frames // chunk_frames
    if contexts.shape[1] != chunks:
        raise ValueError(f'block_causal_predict got {contexts.shape[1]} contexts for {chunks} chunks; give one each.')
    sinks = min(s.sink_chunks, history_chunks)
    mask = block_causal_mask(chunks, history_chunks, None if visible is None else visible.cpu().numpy(), sinks)
    positions = torch.arange(frames // s.patch_size[0], device=noisy.device).repeat(2)
    times = timestep.reshape(batch, -1).expand(batch, chunks)

    def runs(latents: torch.Tensor) -> torch.Tensor:
        """[B, C, 2 T, h, w], history then noisy chunks -> [B * 2 G, C, chunk_frames, h, w]."""
        return latents.unflatten(2, (-1, chunk_frames)).transpose(1, 2).flatten(0, 1)

    features = gen.transform(
        runs(torch.cat([clean, noisy], dim=2)),
        None if condition_latents is None else runs(condition_latents.repeat(1, 1, 2, 1, 1)),
        torch.cat([torch.zeros_like(times), times], dim=1).flatten(),
        contexts.repeat(1, 2, 1, 1).flatten(0, 1),
        AttentionPlan(runs=2 * chunks, positions=positions, mask=mask),
    )
    features = features.unflatten(0, (batch, 2 * chunks))[:, chunks:].transpose(1, 2).flatten(2, 3)
    return gen.decode_features(features, noisy, condition_latents, times.repeat_interleave(chunk_frames, dim=1))


@torch.no_grad()
def generate_chunk(
    gen: WristGenerator,
    noise: torch.Tensor,
    condition_latents: torch.Tensor | None,
    context: torch.Tensor,
    cache: KVCache,
    steps: int | None = None,
    shift: float | None = None,
    negative_context: torch.Tensor | None = None,
    cfg_scale: float | None = None,
    commit: bool = True,
    fresh: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sample the next chunk of a stream and, unless told not to, commit it to the cache.

    Args:
        gen: The generator.
        noise: [B, C, chunk_frames, h, w], unit Gaussian.
        condition_latents: [B, condition_channels, chunk_frames, h, w], or None for zeros.
        context: [B, S, text_dim], text and the chunk's anchor tokens (`gen.context`).
        cache: Of `new_cache`; an empty one makes a first chunk.
        steps: Sampling steps; None for the configuration's.
        shift: Of the noise schedule; None for the configuration's.
        negative_context: As in `WristGenerator.sample`; the cache then holds 2 B streams.
        cfg_scale: Of guidance; None for the configuration's.
        commit: False leaves it to `commit_chunk`, which may then run after the chunk has been delivered.
        fresh: New noise of a few-step student's later steps, [steps - 1, B, C, chunk_frames, h, w].

    Returns:
        Clean latents [B, C, chunk_frames, h, w].
    """
    scale = gen.settings.cfg_scale if cfg_scale is None else cfg_scale
    velocity = gen.guided_velocity(condition_latents, context, negative_context, scale, AttentionPlan(cache=cache))
    latents = gen.solver(fresh=fresh)(velocity, noise, gen.sigmas(steps, shift, noise.device))
    if commit:
        guided = negative_context is not None and scale != 1.0
        commit_chunk(gen, latents, condition_latents, context, cache, negative_context if guided else None)
    return latents


@torch.no_grad()
def commit_chunk(
    gen: WristGenerator,
    latents: torch.Tensor,
    condition_latents: torch.Tensor | None,
    context: torch.Tensor,
    cache: KVCache,
    negative_context: torch.Tensor | None = None,
) -> None:
    """`write_chunk`, then the ring advances."""
    write_chunk(gen, latents, condition_latents, context, cache, negative_context)
    cache.advance()


@torch.no_grad()
def write_chunk(
    gen: WristGenerator,
    latents: torch.Tensor,
    condition_latents: torch.Tensor | None,
    context: torch.Tensor,
    cache: KVCache,
    negative_context: torch.Tensor | None = None,
) -> None:
    """Write the keys and values of a chunk's clean latents into its slot of the cache, by one pass at sigma 0.

    Args:
        gen: The generator.
        latents: [B, C, chunk_frames, h, w], clean: the result of `generate_chunk`, or those of real frames.
        condition_latents: As in `generate_chunk`.
        context: As in `generate_chunk`.
        cache: Of the stream.
        negative_context: Only for streams that are sampled with guidance.
    """
    if negative_context is not None:
        context = sampling.both_halves(context, negative_context.expand_as(context))
        latents, condition_latents = sampling.both_halves(latents), sampling.both_halves(condition_latents)
    timestep = latents.new_zeros(latents.shape[0])
    gen.transform(latents, condition_latents, timestep, context, AttentionPlan(cache=cache))


@torch.no_grad()
def sample_chunks(
    gen: WristGenerator,
    noise: torch.Tensor,
    condition_latents: torch.Tensor | None,
    features: torch.Tensor | None,
    temporal_stride: int = 1,
    chunk_frames: int | None = None,
    history_chunks: int | None = None,
    steps: int | None = None,
    negative_context: torch.Tensor | None = None,
    cfg_scale: float | None = None,
    on_chunk: Callable[[], object] = lambda: None,
) -> torch.Tensor:
    """Sample a whole video as a stream would, chunk after chunk: the offline way of a few-step student.

    Equal to the stream to the bit where noise, chunk, history and steps are the same. Inputs may be on another device
    than the model; one chunk at a time is moved there.

    Args:
        gen: The generator.
        noise: [N, B, C, T, h, w]: where the model re-noises, N = steps, one for each step; otherwise N = 1. T is a multiple of
            chunk_frames.
        condition_latents: [B, condition_channels, T, h, w], or None for zeros.
        features: [B, V, F, clip_dim] of the anchor frames, F = 1 + s (T - 1); or None.
        temporal_stride: s, video frames per latent frame, of the autoencoder.
        chunk_frames: Latent frames per chunk; None for the configuration's.
        history_chunks: Chunks of history; None for the configuration's.
        steps: None for the configuration's.
        negative_context: For guidance, see `WristGenerator.sample`.
        cfg_scale: Of guidance; None for the configuration's.
        on_chunk: Called after every chunk.

    Returns:
        Clean latents [B, C, T, h, w] on the device of `noise`.

    Raises:
        ValueError: Frames that are not a multiple of the chunk.
    """
    chunk = gen.settings.chunk_frames if chunk_frames is None else chunk_frames
    total, device = noise.shape[3], gen.transformer.patch_embedding.weight.device
    if total % chunk:
        raise ValueError(f'sample_chunks got {total} frames; give a multiple of chunk_frames {chunk}.')
    streams = noise.shape[1] * (1 if negative_context is None else 2)
    cache = new_cache(gen, (noise.shape[4], noise.shape[5]), streams, chunk, history_chunks)
    pieces = []
    for first in range(0, total, chunk):
        span = slice(first, first + chunk)
        tokens = None
        if features is not None:
            # Latent frame k > 0 stands for the video frames s (k - 1) + 1 .. s k.
            frames = slice(max(temporal_stride * (first - 1) + 1, 0), temporal_stride * (first + chunk - 1) + 1)
            tokens = gen.anchor_tokens(features[:, :, frames].to(device))
        condition = None if condition_latents is None else condition_latents[:, :, span].to(device)
        levels = noise[:, :, :, span].to(device)
        latents = generate_chunk(
            gen, levels[0], condition, gen.context(None, tokens), cache, steps, None, negative_context, cfg_scale,
            fresh=levels[1:],
        )  # fmt: skip
        pieces.append(latents.to(noise.device))
        on_chunk()
    return torch.cat(pieces, dim=2)
