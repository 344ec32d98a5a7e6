"""Sizes of published models."""

from __future__ import annotations

VGGT_1B = {
    'img_size': 518,
    'embed_dim': 1024,
    'depth': 24,
    'num_heads': 16,
    'patch_embed_depth': 24,
    'patch_embed_heads': 16,
    'camera_trunk_depth': 4,
    'camera_heads': 16,
    'dpt_layers': [4, 11, 17, 23],
    'dpt_features': 256,
    'dpt_out_channels': [256, 512, 1024, 1024],
    'track_features': 128,
    'track_iters': 4,
    'track_corr_levels': 7,
    'track_corr_radius': 4,
    'track_hidden': 384,
}
"""VGGT-1B with the wrist head: 1797 public tensors, 1256.5 M parameters, plus about 367 M in ``wrist_head.*``."""
