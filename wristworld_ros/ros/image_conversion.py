"""Image messages to RGB arrays and back.

The common 8-bit encodings take the short way below: it copies at most once, honours `step`, and does not depend on a
cv_bridge that fits the installed numpy and OpenCV. Every other encoding (bayer, yuv, 16 bit) goes through cv_bridge.
"""

from __future__ import annotations

import array

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

# Channels of a pixel, and which of them are red, green and blue. Eight bits have no byte order: is_bigendian is moot here.
PLAIN = {
    'rgb8': (3, (0, 1, 2)),
    'bgr8': (3, (2, 1, 0)),
    'rgba8': (4, (0, 1, 2)),
    'bgra8': (4, (2, 1, 0)),
    'mono8': (1, (0, 0, 0)),
}


class ImageError(ValueError):
    """An image message that cannot be used. `cause` is one of encoding, step, size, data."""

    def __init__(self, cause: str, text: str):
        super().__init__(text)
        self.cause = cause


def to_rgb(msg: Image) -> np.ndarray:
    """uint8 [H, W, 3]. For rgb8 without padding it is a read-only view of the message's own memory."""
    if msg.height == 0 or msg.width == 0:
        raise ImageError('size', f'image is {msg.width}x{msg.height}; it has no pixels')
    if msg.encoding not in PLAIN:
        return _by_cv_bridge(msg)
    channels, order = PLAIN[msg.encoding]
    row = msg.width * channels
    if msg.step < row:
        raise ImageError('step', f'step is {msg.step} bytes; {msg.width} pixels of {msg.encoding} take {row}')
    # The last row may come without its padding.
    need = msg.step * (msg.height - 1) + row
    if len(msg.data) < need:
        raise ImageError('data', f'data holds {len(msg.data)} bytes; {msg.height} rows of {msg.step} take {need}')
    flat = np.frombuffer(msg.data, np.uint8)
    pixels = np.lib.stride_tricks.as_strided(
        flat, (msg.height, msg.width, channels), (msg.step, channels, 1), writeable=False
    )
    if msg.encoding == 'rgb8':
        return pixels if msg.step == row else np.ascontiguousarray(pixels)
    return np.ascontiguousarray(pixels[..., list(order)])


def compressed_to_rgb(msg: CompressedImage) -> np.ndarray:
    """uint8 [H, W, 3] from JPEG, PNG or whatever else OpenCV reads."""
    if len(msg.data) == 0:
        raise ImageError('size', 'compressed image holds no data')
    try:
        bgr = cv2.imdecode(np.frombuffer(msg.data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        bgr = None
    if bgr is None:
        raise ImageError(
            'data', f'compressed image ({msg.format or "no format given"}, {len(msg.data)} bytes) cannot be decoded'
        )
    return np.ascontiguousarray(bgr[..., ::-1])


def _by_cv_bridge(msg: Image) -> np.ndarray:
    try:
        from cv_bridge import CvBridge
    except ImportError as error:
        raise ImageError(
            'encoding',
            f"encoding '{msg.encoding}' needs cv_bridge, which is not installed; without it: {', '.join(PLAIN)}",
        ) from error
    try:
        return np.ascontiguousarray(CvBridge().imgmsg_to_cv2(msg, desired_encoding='rgb8'))
    except Exception as error:  # cv_bridge raises its own error, KeyError, TypeError and cv2.error
        raise ImageError('encoding', f"cv_bridge cannot turn '{msg.encoding}' into rgb8: {error}") from error


def buffer(values: np.ndarray) -> array.array:
    """The bytes of an array as message data. A list or an ndarray would be checked element by element: 500 times slower."""
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(values).data.cast('B'))
    return data


def to_image(rgb: np.ndarray, header) -> Image:
    """rgb8 message from uint8 [H, W, 3]."""
    height, width = rgb.shape[:2]
    return Image(header=header, height=height, width=width, encoding='rgb8', step=3 * width, data=buffer(rgb))


def to_compressed(rgb: np.ndarray, header, quality: int = 90) -> CompressedImage:
    """JPEG message from uint8 [H, W, 3]."""
    done, jpeg = cv2.imencode('.jpg', rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ImageError('data', f'OpenCV could not encode an image of shape {list(rgb.shape)} as JPEG')
    return CompressedImage(header=header, format='rgb8; jpeg compressed bgr8', data=buffer(jpeg))
