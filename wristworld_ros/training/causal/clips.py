"""Batches of clips as latents, for any autoencoder: what all losses of causal training start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wristworld_ros.errors import UserError
from wristworld_ros.models.wan import WristGenerator, chunk_contexts
from wristworld_ros.models.wan.autoencoders import Autoencoder
from wristworld_ros.models.wan.condition_planes import condition_image, condition_planes
from wristworld_ros.models.wan.sampling import shared_noise


@dataclass(frozen=True)
class LatentClip:
    """A batch of clips of T latent frames in G chunks.

    clean: [B, C, T, h, w], of the true wrist video. condition: [B, C', T, h, w], or None. features: [B, V, F, clip_dim] of the
    anchors, or None. frames: video frames of each chunk. chunk: latent frames of each.
    """

    clean: Tensor
    condition: Tensor | None
    features: Tensor | None
    frames: list[int]
    chunk: int

    @property
    def batch(self) -> int:
        """Clips."""
        return len(self.clean)

    @property
    def chunks(self) -> int:
        """Chunks of a clip."""
        return len(self.frames)

    def contexts(self, gen: WristGenerator) -> Tensor:
        """The context of each chunk, [B, G, S, text_dim]."""
        return chunk_contexts(gen, self.features, self.frames).expand(self.batch, -1, -1, -1)

    def whole_context(self, gen: WristGenerator) -> Tensor:
        """The context of the whole clip, as a window has it, [B, S, text_dim]."""
        tokens = None if self.features is None else gen.anchor_tokens(self.features)
        return gen.context(None, tokens).expand(self.batch, -1, -1)

    def noise(self, share: float, count: int = 1) -> Tensor:
        """Noise of `count` levels, [count, B, C, T, h, w], of which a share of the variance is common to all frames."""
        made, _ = shared_noise((count * self.batch, *self.clean.shape[1:]), share, device=self.clean.device)
        return made.unflatten(0, (count, self.batch))


# Of a generator and a batch.
Encoder = Callable[[WristGenerator, dict], LatentClip]


class ClipEncoder:
    """Encodes batches of `stage2.data.Stage2Clips` with a model's own autoencoder and anchor encoder, without gradient.

    Args:
        autoencoder: The model's.
        device: Where.
        condition: False for a model without condition maps.
        anchor_tokens: False for a model without anchor tokens.
    """

    def __init__(self, autoencoder: Autoencoder, device: str, condition: bool = True, anchor_tokens: bool = True):
        self.autoencoder, self.device = autoencoder, device
        self.condition, self.anchor_tokens = condition, anchor_tokens

    @torch.no_grad()
    def __call__(self, gen: WristGenerator, batch: dict) -> LatentClip:
        """A batch as latents; ValueError where its frames are no whole number of chunks."""
        clean, chunk = self.autoencoder.encode(batch['wrist'].to(self.device)), batch['chunk']
        frames = chunk_video_frames(clean.shape[2], chunk, self.autoencoder.temporal_stride)
        condition = self._condition(gen, batch) if self.condition else None
        features = gen.anchor_features(batch['anchors'].to(self.device)) if self.anchor_tokens else None
        return LatentClip(clean, condition, features, frames, chunk)

    def _condition(self, gen: WristGenerator, batch: dict) -> Tensor:
        if gen.settings.condition_channels == self.autoencoder.latent_channels:
            planes = condition_image(batch['condition'])
        else:
            trust = batch['trust'] if gen.settings.condition_confidence else None
            planes = condition_planes(batch['condition'], batch['depth'], trust)
        return self.autoencoder.encode(planes.transpose(1, 2).to(self.device))


class StoredClips:
    """Batches of `stage2.latents.EncodedClips`, which are latents already.

    Args:
        chunk: Latent frames of a chunk.
        stride: Video frames per latent frame.
        device: Where.
        condition: As in `ClipEncoder`.
        anchor_tokens: Likewise.
    """

    def __init__(self, chunk: int, stride: int, device: str, condition: bool = True, anchor_tokens: bool = True):
        self.chunk, self.stride, self.device = chunk, stride, device
        self.condition, self.anchor_tokens = condition, anchor_tokens

    def __call__(self, gen: WristGenerator, batch: dict) -> LatentClip:
        """A batch on the device; ValueError where its frames are no whole number of chunks."""
        clean = batch['latents'].to(self.device)
        condition = batch['condition'].to(self.device) if self.condition else None
        features = batch['features'].to(self.device) if self.anchor_tokens else None
        frames = chunk_video_frames(clean.shape[2], self.chunk, self.stride)
        return LatentClip(clean, condition, features, frames, self.chunk)


def chunk_video_frames(latent_frames: int, chunk: int, stride: int) -> list[int]:
    """Video frames of each chunk of a clip; ValueError where its latent frames are no whole number of chunks."""
    if latent_frames % chunk:
        raise ValueError(f'A clip of {latent_frames} latent frames is no whole number of chunks of {chunk}.')
    frames = [stride * chunk] * (latent_frames // chunk)
    frames[0] -= stride - 1
    return frames


def check_frames(gen: WristGenerator, stride: int, frames: int) -> None:
    """Raise UserError where clips of so many video frames are not two or more whole chunks of the model, or more than it takes."""
    s = gen.settings
    latent, rest = divmod(frames - 1, stride)
    chunks, spare = divmod(latent + 1, s.chunk_frames)
    shortest = 1 + stride * (2 * s.chunk_frames - 1)
    if rest or spare or chunks < 2:
        raise UserError(
            f'data.frames is {frames}, and a chunk of the model has {s.chunk_frames} latent frames of {stride} video frame(s)',
            f'give {shortest}, or {stride * s.chunk_frames} more for each further chunk',
        )
    if frames > s.max_frames:
        raise UserError(f'data.frames is {frames}, and the model takes {s.max_frames} at once', 'give fewer')


def clip_shape(gen: WristGenerator, stride: int, chunks: int = 2) -> tuple[int, tuple[int, ...]]:
    """Video frames of a training clip, and the chunk lengths (latent frames) that it is trained at.

    The model's own chunk length; where the autoencoder does not compress time also a half and a quarter of it, for a stream may run
    with shorter ones.

    Args:
        gen: The generator.
        stride: Video frames per latent frame.
        chunks: Of the model's own length in a clip.

    Raises:
        UserError: The model's embeddings or its context do not hold such a clip.
    """
    s = gen.settings
    frames, most = 1 + stride * (chunks * s.chunk_frames - 1), min(s.max_frames, s.context_length)
    if frames > most:
        raise UserError(
            f'{chunks} chunks of {s.chunk_frames} latent frames are {frames} video frames, and the model takes {most} at once',
            'give fewer --clip-chunks',
        )
    parts = (1, 2, 4) if stride == 1 else (1,)
    lengths = {s.chunk_frames // part for part in parts if s.chunk_frames % part == 0}
    return frames, tuple(sorted(n for n in lengths if n % s.patch_size[0] == 0))
