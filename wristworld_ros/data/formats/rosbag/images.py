"""Images and depth maps out of ROS messages, raw or compressed."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np

from wristworld_ros.data.images import MAX_PIXELS, decode_image
from wristworld_ros.errors import UserError

DEPTH_ENCODINGS = ('16UC1', '32FC1', 'mono16')
_FIX = 'record the topic in another encoding, e.g. rgb8, or 16UC1 for depth'
_MILLIMETRES = 1000.0
_CONFIG = 12  # bytes before the image of compressedDepth: an enumeration and two floats
# Encoding -> channels, and how OpenCV makes RGB of it (None: it is RGB).
_COLORS = {
    'rgb8': (3, None), 'bgr8': (3, cv2.COLOR_BGR2RGB), '8UC3': (3, cv2.COLOR_BGR2RGB), 'rgba8': (4, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, cv2.COLOR_BGRA2RGB), '8UC4': (4, cv2.COLOR_BGRA2RGB), 'mono8': (1, cv2.COLOR_GRAY2RGB),
    '8UC1': (1, cv2.COLOR_GRAY2RGB), 'yuv422_yuy2': (2, cv2.COLOR_YUV2RGB_YUY2), 'yuv422': (2, cv2.COLOR_YUV2RGB_UYVY),
    'bayer_rggb8': (1, cv2.COLOR_BayerRGGB2RGB), 'bayer_bggr8': (1, cv2.COLOR_BayerBGGR2RGB),
    'bayer_gbrg8': (1, cv2.COLOR_BayerGBRG2RGB), 'bayer_grbg8': (1, cv2.COLOR_BayerGRBG2RGB),
}  # fmt: skip


def is_depth(message: Any) -> bool:
    """Whether an Image or CompressedImage holds depth."""
    if hasattr(message, 'encoding'):
        return message.encoding in DEPTH_ENCODINGS
    return 'compressedDepth' in message.format


def color_image(message: Any, source: str) -> np.ndarray:
    """The image of an Image or CompressedImage, uint8 [H, W, 3] RGB.

    Args:
        message: The message.
        source: What to call it in messages.

    Raises:
        UserError: It is of an unknown encoding, is damaged, or holds less than it says.
    """
    if not hasattr(message, 'encoding'):
        return decode_image(bytes(message.data), source)
    if message.encoding not in _COLORS:
        raise UserError(f'{source} has the encoding {message.encoding!r}', _FIX)
    channels, conversion = _COLORS[message.encoding]
    pixels = _pixels(message, np.dtype(np.uint8), channels, source)
    return pixels if conversion is None else cv2.cvtColor(pixels, conversion)


def depth_image(message: Any, source: str) -> np.ndarray:
    """The depth of an Image or CompressedImage, float32 [H, W], metres, 0 where unknown; arguments and errors as in `color_image`."""
    if hasattr(message, 'encoding'):
        if message.encoding not in DEPTH_ENCODINGS:
            raise UserError(f'{source} has the encoding {message.encoding!r}', _FIX)
        kind = np.dtype(np.float32 if message.encoding == '32FC1' else np.uint16)
        kind = kind.newbyteorder('>' if message.is_bigendian else '<')
        depth = _pixels(message, kind, 1, source)[..., 0].astype(np.float32)
        depth = depth if message.encoding == '32FC1' else depth / _MILLIMETRES
    else:
        depth = _compressed_depth(message, source)
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def _compressed_depth(message: Any, source: str) -> np.ndarray:
    data = bytes(message.data)
    codes = None
    if len(data) > _CONFIG:
        try:
            codes = cv2.imdecode(np.frombuffer(data, np.uint8, offset=_CONFIG), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            codes = None
    if codes is None or codes.ndim != 2 or codes.dtype != np.uint16:
        raise UserError(
            f'{source} ({message.format}) cannot be decoded', 'it is damaged, or is packed otherwise than as PNG'
        )
    if not message.format.startswith('32FC1'):
        return codes / np.float32(_MILLIMETRES)
    scale, offset = struct.unpack('<ff', data[4:_CONFIG])
    # The codes are even in the inverse of depth; 0 is unknown.
    with np.errstate(divide='ignore'):
        return np.where(codes > 0, scale / (codes.astype(np.float32) - offset), 0)


def _pixels(message: Any, kind: np.dtype, channels: int, source: str) -> np.ndarray:
    height, width = message.height, message.width
    row = width * channels * kind.itemsize
    if not 0 < height * width <= MAX_PIXELS:
        raise UserError(f'{source} is {width}x{height}, and 1 to {MAX_PIXELS} pixels are read', 'record smaller images')
    if message.step < row or len(message.data) < message.step * (height - 1) + row:
        raise UserError(
            f'{source} holds {len(message.data)} bytes, too few for {width}x{height} {message.encoding}',
            'record it again',
        )
    padded = np.zeros(message.step * height, np.uint8)
    data = np.frombuffer(bytes(message.data), np.uint8)[: len(padded)]
    padded[: len(data)] = data
    rows = np.ascontiguousarray(padded.reshape(height, message.step)[:, :row])
    return rows.view(kind).reshape(height, width, channels)
