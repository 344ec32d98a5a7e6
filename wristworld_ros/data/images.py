"""Image files: read within bounds, and written whole; images as text for pages."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import MAX_IMAGE, read_bytes

MAX_PIXELS = 8192 * 8192
_PNG = b'\x89PNG\r\n\x1a\n'
_JPEG_NO_SIZE = {0xC4, 0xC8, 0xCC}  # markers among those of a frame's header that are something else


def read_image(path: str | Path) -> np.ndarray:
    """A PNG or JPEG file as uint8 [H, W, 3] RGB.

    Raises:
        UserError: It is no regular file, is too large, or cannot be decoded; its size is read before anything is decoded.
    """
    return decode_image(read_bytes(path, 'give a PNG or JPEG file', MAX_IMAGE), str(path))


def decode_image(data: bytes, source: str) -> np.ndarray:
    """The content of a PNG or JPEG file as uint8 [H, W, 3] RGB; errors as in `read_image`, with `source` for the file's name."""
    size = _size(data)
    if size is None:
        raise UserError(f'{source} is neither PNG nor JPEG', 'give a PNG or JPEG file')
    if not 0 < size[0] * size[1] <= MAX_PIXELS:
        raise UserError(
            f'{source} is {size[0]}x{size[1]}, and at most {MAX_PIXELS} pixels are read', 'give a smaller image'
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f'{source} cannot be decoded', 'it is damaged; write it again')
    return np.ascontiguousarray(image[..., ::-1])


def write_image(path: Path, rgb: np.ndarray, options: tuple[int, ...] = ()) -> None:
    """Write uint8 [H, W, 3] RGB; the ending of the path names the format. A file that the disk cuts short is removed.

    Raises:
        OSError: The disk refuses it.
        ValueError: The image cannot be encoded.
    """
    done, data = cv2.imencode(path.suffix, rgb[..., ::-1], list(options))
    if not done:
        raise ValueError(f'{path} cannot be encoded from {rgb.dtype} {list(rgb.shape)}')
    try:
        path.write_bytes(data.tobytes())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def data_uri(rgb: np.ndarray) -> str:
    """An image uint8 [H, W, 3] RGB as the source of an HTML page's picture: JPEG in base64."""
    _, data = cv2.imencode('.jpg', np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return 'data:image/jpeg;base64,' + base64.b64encode(data.tobytes()).decode()


def _size(data: bytes) -> tuple[int, int] | None:
    """Width and height by the file's header; None where it has none that is known."""
    if data.startswith(_PNG) and data[12:16] == b'IHDR' and len(data) >= 24:
        return int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:24], 'big')
    if not data.startswith(b'\xff\xd8'):
        return None
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in _JPEG_NO_SIZE:
            return int.from_bytes(data[at + 7 : at + 9], 'big'), int.from_bytes(data[at + 5 : at + 7], 'big')
        else:
            at += 2 + max(int.from_bytes(data[at + 2 : at + 4], 'big'), 2)
    return None
