"""Second half of the stream: condition maps and anchor images of a chunk become wrist images."""

from __future__ import annotations

import numpy as np
import torch

from wristworld_ros.errors import UserError
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.models.wan import WristGenerator, generate_chunk, new_cache, write_chunk
from wristworld_ros.models.wan.autoencoders import Autoencoder
from wristworld_ros.models.wan.condition_planes import condition_image, condition_planes
from wristworld_ros.models.wan.sampling import shared_noise
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.runtime.cuda_graphs import CudaGraphRunner
from wristworld_ros.runtime.transfer import download, upload
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import ConditionMap

NOT_FINITE = 'Stage 2 produced numbers that are not finite (NaN or infinity), so there is no image.'


class NotFiniteError(ArithmeticError):
    """A network produced NaN or infinity; the message is one sentence."""


class ChunkGenerator:
    """Generates one wrist video chunk by chunk, in memory of fixed size (a ring of keys and values).

    Args:
        model: Whose generator and autoencoder run; it is shared, and all state of this video lies here.
        settings: chunk (latent frames at once; see `frames`), steps, history, guidance, reanchor, seed and graphs of it.

    Raises:
        ValueError: The sizes do not divide.
        UserError: Guidance is asked of a model that stores no negative prompt, or of a student more steps than it has.
    """

    def __init__(self, model: WristModel, settings: StreamSettings):
        self.generator, self.autoencoder = model.generator, model.autoencoder
        self.config, self.settings = model.config, settings
        self.device, self._prior = model.device, model.prior
        self.latent_hw = tuple(n // self.autoencoder.spatial_stride for n in model.config.wrist_hw)
        self.guidance, self.negative = guidance_of(model, settings.guidance)
        self.steps = len(self.generator.sigmas(settings.steps))
        self.cache = new_cache(
            self.generator,
            self.latent_hw,
            batch=1 if self.negative is None else 2,
            chunk_frames=settings.chunk,
            history_chunks=settings.history,
        )
        graphs = settings.graphs and self.device.type == 'cuda'
        self._encode = CudaGraphRunner(self._context, graphs and model.config.use_anchor_tokens)
        self._sample = CudaGraphRunner(self._sample_chunk, graphs)
        self._write = CudaGraphRunner(self._write_chunk, graphs)
        self.reset()

    @property
    def frames(self) -> int:
        """Anchor sets that the next chunk takes, and wrist images that it gives.

        `chunk` where the autoencoder does not compress time; of one that compresses s to 1, 1 + s * (chunk - 1) in the
        first chunk and s * chunk in all others.
        """
        stride = self.autoencoder.temporal_stride
        return 1 + stride * (self.settings.chunk - 1) if self._first else stride * self.settings.chunk

    def reset(self) -> None:
        """Forget the video so far; the next chunk is a first chunk."""
        self.cache.reset()
        self._encoder_state = self._decoder_state = None
        self._random = torch.Generator().manual_seed(self.settings.seed)
        self._base_noise = None
        self._uncommitted = None
        self._first = True

    @torch.inference_mode()
    def __call__(self, conditions: list[ConditionMap], anchors: list[np.ndarray]) -> list[np.ndarray]:
        """The next chunk.

        Args:
            conditions: `frames` condition maps.
            anchors: As many sets of anchor images, uint8 [V, H, W, 3].

        Returns:
            `frames` wrist images, uint8 [h, w, 3].

        Raises:
            NotFiniteError: The output is not finite. What the stream remembers is then not to be trusted: reset it.
        """
        if len(conditions) != self.frames or len(anchors) != self.frames:
            raise ValueError(f'This stream takes chunks of {self.frames} frames, not {len(conditions)}.')
        self._commit()
        if self._prior is not None:
            conditions = [self._prior(*pair) for pair in zip(conditions, anchors, strict=True)]
        condition = self._encode_condition(conditions) if self.config.use_condition else None
        (context,) = self._encode(*self._upload_anchors(anchors))
        (latents,) = self._sample(self._noise(), condition, context, key=self.cache.state)
        self._uncommitted = (latents, condition, context)
        video, self._decoder_state = self.autoencoder.decode_next(latents, self._decoder_state)
        # Latents too: a decoder that clamps would make an image of infinity.
        finite = torch.isfinite(latents).all() & torch.isfinite(video).all()
        images, finite = download(to_pixels(video), finite)
        if not finite:
            raise NotFiniteError(NOT_FINITE)
        self._first = False
        return list(images)

    def _commit(self) -> None:
        """Put the last chunk into the cache. Done when the next one comes, so that a frame never waits for it."""
        if self._uncommitted is not None and self.cache.history_chunks:
            self._write(*self._uncommitted, key=self.cache.state)
            self.cache.advance()
            if self.cache.chunks == self.settings.reanchor:
                self.cache.forget()
        self._uncommitted = None

    def _noise(self) -> torch.Tensor:
        """[N, 1, C, chunk, h, w], N as in `noise_levels`."""
        channels, count = self.generator.settings.latent_channels, noise_levels(self.generator, self.steps)
        shape = (count, channels, self.settings.chunk, *self.latent_hw)
        noise, self._base_noise = shared_noise(shape, self.config.noise_share, self._base_noise, self._random)
        return upload(noise[:, None].numpy(), self.device)

    def _sample_chunk(self, noise, condition, context) -> tuple[torch.Tensor]:
        latents = generate_chunk(
            self.generator,
            noise[0],
            condition,
            context,
            self.cache,
            self.steps,
            negative_context=self.negative,
            cfg_scale=self.guidance,
            commit=False,
            fresh=noise[1:],
        )
        return (latents,)

    def _write_chunk(self, latents, condition, context) -> tuple[()]:
        write_chunk(self.generator, latents, condition, context, self.cache, self.negative)
        return ()

    def _encode_condition(self, conditions: list[ConditionMap]) -> torch.Tensor:
        video = condition_video(self.generator, self.autoencoder, conditions)
        latents, self._encoder_state = self.autoencoder.encode_next(video, self._encoder_state)
        return latents

    def _upload_anchors(self, anchors: list[np.ndarray]) -> list[torch.Tensor]:
        """The anchor images on the device, or nothing for a model without anchor tokens."""
        if not self.config.use_anchor_tokens:
            return []
        return [upload(anchor_images(self.generator, anchors), self.device)]

    def _context(self, *images: torch.Tensor) -> tuple[torch.Tensor]:
        gen = self.generator
        return (gen.context(None, gen.anchor_tokens(anchor_features(gen, *images)) if images else None),)


def noise_levels(gen: WristGenerator, steps: int) -> int:
    """How many noises a sampling run takes: one for each step of a few-step student, which re-noises, otherwise one."""
    return 1 if gen.settings.sampler is None else steps


def guidance_of(model: WristModel, guidance: float | None) -> tuple[float, torch.Tensor | None]:
    """The scale of classifier-free guidance, and the negative context it needs (None where it is off).

    Args:
        model: Whose own scale None stands for.
        guidance: Of the settings.

    Raises:
        UserError: A scale other than 1 is asked of a model that stores no negative prompt.
    """
    s = model.generator.settings
    scale = s.cfg_scale if guidance is None else guidance
    if scale == 1.0:
        return scale, None
    if s.text == 'stored':
        return scale, model.generator.context(model.generator.own_text(negative=True), None)
    if guidance is None:
        return 1.0, None
    raise UserError(
        f'Setting guidance is {guidance}, and model {model.config.name} stores no negative prompt',
        'set guidance to 1 or auto',
    )


def condition_video(gen: WristGenerator, autoencoder: Autoencoder, conditions: list[ConditionMap]) -> torch.Tensor:
    """T condition maps as a video for the autoencoder: the image as published, or the small model's planes.

    Args:
        gen: The generator.
        autoencoder: The model's.
        conditions: In order, on its device.

    Returns:
        float32 [1, 3 or 5, T, h, w].
    """
    images = torch.stack([c.image for c in conditions])
    if gen.settings.condition_channels == autoencoder.latent_channels:
        planes = condition_image(images)
    else:
        trust = torch.stack([c.trust for c in conditions]) if gen.settings.condition_confidence else None
        planes = condition_planes(images, torch.stack([c.depth for c in conditions]), trust)
    return planes.transpose(0, 1)[None]


def anchor_images(gen: WristGenerator, anchors: list[np.ndarray]) -> np.ndarray:
    """T sets of anchor images uint8 [V, H, W, 3] as the anchor encoder takes them.

    Returns:
        uint8 [V, T, h, w, 3] of the first `max_views` views, resized here unless the encoder resizes, as published.
    """
    encoder = gen.settings.anchor_encoder
    anchors = [a[: gen.settings.max_views] for a in anchors]
    if encoder.get('resize', 'area') == 'area':
        anchors = [resize_images(a, (encoder['image_size'],) * 2) for a in anchors]
    return np.stack(anchors, axis=1)


def anchor_features(gen: WristGenerator, images: torch.Tensor) -> torch.Tensor:
    """Features of `anchor_images` on the model's device, float32 [1, V, T, clip_dim]."""
    return gen.anchor_features(images.permute(0, 1, 4, 2, 3).float()[None] / 255)


def to_pixels(video: torch.Tensor) -> torch.Tensor:
    """A decoded video [1, 3, T, h, w], -1 to 1, as images uint8 [T, h, w, 3] on its device."""
    return ((video[0].permute(1, 2, 3, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
