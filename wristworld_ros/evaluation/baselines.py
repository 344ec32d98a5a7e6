"""What a generated wrist image must beat: a mean image, a copied anchor, and condition maps with their holes filled."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from wristworld_ros.data.images import read_image
from wristworld_ros.errors import UserError
from wristworld_ros.models.wan.condition_planes import fill_holes

MEAN_WRIST = 'mean_wrist.png'


def mean_wrist(path: Path, hw: tuple[int, int]) -> np.ndarray | None:
    """The mean wrist image of a training set.

    Args:
        path: A PNG, or a model directory that may hold one.
        hw: Height and width to resize to, pixels.

    Returns:
        uint8 [h, w, 3] RGB, or None where there is no readable image.
    """
    path = Path(path)
    path = path / MEAN_WRIST if path.is_dir() else path
    try:
        image = read_image(path)
    except UserError:
        return None
    return cv2.resize(image, hw[::-1], interpolation=cv2.INTER_AREA)


def anchor_copy(anchor: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """The largest centred part of an anchor image [H, W, 3] with the wrist's aspect ratio, at the wrist's size."""
    height, width = anchor.shape[:2]
    cut_h, cut_w = min(height, round(width * hw[0] / hw[1])), min(width, round(height * hw[1] / hw[0]))
    top, left = (height - cut_h) // 2, (width - cut_w) // 2
    return cv2.resize(anchor[top : top + cut_h, left : left + cut_w], hw[::-1], interpolation=cv2.INTER_AREA)


def inpaint(image: np.ndarray, depth: np.ndarray, method: str = 'push_pull') -> np.ndarray:
    """Fill the holes of a condition map.

    Args:
        image: uint8 [h, w, 3]. Black is a color like any other.
        depth: float [h, w], metres, of the point that each pixel shows; 0 is a hole.
        method: `push_pull` (an image pyramid; the better one on simulated episodes, and what the tables use) or `telea`
            (OpenCV's).

    Returns:
        uint8 [h, w, 3]; an image that is one hole is returned as it is.
    """
    hit = np.asarray(depth) > 0
    if hit.all() or not hit.any():
        return image
    if method == 'telea':
        return cv2.inpaint(np.ascontiguousarray(image), (~hit).astype(np.uint8), 3, cv2.INPAINT_TELEA)
    if method != 'push_pull':
        raise ValueError(f'inpaint got the method {method!r}; it takes push_pull or telea.')
    planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    filled = fill_holes(planes, torch.from_numpy(hit)[None, None].float())
    return filled[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
