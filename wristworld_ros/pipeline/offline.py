"""A whole video at once, as published but of any length: stage 1 frame by frame, then overlapping windows, or, of a few-step
student, chunk after chunk as it streams.

`encode_video` goes through the anchors once and keeps latents, features and cameras; `generate_video` samples and decodes.
Neither keeps images, so an hour of video needs some tens of kilobytes per frame on the CPU, and on the device what one
window needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch

from wristworld_ros.errors import UserError
from wristworld_ros.models.wan.causal import sample_chunks
from wristworld_ros.models.wan.sampling import shared_noise
from wristworld_ros.models.wan.windows import Window, clip_latents, plan_windows, sample_windows
from wristworld_ros.pipeline.anchor_checks import AnchorChecks, judge_agreement, judge_confidence
from wristworld_ros.pipeline.generate import (
    NOT_FINITE,
    NotFiniteError,
    anchor_features,
    anchor_images,
    condition_video,
    guidance_of,
    to_pixels,
)
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.observation import Observation
from wristworld_ros.pipeline.reconstruct import ReconstructionStep
from wristworld_ros.runtime.overlap import ahead
from wristworld_ros.runtime.transfer import download, upload
from wristworld_ros.setting import check
from wristworld_ros.settings import StreamSettings, WindowSettings
from wristworld_ros.types import AnchorSet, Camera, ConditionMap, FrameStatus, Verdict

DECODED_AT_ONCE = 8  # latent frames


@dataclass(frozen=True)
class OfflineFrame:
    """What stage 1 gives for one anchor set.

    camera: of the wrist, in the first anchor's frame. coverage, confidence, agreement: as in `WristFrame`. verdict: valid,
    or why stage 1 gave nothing, or what is wrong with the anchors.
    """

    stamp_ns: int
    camera: Camera
    coverage: float
    confidence: float
    agreement: float
    verdict: Verdict


@dataclass(frozen=True)
class EncodedVideo:
    """Everything stage 2 needs of a video of F frames, T latent frames; tensors lie on the CPU.

    condition_latents: [1, condition_channels, T, h, w], or None in a model trained without. features: [1, V, F', clip_dim]
    of the anchors, F' = F padded to whole latent frames by repeating the last, or None likewise.
    """

    frames: tuple[OfflineFrame, ...]
    condition_latents: torch.Tensor | None
    features: torch.Tensor | None
    latent_frames: int

    def __len__(self) -> int:
        return len(self.frames)


class _VideoEncoder:
    """Collects what stage 2 needs, observation by observation."""

    def __init__(self, model: WristModel):
        self.model, self.stride = model, model.autoencoder.temporal_stride
        self.frames: list[OfflineFrame] = []
        self._anchor_checks = AnchorChecks()
        self._latents: list[torch.Tensor] = []
        self._features: list[torch.Tensor] = []
        self._waiting: list[ConditionMap] = []
        self._state = None

    def add(self, observation: Observation) -> None:
        """One frame."""
        anchors, config, gen = observation.anchors, self.model.config, self.model.generator
        camera = observation.reconstruction.wrist
        verdicts = (
            observation.verdict,
            self._anchor_checks.judge(anchors, StreamSettings.frozen_after, StreamSettings.still_after),
            judge_confidence(observation.confidence, config.min_confidence),
            judge_agreement(anchors.names, observation.agreements, config.min_agreement),
        )
        verdict = next((v for v in verdicts if v.status is not FrameStatus.VALID), Verdict())
        self.frames.append(
            OfflineFrame(
                anchors.stamp_ns, camera, observation.coverage, observation.confidence, observation.agreement, verdict
            )
        )
        prior, self._last = self.model.prior, observation.condition
        if prior is not None:
            self._last = prior(self._last, anchors.images)
        if config.use_condition:
            self._encode(self._last)
        if config.use_anchor_tokens:
            images = upload(anchor_images(gen, [anchors.images]), self.model.device)
            self._features.append(anchor_features(gen, images).cpu())

    def finish(self) -> EncodedVideo:
        """The video, padded to whole latent frames by repeating the last frame."""
        missing = (1 - len(self.frames)) % self.stride
        for _ in range(missing if self.model.config.use_condition else 0):
            self._encode(self._last)
        features = self._features + self._features[-1:] * missing
        return EncodedVideo(
            frames=tuple(self.frames),
            condition_latents=torch.cat(self._latents, dim=2) if self._latents else None,
            features=torch.cat(features, dim=2) if features else None,
            latent_frames=1 + (len(self.frames) - 1 + missing) // self.stride,
        )

    def _encode(self, condition: ConditionMap) -> None:
        """The next latent frame, as soon as its images are there: the first stands for one, the others for a stride."""
        self._waiting.append(condition)
        if len(self._waiting) < (self.stride if self._latents else 1):
            return
        autoencoder = self.model.autoencoder
        video = condition_video(self.model.generator, autoencoder, self._waiting)
        latents, self._state = autoencoder.encode_next(video, self._state)
        self._latents.append(latents.cpu())
        self._waiting.clear()


@torch.inference_mode()
def encode_video(
    model: WristModel,
    anchors: Iterable[AnchorSet],
    near: float | None = None,
    wrist_fov: float | None = None,
    on_frame: Callable[[], object] = lambda: None,
) -> EncodedVideo:
    """Stage 1, the condition map and the anchors' features of every frame of a video.

    Sets are read in one thread and reconstructed in another.

    Args:
        model: The model.
        anchors: One set per frame, in order, all of the same cameras and sizes.
        near: Near plane, metres; None for the model's own.
        wrist_fov: Vertical, degrees; None for the predicted one.
        on_frame: Called after every frame.

    Raises:
        UserError: There are no frames.
    """
    step = ReconstructionStep(model, near, wrist_fov)
    with closing(ahead(step(anchor_set) for anchor_set in ahead(anchors))) as observations:
        return encode_observations(model, observations, on_frame)


@torch.inference_mode()
def encode_observations(
    model: WristModel, observations: Iterable[Observation], on_frame: Callable[[], object] = lambda: None
) -> EncodedVideo:
    """`encode_video` of what was observed already, e.g. by a stream that knows more than images."""
    encoder = _VideoEncoder(model)
    for observation in observations:
        encoder.add(observation)
        on_frame()
    if not encoder.frames:
        raise UserError('The anchor videos contain no frames', 'give videos that can be decoded')
    return encoder.finish()


def window_sizes(model: WristModel, settings: WindowSettings, views: int) -> tuple[int, int, int]:
    """(window, overlap, lead) in latent frames that settings ask for, as `plan_windows` takes them; of a few-step student its
    chunk.

    Args:
        model: The model.
        settings: Of the windows.
        views: Anchor cameras.

    Raises:
        UserError: The model's embeddings or context cannot hold the window, the overlap is not smaller than it, or a student is
            asked for windows or a solver.
    """
    check(settings)
    s, stride = model.generator.settings, model.autoencoder.temporal_stride
    if s.sampler is not None:
        _check_student(model, settings)
        return s.chunk_frames, 0, 0
    if model.config.use_anchor_tokens:
        views = min(views, s.max_views)
        longest = min(s.max_frames, s.context_length // views)
        if settings.window is not None and settings.window > longest:
            raise UserError(
                f'The window is {settings.window} frames, and {model.config.name} takes at most {longest} of {views} view(s)',
                'give a shorter window, or auto',
            )
    else:
        views = 1
    window = clip_latents(s, stride, views) if settings.window is None else (settings.window - 1) // stride + 1
    lead = 1 if stride > 1 else 0
    overlap = max(window // 3, lead + 1) if settings.overlap is None else -(-settings.overlap // stride)
    if settings.overlap is not None and overlap >= window:
        raise UserError(
            f'Windows of {1 + stride * (window - 1)} frames cannot overlap by {settings.overlap}',
            'give a smaller overlap, or a longer window',
        )
    return window, overlap, lead


def _check_student(model: WristModel, settings: WindowSettings) -> None:
    """A student goes its own way from noise to image, chunk by chunk; UserError for settings that have no meaning in it."""
    defaults = WindowSettings()
    for name in ('window', 'overlap', 'shift', 'solver'):
        if getattr(settings, name) != getattr(defaults, name):
            raise UserError(
                f'Setting {name} is {getattr(settings, name)}, and {model.config.name} is a few-step student, which samples chunk by '
                'chunk at the noise levels it was distilled to',
                f'leave {name} out',
            )
    model.generator.sigmas(settings.steps)


def plan_for(model: WristModel, encoded: EncodedVideo, settings: WindowSettings) -> tuple[Window, ...]:
    """The windows that settings ask for, in latent frames, or a student's chunks; errors as in `window_sizes`."""
    if model.generator.settings.sampler is not None:
        chunk = window_sizes(model, settings, 1)[0]
        starts = range(0, encoded.latent_frames, chunk)
        return tuple(Window(start, chunk, torch.ones(chunk)) for start in starts)
    views = 1 if encoded.features is None else encoded.features.shape[1]
    return plan_windows(encoded.latent_frames, *window_sizes(model, settings, views))


def generate_video(
    model: WristModel,
    encoded: EncodedVideo,
    settings: WindowSettings,
    seed: int = 0,
    windows: tuple[Window, ...] | None = None,
    on_window: Callable[[], object] = lambda: None,
) -> Iterator[np.ndarray]:
    """Sample the wrist video of an encoded one, then decode it piece by piece.

    Args:
        model: The model.
        encoded: Of `encode_video`.
        settings: Of sampling.
        seed: Of the noise; the same seed and input give the same video.
        windows: None for those of the settings.
        on_window: Called after every window of every sampling step.

    Yields:
        Images uint8 [h, w, 3], one per frame of the encoded video.

    Raises:
        UserError: The model cannot follow the settings.
        NotFiniteError: Stage 2 produced NaN or infinity.
    """
    gen, autoencoder = model.generator, model.autoencoder
    s, stride = gen.settings, autoencoder.spatial_stride
    windows = plan_for(model, encoded, settings) if windows is None else windows
    scale, negative = guidance_of(model, settings.guidance)
    shape = (1, s.latent_channels, encoded.latent_frames, *(n // stride for n in model.config.wrist_hw))
    random = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        if s.sampler is not None:
            latents = _sample_student(model, encoded, settings.steps, scale, negative, shape, random, on_window)
        else:
            noise, _ = shared_noise(shape, model.config.noise_share, generator=random)
            latents = sample_windows(
                gen, noise, encoded.condition_latents, encoded.features, windows, autoencoder.temporal_stride,
                negative_context=negative, steps=settings.steps, cfg_scale=scale, shift=settings.shift,
                solver=settings.solver, batched=settings.one_batch, on_window=on_window,
            )  # fmt: skip
    if not torch.isfinite(latents).all():
        raise NotFiniteError(NOT_FINITE)
    left, state = len(encoded), None
    for piece in latents.split(DECODED_AT_ONCE, dim=2):
        with torch.inference_mode():
            video, state = autoencoder.decode_next(piece.to(model.device), state)
            (images,) = download(to_pixels(video))
        yield from images[:left]
        left -= len(images[:left])


def _sample_student(
    model: WristModel, encoded: EncodedVideo, steps: int | None, scale: float, negative: torch.Tensor | None,
    shape: tuple[int, ...], random: torch.Generator, on_window: Callable[[], object],
) -> torch.Tensor:  # fmt: skip
    """A student's latents of a video, [1, C, T, h, w] of the shape: as its stream of the same seed and chunk makes them."""
    gen, stride = model.generator, model.autoencoder.temporal_stride
    count, chunk = len(gen.sigmas(steps)), gen.settings.chunk_frames
    missing = -shape[2] % chunk
    condition, features = _padded(encoded.condition_latents, missing), _padded(encoded.features, stride * missing)
    pieces, base = [], None
    for _ in range((shape[2] + missing) // chunk):
        piece, base = shared_noise((count, shape[1], chunk, *shape[3:]), model.config.noise_share, base, random)
        pieces.append(piece[:, None])

    def on_chunk() -> None:
        for _ in range(count):
            on_window()

    latents = sample_chunks(
        gen, torch.cat(pieces, dim=3), condition, features, stride, chunk, gen.settings.history_chunks, count,
        negative, scale, on_chunk,
    )  # fmt: skip
    return latents[:, :, : shape[2]]


def _padded(values: torch.Tensor | None, count: int) -> torch.Tensor | None:
    """[B, C, T, ...] with its last frame repeated `count` times."""
    if values is None or not count:
        return values
    return torch.cat([values, *[values[:, :, -1:]] * count], dim=2)
