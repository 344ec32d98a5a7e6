"""Resizing images and depth maps: the one place where the package resamples pixels of stacks of frames."""

from __future__ import annotations

import cv2
import numpy as np


def resize_images(images: np.ndarray, hw: tuple[int, int], nearest: bool = False) -> np.ndarray:
    """Resize a stack of frames; it is returned as it is where it already has the size.

    Averages over areas where the image gets fewer pixels, so that no detail aliases, and interpolates linearly where it
    gets more.

    Args:
        images: [N, H, W, 3], uint8 or float32, or [N, H, W], e.g. depth maps.
        hw: Height and width of the result, pixels.
        nearest: Take the nearest pixel instead, which invents no values: for depth (of any dtype, bool excepted) and
            labels.

    Returns:
        [N, h, w, 3] or [N, h, w], of the same dtype.

    Raises:
        ValueError: The array has another shape.
    """
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        raise ValueError(f'images has shape {list(images.shape)}; it must be [N, H, W, 3] or [N, H, W].')
    height, width = hw
    if images.shape[1:3] == (height, width):
        return images
    if nearest:
        how = cv2.INTER_NEAREST
    else:
        how = cv2.INTER_AREA if height * width < images.shape[1] * images.shape[2] else cv2.INTER_LINEAR
    resized = np.empty((len(images), height, width, *images.shape[3:]), images.dtype)
    for image, target in zip(images, resized, strict=True):
        target[...] = cv2.resize(image, (width, height), interpolation=how)
    return resized
