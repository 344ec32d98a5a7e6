"""The trunk of the model: images to patch tokens (DINOv2), then attention inside each view and over all views in turn.

The architecture is VGGT's (arXiv 2503.11651) on DINOv2 with four register tokens (arXiv 2309.16588); parameters are
named as in the public checkpoints.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from wristworld_ros.models.vggt.config import ReconstructionConfig
from wristworld_ros.models.vggt.layers import Block, rotary_tables

REGISTERS = 4
SPECIAL = 1 + REGISTERS  # the camera token and registers in front of a view's patches


class Aggregator(nn.Module):
    """Images of V views to the tokens of every requested layer: frame attention and global attention alternate."""

    def __init__(self, config: ReconstructionConfig):
        super().__init__()
        dim, heads, scale = config.embed_dim, config.num_heads, config.layerscale_init
        self.patch_size, self.heads = config.patch_size, heads
        self.gradient_checkpointing = config.gradient_checkpointing
        self.patch_embed = PatchEmbed(config)
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, dim))
        self.register_token = nn.Parameter(torch.zeros(1, 2, REGISTERS, dim))
        self.frame_blocks = nn.ModuleList(Block(dim, heads, scale, qk_norm=True) for _ in range(config.depth))
        self.global_blocks = nn.ModuleList(Block(dim, heads, scale, qk_norm=True) for _ in range(config.depth))

    def forward(self, images: Tensor, layers: set[int]) -> dict[int, Tensor]:
        """Run the aggregator up to the last requested layer.

        Args:
            images: Float [B, V, 3, H, W] in [0, 1]; H and W are multiples of the patch size.
            layers: Indices of the layers whose tokens are wanted.

        Returns:
            Layer -> its tokens [B, V, P, 2 * dim], frame attention's before global attention's; P = 5 + patches.
        """
        batch, views, _, height, width = images.shape
        grid_hw = (height // self.patch_size, width // self.patch_size)
        mean, std = imagenet_statistics(images.device, images.dtype)
        normalised = ((images - mean) / std).flatten(0, 1).to(self.camera_token.dtype)
        patches = self.patch_embed(normalised)
        x = torch.cat([self._special(batch, views).to(patches.dtype), patches], 1)
        tokens, dim = x.shape[1:]
        head_dim = dim // self.heads
        table_dtype = torch.float32 if self.camera_token.dtype == torch.float32 else x.dtype
        frame_rotary = rotary_tables(grid_hw, SPECIAL, 1, head_dim, x.device, table_dtype)
        global_rotary = rotary_tables(grid_hw, SPECIAL, views, head_dim, x.device, table_dtype)
        outputs = {}
        for i in range(max(layers) + 1):
            frame = self._run(self.frame_blocks[i], x.view(batch * views, tokens, dim), frame_rotary)
            x = self._run(self.global_blocks[i], frame.view(batch, views * tokens, dim), global_rotary)
            if i in layers:
                shape = (batch, views, tokens, dim)
                outputs[i] = torch.cat([frame.view(shape), x.view(shape)], -1)
        return outputs

    def _run(self, block: nn.Module, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, x, rotary, use_reentrant=False)
        return block(x, rotary)

    def _special(self, batch: int, views: int) -> Tensor:
        """Camera and register tokens [B * V, 5, dim]: row 0 for the first view, row 1 for every other."""
        both = torch.cat([self.camera_token, self.register_token], 2)[0]
        per_view = torch.cat([both[:1], both[1:].expand(views - 1, -1, -1)])
        return per_view.expand(batch, -1, -1, -1).flatten(0, 1)


@lru_cache(maxsize=8)
def imagenet_statistics(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of images in 0..1, [3, 1, 1]; kept for the process."""
    with torch.inference_mode(False):
        mean = torch.tensor([0.485, 0.456, 0.406], device=device, dtype=dtype)
        std = torch.tensor([0.229, 0.224, 0.225], device=device, dtype=dtype)
        return mean.view(3, 1, 1), std.view(3, 1, 1)


class PatchProjection(nn.Module):
    """Convolution whose kernel and stride are one patch."""

    def __init__(self, dim: int, patch_size: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, 3, H, W] -> tokens [N, H/p * W/p, dim], row-major."""
        p = self.proj.kernel_size[0]
        rows, columns = images.shape[-2] // p, images.shape[-1] // p
        # Patches do not overlap, so the convolution is one matrix product, whose gradient is far faster on a CPU.
        patches = images.unflatten(2, (rows, p)).unflatten(4, (columns, p)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        return F.linear(patches.flatten(1, 2), self.proj.weight.flatten(1), self.proj.bias)


class ConvolutionalStem(nn.Module):
    """Convolutions that halve the image until a patch is one pixel, with a residual block at each size."""

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
        with torch.autocast(images.device.type, enabled=False):  # a CPU has no fast bfloat16 gradient for these
            x = images.to(self.halve[0].weight.dtype, memory_format=torch.channels_last)
            for halve, refine in zip(self.halve, self.refine, strict=True):
                x = halve(x)
                x = x + refine(x)
        return x.flatten(2).transpose(1, 2)


class PatchEmbed(nn.Module):
    """Images to normalised patch tokens: DINOv2 with registers, without its class and register tokens at the end."""

    def __init__(self, config: ReconstructionConfig):
        super().__init__()
        dim = config.embed_dim
        self.patch_size = config.patch_size
        self.grid = config.img_size // config.patch_size
        stem = PatchProjection if config.patch_stem == 'linear' else ConvolutionalStem
        self.patch_embed = stem(dim, config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, REGISTERS, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)  # in the public file; never used
        self.blocks = nn.ModuleList(
            Block(dim, config.patch_embed_heads, config.layerscale_init, eps=1e-6)
            for _ in range(config.patch_embed_depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """images: normalised, [N, 3, H, W]; H and W are multiples of the patch. Returns [N, H/p * W/p, dim]."""
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
        """Position embedding of the class token and a grid of patches, resized where the grid is not the stored one.

        grid_hw: rows and columns. Returns [1, 1 + rows * columns, dim].
        """
        if grid_hw == (self.grid, self.grid):
            return self.pos_embed
        stored = self.pos_embed[:, 1:].float().unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        resized = F.interpolate(stored, grid_hw, mode='bicubic', antialias=True, align_corners=False)
        resized = resized.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], resized], 1)
