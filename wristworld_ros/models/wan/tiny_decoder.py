"""A tiny decoder of Wan's latents: with one sampling step, most of a chunk's cost is in Wan's own decoder.

Plain 2-D residual blocks, each of which also sees its own input of the frame before. The first levels double the number
of frames, until a latent frame has become four. Full resolution is reached by rearranging channels, never by a
convolution there, which is where Wan's decoder spends most of its time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import msgspec
import torch
import torch.nn.functional as F
from torch import nn

from wristworld_ros.errors import UserError
from wristworld_ros.models.wan.autoencoders import StreamState, WanAutoencoder


class _CausalBlock(nn.Module):
    """Residual block over frames that also sees the frame before; its state is one frame of its own input."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)  # The block starts as the identity, so no normalisation is needed.
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: torch.Tensor, previous: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """One piece of a video.

        Args:
            x: [B, T, width, h, w].
            previous: [B, 1, width, h, w], the last frame of the piece before; None at the start.

        Returns:
            The shape of `x`, and its last frame.
        """
        batch = x.shape[0]
        previous = torch.zeros_like(x[:, :1]) if previous is None else previous
        earlier = torch.cat([previous, x[:, :-1]], dim=1)
        both = F.silu(torch.cat([x, earlier], dim=2).flatten(0, 1))
        change = self.conv2(F.silu(self.conv1(both)))
        return x + change.unflatten(0, (batch, -1)), x[:, -1:].clone()


class TinyDecoder(nn.Module):
    """Normalised latents -> video, latent frame by latent frame; the first gives one frame, each other
    `temporal_stride`.

    Args:
        latent_channels: Of the autoencoder (16 as published).
        spatial_stride: Of the autoencoder (8 as published).
        temporal_stride: Of the autoencoder (4 as published).
        width: Channels at the finest level, which has half the image's resolution; each coarser level has twice as
            many.
        blocks: Per level.

    Raises:
        UserError: Strides that it cannot build, or sizes below 1.
    """

    def __init__(
        self, latent_channels: int, spatial_stride: int = 8, temporal_stride: int = 4, width: int = 64, blocks: int = 2
    ):
        super().__init__()
        levels, doublings = math.log2(spatial_stride), math.log2(temporal_stride)
        if levels != int(levels) or doublings != int(doublings) or not 0 <= doublings < levels:
            raise UserError(
                f'TinyDecoder got strides {spatial_stride} in space and {temporal_stride} in time',
                'give powers of two, the one in time the smaller',
            )
        if width < 1 or blocks < 1:
            raise UserError(f'TinyDecoder got width {width} and {blocks} blocks', 'give at least 1 of each')
        levels, self.doublings = int(levels), int(doublings)
        widths = [width * 2**i for i in reversed(range(levels))]
        self.stem = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(nn.ModuleList(_CausalBlock(w) for _ in range(blocks)) for w in widths)
        # From level to level: two frames of one where time still has to grow, and 2 x 2 cells of one.
        self.grow = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1] * 4 * (2 if i < self.doublings else 1), 1) for i in range(levels - 1)
        )
        self.head = nn.Conv2d(widths[-1], 3 * 4, 3, padding=1)
        self.to(memory_format=torch.channels_last)

    def forward(self, latents: torch.Tensor, state: StreamState = None) -> tuple[torch.Tensor, StreamState]:
        """Decode the next piece of a video, any number of latent frames.

        Args:
            latents: [B, latent_channels, n, h, w].
            state: What the call for the piece before returned; None at a video's start.

        Returns:
            Video [B, 3, s n, H, W] (s = `temporal_stride`; 1 + s (n - 1) frames at the start), trained to [-1, 1] but
            not clamped; and the state: one frame of features per block, whatever the length.
        """
        first = state is None
        kept: list[torch.Tensor] = []
        previous = iter(state or [None] * sum(len(level) for level in self.levels))
        x = self._each(self.stem, latents.transpose(1, 2))
        for i, level in enumerate(self.levels):
            for block in level:
                x, last = block(x, next(previous))
                kept.append(last)
            if i == len(self.grow):
                break
            x = self._each(lambda y, i=i: self.grow[i](F.silu(y)), x)
            if i < self.doublings:
                # A start has no first half: its one latent frame stands for one video frame, the last of its four.
                x = torch.stack(x.chunk(2, dim=2), dim=2).flatten(1, 2)[:, 1 if first else 0 :]
            x = self._each(lambda y: F.pixel_shuffle(y, 2), x)
        video = self._each(lambda y: F.pixel_shuffle(self.head(F.silu(y)), 2), x)
        return video.transpose(1, 2), kept

    @staticmethod
    def param_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
        """`dtype` for every parameter."""
        return dtype

    @staticmethod
    def _each(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """A function of images [N, C, h, w] on every frame of [B, T, C, h, w]."""
        return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@dataclass(frozen=True)
class TinyDecoderSizes:
    """`tiny_decoder` of a model's configuration."""

    width: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64
    blocks: Annotated[int, msgspec.Meta(ge=0, le=64)] = 2


def tiny_decoder_for(autoencoder: WanAutoencoder, width: int = 64, blocks: int = 2) -> TinyDecoder:
    """A tiny decoder, with random weights, for an autoencoder's latents and strides."""
    return TinyDecoder(
        autoencoder.latent_channels, autoencoder.spatial_stride, autoencoder.temporal_stride, width, blocks
    )


class TinyAutoencoder(nn.Module):
    """Wan's encoder and a tiny decoder behind the `Autoencoder` interface.

    Args:
        full: Encodes; its decoder is never called and may be dropped (`WanAutoencoder.drop_decoder`).
        tiny: Decodes.
    """

    def __init__(self, full: WanAutoencoder, tiny: TinyDecoder):
        super().__init__()
        self.full, self.tiny = full, tiny
        self.latent_channels = full.latent_channels
        self.spatial_stride, self.temporal_stride = full.spatial_stride, full.temporal_stride

    @staticmethod
    def param_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
        """`dtype` for every parameter."""
        return dtype

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """As `WanAutoencoder.encode`."""
        return self.full.encode(video)

    def encode_next(self, video: torch.Tensor, state: StreamState = None) -> tuple[torch.Tensor, StreamState]:
        """As `WanAutoencoder.encode_next`."""
        return self.full.encode_next(video, state)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, z_dim, n + 1, h, w] of a whole clip to video [B, 3, 4 n + 1, 8 h, 8 w], clamped to [-1, 1]."""
        return self._decode_piece(latents, None)[0]

    @torch.no_grad()
    def decode_next(self, latents: torch.Tensor, state: StreamState = None) -> tuple[torch.Tensor, StreamState]:
        """As `WanAutoencoder.decode_next`."""
        return self._decode_piece(latents, state)

    def _decode_piece(self, latents: torch.Tensor, state: StreamState) -> tuple[torch.Tensor, StreamState]:
        # Frame by frame: working memory does not grow with the piece, and streams equal whole clips to the bit.
        frames = []
        for frame in latents.to(self.tiny.stem.weight.dtype).split(1, dim=2):
            video, state = self.tiny(frame, state)
            frames.append(video)
        return torch.cat(frames, dim=2).float().clamp(-1, 1), state
