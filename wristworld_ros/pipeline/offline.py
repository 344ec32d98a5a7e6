"""A whole video at once, as published but of any length: stage 1 a frame at a time, then overlapping windows.

`watch` goes through the anchors once and keeps latents, features and cameras; `draw` samples and decodes. Neither keeps
pictures, so an hour of video needs some tens of kilobytes a frame on the CPU, and on the device what one window needs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from wristworld_ros.models.wan.sampling import shared_noise
from wristworld_ros.models.wan.windows import Window, clip_latents, plan_windows, sample_windows
from wristworld_ros.pipeline.generator_inputs import (
    NotFiniteError,
    anchor_features,
    anchor_pictures,
    condition_video,
    to_pixels,
)
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.runtime.transfer import download, upload
from wristworld_ros.settings import WindowSettings, check
from wristworld_ros.types import AnchorSet, Camera, ConditionMap

# Latent frames that are decoded at once.
DECODED = 8


@dataclass(frozen=True)
class OfflineFrame:
    """What stage 1 says of one anchor set. camera: of the wrist, in the first anchor's frame. coverage, confidence: 0 to
    1, as in `WristFrame`. broken: one sentence where stage 1 gave NaN or infinity, else empty."""

    stamp_ns: int
    camera: Camera
    coverage: float
    confidence: float
    broken: str = ''


@dataclass(frozen=True)
class EncodedVideo:
    """All that stage 2 needs of a video of F frames, T latent frames; tensors lie on the CPU.

    condition_latents: [1, condition_channels, T, h, w], or None in a model trained without. features: [1, V, F', clip_dim]
    of the anchors, F' = F filled up to whole latent frames by repeating the last, or None likewise.
    """

    frames: tuple[OfflineFrame, ...]
    condition_latents: torch.Tensor | None
    features: torch.Tensor | None
    latent_frames: int

    def __len__(self) -> int:
        return len(self.frames)


@torch.inference_mode()
def watch(
    model: WristModel,
    anchors: Iterable[AnchorSet],
    near: float = 0.0,
    wrist_fov: float = 0.0,
    tick: Callable[[], None] = lambda: None,
) -> EncodedVideo:
    """Stage 1, the condition map and the anchors' features of every frame of a video.

    anchors: one set a frame, in order, all of the same cameras and sizes. near: metres, 0 for the model's own. wrist_fov:
    vertical, degrees, 0 for the predicted one. tick: called after every frame. Raises ValueError for no frames.
    """
    gen, config, stride = model.generator, model.config, model.autoencoder.temporal_stride
    autoencoder = copy.copy(model.autoencoder)  # its weights are shared, its streams are not
    autoencoder.reset()
    frames: list[OfflineFrame] = []
    waiting: list[ConditionMap] = []
    latents, features = [], []
    count = 0

    def encode(condition: ConditionMap) -> None:
        """The next latent frame, as soon as its pictures are there: the first stands for one, the others for s."""
        waiting.append(condition)
        if len(waiting) < (stride if latents else 1):
            return
        latents.append(autoencoder.encode_next(condition_video(gen, autoencoder, waiting)).cpu())
        waiting.clear()

    reconstruction_step, condition = model.reconstruction_step(near or None, wrist_fov), None
    for count, anchor_set in enumerate(anchors, start=1):  # noqa: B007
        sight = reconstruction_step(anchor_set)
        condition = sight.condition
        frames.append(
            OfflineFrame(anchor_set.stamp_ns, sight.reconstruction.wrist, sight.coverage, sight.confidence, sight.broken)
        )
        if config.use_condition:
            encode(condition)
        if config.use_anchor_tokens:
            pictures = upload(anchor_pictures(gen, [anchor_set.images]), model.device)
            features.append(anchor_features(gen, pictures).cpu())
        tick()
    if not count:
        raise ValueError('The anchors gave no frames; give videos that can be decoded.')
    missing = (1 - count) % stride
    for _ in range(missing if config.use_condition else 0):
        encode(condition)
    features += features[-1:] * missing
    return EncodedVideo(
        frames=tuple(frames),
        condition_latents=torch.cat(latents, dim=2) if latents else None,
        features=torch.cat(features, dim=2) if features else None,
        latent_frames=1 + (count - 1 + missing) // stride,
    )


def window_sizes(model: WristModel, settings: WindowSettings, views: int) -> tuple[int, int, int]:
    """(window, overlap, lead) in latent frames that settings ask for, as `plan_windows` takes them.

    views: anchor cameras. Raises ValueError, one sentence, for a window that the model's embeddings or context cannot
    hold, and for an overlap that is none.
    """
    check(settings)
    s, stride = model.generator.settings, model.autoencoder.temporal_stride
    views = min(views, s.max_views) if model.config.use_anchor_tokens else 1
    longest = min(s.max_frames, s.context_length // views) if model.config.use_anchor_tokens else settings.window
    if settings.window > longest:
        raise ValueError(
            f'The window is {settings.window} frames; {model.config.name} takes at most {longest} of {views} view(s).'
        )
    window = (settings.window - 1) // stride + 1 if settings.window else clip_latents(s, stride, views)
    lead = 1 if stride > 1 else 0
    overlap = -(-settings.overlap // stride) if settings.overlap else max(window // 3, lead + 1)
    if settings.overlap and overlap >= window:
        raise ValueError(
            f'Windows of {1 + stride * (window - 1)} frames cannot overlap by {settings.overlap}; give less, or a longer '
            'window.'
        )
    return window, overlap, lead


def windows_for(model: WristModel, seen: EncodedVideo, settings: WindowSettings) -> tuple[Window, ...]:
    """The windows that settings ask for, in latent frames; ValueError as in `window_sizes`."""
    views = 1 if seen.features is None else seen.features.shape[1]
    return plan_windows(seen.latent_frames, *window_sizes(model, settings, views))


def draw(
    model: WristModel,
    seen: EncodedVideo,
    settings: WindowSettings,
    seed: int = 0,
    windows: tuple[Window, ...] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[np.ndarray]:
    """Sample the wrist video of what was seen, then decode it piece by piece.

    windows: None for those of the settings. seed: of the noise; the same seed and input give the same video. tick: called
    after every window of every sampling step. Yields pictures uint8 [h, w, 3], one a frame that was seen.
    Raises ValueError, one sentence, for settings that the model cannot follow, and NotFiniteError where stage 2 gives NaN.
    """
    gen, autoencoder = model.generator, copy.copy(model.autoencoder)
    autoencoder.reset()
    s, stride = gen.settings, autoencoder.spatial_stride
    windows = windows_for(model, seen, settings) if windows is None else windows
    scale = settings.guidance or s.cfg_scale
    negative = None
    if s.text == 'stored' and scale != 1.0:
        negative = gen.context(gen.own_text(negative=True), None)
    elif settings.guidance not in (0.0, 1.0):
        raise ValueError(
            f'Guidance is {settings.guidance}, and {model.config.name} stores no negative prompt; take 1, or 0 for its own.'
        )
    shape = (1, s.latent_channels, seen.latent_frames, *(n // stride for n in model.config.wrist_hw))
    noise, _ = shared_noise(shape, model.config.noise_share, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        latents = sample_windows(
            gen, noise, seen.condition_latents, seen.features, windows, autoencoder.temporal_stride,
            negative_context=negative, steps=settings.steps or None, cfg_scale=scale, shift=settings.shift or None,
            solver=settings.solver, batched=settings.one_batch, tick=tick,
        )  # fmt: skip
    if not torch.isfinite(latents).all():
        raise NotFiniteError('Stage 2 gave numbers that are not finite (NaN or infinity), so there is no picture.')
    left = len(seen)
    for piece in latents.split(DECODED, dim=2):
        with torch.inference_mode():
            (pictures,) = download(to_pixels(autoencoder.decode_next(piece.to(model.device))))
        yield from pictures[:left]
        left -= len(pictures[:left])
