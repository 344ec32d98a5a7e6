"""Video to latents and back behind one interface: Wan's autoencoder, and pixel-unshuffle for the small model.

Autoencoders keep nothing between calls: the state of a stream is an argument and a result, so streams in several
threads may share one autoencoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from torch import nn

from wristworld_ros.errors import UserError

# What one direction of one stream remembers, opaque outside the class that made it. Its size is fixed from a stream's
# second piece on (at most two frames of features per convolution, whatever the length of stream and piece), and calls
# do not change it: a piece that failed may be repeated with the same state.
StreamState = Any


class Autoencoder(Protocol):
    """What the generator's surroundings need of an autoencoder.

    Attributes:
        temporal_stride: Video frames per latent frame, except the first latent frame, which stands for one video frame.
        spatial_stride: Pixels per latent cell, vertically and horizontally.
        latent_channels: Channels of a latent frame.
    """

    temporal_stride: int
    spatial_stride: int
    latent_channels: int

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """A whole clip [B, 3, T, H, W] in [-1, 1] to latents [B, C, t, h, w]."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, C, t, h, w] of a whole clip to video [B, 3, T, H, W] in [-1, 1]."""

    def encode_next(self, video: torch.Tensor, state: StreamState = None) -> tuple[torch.Tensor, StreamState]:
        """Encode the next piece of a stream; concatenated results equal `encode` of the concatenated pieces.

        Args:
            video: [B, 3, T, H, W] in [-1, 1].
            state: What the call for the piece before returned; None starts a stream.

        Returns:
            Latents [B, C, t, h, w], and the state for the next piece.
        """

    def decode_next(self, latents: torch.Tensor, state: StreamState = None) -> tuple[torch.Tensor, StreamState]:
        """Decode the next latents of a stream; concatenated results equal `decode` of the concatenated pieces.

        Args:
            latents: [B, C, t, h, w].
            state: What the call for the piece before returned; None starts a stream.

        Returns:
            Video [B, 3, T, H, W] in [-1, 1], and the state for the next piece.
        """

    def param_dtype(self, name: str, dtype: torch.dtype) -> torch.dtype:
        """The dtype that a parameter is stored in where the model runs in `dtype`."""


def unshuffle(video: torch.Tensor, factor: int) -> torch.Tensor:
    """Pixels to channels: [B, C, T, H, W] -> [B, C * factor^2, T, H / factor, W / factor].

    Raises:
        UserError: `factor` does not divide H and W.
    """
    if video.shape[-2] % factor or video.shape[-1] % factor:
        raise UserError(
            f'A video of {list(video.shape[-2:])} pixels is not a multiple of {factor}',
            'resize it to a height and a width that are',
        )
    return F.pixel_unshuffle(video.transpose(1, 2), factor).transpose(1, 2)


def shuffle(latents: torch.Tensor, factor: int) -> torch.Tensor:
    """The inverse of `unshuffle`: [B, C * factor^2, T, h, w] -> [B, C, T, h * factor, w * factor]."""
    return F.pixel_shuffle(latents.transpose(1, 2), factor).transpose(1, 2)


class PixelUnshuffle(nn.Module):
    """Latents are the pixels themselves, factor x factor of them per cell; no weights, and frames are independent.

    Args:
        factor: Pixels per latent cell, vertically and horizontally.
        channels: Of the video.
    """

    temporal_stride = 1

    def __init__(self, factor: int = 8, channels: int = 3):
        super().__init__()
        self.spatial_stride = factor
        self.latent_channels = channels * factor * factor

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """[B, C, T, H, W], any C, to [B, C * factor^2, T, H / factor, W / factor]."""
        return unshuffle(video, self.spatial_stride)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """[B, C * factor^2, T, h, w] to [B, C, T, h * factor, w * factor], clamped to [-1, 1]."""
        return shuffle(latents, self.spatial_stride).clamp(-1, 1)

    def encode_next(self, video: torch.Tensor, state: StreamState = None) -> tuple[torch.Tensor, StreamState]:
        """As `encode`; there is nothing to remember, so the state is always None."""
        return self.encode(video), None

    def decode_next(self, latents: torch.Tensor, state: StreamState = None) -> tuple[torch.Tensor, StreamState]:
        """As `decode`; there is nothing to remember, so the state is always None."""
        return self.decode(latents), None

    @staticmethod
    def param_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
        """There are no parameters; `dtype`."""
        return dtype


