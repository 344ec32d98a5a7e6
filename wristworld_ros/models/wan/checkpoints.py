"""The published checkpoints: names of the transformer's parameters, and the other parts of the release.

Vision tower, video autoencoder and text encoder are classes of transformers and diffusers, filled by renaming; the
release's own names do not leave this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel

from wristworld_ros.models.state_dict import adopt, check_shapes, load_strict, named_tensors
from wristworld_ros.models.wan.anchor_encoder import AnchorEncoder
from wristworld_ros.models.wan.autoencoders import WanAutoencoder

# Sizes of the released parts, for `clip_from_release` and the others.
CLIP_VIT_H: dict[str, Any] = {
    'image_size': 224,
    'dim': 1280,
    'num_heads': 16,
    'num_layers': 32,
    'out_dim': 1024,
    'patch_size': 14,
}
WAN_VAE: dict[str, Any] = {'dim': 96, 'z_dim': 16}
UMT5_XXL: dict[str, Any] = {'vocab': 256384, 'dim': 4096, 'dim_ffn': 10240, 'num_heads': 64, 'num_layers': 24}

# diffusers' name -> Wan's name, in the order they are tried; both are parts of a dotted name.
_TRANSFORMER_NAMES = (
    ('condition_embedder.text_embedder.linear_1.', 'text_embedding.0.'),
    ('condition_embedder.text_embedder.linear_2.', 'text_embedding.2.'),
    ('condition_embedder.time_embedder.linear_1.', 'time_embedding.0.'),
    ('condition_embedder.time_embedder.linear_2.', 'time_embedding.2.'),
    ('condition_embedder.time_proj.', 'time_projection.1.'),
    ('.attn1.', '.self_attn.'),
    ('.attn2.', '.cross_attn.'),
    ('.to_q.', '.q.'),
    ('.to_k.', '.k.'),
    ('.to_v.', '.v.'),
    ('.to_out.0.', '.o.'),
    ('.norm2.', '.norm3.'),
    ('.ffn.net.0.proj.', '.ffn.0.'),
    ('.ffn.net.2.', '.ffn.2.'),
    ('proj_out.', 'head.head.'),
)
_CLIP_BLOCK = {
    'norm1': 'layer_norm1',
    'norm2': 'layer_norm2',
    'attn.proj': 'self_attn.out_proj',
    'mlp.0': 'mlp.fc1',
    'mlp.2': 'mlp.fc2',
}
_CLIP_TOP = {
    'visual.patch_embedding.weight': 'embeddings.patch_embedding.weight',
    'visual.pre_norm.weight': 'pre_layrnorm.weight',
    'visual.pre_norm.bias': 'pre_layrnorm.bias',
    'visual.post_norm.weight': 'post_layernorm.weight',
    'visual.post_norm.bias': 'post_layernorm.bias',
    'visual.cls_embedding': 'embeddings.class_embedding',
    'visual.pos_embedding': 'embeddings.position_embedding.weight',
}
_CLIP_CLASS, _CLIP_POSITIONS = 'visual.cls_embedding', 'visual.pos_embedding'
_T5_BLOCK = {
    'attn': 'layer.0.SelfAttention',
    'norm1': 'layer.0.layer_norm',
    'pos_embedding.embedding': 'layer.0.SelfAttention.relative_attention_bias',
    'norm2': 'layer.1.layer_norm',
    'ffn.gate.0': 'layer.1.DenseReluDense.wi_0',
    'ffn.fc1': 'layer.1.DenseReluDense.wi_1',
    'ffn.fc2': 'layer.1.DenseReluDense.wo',
}


def wan_name(name: str) -> str:
    """Wan's own name of a parameter of diffusers' `WanTransformer3DModel`.

    Args:
        name: E.g. 'blocks.0.attn1.to_q.weight'.

    Returns:
        E.g. 'blocks.0.self_attn.q.weight'.
    """
    if name == 'scale_shift_table':
        return 'head.modulation'
    if name.endswith('.scale_shift_table'):
        return name.removesuffix('scale_shift_table') + 'modulation'
    for ours, theirs in _TRANSFORMER_NAMES:
        name = name.replace(ours, theirs)
    return name


def _clip_names(num_layers: int) -> dict[str, str]:
    """The release's name of each tensor that is built -> its name in the tower; pieces as in `clip_targets`."""
    names = dict(_CLIP_TOP)
    for i in range(num_layers - 1):
        release, own = f'visual.transformer.{i}.', f'encoder.layers.{i}.'
        for kind in ('weight', 'bias'):
            names |= {f'{release}{theirs}.{kind}': f'{own}{ours}.{kind}' for theirs, ours in _CLIP_BLOCK.items()}
            for piece, part in enumerate('qkv'):
                names[f'{release}attn.to_qkv.{kind}#{piece}'] = f'{own}self_attn.{part}_proj.{kind}'
    return names


