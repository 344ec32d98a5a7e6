"""Stage 2 as a step of the stream: condition maps and anchor images of a chunk in, wrist images out."""

from __future__ import annotations

import copy

import numpy as np
import torch

from wristworld_ros.generation import WristGenerator, commit_chunk, generate_chunk, new_cache
from wristworld_ros.generation.autoencoders import Autoencoder
from wristworld_ros.generation.sampling import shared_noise
from wristworld_ros.streaming.inputs import NotFiniteError, anchor_features, condition_video, to_pixels
from wristworld_ros.types import ConditionMap


class ChunkStream:
    """Generates one wrist video chunk by chunk, in memory of fixed size (a ring of keys and values).

    autoencoder: its weights are shared, its streams are not. wrist_hw: pixels. chunk: latent frames at once; see
    `frames`. steps: sampling steps. history: chunks seen. seed: of the noise, whose share `noise_share` of variance is
    the same in every frame, which steadies the video. reanchor: every so many chunks one is made without history, from
    noise and its condition map alone, and the history grows again from there; 0 never. use_condition, use_anchor_tokens: false leaves them out, for
    models that were trained so. A model with a stored negative prompt and a guidance scale is sampled with guidance.
    Raises ValueError when the sizes do not divide.
    """

    def __init__(
        self, generator: WristGenerator, autoencoder: Autoencoder, wrist_hw: tuple[int, int], chunk: int, steps: int,
        history: int, seed: int, noise_share: float, use_condition: bool = True, use_anchor_tokens: bool = True,
        reanchor: int = 0,
    ):  # fmt: skip
        stride = autoencoder.spatial_stride
        self.generator, self.latent_hw = generator, (wrist_hw[0] // stride, wrist_hw[1] // stride)
        self.use_condition, self.use_anchor_tokens = use_condition, use_anchor_tokens
        self.chunk, self.steps, self.seed, self.noise_share = chunk, steps, seed, noise_share
        self.reanchor = reanchor
        self.device = next(generator.parameters()).device
        self.autoencoder = copy.copy(autoencoder)
        s = generator.settings
        self.negative = None
        if s.text == 'stored' and s.cfg_scale != 1.0:
            self.negative = generator.context(generator.own_text(negative=True), None)
        streams = 1 if self.negative is None else 2
        self.cache = new_cache(generator, self.latent_hw, streams, chunk_frames=chunk, history_chunks=history)
        self.reset()

    @property
    def frames(self) -> int:
        """Anchor sets that the next chunk takes, and wrist images that it gives: of an autoencoder that compresses time
        s to 1, 1 + s * (chunk - 1) in the first chunk and s * chunk in all others; `chunk` where it does not."""
        stride = self.autoencoder.temporal_stride
        return 1 + stride * (self.chunk - 1) if self._first else stride * self.chunk

    def reset(self) -> None:
        """Forget the video so far; the next chunk is a first chunk."""
        self.cache.reset()
        self.autoencoder.reset()
        self._random = torch.Generator().manual_seed(self.seed)
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
        condition = self._condition(conditions) if self.use_condition else None
        context = self._context(anchors)
        shape = (1, self.generator.settings.latent_channels, self.chunk, *self.latent_hw)
        noise, self._base = shared_noise(shape, self.noise_share, self._base, self._random)
        latents = generate_chunk(
            self.generator, noise.to(self.device), condition, context, self.cache, self.steps,
            negative_context=self.negative, commit=False,
        )  # fmt: skip
        self._uncommitted = (latents, condition, context)
        video = self.autoencoder.decode_next(latents)
        # Latents too: a decoder that clamps would make a picture of infinity.
        if not (torch.isfinite(latents).all() and torch.isfinite(video).all()):
            raise NotFiniteError('Stage 2 gave numbers that are not finite (NaN or infinity), so there is no picture.')
        self._first = False
        return list(to_pixels(video))

    @torch.inference_mode()
    def _commit(self) -> None:
        """Put the last chunk into the cache. Done when the next one comes, so that a frame never waits for it."""
        if self._uncommitted is not None and self.cache.history_chunks:
            commit_chunk(self.generator, *self._uncommitted, self.cache, self.negative)
            if self.cache.chunks == self.reanchor:
                self.cache.forget()
        self._uncommitted = None

    def _condition(self, conditions: list[ConditionMap]) -> torch.Tensor:
        return self.autoencoder.encode_next(condition_video(self.generator, self.autoencoder, conditions))

    def _context(self, anchors: list[np.ndarray]) -> torch.Tensor:
        gen = self.generator
        if not self.use_anchor_tokens:
            return gen.context(None, None)
        return gen.context(None, gen.anchor_tokens(anchor_features(gen, anchors)))
