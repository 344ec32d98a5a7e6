"""Stage 2 as a step of the stream: condition maps and anchor images of a chunk in, wrist images out."""

from __future__ import annotations

import copy

import numpy as np
import torch

from wristworld_ros.models.config import ModelConfig
from wristworld_ros.models.wan import WristGenerator, generate_chunk, new_cache, write_chunk
from wristworld_ros.models.wan.autoencoders import Autoencoder
from wristworld_ros.models.wan.sampling import shared_noise
from wristworld_ros.pipeline.generator_inputs import (
    NotFiniteError,
    anchor_features,
    anchor_pictures,
    condition_video,
    to_pixels,
)
from wristworld_ros.runtime.cuda_graphs import CudaGraphRunner
from wristworld_ros.runtime.transfer import download, upload
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import ConditionMap


class ChunkStream:
    """Generates one wrist video chunk by chunk, in memory of fixed size (a ring of keys and values).

    autoencoder: its weights are shared, its streams are not. config: of the model. settings: chunk (latent frames at once;
    see `frames`), steps, history, guidance, reanchor, seed and graphs of it.
    Raises ValueError when the sizes do not divide.
    """

    def __init__(
        self, generator: WristGenerator, autoencoder: Autoencoder, config: ModelConfig, settings: StreamSettings
    ):
        self.generator, self.autoencoder, self.config, self.settings = (
            generator,
            copy.copy(autoencoder),
            config,
            settings,
        )
        self.device = next(generator.parameters()).device
        self.latent_hw = tuple(n // autoencoder.spatial_stride for n in config.wrist_hw)
        s, guidance = generator.settings, settings.guidance
        self.guidance = guidance or s.cfg_scale
        self.negative = None
        if s.text == 'stored' and self.guidance != 1.0:
            self.negative = generator.context(generator.own_text(negative=True), None)
        elif guidance not in (0.0, 1.0):
            raise ValueError(f'Setting guidance is {guidance}, and this model stores no negative prompt; take 1 or 0.')
        streams = 1 if self.negative is None else 2
        self.cache = new_cache(
            generator, self.latent_hw, streams, chunk_frames=settings.chunk, history_chunks=settings.history
        )
        graphs = settings.graphs and self.device.type == 'cuda'
        self._encode = CudaGraphRunner(self._context, graphs and config.use_anchor_tokens)
        self._sample, self._write = CudaGraphRunner(self._generate, graphs), CudaGraphRunner(self._remember, graphs)
        self.reset()

    @property
    def frames(self) -> int:
        """Anchor sets that the next chunk takes, and wrist images that it gives: of an autoencoder that compresses time
        s to 1, 1 + s * (chunk - 1) in the first chunk and s * chunk in all others; `chunk` where it does not."""
        stride = self.autoencoder.temporal_stride
        return 1 + stride * (self.settings.chunk - 1) if self._first else stride * self.settings.chunk

    def reset(self) -> None:
        """Forget the video so far; the next chunk is a first chunk."""
        self.cache.reset()
        self.autoencoder.reset()
        self._random = torch.Generator().manual_seed(self.settings.seed)
        self._base = None
        self._uncommitted = None
        self._first = True

    @torch.inference_mode()
    def __call__(self, conditions: list[ConditionMap], anchors: list[np.ndarray]) -> list[np.ndarray]:
        """`frames` condition maps and as many anchor images uint8 [V, H, W, 3]; returns wrist images uint8 [h, w, 3].

        Raises NotFiniteError where they are no numbers; what the stream remembers is then not to be trusted: reset it.
        """
        if len(conditions) != self.frames or len(anchors) != self.frames:
            raise ValueError(f'This stream takes chunks of {self.frames} frames, not {len(conditions)}.')
        self._commit()
        condition = self._condition(conditions) if self.config.use_condition else None
        (context,) = self._encode(*self._anchors(anchors))
        shape = (1, self.generator.settings.latent_channels, self.settings.chunk, *self.latent_hw)
        noise, self._base = shared_noise(shape, self.config.noise_share, self._base, self._random)
        noise = upload(noise.numpy(), self.device)
        (latents,) = self._sample(noise, condition, context, key=self.cache.state)
        self._uncommitted = (latents, condition, context)
        video = self.autoencoder.decode_next(latents)
        # Latents too: a decoder that clamps would make a picture of infinity.
        finite = torch.isfinite(latents).all() & torch.isfinite(video).all()
        pictures, finite = download(to_pixels(video), finite)
        if not finite:
            raise NotFiniteError('Stage 2 gave numbers that are not finite (NaN or infinity), so there is no picture.')
        self._first = False
        return list(pictures)

    @torch.inference_mode()
    def _commit(self) -> None:
        """Put the last chunk into the cache. Done when the next one comes, so that a frame never waits for it."""
        if self._uncommitted is not None and self.cache.history_chunks:
            self._write(*self._uncommitted, key=self.cache.state)
            self.cache.advance()
            if self.cache.chunks == self.settings.reanchor:
                self.cache.forget()
        self._uncommitted = None

    def _generate(self, noise, condition, context) -> tuple[torch.Tensor]:
        return (
            generate_chunk(
                self.generator,
                noise,
                condition,
                context,
                self.cache,
                self.settings.steps,
                negative_context=self.negative,
                cfg_scale=self.guidance,
                commit=False,
            ),
        )

    def _remember(self, latents, condition, context) -> tuple[()]:
        write_chunk(self.generator, latents, condition, context, self.cache, self.negative)
        return ()

    def _condition(self, conditions: list[ConditionMap]) -> torch.Tensor:
        return self.autoencoder.encode_next(condition_video(self.generator, self.autoencoder, conditions))

    def _anchors(self, anchors: list[np.ndarray]) -> list[torch.Tensor]:
        """The anchor images on the device, or nothing for a model that does not look at them."""
        if not self.config.use_anchor_tokens:
            return []
        return [upload(anchor_pictures(self.generator, anchors), self.device)]

    def _context(self, *images: torch.Tensor) -> tuple[torch.Tensor]:
        gen = self.generator
        return (gen.context(None, gen.anchor_tokens(anchor_features(gen, *images)) if images else None),)
