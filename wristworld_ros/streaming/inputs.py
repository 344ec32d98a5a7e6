"""What a generator is shown and what it gives, between pictures and tensors; for chunks and windows alike."""

from __future__ import annotations

import numpy as np
import torch

from wristworld_ros.generation import WristGenerator
from wristworld_ros.generation.autoencoders import Autoencoder
from wristworld_ros.generation.condition import condition_picture, condition_planes
from wristworld_ros.streaming.reconstructor import resize_images
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


def anchor_features(gen: WristGenerator, anchors: list[np.ndarray]) -> torch.Tensor:
    """Features of T anchor images uint8 [V, H, W, 3], of the first `max_views` views.

    Returns float32 [1, V, T, clip_dim] on the model's device.
    """
    encoder = gen.settings.anchor_encoder
    if encoder.get('resize', 'area') == 'area':  # otherwise the encoder resizes, as published
        anchors = [resize_images(a, (encoder['image_size'],) * 2) for a in anchors]
    small = np.stack(anchors, axis=1)  # [V, T, H, W, 3]
    device = next(gen.parameters()).device
    images = torch.from_numpy(small).to(device).permute(0, 1, 4, 2, 3).float()[None] / 255
    views = min(images.shape[1], gen.settings.max_views)
    return gen.anchor_features(images[:, :views])


def to_pixels(video: torch.Tensor) -> np.ndarray:
    """A decoded video [1, 3, T, h, w], -1 to 1, as pictures uint8 [T, h, w, 3]."""
    pixels = ((video[0].permute(1, 2, 3, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.cpu().numpy()
