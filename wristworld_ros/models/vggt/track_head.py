"""The track head: where query points of the first view lie in every view.

VGGT's tracker (arXiv 2503.11651, after CoTracker, arXiv 2307.07635): correlations around the present estimate in a
feature pyramid become tokens, a transformer over views and tracks updates the estimate, and so on for some rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wristworld_ros.models.vggt.config import ReconstructionConfig
from wristworld_ros.models.vggt.dense_head import DenseHead
from wristworld_ros.models.vggt.layers import CrossAttention, Mlp

STRIDE = 2  # the feature map has half the image's size
MOTION_SCALE = 518.0
MOTION_FREQUENCY = 1000.0
TABLE_BASE = 10000.0
LAYERS = 6
HEADS = 8
VIRTUAL_TRACKS = 64


class TrackHead(nn.Module):
    """Features of every view (`feature_extractor`), then the iterative tracker (`tracker`)."""

    def __init__(self, config: ReconstructionConfig):
        super().__init__()
        self.feature_extractor = DenseHead(
            2 * config.embed_dim, config.track_features, config.dpt_out_channels, config.patch_size, out_channels=None
        )
        self.tracker = Tracker(config)


class Tracker(nn.Module):
    """Correlation tracker: each round correlates around the present estimate in a feature pyramid and updates it."""

    def __init__(self, config: ReconstructionConfig):
        super().__init__()
        channels, hidden = config.track_features, config.track_hidden
        self.rounds, self.levels, self.radius = config.track_iters, config.track_corr_levels, config.track_corr_radius
        token = 3 * channels + 4
        self.fmap_norm = nn.LayerNorm(channels)
        self.corr_mlp = Mlp(self.levels * (2 * self.radius + 1) ** 2, hidden, channels)
        self.query_ref_token = nn.Parameter(torch.zeros(1, 2, token))
        self.updateformer = UpdateTransformer(token, hidden, 2 + channels)
        self.ffeat_norm = nn.GroupNorm(1, channels)
        self.ffeat_updater = nn.Sequential(nn.Linear(channels, channels), nn.GELU())
        self.vis_predictor = nn.Sequential(nn.Linear(channels, 1))
        self.conf_predictor = nn.Sequential(nn.Linear(channels, 1))

    def forward(self, features: Tensor, query_points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Track points of the first view.

        Args:
            features: Float [B, V, C, H/2, W/2].
            query_points: Float [B, N, 2] as (x, y), pixels of the first view's image.

        Returns:
            Tracks of every round [I, B, V, N, 2] in image pixels; visibility and confidence [B, V, N] in 0..1.

        Raises:
            ValueError: The images are too small for the correlation pyramid.
        """
        views = features.shape[1]
        features = self.fmap_norm(features.movedim(2, -1)).movedim(-1, 2)
        pyramid = self._pyramid(features)
        query = query_points.to(features.dtype)[:, None] / STRIDE  # [B, 1, N, 2]
        coordinates = query.expand(-1, views, -1, -1)
        f = sample(features[:, 0], query[:, 0], 'border').transpose(1, 2)[:, None].expand(-1, views, -1, -1)
        others = self.query_ref_token[:, 1:].expand(-1, views - 1, -1)
        position = position_table(query, features.shape[-2:], self.query_ref_token.shape[-1])
        position = position + torch.cat([self.query_ref_token[:, :1], others], 1)[:, :, None]
        tracks = []
        for _ in range(self.rounds):
            coordinates = coordinates.detach()
            correlation = self.corr_mlp(self._correlation(pyramid, f, coordinates))
            motion = coordinates - coordinates[:, :1]
            scaled = motion / MOTION_SCALE
            tokens = torch.cat([motion_embedding(motion, f.shape[-1]), scaled, scaled, correlation, f], -1) + position
            delta = self.updateformer(tokens)
            change = self.ffeat_norm(delta[..., 2:].flatten(0, 2)).view_as(f)
            f = f + self.ffeat_updater(change)
            coordinates = torch.cat([query, (coordinates + delta[..., :2])[:, 1:]], 1)
            tracks.append(coordinates * STRIDE)
        visibility = self.vis_predictor(f).squeeze(-1).sigmoid()
        confidence = self.conf_predictor(f).squeeze(-1).sigmoid()
        return torch.stack(tracks), visibility, confidence

    def _pyramid(self, features: Tensor) -> list[Tensor]:
        if min(features.shape[-2:]) >> (self.levels - 1) < 1:
            raise ValueError(
                f'Tracking with {self.levels} correlation levels needs images of at least {2**self.levels} pixels a '
                f'side, got {2 * features.shape[-2]} x {2 * features.shape[-1]} (height x width).'
            )
        pyramid = [features]
        for _ in range(self.levels - 1):
            coarser = F.avg_pool2d(pyramid[-1].flatten(0, 1), 2)
            pyramid.append(coarser.unflatten(0, features.shape[:2]))
        return pyramid

    def _correlation(self, pyramid: list[Tensor], f: Tensor, coordinates: Tensor) -> Tensor:
        """Correlations of f [B, V, N, C] around coordinates [B, V, N, 2]: [B, V, N, levels * (2 * radius + 1)^2]."""
        batch, views, count, channels = f.shape
        steps = torch.arange(-self.radius, self.radius + 1, device=f.device, dtype=f.dtype)
        offsets = torch.stack(torch.meshgrid(steps, steps, indexing='ij'), -1).flatten(0, 1)  # slowest index: x
        found = []
        for level, features in enumerate(pyramid):
            height, width = features.shape[-2:]
            scores = (f @ features.flatten(3)) / channels**0.5
            scores = scores.reshape(batch * views * count, 1, height, width)
            points = coordinates.reshape(-1, 1, 2) / 2**level + offsets
            found.append(sample(scores, points, 'zeros').view(batch, views, count, -1))
        return torch.cat(found, -1)


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
    """The same with attention to a context, which has a norm of its own."""

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
    """Tokens of N tracks in V views to their updates: attention over views, and over tracks through 64 virtual ones."""

    def __init__(self, token: int, dim: int, out: int):
        super().__init__()
        self.virual_tracks = nn.Parameter(torch.zeros(1, VIRTUAL_TRACKS, 1, dim))  # spelled so in the public file
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
        virtual = self.virual_tracks.transpose(1, 2).expand(batch, views, -1, -1)
        x = torch.cat([start, virtual], 2)  # [B, V, N + 64, dim]
        for i in range(LAYERS):
            x = self.time_blocks[i](x.transpose(1, 2).flatten(0, 1))
            x = x.unflatten(0, (batch, -1)).transpose(1, 2)
            points, virtual = x[:, :, :count].flatten(0, 1), x[:, :, count:].flatten(0, 1)
            virtual = self.space_virtual2point_blocks[i](virtual, points)
            virtual = self.space_virtual_blocks[i](virtual)
            points = self.space_point2virtual_blocks[i](points, virtual)
            x = torch.cat([points, virtual], 1).unflatten(0, (batch, views))
        return self.flow_head(self.output_norm(x[:, :, :count] + start))


