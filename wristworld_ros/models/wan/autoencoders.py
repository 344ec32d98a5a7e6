"""Video to latents and back, behind one interface: Wan's autoencoder, and pixel-unshuffle for the small model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from torch import nn


class Autoencoder(Protocol):
    """What the generator's surroundings need of an autoencoder.

    ``temporal_stride``: video frames a latent frame, but for the first, which stands for one. ``spatial_stride``:
    pixels a latent cell. ``latent_channels``: of a latent frame.
    """

    temporal_stride: int
    spatial_stride: int
    latent_channels: int

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """video: [B, 3, T, H, W], -1 to 1. Returns latents [B, C, t, h, w]. Leaves a stream in the making alone."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """latents: [B, C, t, h, w]. Returns video [B, 3, T, H, W], -1 to 1. Leaves a stream in the making alone."""

    def encode_next(self, video: torch.Tensor) -> torch.Tensor:
        """The next piece of a stream. Pieces put together give what ``encode`` gives for the whole."""

    def decode_next(self, latents: torch.Tensor) -> torch.Tensor:
        """The next latents of a stream. Pieces put together give what ``decode`` gives for the whole."""

    def reset(self) -> None:
        """Start new streams."""


def unshuffle(video: torch.Tensor, factor: int) -> torch.Tensor:
    """[B, C, T, H, W] -> [B, C * factor^2, T, H / factor, W / factor]; raises ValueError when it does not divide."""
    if video.shape[-2] % factor or video.shape[-1] % factor:
        raise ValueError(f'A video of {list(video.shape[-2:])} pixels is no multiple of {factor}; resize it.')
    return F.pixel_unshuffle(video.transpose(1, 2), factor).transpose(1, 2)


def shuffle(latents: torch.Tensor, factor: int) -> torch.Tensor:
    """The inverse of ``unshuffle``: [B, C * factor^2, T, h, w] -> [B, C, T, h * factor, w * factor]."""
    return F.pixel_shuffle(latents.transpose(1, 2), factor).transpose(1, 2)


class PixelUnshuffle(nn.Module):
    """Latents are the pixels themselves, factor x factor of them a cell; no weights, no memory, one frame each."""

    temporal_stride = 1

    def __init__(self, factor: int = 8, channels: int = 3):
        super().__init__()
        self.spatial_stride = factor
        self.latent_channels = channels * factor * factor

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """video: [B, C, T, H, W] (any number of planes). Returns [B, C * factor^2, T, H / factor, W / factor]."""
        return unshuffle(video, self.spatial_stride)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """latents: [B, C * factor^2, T, h, w]. Returns [B, C, T, h * factor, w * factor], clamped to [-1, 1]."""
        return shuffle(latents, self.spatial_stride).clamp(-1, 1)

    encode_next, decode_next = encode, decode

    def reset(self) -> None:
        """Nothing to forget."""


class WanAutoencoder(nn.Module):
    """Wan's causal video autoencoder (diffusers' ``AutoencoderKLWan``) with latents normalised as the transformer
    wants them, whole clips and streams. Its weights may be held in bfloat16; videos and latents are float32 outside.

    dim, z_dim: base width and latent channels (96 and 16 as released). latents_mean, latents_std: [z_dim], None for
    the released values. Raises ValueError where there are none for this z_dim.
    """

    def __init__(
        self,
        dim: int = 96,
        z_dim: int = 16,
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
    ):
        super().__init__()
        given = {'latents_mean': latents_mean, 'latents_std': latents_std}
        given = {key: [float(v) for v in value] for key, value in given.items() if value is not None}
        self.vae = AutoencoderKLWan(base_dim=dim, z_dim=z_dim, **given)
        self.latent_channels = z_dim
        self.spatial_stride = 2 ** (len(self.vae.config.dim_mult) - 1)
        self.temporal_stride = 2 ** sum(self.vae.config.temperal_downsample)
        for name in ('latents_mean', 'latents_std'):
            values = getattr(self.vae.config, name)
            if len(values) != z_dim:
                raise ValueError(f'WanAutoencoder has {len(values)} {name} for z_dim {z_dim}; give {z_dim} of them.')
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1, 1), persistent=False)
        self.reset()

    def reset(self) -> None:
        """Start new streams, of encoding and of decoding."""
        self._encoder_state = self._decoder_state = None

    def drop_decoder(self) -> None:
        """Free the decoder's weights, where another decodes (`tiny_decoder`); `decode` then raises RuntimeError."""
        self.vae.decoder = self.vae.post_quant_conv = None

    # The library keeps what its causal convolutions saw before in lists that it hands to its encoder and decoder, and
    # empties them at the end of a clip. The lists here are this class's own, so that whole clips and streams do not
    # meet. That is the library's private interface; test_autoencoders.py pins it.

    def _encode_piece(self, video: torch.Tensor, state: list | None) -> tuple[torch.Tensor, list]:
        first = state is None
        if first:
            state = [None] * self.vae._cached_conv_counts['encoder']
        single = 1 if first else 0
        if (video.shape[2] - single) % self.temporal_stride or video.shape[2] < 1:
            raise ValueError(
                f'WanAutoencoder got {video.shape[2]} frames; a stream starts with 1 + {self.temporal_stride}n and goes '
                f'on with {self.temporal_stride}n.'
            )
        pieces = ([video[:, :, :1]] if first else []) + [
            p for p in video[:, :, single:].split(self.temporal_stride, dim=2) if p.shape[2]
        ]
        dtype = self.vae.quant_conv.weight.dtype
        moments = [self.vae.encoder(piece.to(dtype), feat_cache=state, feat_idx=[0]) for piece in pieces]
        mean = self.vae.quant_conv(torch.cat(moments, dim=2)).chunk(2, dim=1)[0].float()
        return (mean - self.latents_mean) / self.latents_std, state

    def _decode_piece(self, latents: torch.Tensor, state: list | None) -> tuple[torch.Tensor, list]:
        if self.vae.decoder is None:
            raise RuntimeError('The decoder of this autoencoder was dropped; load the model with decoder full.')
        first = state is None
        if first:
            state = [None] * self.vae._cached_conv_counts['decoder']
        z = latents.float() * self.latents_std + self.latents_mean
        z = self.vae.post_quant_conv(z.to(self.vae.post_quant_conv.weight.dtype))
        frames = [
            self.vae.decoder(frame, feat_cache=state, feat_idx=[0], first_chunk=first and i == 0)
            for i, frame in enumerate(z.split(1, dim=2))
        ]
        return torch.cat(frames, dim=2).float().clamp(-1, 1), state

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """video: [B, 3, T, H, W], T = 4n + 1, -1 to 1. Returns normalised means [B, z_dim, n + 1, H / 8, W / 8].
        Raises ValueError on other lengths."""
        return self._encode_piece(video, None)[0]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """latents: [B, z_dim, n + 1, h, w]. Returns video [B, 3, 4n + 1, 8h, 8w], clamped to [-1, 1]."""
        return self._decode_piece(latents, None)[0]

    @torch.no_grad()
    def encode_next(self, video: torch.Tensor) -> torch.Tensor:
        """The next frames of a stream: 1 + 4n the first time, 4n after. Returns [B, z_dim, (1 +) n, H / 8, W / 8].
        Raises ValueError on other lengths."""
        latents, self._encoder_state = self._encode_piece(video, self._encoder_state)
        return latents

    @torch.no_grad()
    def decode_next(self, latents: torch.Tensor) -> torch.Tensor:
        """The next latents of a stream, any number: the first gives one frame, every other four."""
        video, self._decoder_state = self._decode_piece(latents, self._decoder_state)
        return video


def autoencoder_from_config(config: Mapping[str, Any]) -> Autoencoder:
    """An autoencoder by its configuration.

    config: ``{'kind': 'pixel_unshuffle', 'factor': 8}``, or ``{'kind': 'wan', 'dim': 96, 'z_dim': 16}`` (random
    weights; ``release.vae_from_release`` loads). Raises ValueError on another kind.
    """
    kinds = {'pixel_unshuffle': PixelUnshuffle, 'wan': WanAutoencoder}
    settings = dict(config)
    kind = settings.pop('kind', None)
    if kind not in kinds:
        raise ValueError(f'The autoencoder kind is {kind!r}; it must be one of {", ".join(kinds)}.')
    return kinds[kind](**settings)
