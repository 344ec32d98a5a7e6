"""A light decoder of Wan's latents: most of a chunk's cost after one sampling step is drawing pixels.

Plain 2-D residual blocks, each of which also sees what it saw of the frame before; twice as many frames come out of the
first levels as go in, until a latent frame has become four. Full resolution is reached by rearranging channels, never by
a convolution there, which is where Wan's decoder spends most of its time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from wristworld_ros.models.wan.autoencoders import WanAutoencoder

Memory = list[torch.Tensor | None]


class _CausalBlock(nn.Module):
    """Residual block over pictures that also sees the picture before: its memory is one frame of its own input."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)  # the block begins as nothing, so that no normalisation is needed
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: torch.Tensor, before: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """x: [B, T, width, h, w]. before: [B, 1, width, h, w], None at the start. Returns the same shape, and x's last
        frame."""
        batch = x.shape[0]
        before = torch.zeros_like(x[:, :1]) if before is None else before
        earlier = torch.cat([before, x[:, :-1]], dim=1)
        seen = F.silu(torch.cat([x, earlier], dim=2).flatten(0, 1))
        change = self.conv2(F.silu(self.conv1(seen)))
        return x + change.unflatten(0, (batch, -1)), x[:, -1:].clone()


class TinyDecoder(nn.Module):
    """Normalised latents -> video, latent frame by latent frame; the first gives one picture, each further one
    `temporal_stride`.

    latent_channels, spatial_stride, temporal_stride: of the autoencoder (16, 8 and 4 as published). width: channels at the
    finest level, which has half the picture's resolution; every coarser level has twice as many. blocks: of each level.
    Raises ValueError on strides that it cannot build.
    """

    def __init__(
        self, latent_channels: int, spatial_stride: int = 8, temporal_stride: int = 4, width: int = 64, blocks: int = 2
    ):
        super().__init__()
        levels, doublings = math.log2(spatial_stride), math.log2(temporal_stride)
        if levels != int(levels) or doublings != int(doublings) or not 0 <= doublings < levels:
            raise ValueError(
                f'TinyDecoder got strides {spatial_stride} in space and {temporal_stride} in time; both must be powers of '
                'two, the one in time the smaller.'
            )
        if width < 1 or blocks < 1:
            raise ValueError(f'TinyDecoder got width {width} and {blocks} blocks; both must be at least 1.')
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

    def forward(self, latents: torch.Tensor, memory: Memory | None = None) -> tuple[torch.Tensor, Memory]:
        """The next piece of a video, any number of latent frames.

        latents: [B, latent_channels, n, h, w]. memory: what the piece before returned, None at a video's start.
        Returns video [B, 3, s * n, H, W] (s = temporal_stride; 1 + s * (n - 1) at the start), -1 to 1 but not clamped, and
        the memory: one frame of features a block, whatever the length.
        """
        first = memory is None
        kept: Memory = []
        before = iter(memory or [None] * sum(len(level) for level in self.levels))
        x = self._each(self.stem, latents.transpose(1, 2))
        for i, level in enumerate(self.levels):
            for block in level:
                x, last = block(x, next(before))
                kept.append(last)
            if i == len(self.grow):
                break
            x = self._each(lambda y, i=i: self.grow[i](F.silu(y)), x)
            if i < self.doublings:
                # A start has no first half: its one latent frame stands for one picture, the last of its four.
                x = torch.stack(x.chunk(2, dim=2), dim=2).flatten(1, 2)[:, 1 if first else 0 :]
            x = self._each(lambda y: F.pixel_shuffle(y, 2), x)
        video = self._each(lambda y: F.pixel_shuffle(self.head(F.silu(y)), 2), x)
        return video.transpose(1, 2), kept

    @staticmethod
    def _each(function: Callable, x: torch.Tensor) -> torch.Tensor:
        """A function of pictures [N, C, h, w] on every frame of [B, T, C, h, w]."""
        return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def tiny_decoder_for(autoencoder: WanAutoencoder, width: int = 64, blocks: int = 2) -> TinyDecoder:
    """A light decoder, with random weights, of an autoencoder's latents and strides."""
    return TinyDecoder(
        autoencoder.latent_channels, autoencoder.spatial_stride, autoencoder.temporal_stride, width, blocks
    )


class TinyAutoencoder(nn.Module):
    """Wan's encoder and a light decoder behind the `Autoencoder` interface.

    full: encodes; its decoder is never called and may be gone (`WanAutoencoder.drop_decoder`). light: decodes.
    A shallow copy shares the weights, not the streams.
    """

    def __init__(self, full: WanAutoencoder, light: TinyDecoder):
        super().__init__()
        self.full, self.light = full, light
        self.latent_channels = full.latent_channels
        self.spatial_stride, self.temporal_stride = full.spatial_stride, full.temporal_stride
        self._memory: Memory | None = None

    def __copy__(self) -> TinyAutoencoder:
        # The encoder's stream lives in `full`, a module that a plain shallow copy would share.
        other = TinyAutoencoder(copy.copy(self.full), self.light)
        other.training = self.training
        other._memory = self._memory
        return other

    def reset(self) -> None:
        """Start new streams, of encoding and of decoding."""
        self.full.reset()
        self._memory = None

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """As `WanAutoencoder.encode`."""
        return self.full.encode(video)

    def encode_next(self, video: torch.Tensor) -> torch.Tensor:
        """As `WanAutoencoder.encode_next`."""
        return self.full.encode_next(video)

    def _decode_piece(self, latents: torch.Tensor, memory: Memory | None) -> tuple[torch.Tensor, Memory | None]:
        # Frame by frame: memory does not grow with the piece, and a stream computes to the bit what a whole clip does.
        frames = []
        for frame in latents.to(self.light.stem.weight.dtype).split(1, dim=2):
            video, memory = self.light(frame, memory)
            frames.append(video)
        return torch.cat(frames, dim=2).float().clamp(-1, 1), memory

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """latents: [B, z_dim, n + 1, h, w]. Returns video [B, 3, 4n + 1, 8h, 8w], clamped to [-1, 1]."""
        return self._decode_piece(latents, None)[0]

    @torch.no_grad()
    def decode_next(self, latents: torch.Tensor) -> torch.Tensor:
        """The next latents of a stream, any number: the first gives one frame, every other four."""
        video, self._memory = self._decode_piece(latents, self._memory)
        return video
