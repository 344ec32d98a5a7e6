"""The aggregator: frame attention inside each view and global attention over all views in turn (paper sheet 2.1)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wristworld_ros.models.vggt.blocks import Block
from wristworld_ros.models.vggt.config import ReconstructionConfig
from wristworld_ros.models.vggt.patch_embed import REGISTERS, PatchEmbed
from wristworld_ros.models.vggt.rotary import rotary_tables

SPECIAL = 1 + REGISTERS  # camera token and registers in front of a view's patches


class Aggregator(nn.Module):
    """Images of V views to tokens of every layer that is asked for."""

    def __init__(self, config: ReconstructionConfig):
        super().__init__()
        dim, heads, scale = config.embed_dim, config.num_heads, config.layerscale_init
        self.patch_size, self.heads = config.patch_size, heads
        self.gradient_checkpointing = config.gradient_checkpointing
        self.patch_embed = PatchEmbed(
            config.img_size,
            config.patch_size,
            dim,
            config.patch_embed_depth,
            config.patch_embed_heads,
            scale,
            config.patch_stem,
        )
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, dim))
        self.register_token = nn.Parameter(torch.zeros(1, 2, REGISTERS, dim))
        self.frame_blocks = nn.ModuleList(Block(dim, heads, scale, qk_norm=True) for _ in range(config.depth))
        self.global_blocks = nn.ModuleList(Block(dim, heads, scale, qk_norm=True) for _ in range(config.depth))

    def forward(self, images: Tensor, layers: set[int]) -> dict[int, Tensor]:
        """Tokens after the asked layers, {layer: [B, V, P, 2 * dim]} with P = 5 + patches; layers after the last asked
        one do not run.

        images: [B, V, 3, H, W] in [0, 1].
        """
        batch, views, _, height, width = images.shape
        grid_hw = (height // self.patch_size, width // self.patch_size)
        mean, std = _imagenet(images.device, images.dtype)
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
def _imagenet(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        mean = torch.tensor([0.485, 0.456, 0.406], device=device, dtype=dtype)
        std = torch.tensor([0.229, 0.224, 0.225], device=device, dtype=dtype)
        return mean.view(3, 1, 1), std.view(3, 1, 1)
