"""The tracker's transformer: attention over views for each track, and over tracks through 64 learned extra tracks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wristworld_ros.models.vggt.blocks import CrossAttention, Mlp

LAYERS = 6
HEADS = 8
EXTRA_TRACKS = 64


class SelfBlock(nn.Module):
    """y = norm1(x); y + attention(y); then + mlp(norm2): the residual starts from the normed input."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = CrossAttention(dim, HEADS)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        y = y + self.attn(y)
        return y + self.mlp(self.norm2(y))


class CrossBlock(nn.Module):
    """The same with attention to a normed context."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm1, self.norm_context, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.cross_attn = CrossAttention(dim, HEADS)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        y = self.norm1(x)
        y = y + self.cross_attn(y, self.norm_context(context))
        return y + self.mlp(self.norm2(y))


class UpdateTransformer(nn.Module):
    """Tokens of N tracks in V views to their updates."""

    def __init__(self, token: int, dim: int, out: int):
        super().__init__()
        self.virual_tracks = nn.Parameter(torch.zeros(1, EXTRA_TRACKS, 1, dim))  # spelled so in the public file
        self.input_norm = nn.LayerNorm(token)
        self.input_transform = nn.Linear(token, dim)
        self.time_blocks = nn.ModuleList(SelfBlock(dim) for _ in range(LAYERS))
        self.space_virtual_blocks = nn.ModuleList(SelfBlock(dim) for _ in range(LAYERS))
        self.space_virtual2point_blocks = nn.ModuleList(CrossBlock(dim) for _ in range(LAYERS))
        self.space_point2virtual_blocks = nn.ModuleList(CrossBlock(dim) for _ in range(LAYERS))
        self.output_norm = nn.LayerNorm(dim)
        self.flow_head = nn.Linear(dim, out)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: [B, V, N, token]. Returns [B, V, N, out]."""
        batch, views, count, _ = tokens.shape
        start = self.input_transform(self.input_norm(tokens))
        extra = self.virual_tracks.transpose(1, 2).expand(batch, views, -1, -1)
        x = torch.cat([start, extra], 2)  # [B, V, N + 64, dim]
        for i in range(LAYERS):
            x = self.time_blocks[i](x.transpose(1, 2).flatten(0, 1))
            x = x.unflatten(0, (batch, -1)).transpose(1, 2)
            points, extra = x[:, :, :count].flatten(0, 1), x[:, :, count:].flatten(0, 1)
            extra = self.space_virtual2point_blocks[i](extra, points)
            extra = self.space_virtual_blocks[i](extra)
            points = self.space_point2virtual_blocks[i](points, extra)
            x = torch.cat([points, extra], 1).unflatten(0, (batch, views))
        return self.flow_head(self.output_norm(x[:, :, :count] + start))