class WanAutoencoder(nn.Module):
    """Wan's causal video autoencoder, diffusers' `AutoencoderKLWan`, for whole clips and streams.

    Latents are normalised as the transformer expects them. Weights may be stored in bfloat16; videos and latents are
    float32 outside.

    Args:
        dim: Base width (96 as released).
        z_dim: Latent channels (16 as released).
        latents_mean: [z_dim], None for the released values.
        latents_std: [z_dim], None for the released values.

    Raises:
        UserError: The number of means or deviations is not `z_dim`.
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
                raise UserError(f'WanAutoencoder has {len(values)} {name} for z_dim {z_dim}', f'give {z_dim} of them')
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1, 1), persistent=False)

    def drop_decoder(self) -> None:
        """Free the decoder's weights, where a tiny decoder takes its place; `decode` then raises RuntimeError."""
        self.vae.decoder = self.vae.post_quant_conv = None

    @staticmethod
    def param_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
        """`dtype` for every parameter."""
        return dtype

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Encode a whole clip.

        Args:
            video: [B, 3, T, H, W] in [-1, 1], T = 4 n + 1.

        Returns:
            Normalised means [B, z_dim, n + 1, H / 8, W / 8].

        Raises:
            UserError: The clip has another length.
        """
        return self._encode_piece(video, None)[0]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, z_dim, n + 1, h, w] of a whole clip to video [B, 3, 4 n + 1, 8 h, 8 w], clamped to [-1, 1]."""
        return self._decode_piece(latents, None)[0]

    @torch.no_grad()
    def encode_next(self, video: torch.Tensor, state: StreamState = None) -> tuple[torch.Tensor, StreamState]:
        """See `Autoencoder.encode_next`: 1 + 4 n frames start a stream and give 1 + n latent frames; then 4 n give n.

        Raises:
            UserError: The piece has another length.
        """
        return self._encode_piece(video, state)

    @torch.no_grad()
    def decode_next(self, latents: torch.Tensor, state: StreamState = None) -> tuple[torch.Tensor, StreamState]:
        """See `Autoencoder.decode_next`: any number of latent frames; a stream's first gives 1 frame, each other 4."""
        return self._decode_piece(latents, state)

    # The library's causal convolutions read and replace the last frames of their input in a list that is handed to its
    # encoder and decoder; the state of a stream is such a list. It is the library's private interface, which
    # test_autoencoders.py pins. The list is copied, for the library replaces its entries and a state is never changed.

    def _encode_piece(self, video: torch.Tensor, state: StreamState) -> tuple[torch.Tensor, StreamState]:
        start = 1 if state is None else 0  # frames that make a latent frame of their own
        if (video.shape[2] - start) % self.temporal_stride or video.shape[2] < 1:
            raise UserError(
                f'WanAutoencoder got {video.shape[2]} frames',
                f'start a stream with 1 + {self.temporal_stride}n frames and continue with {self.temporal_stride}n',
            )
        state = [None] * self.vae._cached_conv_counts['encoder'] if state is None else list(state)
        pieces = [video[:, :, :start], *video[:, :, start:].split(self.temporal_stride, dim=2)]
        dtype = self.vae.quant_conv.weight.dtype
        moments = [
            self.vae.encoder(piece.to(dtype), feat_cache=state, feat_idx=[0]) for piece in pieces if piece.shape[2]
        ]
        mean = self.vae.quant_conv(torch.cat(moments, dim=2)).chunk(2, dim=1)[0].float()
        return (mean - self.latents_mean) / self.latents_std, state

    def _decode_piece(self, latents: torch.Tensor, state: StreamState) -> tuple[torch.Tensor, StreamState]:
        if self.vae.decoder is None:
            raise RuntimeError('The decoder of this autoencoder was dropped; load the model with decoder full.')
        first = state is None
        state = [None] * self.vae._cached_conv_counts['decoder'] if first else list(state)
        z = latents.float() * self.latents_std + self.latents_mean
        z = self.vae.post_quant_conv(z.to(self.vae.post_quant_conv.weight.dtype))
        frames = [
            self.vae.decoder(frame, feat_cache=state, feat_idx=[0], first_chunk=first and i == 0)
            for i, frame in enumerate(z.split(1, dim=2))
        ]
        return torch.cat(frames, dim=2).float().clamp(-1, 1), state


def autoencoder_from_config(config: Mapping[str, Any] | None) -> Autoencoder:
    """An autoencoder by its configuration, with random weights (`checkpoints.vae_from_release` loads).

    Args:
        config: `{'kind': 'pixel_unshuffle', 'factor': 8}` or `{'kind': 'wan', 'dim': 96, 'z_dim': 16}`.

    Raises:
        UserError: The kind is another one.
    """
    kinds = {'pixel_unshuffle': PixelUnshuffle, 'wan': WanAutoencoder}
    arguments = dict(config or {})
    kind = arguments.pop('kind', None)
    if kind not in kinds:
        raise UserError(f'The autoencoder kind is {kind!r}', f'set it to one of {", ".join(kinds)}')
    return kinds[kind](**arguments)
