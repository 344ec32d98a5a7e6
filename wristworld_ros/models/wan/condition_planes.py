"""Condition maps as a generator's input: the image alone, as published, or the planes of the small model, which add a
mask and inverse depth to an image whose holes are filled."""

from __future__ import annotations

import torch
import torch.nn.functional as F

# A point at this distance, in metres, has inverse depth 1; the wrist camera's near plane.
NEAREST_DEPTH = 0.1
# Planes: filled warp (3), hit mask (1), inverse depth (1).
CONDITION_PLANES = 5


def fill_holes(image: torch.Tensor, hit: torch.Tensor) -> torch.Tensor:
    """Fill holes smoothly from their surroundings, whatever their size (push-pull interpolation).

    Averages of the hit pixels are pushed down a pyramid of half sizes and pulled up into the holes, coarse to fine.

    Args:
        image: float [N, C, H, W].
        hit: float [N, 1, H, W], 1 where a point was rendered, 0 in holes.

    Returns:
        [N, C, H, W]; hit pixels are unchanged, an image without any is 0.
    """
    levels = [(image * hit, hit)]
    while max(levels[-1][0].shape[-2:]) > 1:
        # Sums and weights shrink alike, so their ratio remains the mean of the hit pixels below.
        levels.append(tuple(F.avg_pool2d(part, 2, ceil_mode=True) for part in levels[-1]))
    filled = levels[-1][0] / levels[-1][1].clamp(min=1e-12)
    for colour, weight in reversed(levels[:-1]):
        coarse = F.interpolate(filled, colour.shape[-2:], mode='bilinear', align_corners=False)
        filled = torch.where(weight > 0, colour / weight.clamp(min=1e-12), coarse)
    return torch.where(hit > 0, image, filled)


def condition_image(image: torch.Tensor) -> torch.Tensor:
    """A condition map as published (arXiv 2510.07313): the image, black where no point was rendered.

    Args:
        image: uint8 [..., H, W, 3], RGB.

    Returns:
        float32 [..., 3, H, W], -1 to 1.
    """
    return image.movedim(-1, -3).float() / 127.5 - 1


def condition_planes(image: torch.Tensor, depth: torch.Tensor, confidence: torch.Tensor | None = None) -> torch.Tensor:
    """A condition map as planes for the small model.

    Args:
        image: uint8 [..., H, W, 3], RGB.
        depth: float [..., H, W], metres, 0 where no point was rendered.
        confidence: float [..., H, W], 0 to 1, how far each pixel can be trusted; None for a mask of the hit ones.

    Returns:
        float32 [..., 5, H, W]: the filled warp in [-1, 1]; the confidence, or 1 where hit, else 0; inverse depth `NEAREST_DEPTH` / depth
        in 0..1, 0 where not hit.

    Raises:
        ValueError: Other dtypes or shapes.
    """
    if image.dtype != torch.uint8 or image.shape[-1] != 3 or image.shape[:-1] != depth.shape:
        raise ValueError(
            f'condition_planes got image {image.dtype} {list(image.shape)} and depth {list(depth.shape)}; '
            'give uint8 [..., H, W, 3] and [..., H, W].'
        )
    lead, (height, width) = depth.shape[:-2], depth.shape[-2:]
    colour = image.reshape(-1, height, width, 3).permute(0, 3, 1, 2).float() / 127.5 - 1
    depth = depth.reshape(-1, 1, height, width).float()
    hit = (depth > 0).float()
    inverse = (NEAREST_DEPTH / depth.clamp(min=NEAREST_DEPTH)) * hit
    trust = hit if confidence is None else confidence.reshape(-1, 1, height, width).float() * hit
    return torch.cat([fill_holes(colour, hit), trust, inverse], dim=1).reshape(*lead, CONDITION_PLANES, height, width)
