"""The camera head (VGGT, arXiv 2503.11651) and the wrist head (WristWorld, arXiv 2510.07313).

Both refine a pose encoding in four rounds from one token per camera. The camera head takes the views' camera tokens;
the wrist head, whose camera no view shows, lets a learned query attend to all tokens of all views first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wristworld_ros.models.vggt.config import ReconstructionConfig
from wristworld_ros.models.vggt.layers import Block, CrossAttention, Mlp

ROUNDS = 4
POSE_SIZE = 9
AGGREGATION_LAYERS = 3
AGGREGATION_HEADS = 8


class PoseRefinement(nn.Module):
    """Camera tokens to pose encodings, refined in four rounds; the previous pose enters without gradient."""

    def __init__(self, config: ReconstructionConfig):
        super().__init__()
        dim = 2 * config.embed_dim
        self.trunk = nn.ModuleList(
            Block(dim, config.camera_heads, config.layerscale_init) for _ in range(config.camera_trunk_depth)
        )
        self.token_norm = nn.LayerNorm(dim)
        self.trunk_norm = nn.LayerNorm(dim)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_SIZE))
        self.embed_pose = nn.Linear(POSE_SIZE, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.pose_branch = Mlp(dim, dim // 2, POSE_SIZE)

    def refine(self, tokens: Tensor) -> Tensor:
        """tokens: [B, V, dim], before token_norm. Returns every round's encoding [4, B, V, 9], camera-from-world."""
        with torch.autocast(tokens.device.type, enabled=False):
            return self._refine(tokens.to(self.embed_pose.weight.dtype))

    def _refine(self, tokens: Tensor) -> Tensor:
        tokens = self.token_norm(tokens)
        plain = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        pose, rounds = None, []
        for _ in range(ROUNDS):
            previous = self.empty_pose_tokens if pose is None else pose.detach()
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(previous)).chunk(3, -1)
            x = gate * (plain * (1 + scale) + shift) + tokens
            for block in self.trunk:
                x = block(x)
            delta = self.pose_branch(self.trunk_norm(x)).to(previous.dtype)  # summed in full precision under autocast
            pose = delta if pose is None else pose.detach() + delta
            rounds.append(torch.cat([pose[..., :7], F.relu(pose[..., 7:])], -1))
        return torch.stack(rounds)


class CameraHead(PoseRefinement):
    """Poses of the views from their camera tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: the last layer's, [B, V, P, 2 * dim]. Returns [4, B, V, 9], camera-from-world."""
        return self.refine(tokens[:, :, 0])


class TokenAggregation(nn.Module):
    """Post-norm self-attention layer of the wrist head."""

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.attention = CrossAttention(dim, AGGREGATION_HEADS, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """x: [B, N, dim]. queries: how many of the first tokens are updated (they attend to all); None updates all."""
        if queries is None:
            x = self.norm1(x + self.dropout(self.attention(x)))
        else:
            kept = x[:, :queries]
            x = self.norm1(kept + self.dropout(self.attention(kept, x)))
        return self.norm2(x + self.dropout(self.mlp(x)))


class WristHead(PoseRefinement):
    """Pose of the wrist camera, from all tokens of all views."""

    def __init__(self, config: ReconstructionConfig):
        super().__init__(config)
        dim = 2 * config.embed_dim
        self.token_query = nn.Parameter(torch.zeros(1, 1, dim))
        self.token_aggregation_layers = nn.ModuleList(
            TokenAggregation(dim, config.wrist_dropout) for _ in range(AGGREGATION_LAYERS)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: the last layer's, [B, V, P, 2 * dim]. Returns [4, B, 1, 9], camera-from-world, the
        first view's camera being the world."""
        x = torch.cat([self.token_query.expand(len(tokens), -1, -1), tokens.flatten(1, 2)], 1)
        *first, last = self.token_aggregation_layers
        for layer in first:
            x = layer(x)
        return self.refine(last(x, queries=1))  # only the query's output of the last layer is needed
