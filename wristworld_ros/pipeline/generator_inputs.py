"""What a generator is shown and what it gives, between pictures and tensors; for chunks and windows alike."""

from __future__ import annotations

import numpy as np
import torch

from wristworld_ros.geometry.images import resize_images
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.autoencoders import Autoencoder
from wristworld_ros.models.wan.condition_planes import condition_picture, condition_planes
from wristworld_ros.types import ConditionMap


class NotFiniteError(ArithmeticError):
    """A network gave NaN or infinity; the message is one sentence."""


def condition_video(gen: WristGenerator, autoencoder: Autoencoder, conditions: list[ConditionMap]) -> torch.Tensor:
    """T condition maps as a video for the autoencoder: the picture as published, or the small model's planes.

    Returns float32 [1, 3 or 5, T, h, w].
    """
    images = torch.stack([c.image for c in conditions])
    if gen.settings.condition_channels == autoencoder.latent_channels:
        planes = condition_picture(images)
    else:
        planes = condition_planes(images, torch.stack([c.depth for c in conditions]))
    return planes.transpose(0, 1)[None]


def anchor_pictures(gen: WristGenerator, anchors: list[np.ndarray]) -> np.ndarray:
    """T anchor images uint8 [V, H, W, 3] as the anchor encoder takes them: uint8 [V, T, h, w, 3] of the first `max_views`
    views, resized here unless the encoder resizes, as published."""
    encoder = gen.settings.anchor_encoder
    anchors = [a[: gen.settings.max_views] for a in anchors]
    if encoder.get('resize', 'area') == 'area':
        anchors = [resize_images(a, (encoder['image_size'],) * 2) for a in anchors]
    return np.stack(anchors, axis=1)


def anchor_features(gen: WristGenerator, pictures: torch.Tensor) -> torch.Tensor:
    """Features of `anchor_pictures` on the model's device. Returns float32 [1, V, T, clip_dim]."""
    return gen.anchor_features(pictures.permute(0, 1, 4, 2, 3).float()[None] / 255)


def to_pixels(video: torch.Tensor) -> torch.Tensor:
    """A decoded video [1, 3, T, h, w], -1 to 1, as pictures uint8 [T, h, w, 3] on its device."""
    return ((video[0].permute(1, 2, 3, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
