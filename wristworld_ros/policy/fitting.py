"""Bringing images to the size that a policy was trained with, and the wrist camera's calibration with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import PIL.Image
from numpy.typing import ArrayLike

from wristworld_ros.errors import UserError
from wristworld_ros.robot.known_cameras import resized_camera
from wristworld_ros.types import Camera, WristImage


def letterbox(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image scaled to fit, its aspect kept, in the middle of a black one, as openpi's client and `tf.image` have it.

    Pillow's bilinear filter, which averages where the image gets smaller; equal to openpi's `resize_with_pad` to the bit.

    Args:
        image: uint8 [H, W, 3]; returned as it is where it already has the size.
        height: Of the result, pixels.
        width: Of the result, pixels.

    Returns:
        uint8 [height, width, 3].

    Raises:
        UserError: The image has another shape or type, or is too long and narrow to leave a pixel.
    """
    check_image('The image', image)
    if image.shape[:2] == (height, width):
        return image
    top, left, inner_h, inner_w = _inner_box(image.shape[0], image.shape[1], height, width)
    boxed = np.zeros((height, width, 3), np.uint8)
    boxed[top : top + inner_h, left : left + inner_w] = _resampled(
        image, inner_h, inner_w, PIL.Image.Resampling.BILINEAR
    )
    return boxed


def letterbox_wrist(wrist: WristImage, height: int, width: int) -> WristImage:
    """A wrist image in a letterbox, with the camera that such an image has.

    Args:
        wrist: The image.
        height: Of the result, pixels.
        width: Of the result, pixels.

    Raises:
        UserError: See `letterbox`.
    """
    camera = wrist.camera
    if (camera.height, camera.width) == (height, width):
        return wrist
    boxed = letterbox(wrist.image, height, width)
    top, left, inner_h, inner_w = _inner_box(camera.height, camera.width, height, width)
    inner = resized_camera(camera, (inner_h, inner_w))
    K = inner.K.copy()
    K[:2, 2] += left, top
    return replace(wrist, image=boxed, camera=Camera(K, inner.T_camera_world, width, height))


def stretch(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image resized whole, its aspect not kept, by Pillow's Lanczos filter (of three lobes), as Octo's data are.

    Args:
        image: uint8 [H, W, 3]; returned as it is where it already has the size.
        height: Of the result, pixels.
        width: Of the result, pixels.

    Returns:
        uint8 [height, width, 3].

    Raises:
        UserError: The image has another shape or type.
    """
    check_image('The image', image)
    if image.shape[:2] == (height, width):
        return image
    return _resampled(image, height, width, PIL.Image.Resampling.LANCZOS)


def stretch_wrist(wrist: WristImage, height: int, width: int) -> WristImage:
    """A wrist image resized whole, with the camera that such an image has.

    Args:
        wrist: The image.
        height: Of the result, pixels.
        width: Of the result, pixels.
    """
    if (wrist.camera.height, wrist.camera.width) == (height, width):
        return wrist
    resized = stretch(wrist.image, height, width)
    return replace(wrist, image=resized, camera=resized_camera(wrist.camera, (height, width)))


def check_image(name: str, image: np.ndarray) -> None:
    """Raise UserError unless an array is uint8 [H, W, 3].

    Args:
        name: What it is, as the subject of a sentence.
        image: The array.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f'{name} is {described(image)}', 'give uint8 [H, W, 3], RGB')
    if 0 in image.shape:
        raise UserError(f'{name} has shape {list(image.shape)}, which holds no pixel', 'give an image')


def check_vector(name: str, value: ArrayLike, length: int) -> np.ndarray:
    """A vector of numbers as float64 [length].

    Args:
        name: What it is, as the subject of a sentence.
        value: The numbers; a single one where length is 1.
        length: How many numbers it must have.

    Raises:
        UserError: It has another length, or numbers that are not finite.
    """
    try:
        vector = np.atleast_1d(np.asarray(value, np.float64))
    except (TypeError, ValueError):
        vector = np.empty((0, 0))
    if vector.shape != (length,) or not np.isfinite(vector).all():
        raise UserError(f'{name} is {described(value)}', f'give {length} finite number{"s" if length > 1 else ""}')
    return vector


def described(value: object) -> str:
    """An argument in an error message: type and shape, and what it says where that is short."""
    if isinstance(value, np.ndarray):
        numbers = f' {value.tolist()}' if value.size <= 8 else ''
        return f'{value.dtype} {list(value.shape)}{numbers}'
    return repr(value)[:80]


def _inner_box(h: int, w: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Where an h x w image lies in a letterbox: top, left, height, width, pixels.

    Sizes are cut to whole pixels after the division by the larger of both ratios, in that order: another order of the same
    arithmetic is a pixel smaller for some sizes.
    """
    ratio = max(w / width, h / height)
    inner_h, inner_w = int(h / ratio), int(w / ratio)
    if not inner_h or not inner_w:
        raise UserError(f'An image of {w}x{h} leaves no pixel in a letterbox of {width}x{height}', 'crop it first')
    return (height - inner_h) // 2, (width - inner_w) // 2, inner_h, inner_w


def _resampled(image: np.ndarray, height: int, width: int, how: PIL.Image.Resampling) -> np.ndarray:
    return np.array(PIL.Image.fromarray(image).resize((width, height), how))