def sample(maps: Tensor, points: Tensor, padding: str) -> Tensor:
    """Bilinear samples of maps; pixel i's centre is coordinate i.

    Args:
        maps: Float [N, C, H, W].
        points: Float [N, M, 2] as (x, y), pixels.
        padding: What lies outside a map: 'border' or 'zeros'.

    Returns:
        Float [N, C, M].
    """
    height, width = maps.shape[-2:]
    extent = points.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    grid = (points * (2 / extent) - 1)[:, None]
    return F.grid_sample(maps, grid, mode='bilinear', padding_mode=padding, align_corners=True)[:, :, 0]


def motion_embedding(motion: Tensor, channels: int) -> Tensor:
    """Sine and cosine, in turn, of each coordinate times 2k * 1000 / (C/2): [..., 2] -> [..., C], the x part first."""
    half = channels // 2
    frequency = torch.arange(0, half, 2, device=motion.device, dtype=motion.dtype) * (MOTION_FREQUENCY / half)
    angles = motion[..., None] * frequency
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-3)


def position_table(points: Tensor, grid_hw: Sequence[int], width: int) -> Tensor:
    """The 2-D sin-cos position embedding of the feature grid, sampled bilinearly with border padding.

    Its halves depend on the column alone and on the row alone, so sampling is linear interpolation along each.

    Args:
        points: Float [..., 2] as (x, y), cells of the grid.
        grid_hw: Rows and columns of the grid.
        width: Channels of the embedding, a multiple of 4.

    Returns:
        Float [..., width].
    """
    parts = []
    for axis, size in ((0, grid_hw[1]), (1, grid_hw[0])):
        quarter = width // 4
        k = torch.arange(quarter, device=points.device, dtype=torch.float64)
        angles = torch.arange(size, device=points.device, dtype=torch.float64)[:, None] * TABLE_BASE ** (-k / quarter)
        table = torch.cat([angles.sin(), angles.cos()], 1).to(points.dtype)
        at = points[..., axis].clamp(0, size - 1)
        low = at.floor().clamp_max(max(size - 2, 0))
        index = low.long()
        share = (at - low)[..., None]
        parts.append(table[index] * (1 - share) + table[(index + 1).clamp_max(size - 1)] * share)
    return torch.cat(parts, -1)
