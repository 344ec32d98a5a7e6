"""The configurations of a release's parts, read off its tensors' shapes.

What shapes do not tell has the published value: the number of attention heads (by their published width), the layers that
the dense heads read, the length of the context. ``overrides`` of the same form as the configurations replace anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from math import isqrt, prod
from pathlib import Path
from typing import Any

from torch import Tensor

from wristworld_ros.models.vggt import VGGT_1B
from wristworld_ros.models.wan import WRISTWORLD_1_3B, GeneratorSettings
from wristworld_ros.models.wan.checkpoints import CLIP_VIT_H, UMT5_XXL
from wristworld_ros.pipeline import ModelError

Weights = Mapping[str, Tensor]
SECTIONS = ('stage1', 'generator', 'anchor_encoder', 'autoencoder', 'text_encoder')
STAGE1_PREFIXES = {
    'camera': 'camera_head.', 'wrist': 'wrist_head.', 'depth': 'depth_head.', 'points': 'point_head.',
    'track': 'track_head.',
}  # fmt: skip
# Width of an attention head as published.
_WAN_HEAD = WRISTWORLD_1_3B['dim'] // WRISTWORLD_1_3B['num_heads']
_CLIP_HEAD = CLIP_VIT_H['dim'] // CLIP_VIT_H['num_heads']


def read_overrides(path: str) -> dict[str, dict[str, Any]]:
    """A JSON file of sizes, section by section (``SECTIONS``); '' gives none. ModelError when it is no such file."""
    if not path:
        return {}
    try:
        raw = json.loads(Path(path).expanduser().read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f'{path} is no JSON ({error}); see docs/models.md for what it holds.') from None
    if not isinstance(raw, dict) or any(k not in SECTIONS or not isinstance(v, dict) for k, v in raw.items()):
        raise ModelError(f'{path} must hold objects named {", ".join(SECTIONS)} and nothing else.')
    known = {f.name for f in fields(GeneratorSettings)}
    if unknown := sorted(set(raw.get('generator', {})) - known):
        raise ModelError(
            f'{path}: the generator has no setting {", ".join(unknown)}; it has {", ".join(sorted(known))}.'
        )
    return raw


def stage1_config(weights: Weights, source: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of ``ReconstructionConfig``. ModelError names a key that is missing or has no such shape."""
    see = _Shapes(weights, source)
    dim = see('aggregator.camera_token', 4)[-1]
    head = see('aggregator.frame_blocks.0.attn.q_norm.weight', 1)[0]
    patch = see('aggregator.patch_embed.patch_embed.proj.weight', 4)[-1]
    depth = see.count(r'aggregator\.frame_blocks\.(\d+)\.')
    config: dict[str, Any] = {
        'img_size': isqrt(see('aggregator.patch_embed.pos_embed', 3)[1] - 1) * patch,
        'patch_size': patch,
        'embed_dim': dim,
        'depth': depth,
        'num_heads': max(dim // head, 1),
        'patch_embed_depth': see.count(r'aggregator\.patch_embed\.blocks\.(\d+)\.'),
        'heads': [h for h, prefix in STAGE1_PREFIXES.items() if any(name.startswith(prefix) for name in weights)],
    }
    if depth == VGGT_1B['depth']:
        config['dpt_layers'] = VGGT_1B['dpt_layers']
    for prefix in ('camera_head.', 'wrist_head.'):
        if f'{prefix}token_norm.weight' in weights:
            config['camera_trunk_depth'] = see.count(re.escape(prefix) + r'trunk\.(\d+)\.')
    for prefix in ('point_head.', 'depth_head.'):
        if f'{prefix}scratch.layer1_rn.weight' in weights:
            config['dpt_features'] = see(f'{prefix}scratch.layer1_rn.weight', 4)[0]
            config['dpt_out_channels'] = [see(f'{prefix}projects.{i}.weight', 4)[0] for i in range(4)]
    if 'track' in config['heads']:
        tracker = 'track_head.tracker.'
        cells = see(f'{tracker}corr_mlp.fc1.weight', 2)[1]  # levels * (2 * radius + 1)^2
        radius = next(r for r in range(VGGT_1B['track_corr_radius'], -1, -1) if cells % (2 * r + 1) ** 2 == 0)
        config |= {
            'track_features': see(f'{tracker}fmap_norm.weight', 1)[0],
            'track_hidden': see(f'{tracker}updateformer.input_transform.weight', 2)[0],
            'track_corr_radius': radius,
            'track_corr_levels': cells // (2 * radius + 1) ** 2,
        }
    return config | dict(overrides)


def generator_config(weights: Weights, source: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of ``GeneratorSettings`` but for the parts beside the transformer.

    weights: under the released checkpoint's names. ModelError names a key that is missing or has no such shape.
    """
    see, wan = _Shapes(weights, source), 'denoising_model.'
    dim, channels, *patch = see(f'{wan}patch_embedding.weight', 5)
    config = WRISTWORLD_1_3B | {
        'dim': dim,
        'in_channels': channels,
        'patch_size': patch,
        'out_channels': see(f'{wan}head.head.weight', 2)[0] // prod(patch),
        'ffn_dim': see(f'{wan}blocks.0.ffn.0.weight', 2)[0],
        'text_dim': see(f'{wan}text_embedding.0.weight', 2)[1],
        'freq_dim': see(f'{wan}time_embedding.0.weight', 2)[1],
        'num_heads': _heads(dim, _WAN_HEAD, 'generator', source, overrides),
        'num_layers': see.count(re.escape(wan) + r'blocks\.(\d+)\.'),
        'clip_dim': see('ext_proj.0.weight', 2)[1],
        'clip_hidden': see('ext_proj.0.weight', 2)[0],
        'max_frames': see('temporal_embed.weight', 2)[0],
        'max_views': see('view_embed.weight', 2)[0],
    }
    return config | dict(overrides)


def clip_config(weights: Weights, source: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration of the vision tower, for ``release.clip_tensors``; errors as above."""
    see = _Shapes(weights, source)
    dim, _, patch, _ = see('visual.patch_embedding.weight', 4)
    config = {
        'image_size': isqrt(see('visual.pos_embedding', 3)[1] - 1) * patch,
        'dim': dim,
        'num_heads': _heads(dim, _CLIP_HEAD, 'anchor_encoder', source, overrides),
        'num_layers': see.count(r'visual\.transformer\.(\d+)\.'),
        'out_dim': see('visual.head', 2)[1],
        'patch_size': patch,
        'mlp_ratio': see('visual.transformer.0.mlp.0.weight', 2)[0] / dim,
        'resize': 'bicubic',
    }
    return config | dict(overrides)


def vae_config(weights: Weights, source: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration of the video autoencoder, for ``autoencoder_from_config`` and ``release.vae_tensors``."""
    see = _Shapes(weights, source)
    config = {'kind': 'wan', 'dim': see('encoder.conv1.weight', 5)[0], 'z_dim': see('decoder.conv1.weight', 5)[1]}
    return config | dict(overrides)


def text_config(weights: Weights, source: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration of the text encoder, for ``release.text_encoder_from_release``; errors as above."""
    see = _Shapes(weights, source)
    vocab, dim = see('token_embedding.weight', 2)
    config = UMT5_XXL | {
        'vocab': vocab,
        'dim': dim,
        'dim_attn': see('blocks.0.attn.q.weight', 2)[0],
        'dim_ffn': see('blocks.0.ffn.gate.0.weight', 2)[0],
        'num_heads': see('blocks.0.pos_embedding.embedding.weight', 2)[1],
        'num_layers': see.count(r'blocks\.(\d+)\.'),
    }
    return config | dict(overrides)


def _heads(dim: int, published: int, section: str, source: str, overrides: Mapping[str, Any]) -> int:
    """Attention heads of the published width; where that does not divide, nobody but the user knows."""
    if dim % published and 'num_heads' not in overrides:
        raise ModelError(
            f'{source}: {dim} channels are no multiple of {published}, the published width of an attention head; say '
            f'num_heads under {section} in a file for --sizes.'
        )
    return max(dim // published, 1)


class _Shapes:
    """Shapes of a checkpoint's tensors; what is missing or has another form is one sentence."""

    def __init__(self, weights: Weights, source: str):
        self.weights, self.source = weights, source

    def __call__(self, name: str, dimensions: int) -> tuple[int, ...]:
        if name not in self.weights:
            first = next(iter(self.weights), 'nothing')
            raise ModelError(
                f'{self.source}: key {name} is missing (wanted a tensor of {dimensions} dimensions; the first key found '
                f'is {first}); is it the right file, and complete?'
            )
        shape = tuple(self.weights[name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise ModelError(
                f'{self.source}: key {name} has shape {list(shape)}, wanted {dimensions} dimensions; is it the right file?'
            )
        return shape

    def count(self, pattern: str) -> int:
        """How many numbers the names have where the pattern has its group, or 1 for none: what lacks is named later."""
        found = (re.match(pattern, name) for name in self.weights)
        return max((int(match[1]) + 1 for match in found if match), default=1)
