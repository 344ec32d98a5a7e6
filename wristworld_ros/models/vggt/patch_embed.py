"""Patch embedding: DINOv2 with four register tokens (paper sheet 2.1)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wristworld_ros.models.vggt.blocks import Block

REGISTERS = 4


class PatchProjection(nn.Module):
    """Convolution whose kernel and stride are one patch."""

    def __init__(self, dim: int, patch_size: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, 3, H, W] -> tokens [N, H/p * W/p, dim], row-major."""
        p = self.proj.kernel_size[0]
        rows, columns = images.shape[-2] // p, images.shape[-1] // p
        # Patches do not overlap, so the convolution is one matrix product; a CPU is fifty times faster at its gradient.
        patches = images.unflatten(2, (rows, p)).unflatten(4, (columns, p)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        return F.linear(patches.flatten(1, 2), self.proj.weight.flatten(1), self.proj.bias)


class ConvolutionalStem(nn.Module):
    """Patches by convolutions that halve the image until a patch is one pixel, with a residual block at each size."""

    def __init__(self, dim: int, patch_size: int):
        super().__init__()
        halvings = patch_size.bit_length() - 1
        widths = [3] + [max(dim >> (halvings - 1 - i), 16) for i in range(halvings)]
        self.halve = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths))
        self.refine = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(4, w), nn.GELU(), nn.Conv2d(w, w, 3, padding=1),
                          nn.GroupNorm(4, w), nn.GELU(), nn.Conv2d(w, w, 3, padding=1))
            for w in widths[1:]
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, 3, H, W] -> tokens [N, H/p * W/p, dim], row-major."""
        with torch.autocast(images.device.type, enabled=False):  # a CPU has no fast half-precision gradient for these
            x = images.to(self.halve[0].weight.dtype, memory_format=torch.channels_last)
            for halve, refine in zip(self.halve, self.refine, strict=True):
                x = halve(x)
                x = x + refine(x)
        return x.flatten(2).transpose(1, 2)


class PatchEmbed(nn.Module):
    """Images to normalised patch tokens."""

    def __init__(
        self, img_size: int, patch_size: int, dim: int, depth: int, heads: int, layerscale: float, stem: str = 'linear'
    ):
        super().__init__()
        self.grid = img_size // patch_size
        self.patch_size = patch_size
        self.patch_embed = {'linear': PatchProjection, 'convolutional': ConvolutionalStem}[stem](dim, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, REGISTERS, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)  # in the public file; never used
        self.blocks = nn.ModuleList(Block(dim, heads, layerscale, eps=1e-6) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """images: normalised, [N, 3, H, W] with H, W multiples of the patch. Returns [N, H/p * W/p, dim]."""
        grid_hw = (images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size)
        positions = self.positions(grid_hw)
        patches = self.patch_embed(images)
        count = len(patches)
        special = torch.cat([self.cls_token + positions[:, :1], self.register_tokens], 1).expand(count, -1, -1)
        x = torch.cat([special.to(patches.dtype), patches + positions[:, 1:].to(patches.dtype)], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 1 + REGISTERS :])

    def positions(self, grid_hw: tuple[int, int]) -> Tensor:
        """Position embedding of the class token and a grid: [1, 1 + h * w, dim], resized unless the grid is the stored one."""
        if grid_hw == (self.grid, self.grid):
            return self.pos_embed
        stored = self.pos_embed[:, 1:].float().unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        resized = F.interpolate(stored, grid_hw, mode='bicubic', antialias=True, align_corners=False)
        resized = resized.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], resized], 1)
