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

# VGGT's shape at about a hundredth of its size. The wrist head's own layers are as published.
SIM_TINY: dict = {
    'img_size': 128,
    'patch_size': 16,
    'patch_stem': 'convolutional',
    'embed_dim': 128,
    'depth': 6,
    'num_heads': 4,
    'patch_embed_depth': 1,
    'patch_embed_heads': 4,
    'camera_trunk_depth': 1,
    'camera_heads': 4,
    'dpt_layers': [1, 2, 4, 5],
    'dpt_features': 32,
    'dpt_out_channels': [32, 48, 96, 96],
    'heads': ['camera', 'wrist', 'depth', 'scene_coordinates'],
    'layerscale_init': 0.3,
    'wrist_dropout': 0.0,
    'float32_heads': False,
}
