"""Images brought to another size: the one place where pixels are resampled."""

from __future__ import annotations

import cv2
import numpy as np


def resize_images(images: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """uint8 [V, H, W, 3] to [V, h, w, 3]; averages where it shrinks, so that no detail aliases."""
    if images.shape[1:3] == tuple(hw):
        return images
    shrinks = hw[0] * hw[1] < images.shape[1] * images.shape[2]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(image, hw[::-1], interpolation=how) for image in images])
