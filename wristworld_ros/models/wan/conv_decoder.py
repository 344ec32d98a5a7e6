"""The small model's decoder: a U-Net at full resolution that repairs the warped image.

After an hour of training the output of a transformer on patches still shows the patches; convolutions over the filled
warp, the hit mask and the inverse depth learn much faster. The transformer contributes content and consistency in time,
the U-Net renders it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

from wristworld_ros.errors import UserError


class _Block(nn.Module):
    """Residual block, scaled and shifted by the noise level (adaptive group normalisation)."""

    def __init__(self, channels: int, noise_channels: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.noise = nn.Linear(noise_channels, 2 * channels)

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        scale, shift = self.noise(noise)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        return x + self.conv2(F.silu(torch.addcmul(h + shift, h, scale)))


def _smooth(image: torch.Tensor) -> torch.Tensor:
    """Means of 4 x 4 pixels, interpolated."""
    return F.interpolate(F.avg_pool2d(image, 4), scale_factor=4.0, mode='bilinear', align_corners=False)


class ConvDecoder(nn.Module):
    """Features, noisy image and condition planes -> clean image, frame by frame.

    image = warp + gate * (smoothed warp + residual - warp): where the gate is open the residual is added to a smoothed
    warp, so the ragged edges of the warp need not be cancelled pixel by pixel; where it is closed the warp passes.
    Latents and condition latents are pixel-unshuffled by `factor`; the first planes of the condition are the filled
    warp. The last convolution starts at zero, so an untrained decoder returns the mean of the warp and the smoothed
    warp.

    Args:
        latent_channels: Image channels * factor^2.
        condition_channels: Condition planes * factor^2.
        feature_channels: Channels of the transformer's output.
        factor: Pixels per latent cell, vertically and horizontally.
        widths: Channels at 1/2, 1/4, 1/8, ... of the image, each a multiple of 8.
        noise_channels: Channels of the noise level's embedding.
        fine_width: Channels at full resolution.

    Raises:
        UserError: Sizes that contradict each other.
    """

    def __init__(
        self,
        latent_channels: int,
        condition_channels: int,
        feature_channels: int,
        factor: int = 8,
        widths: Sequence[int] = (32, 64, 128, 192),
        noise_channels: int = 128,
        fine_width: int = 16,
    ):
        super().__init__()
        area = factor * factor
        level = math.log2(factor) - 1
        if latent_channels % area or condition_channels % area or condition_channels < latent_channels:
            raise UserError(
                f'ConvDecoder got {latent_channels} latent and {condition_channels} condition channels',
                f'give multiples of {area}, at least as many for the condition, which begins with the warp',
            )
        if level != int(level) or not 0 <= level < len(widths):
            raise UserError(
                f'ConvDecoder got factor {factor} for {len(widths)} widths', 'give a factor of 2, 4, ... 2^widths'
            )
        self.factor, self.feature_level = factor, int(level)
        self.image_channels = latent_channels // area
        planes = self.image_channels + condition_channels // area
        self.noise_channels = noise_channels
        self.noise = nn.Sequential(nn.Linear(noise_channels, noise_channels), nn.SiLU())
        self.features = nn.Conv2d(feature_channels, widths[self.feature_level], 1)
        self.fine = nn.Conv2d(planes, fine_width, 3, padding=1)
        self.stem = nn.Conv2d(4 * planes, widths[0], 3, padding=1)
        self.down = nn.ModuleList(_Block(w, noise_channels) for w in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths))
        self.middle = _Block(widths[-1], noise_channels)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(_Block(w, noise_channels) for w in widths[:-1])
        self.head = nn.Conv2d(widths[0], 4 * fine_width, 1)
        self.last = nn.Conv2d(fine_width, self.image_channels + 1, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.to(memory_format=torch.channels_last)  # A fifth faster on a CPU, and what tensor cores need.

    def _planes(self, latents: torch.Tensor) -> torch.Tensor:
        """[B, C*r*r, T, h, w] latents -> [B*T, C, h*r, w*r] planes."""
        return F.pixel_shuffle(latents.transpose(1, 2).flatten(0, 1), self.factor)

    def forward(
        self, features: torch.Tensor, latents: torch.Tensor, condition_latents: torch.Tensor | None, sigma: torch.Tensor
    ) -> torch.Tensor:
        """Decode every frame.

        Args:
            features: [B, feature_channels, T, h, w].
            latents: [B, latent_channels, T, h, w], noisy.
            condition_latents: [B, condition_channels, T, h, w], or None for zeros.
            sigma: [B] or [B, T], 0 to 1.

        Returns:
            Clean latents [B, latent_channels, T, h, w].
        """
        batch, frames = latents.shape[0], latents.shape[2]
        noisy = self._planes(latents)
        if condition_latents is None:
            planes = self.fine.in_channels - self.image_channels
            condition = noisy.new_zeros(noisy.shape[0], planes, *noisy.shape[2:])
        else:
            condition = self._planes(condition_latents)
        sigma = sigma.reshape(batch, -1).expand(batch, frames).flatten()
        noise = self.noise(get_timestep_embedding(1000 * sigma, self.noise_channels, True, 0).to(noisy.dtype))
        planes = torch.cat([condition, noisy], dim=1)
        x = self.stem(F.pixel_unshuffle(planes, 2))
        skips = []
        for i, block in enumerate(self.down):
            if i:
                x = self.shrink[i - 1](x)
            if i == self.feature_level:
                x = x + self.features(features.transpose(1, 2).flatten(0, 1))
            x = block(x, noise)
            skips.append(x)
        x = self.middle(x, noise)
        for i in reversed(range(len(self.up))):
            x = F.interpolate(self.grow[i](x), scale_factor=2.0, mode='nearest')
            x = self.up[i](x + skips[i], noise)
        x = self.last(F.silu(F.pixel_shuffle(self.head(x), 2) + self.fine(planes)))
        residual, gate = x[:, : self.image_channels], x[:, self.image_channels :]
        warp = condition[:, : self.image_channels]
        image = torch.lerp(warp, _smooth(warp) + residual, torch.sigmoid(gate).to(warp.dtype))
        return F.pixel_unshuffle(image, self.factor).unflatten(0, (batch, frames)).transpose(1, 2)