def _tower_tensors(clip: AnchorEncoder) -> dict[str, torch.Tensor]:
    return {n.removeprefix('vision_model.'): p for n, p in clip.tower.named_parameters()}


def clip_targets(clip: AnchorEncoder, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Where each tensor of the release's vision tower goes: its name -> the tower's own tensor.

    Fused query-key-value weights have one target in three pieces, listed as 'name#0' to 'name#2'. What the features do
    not depend on (the last block, the output projection) gets an empty placeholder of the right shape.

    Args:
        clip: The tower to fill.
        config: As in `clip_from_release`.
    """
    own = _tower_tensors(clip)
    targets = {release: own[name] for release, name in _clip_names(config['num_layers']).items()}
    targets[_CLIP_CLASS] = targets[_CLIP_CLASS].view(1, 1, -1)
    targets[_CLIP_POSITIONS] = targets[_CLIP_POSITIONS][None]
    dim, last = config['dim'], config['num_layers'] - 1
    # The block that is not built has the shapes of the first; "meta" tensors accept a copy and store nothing.
    hidden = int(dim * config.get('mlp_ratio', 4))
    shapes = {
        'norm1.weight': [dim], 'norm1.bias': [dim], 'norm2.weight': [dim], 'norm2.bias': [dim],
        'attn.to_qkv.weight#0': [dim, dim], 'attn.to_qkv.weight#1': [dim, dim], 'attn.to_qkv.weight#2': [dim, dim],
        'attn.to_qkv.bias#0': [dim], 'attn.to_qkv.bias#1': [dim], 'attn.to_qkv.bias#2': [dim],
        'attn.proj.weight': [dim, dim], 'attn.proj.bias': [dim],
        'mlp.0.weight': [hidden, dim], 'mlp.0.bias': [hidden], 'mlp.2.weight': [dim, hidden], 'mlp.2.bias': [dim],
    }  # fmt: skip
    targets |= {
        f'visual.transformer.{last}.{name}': torch.empty(shape, device='meta') for name, shape in shapes.items()
    }
    targets['visual.head'] = torch.empty(dim, config['out_dim'], device='meta')
    return targets


def _clip_pieces(
    targets: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], source: str
) -> dict[str, torch.Tensor]:
    """The release's vision tensors, checked and with fused weights in pieces, under the names of `clip_targets`."""
    wanted, fused = {}, set()
    for name, target in targets.items():
        name, _, piece = name.partition('#')
        shape = (3 * target.shape[0], *target.shape[1:]) if piece else target.shape
        wanted[name] = torch.empty(shape, device='meta')
        if piece:
            fused.add(name)
    visual = {name: tensor for name, tensor in weights.items() if name.startswith('visual.')}
    check_shapes(wanted, visual, source)
    pieces = {name: tensor for name, tensor in visual.items() if name not in fused}
    for name in fused:
        pieces |= {f'{name}#{i}': part for i, part in enumerate(visual[name].chunk(3))}
    return pieces


def clip_tensors(
    weights: Mapping[str, torch.Tensor], config: Mapping[str, Any], source: str = 'vision tower'
) -> dict[str, torch.Tensor]:
    """The release's vision tower under `AnchorEncoder`'s portable names (`tower.*`), in its own dtype and not copied.

    Args:
        weights: As in `clip_from_release`.
        config: As in `clip_from_release`.
        source: What to call the weights in an error, e.g. the file.

    Raises:
        UserError: A key is missing, unknown or of another shape.
    """
    with torch.device('meta'):
        clip = AnchorEncoder(config)
    pieces, own = _clip_pieces(clip_targets(clip, config), weights, source), _tower_tensors(clip)
    names = _clip_names(config['num_layers'])
    return {f'tower.{name}': pieces[release].reshape(own[name].shape) for release, name in names.items()}


def clip_from_release(weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> AnchorEncoder:
    """The release's vision tower (OpenCLIP ViT-H/14 of XLM-R) as an `AnchorEncoder`.

    Args:
        weights: `visual.*` (`textual.*` and `log_scale` are not read).
        config: image_size, dim, num_heads, num_layers, out_dim, patch_size; `CLIP_VIT_H` as released.

    Returns:
        The encoder in evaluation mode: `features(images [N, 3, H, W] in 0..1) -> [N, dim]`.

    Raises:
        UserError: A key is missing, unknown or of another shape.
    """
    clip = AnchorEncoder(config).eval()
    targets = clip_targets(clip, config)
    load_strict(targets, _clip_pieces(targets, weights, 'vision tower'), 'vision tower')
    return clip.requires_grad_(False)


def _vae_model(config: Mapping[str, Any]) -> WanAutoencoder:
    return WanAutoencoder(
        **{key: config[key] for key in ('dim', 'z_dim', 'latents_mean', 'latents_std') if key in config}
    )


def _vae_targets(model: WanAutoencoder, weights: Mapping[str, torch.Tensor]) -> tuple[dict, dict[str, str]]:
    """Tensors to fill under the release's names where the weights have them, and those names -> the model's."""
    targets, names = dict(named_tensors(model.vae)), {}
    # One key at a time through the library's renaming, so that an error can name the release's key.
    for key, tensor in weights.items():
        name = next(iter(convert_wan_vae_to_diffusers({key: tensor})))
        if name in targets:
            targets[key] = targets.pop(name)
            names[key] = name
    return targets, names


def vae_tensors(
    weights: Mapping[str, torch.Tensor], config: Mapping[str, Any], source: str = 'video autoencoder'
) -> dict[str, torch.Tensor]:
    """The release's video autoencoder under `WanAutoencoder`'s names (`vae.*`, diffusers'), not copied.

    Args:
        weights: As in `vae_from_release`.
        config: As in `vae_from_release`.
        source: What to call the weights in an error, e.g. the file.

    Raises:
        UserError: A key is missing, unknown or of another shape.
    """
    with torch.device('meta'):
        targets, names = _vae_targets(_vae_model(config), weights)
    check_shapes(targets, weights, source)
    return {f'vae.{name}': weights[key] for key, name in names.items()}


def vae_from_release(weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> WanAutoencoder:
    """The release's video autoencoder.

    Args:
        weights: Names as in `Wan2.1_VAE.pth`.
        config: dim, z_dim, optional latents_mean and latents_std; `WAN_VAE` as released.

    Returns:
        The autoencoder in evaluation mode: `encode(video [B, 3, T, H, W] in -1..1) -> latents`, `decode(latents)
        -> video`.

    Raises:
        UserError: A key is missing, unknown or of another shape.
    """
    model = _vae_model(config).eval()
    load_strict(_vae_targets(model, weights)[0], weights, 'video autoencoder')
    return model.requires_grad_(False)


class TextEncoder(nn.Module):
    """UMT5's encoder.

    Args:
        config: vocab, dim, dim_ffn, num_heads, num_layers, optional dim_attn.
    """

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        self.encoder = UMT5EncoderModel(
            UMT5Config(
                vocab_size=config['vocab'],
                d_model=config['dim'],
                d_kv=config.get('dim_attn', config['dim']) // config['num_heads'],
                d_ff=config['dim_ffn'],
                num_layers=config['num_layers'],
                num_heads=config['num_heads'],
                relative_attention_num_buckets=32,
                relative_attention_max_distance=128,
                feed_forward_proj='gated-gelu',
                layer_norm_epsilon=1e-6,
                dropout_rate=0.0,
            )
        )

    def release_tensors(self) -> dict[str, torch.Tensor]:
        """The encoder's own tensors under the release's names."""

        def rename(name: str) -> str:
            if name == 'shared.weight':
                return 'token_embedding.weight'
            if name == 'encoder.final_layer_norm.weight':
                return 'norm.weight'
            name = name.replace('encoder.block.', 'blocks.')
            for theirs, ours in sorted(_T5_BLOCK.items(), key=lambda pair: -len(pair[1])):
                name = name.replace(f'.{ours}.', f'.{theirs}.')
            return name

        return named_tensors(self.encoder, rename)

    @torch.no_grad()
    def context(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Embed a text.

        Args:
            ids: int64 [B, L], of tokens.
            mask: int64 [B, L], 1 for tokens and 0 after them.

        Returns:
            [B, L, dim], zero where the mask is.
        """
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden * mask[..., None].to(hidden.dtype)


def text_encoder_from_release(
    weights: Mapping[str, torch.Tensor], config: Mapping[str, Any], source: str = 'text encoder'
) -> TextEncoder:
    """The release's UMT5 text encoder; it takes the weights as they are, not copied and in their own dtype.

    Args:
        weights: Names as in `models_t5_umt5-xxl-enc-bf16.pth`.
        config: vocab, dim, dim_ffn, num_heads, num_layers; `UMT5_XXL` as released.
        source: What to call the weights in an error, e.g. the file.

    Returns:
        The encoder in evaluation mode: `context(ids [B, L], mask [B, L]) -> [B, L, dim]`.

    Raises:
        UserError: A key is missing, unknown or of another shape.
    """
    with torch.device('meta'):  # 5.7 B random parameters would only be thrown away
        model = TextEncoder(config).eval()
    adopt(model.encoder, model.release_tensors(), weights, source)
    return model.requires_grad_(False)
