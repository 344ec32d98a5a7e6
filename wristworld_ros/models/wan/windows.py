"""Windowed generation: a video of any length from overlapping bidirectional clips that are denoised together.

The published model was trained on clips of 81 frames. Clips sampled one by one do not match: each samples its own
details, and the seams are visible. Here all windows are parts of one noisy video. At every noise level each window
predicts the velocity of its own frames, the predictions are averaged with smooth weights, and the solver takes one step
of the whole video along

    v(x, sigma)[t] = sum_i w_i[t] * v_i(x[a_i : a_i + n], sigma)[t - a_i],    sum_i w_i[t] = 1

which is the least-squares reconciliation of MultiDiffusion (Bar-Tal et al. 2023, arXiv 2302.08113, eq. 5 with weights
W_i) with windows in time (Gen-L-Video, Wang et al. 2023, arXiv 2305.18264). So windows agree on what they share from
the first step on, and any solver may be used, because it integrates one velocity field.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from wristworld_ros.errors import UserError
from wristworld_ros.models.wan import sampling
from wristworld_ros.models.wan.config import GeneratorConfig
from wristworld_ros.models.wan.generator import WristGenerator

# Video frames of a published clip.
PUBLISHED_CLIP = 81


@dataclass(frozen=True)
class Window:
    """A run of latent frames that goes through the network as one clip.

    Attributes:
        start: Its first latent frame.
        frames: Its number of latent frames.
        weights: float32 [frames], the weight of its prediction in each of them.
    """

    start: int
    frames: int
    weights: torch.Tensor

    @property
    def span(self) -> slice:
        """Its latent frames."""
        return slice(self.start, self.start + self.frames)

    def video_span(self, temporal_stride: int) -> slice:
        """Its video frames, 1 + s (frames - 1) as in a clip of its own, up to the last that its last latent frame
        stands for."""
        first = self.start * temporal_stride
        return slice(first, first + 1 + temporal_stride * (self.frames - 1))


def clip_latents(settings: GeneratorConfig, temporal_stride: int = 1, views: int = 1) -> int:
    """Latent frames of the longest clip that a model takes as published.

    The published 81 video frames, or fewer where the model has fewer rows of time embedding or where the anchor tokens
    of all views would not fit its context.

    Args:
        settings: Of the generator.
        temporal_stride: Of the autoencoder.
        views: Anchor views.

    Raises:
        UserError: Not even one frame fits.
    """
    views = max(views, 1)
    frames = min(PUBLISHED_CLIP, settings.max_frames, settings.context_length // views)
    if frames < 1:
        raise UserError(
            f'{views} views do not fit into a context of {settings.context_length} tokens', 'give fewer views'
        )
    return (frames - 1) // temporal_stride + 1


def plan_windows(total: int, window: int, overlap: int, lead: int = 0) -> tuple[Window, ...]:
    """Cover a video with windows of one length, spread evenly, whose weights add up to 1 at every frame.

    Weights rise and fall as sin^2 over what neighbours share.

    Args:
        total: Latent frames of the video.
        window: Latent frames of a window; a shorter video is one window.
        overlap: Latent frames that neighbours share at least.
        lead: First frames of every window except the first that have weight 0, though they are denoised with it: an
            autoencoder that compresses time makes a clip's first latent frame of one video frame, and a model trained
            so expects that, which is wrong in the middle of a video.

    Raises:
        UserError: Sizes that are not possible.
    """
    if total < 1 or window < 1:
        raise UserError(f'The windows got total={total} and window={window} latent frames', 'give at least 1 of each')
    if total <= window:
        return (Window(0, total, torch.ones(total)),)
    if window < lead + 2:
        raise UserError(
            f'The windows have {window} latent frames, and windows that overlap need at least {lead + 2}',
            'make them longer',
        )
    if not 0 <= lead < overlap < window:
        raise UserError(
            f'The windows have {window} latent frames and overlap by {overlap}',
            f'the overlap must be {lead + 1} to {window - 1}',
        )
    count = math.ceil((total - window) / (window - overlap)) + 1
    starts = [i * (total - window) // (count - 1) for i in range(count)]
    frame = torch.arange(window, dtype=torch.float64)
    raw = []
    for i, start in enumerate(starts):
        weight = torch.ones(window, dtype=torch.float64)
        if i > 0:
            weight *= _rise(frame - lead, starts[i - 1] + window - start - lead)
        if i < count - 1:
            weight *= _rise(window - 1 - frame, start + window - starts[i + 1] - lead)
        raw.append(weight)
    # Two neighbours add up to 1 as they are; where more than two meet they are normalised.
    whole = torch.zeros(total, dtype=torch.float64)
    for start, weight in zip(starts, raw, strict=True):
        whole[start : start + window] += weight
    return tuple(
        Window(start, window, (weight / whole[start : start + window]).float())
        for start, weight in zip(starts, raw, strict=True)
    )


def _rise(frame: torch.Tensor, length: int) -> torch.Tensor:
    """sin^2 from 0 to 1 over `length` frames, sampled at the middle of each; 0 before, 1 after."""
    return torch.sin(math.pi / 2 * ((frame + 0.5) / length).clamp(0, 1)).square()


def seam_frames(windows: tuple[Window, ...], temporal_stride: int = 1) -> list[int]:
    """Video frames j at which the change from frame j - 1 may show a seam: all over which weights change.

    From the first frame in which the next window has weight to the first that it has alone; for windows that share
    nothing, the first frame of each except the first.

    Args:
        windows: Of `plan_windows`.
        temporal_stride: Of the autoencoder.

    Returns:
        Frame numbers in order.
    """
    found = set()
    for one, two in itertools.pairwise(windows):
        first = two.start + int((two.weights > 0).nonzero()[0])
        last = max(one.start + one.frames, first)
        # Latent frame k > 0 stands for the video frames s (k - 1) + 1 .. s k.
        found.update(range(temporal_stride * (first - 1) + 1, temporal_stride * (last - 1) + 2))
    return sorted(found)


@torch.no_grad()
def sample_windows(
    gen: WristGenerator,
    noise: torch.Tensor,
    condition_latents: torch.Tensor | None,
    features: torch.Tensor | None,
    windows: tuple[Window, ...],
    temporal_stride: int = 1,
    text_context: torch.Tensor | None = None,
    negative_context: torch.Tensor | None = None,
    steps: int | None = None,
    cfg_scale: float | None = None,
    shift: float | None = None,
    solver: str = 'euler',
    batched: bool = True,
    on_window: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Sample a video of any length; a video of one window equals `WristGenerator.sample` to the bit.

    Noise, condition latents and features may be on another device than the model: one window at a time is moved to the
    model's device, so the memory needed there depends on the window and not on T.

    Args:
        gen: The generator.
        noise: [B, C, T, h, w], unit Gaussian, float32 (or the dtype to keep the video in).
        condition_latents: [B, condition_channels, T, h, w], or None for zeros.
        features: [B, V, F, clip_dim] of the anchor frames (`gen.anchor_features`), F = 1 + s (T - 1) video frames with
            s = `temporal_stride`, V from 1 to `max_views`; or None (no anchor tokens). Each window gets the tokens of
            its own frames, with times counted from its first, as a clip of its own.
        windows: Of `plan_windows`.
        temporal_stride: Of the autoencoder.
        text_context: [B or 1, L, text_dim], or None for the model's own.
        negative_context: [1 or B, context_length, text_dim] for guidance; None samples without guidance.
        steps: None for the configuration's (50 as published).
        cfg_scale: None for the configuration's (5 as published).
        shift: None for the configuration's (5 as published).
        solver: 'euler' as published, or 'unipc' for fewer steps.
        batched: The halves of a guided step are one batch; False computes them one after the other, in half the memory.
        on_window: Called after every window of every step, len(windows) * steps times.

    Returns:
        Clean latents, in the shape, dtype and device of `noise`.

    Raises:
        ValueError: Numbers of frames that contradict each other.
        UserError: Windows that the patch size does not divide, or an unknown solver.
    """
    total, patch = noise.shape[2], gen.settings.patch_size[0]
    for name, given, wanted in (
        ('windows', windows[-1].start + windows[-1].frames, total),
        ('condition latents', total if condition_latents is None else condition_latents.shape[2], total),
        ('anchor features', None if features is None else features.shape[2], 1 + temporal_stride * (total - 1)),
    ):
        if given is not None and given != wanted:
            raise ValueError(f'sample_windows got {name} of {given} frames for noise of {total}; give {wanted}.')
    if any(window.frames % patch for window in windows):
        raise UserError(
            f'A window of {windows[0].frames} latent frames is not a multiple of the temporal patch {patch}',
            'change the length of windows',
        )
    solve = sampling.solver(solver)
    device = gen.transformer.patch_embedding.weight.device
    scale = gen.settings.cfg_scale if cfg_scale is None else cfg_scale

    def weighted_velocity(window: Window, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        # The context is computed at every step: that costs nothing beside the transformer, and a stored one is
        # megabytes.
        tokens = None
        if features is not None:
            tokens = gen.anchor_tokens(features[:, :, window.video_span(temporal_stride)].to(device))
        context = gen.context(text_context, tokens)
        condition = None if condition_latents is None else condition_latents[:, :, window.span].to(device)
        velocity = gen.guided_velocity(condition, context, negative_context, scale, batched=batched)
        predicted = velocity(x[:, :, window.span].to(device), sigma.to(device)).float().to(x.device)
        return predicted * window.weights.to(x.device).view(-1, 1, 1)

    def blended_velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        blended = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        for window in windows:
            blended[:, :, window.span] += weighted_velocity(window, x, sigma)
            on_window()
        return blended

    return solve(blended_velocity, noise, gen.sigmas(steps, shift, noise.device))
