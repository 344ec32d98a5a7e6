"""The other parts of the published release: vision tower, video autoencoder, text encoder.

They are library classes (transformers, diffusers) filled by renaming; the release's own names stay at the door.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel

from .anchor_encoder import AnchorEncoder
from .autoencoders import WanAutoencoder
from .weights import load_strict, named_tensors

# Sizes of the released parts, for ``clip_from_release`` and the others.
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
}
_T5_BLOCK = {
    'attn': 'layer.0.SelfAttention',
    'norm1': 'layer.0.layer_norm',
    'pos_embedding.embedding': 'layer.0.SelfAttention.relative_attention_bias',
    'norm2': 'layer.1.layer_norm',
    'ffn.gate.0': 'layer.1.DenseReluDense.wi_0',
    'ffn.fc1': 'layer.1.DenseReluDense.wi_1',
    'ffn.fc2': 'layer.1.DenseReluDense.wo',
}


def clip_targets(clip: AnchorEncoder, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Where each tensor of the release's vision tower goes: its name -> the tower's own memory.

    Fused query-key-value weights have one target in three pieces, so they are listed as ``name#0`` .. ``#2``. What the
    features never reach (the last block, the output projection) gets an empty stand-in of the right shape.
    """
    own = {n.removeprefix('vision_model.'): p for n, p in clip.tower.named_parameters()}
    targets = {release: own[name] for release, name in _CLIP_TOP.items()}
    targets['visual.cls_embedding'] = own['embeddings.class_embedding'].view(1, 1, -1)
    targets['visual.pos_embedding'] = own['embeddings.position_embedding.weight'][None]
    dim, last = config['dim'], config['num_layers'] - 1
    blocks = [(f'visual.transformer.{i}.', f'encoder.layers.{i}.') for i in range(last)]
    for release, name in blocks:
        for kind in ('weight', 'bias'):
            for theirs, ours in _CLIP_BLOCK.items():
                targets[f'{release}{theirs}.{kind}'] = own[f'{name}{ours}.{kind}']
            for i, part in enumerate('qkv'):
                targets[f'{release}attn.to_qkv.{kind}#{i}'] = own[f'{name}self_attn.{part}_proj.{kind}']
    # The block that is not built has the shapes of the first; "meta" tensors take a copy and keep nothing.
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


def clip_from_release(weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> AnchorEncoder:
    """The release's vision tower (OpenCLIP ViT-H/14 of XLM-R) as an ``AnchorEncoder``.

    weights: ``visual.*`` (``textual.*`` and ``log_scale`` are not read). config: image_size, dim, num_heads,
    num_layers, out_dim, patch_size; ``CLIP_VIT_H`` as released. Returns the encoder in evaluation mode:
    ``features(images [N, 3, H, W] in 0..1) -> [N, dim]``. Raises ValueError, one sentence, on keys or shapes that differ.
    """
    clip = AnchorEncoder(config).eval()
    split = {}
    for name, tensor in weights.items():
        if not name.startswith('visual.'):
            continue
        if '.to_qkv.' in name and tensor.shape[0] == 3 * config['dim']:
            split |= {f'{name}#{i}': part for i, part in enumerate(tensor.chunk(3))}
        elif '.to_qkv.' in name:
            raise ValueError(
                f'vision tower: key {name} has shape {list(tensor.shape)}, wanted {3 * config["dim"]} rows; '
                'give the configuration that these weights were made with.'
            )
        else:
            split[name] = tensor
    load_strict(clip_targets(clip, config), split, 'vision tower')
    return clip.requires_grad_(False)


def vae_from_release(weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> WanAutoencoder:
    """The release's video autoencoder.

    weights: names as in ``Wan2.1_VAE.pth``. config: dim, z_dim, optional latents_mean and latents_std; ``WAN_VAE`` as
    released. Returns it in evaluation mode: ``encode(video [B, 3, T, H, W] in -1..1) -> latents``, ``decode(latents) ->
    video``. Raises ValueError, one sentence, on keys or shapes that differ.
    """
    known = {key: config[key] for key in ('dim', 'z_dim', 'latents_mean', 'latents_std') if key in config}
    model = WanAutoencoder(**known).eval()
    named = named_tensors(model.vae)
    # One key at a time through the library's renaming, so that an error can name the release's key.
    targets, given = dict(named), {}
    for key, tensor in weights.items():
        name = next(iter(convert_wan_vae_to_diffusers({key: tensor})))
        if name in targets:
            targets[key] = targets.pop(name)
        given[key] = tensor
    load_strict(targets, given, 'video autoencoder')
    return model.requires_grad_(False)


class TextEncoder(nn.Module):
    """UMT5's encoder. config: vocab, dim, dim_ffn, num_heads, num_layers, optional dim_attn."""

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
        """ids, mask: int64 [B, L], mask 1 for tokens and 0 after them. Returns [B, L, dim], zero after the mask's end."""
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden * mask[..., None].to(hidden.dtype)


def text_encoder_from_release(weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> TextEncoder:
    """The release's UMT5 text encoder.

    weights: names as in ``models_t5_umt5-xxl-enc-bf16.pth``. config: vocab, dim, dim_ffn, num_heads, num_layers;
    ``UMT5_XXL`` as released. Returns it in evaluation mode: ``context(ids [B, L], mask [B, L]) -> [B, L, dim]``.
    Raises ValueError, one sentence, on keys or shapes that differ.
    """
    model = TextEncoder(config).eval()
    load_strict(model.release_tensors(), weights, 'text encoder')
    return model.requires_grad_(False)
