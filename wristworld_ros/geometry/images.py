"""Images brought to another size: the one place where pixels are resampled."""

from __future__ import annotations

import cv2
import numpy as np


def resize_images(images: np.ndarray, hw: tuple[int, int], nearest: bool = False) -> np.ndarray:
    """Bring images to another size.

    Args:
        images: uint8 [N, H, W, 3], or [N, H, W] of any number, as depth is.
        hw: Height and width wanted.
        nearest: Take the nearest pixel, as depth needs, instead of averaging where it shrinks and interpolating linearly.

    Returns:
        [N, h, w, 3] or [N, h, w].
    """
    if images.shape[1:3] == tuple(hw):
        return images
    shrinks = hw[0] * hw[1] < images.shape[1] * images.shape[2]
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(image, hw[::-1], interpolation=how) for image in images])
