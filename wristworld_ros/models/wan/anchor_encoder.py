"""Anchor frames to one feature each: a CLIP vision tower, the published one or a small one of the same class."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from wristworld_ros.errors import UserError

# CLIP's normalisation, RGB.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@lru_cache(maxsize=8)
def clip_statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of images in 0..1, [3, 1, 1]; kept for the process."""
    with torch.inference_mode(False):
        return tuple(torch.tensor(v, device=device).view(3, 1, 1) for v in (_MEAN, _STD))


class AnchorEncoder(nn.Module):
    """CLIP's vision tower up to its penultimate block; the feature of an image is the class token there.

    Args:
        config: image_size, dim, num_heads, num_layers, patch_size; optional mlp_ratio (4), eps (1e-5). `num_layers`
            counts the last block, as the release does; its output is never used, so it is not built.

    Raises:
        UserError: The configuration lacks one.
    """

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        lacking = [k for k in ('image_size', 'dim', 'num_heads', 'num_layers', 'patch_size') if k not in config]
        if lacking:
            raise UserError(f'The anchor encoder configuration lacks {", ".join(lacking)}', 'add them')
        self.config = dict(config)
        self.tower = CLIPVisionModel(
            CLIPVisionConfig(
                image_size=config['image_size'],
                hidden_size=config['dim'],
                intermediate_size=int(config['dim'] * config.get('mlp_ratio', 4)),
                num_attention_heads=config['num_heads'],
                num_hidden_layers=config['num_layers'] - 1,
                patch_size=config['patch_size'],
                hidden_act='gelu',
                layer_norm_eps=config.get('eps', 1e-5),
            )
        )
        # Comes after the tokens that are used: it gets no gradient, so it is not trained.
        for name, parameter in self.tower.named_parameters():
            if 'post_layernorm' in name:
                parameter.requires_grad_(False)

    @staticmethod
    def portable_name(name: str) -> str:
        """A parameter's name without the level that versions of transformers add or leave out."""
        return name.replace('tower.vision_model.', 'tower.')

    def preprocess(self, images: torch.Tensor) -> torch.Tensor:
        """Bicubic resize without antialiasing, then CLIP's normalisation, as the release does.

        Args:
            images: [N, 3, H, W], 0 to 1.

        Returns:
            float32 [N, 3, image_size, image_size].
        """
        size = self.config['image_size']
        images = images.float()
        if images.shape[-2:] != (size, size):
            images = F.interpolate(images, (size, size), mode='bicubic', align_corners=False)
        mean, std = clip_statistics(images.device)
        return (images - mean) / std

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        """All tokens after the penultimate block.

        Args:
            images: [N, 3, H, W], 0 to 1.

        Returns:
            float32 [N, 1 + patches, dim], whatever the tower's precision.
        """
        pixels = self.preprocess(images).to(next(self.tower.parameters()).dtype)
        return self.tower(pixel_values=pixels).last_hidden_state.float()

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The class token after the penultimate block: [N, 3, H, W] in 0..1 -> [N, dim]."""
        return self.tokens(images)[:, 0]
