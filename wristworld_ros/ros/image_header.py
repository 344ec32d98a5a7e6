"""What an image message says of its pixels, judged before anything is decoded: encoding, size, data, limits.

Raw and compressed images are judged alike: what counts is the encoding of the pixels, which a raw message states, and a
compressed one in its format or in the header of its JPEG or PNG.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum

import cv2
from sensor_msgs.msg import CompressedImage, Image

from wristworld_ros.errors import UserError
from wristworld_ros.runtime.machine import format_bytes
from wristworld_ros.settings import NodeSettings

BYTES_PER_PIXEL = 8  # of the largest encoding (rgba16); more data than that per allowed pixel is refused
_MAX_SCANS = 100  # of a progressive JPEG; each is a pass over all pixels, and encoders write about ten


@dataclass(frozen=True)
class Encoding:
    """How the pixels of an encoding become RGB.

    channels: samples per pixel. order: which of them are red, green and blue; () where `code` says it. sample_bytes: 1
    or 2. code: conversion of OpenCV for mosaics and YUV, which needs an even size.
    """

    channels: int
    order: tuple[int, ...] = ()
    sample_bytes: int = 1
    code: int | None = None

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel."""
        return self.channels * self.sample_bytes


# With 8 bits per channel `is_bigendian` has no meaning.
PLAIN = {
    'rgb8': Encoding(3, (0, 1, 2)),
    'bgr8': Encoding(3, (2, 1, 0)),
    'rgba8': Encoding(4, (0, 1, 2)),
    'bgra8': Encoding(4, (2, 1, 0)),
    'mono8': Encoding(1, (0, 0, 0)),
}
# OpenCV names a mosaic by the second row's second and third pixel, ROS by the first row's first two.
_MOSAICS = {
    'rggb': cv2.COLOR_BayerBG2RGB,
    'bggr': cv2.COLOR_BayerRG2RGB,
    'gbrg': cv2.COLOR_BayerGR2RGB,
    'grbg': cv2.COLOR_BayerGB2RGB,
}
ENCODINGS = (
    PLAIN
    | {name.replace('8', '16'): Encoding(e.channels, e.order, 2) for name, e in PLAIN.items()}
    | {
        f'bayer_{name}{8 * size}': Encoding(1, sample_bytes=size, code=code)
        for name, code in _MOSAICS.items()
        for size in (1, 2)
    }
    | {name: Encoding(2, code=cv2.COLOR_YUV2RGB_UYVY) for name in ('yuv422', 'uyvy')}
    | {name: Encoding(2, code=cv2.COLOR_YUV2RGB_YUY2) for name in ('yuv422_yuy2', 'yuyv')}
)
CV_BRIDGE = ('nv21', 'nv24')  # encodings that cv_bridge turns into rgb8 where it is installed
_DEPTH = ('16UC1', '32FC1', '64FC1')
_PUBLISH = f'have the camera publish one of {", ".join(PLAIN)}'


class ImageFault(Enum):
    """Which part of an image message cannot be used."""

    ENCODING = 'encoding'
    STEP = 'step'
    SIZE = 'size'
    DATA = 'data'
    LIMIT = 'limit'

    @property
    def counter(self) -> str:
        """The field of VirtualWristStatus that counts such images."""
        return 'images_over_limit' if self is ImageFault.LIMIT else f'images_bad_{self.value}'


class ImageError(UserError):
    """An image message that cannot be used; `fault` says which part of it."""

    def __init__(self, fault: ImageFault, what: str, fix: str):
        super().__init__(what, fix)
        self.fault = fault


@dataclass(frozen=True)
class ImageLimits:
    """The most that one image may ask for.

    max_pixels: width times height. max_aspect: the longer side over the shorter one, which bounds the height that stage 1
    runs at.
    """

    max_pixels: int = NodeSettings.max_image_pixels
    max_aspect: float = NodeSettings.max_aspect

    @classmethod
    def of(cls, settings: NodeSettings) -> ImageLimits:
        """Those of the node."""
        return cls(settings.max_image_pixels, settings.max_aspect)

    def check(self, width: int, height: int) -> None:
        """Raise ImageError unless an image of that size, both sides at least 1, may be decoded."""
        if width * height > self.max_pixels:
            what = f'image is {width}x{height}, {width * height} pixels, and max_image_pixels allows {self.max_pixels}'
            raise ImageError(ImageFault.LIMIT, what, 'lower the resolution of the camera, or raise max_image_pixels')
        aspect = max(width, height) / min(width, height)
        if aspect > self.max_aspect:
            what = f'image is {width}x{height}, an aspect of {aspect:.1f}, and max_aspect allows {self.max_aspect:g}'
            raise ImageError(ImageFault.LIMIT, what, 'crop the images, or raise max_aspect')

    def check_data(self, size: int) -> None:
        """Raise ImageError where a message holds more bytes than any allowed image takes."""
        most = BYTES_PER_PIXEL * self.max_pixels
        if size > most:
            what = f'message holds {format_bytes(size)}, and an image of max_image_pixels takes {format_bytes(most)} at most'
            raise ImageError(ImageFault.LIMIT, what, 'lower the resolution of the camera, or raise max_image_pixels')


@dataclass(frozen=True)
class ImageHeader:
    """What a usable message says of its image.

    encoding: of the pixels as they are stored, a key of `ENCODINGS` or one of `CV_BRIDGE`; '' for a compressed image whose
    file says it all.
    """

    width: int
    height: int
    encoding: str


def read_header(msg: Image | CompressedImage, limits: ImageLimits | None = None) -> ImageHeader:
    """Judge a message without decoding it.

    Args:
        msg: The message.
        limits: The most it may ask for; None where its sender is trusted.

    Raises:
        ImageError: It holds no usable image.
    """
    if limits:
        limits.check_data(len(msg.data))
    header = _compressed_header(msg) if isinstance(msg, CompressedImage) else _raw_header(msg)
    if limits:
        limits.check(header.width, header.height)
    if (code := ENCODINGS.get(header.encoding)) and code.code is not None and (header.width % 2 or header.height % 2):
        what = (
            f"image is {header.width}x{header.height}, and encoding '{header.encoding}' needs an even width and height"
        )
        raise ImageError(ImageFault.SIZE, what, _PUBLISH)
    return header


def quoted(text: str, most: int = 40) -> str:
    """A text of a message on one line, quoted and not longer than a reader wants it."""
    return repr(text if len(text) <= most else f'{text[:most]}...')


def _raw_header(msg: Image) -> ImageHeader:
    if msg.height == 0 or msg.width == 0:
        raise ImageError(ImageFault.SIZE, f'image is {msg.width}x{msg.height}', 'send images that have pixels')
    if msg.encoding in CV_BRIDGE:
        return ImageHeader(msg.width, msg.height, msg.encoding)
    row = msg.width * known_encoding(msg.encoding).pixel_bytes
    if msg.step < row:
        what = f'step is {msg.step} bytes, and {msg.width} pixels of {msg.encoding} take {row}'
        raise ImageError(ImageFault.STEP, what, 'set step to the bytes of a row, padding included')
    # The last row may come without its padding.
    needed = msg.step * (msg.height - 1) + row
    if len(msg.data) < needed:
        what = f'data holds {len(msg.data)} bytes, and {msg.height} rows of {msg.step} take {needed}'
        raise ImageError(ImageFault.DATA, what, 'send every row')
    return ImageHeader(msg.width, msg.height, msg.encoding)


def known_encoding(name: str) -> Encoding:
    """An encoding by its name; ImageError, with what it stands for, where it is not one that becomes RGB."""
    if name in ENCODINGS:
        return ENCODINGS[name]
    if name in _DEPTH:
        what = f"encoding '{name}' is that of depth images"
        fix = 'remap the topic to the colour image of the camera (rgb8 or bgr8)'
    elif name.startswith(('8UC', '8SC')):
        what = f'encoding {quoted(name)} does not say which channels are red, green and blue'
        fix = 'have the camera say which: rgb8 or bgr8'
    else:
        what, fix = f'encoding {quoted(name)} is not supported', _PUBLISH
    raise ImageError(ImageFault.ENCODING, what, fix)


# Compressed images: `format` is '<encoding>; <codec> compressed <encoding of the pixels stored>', or only '<codec>'.


def _compressed_header(msg: CompressedImage) -> ImageHeader:
    if len(msg.data) == 0:
        raise ImageError(ImageFault.SIZE, 'compressed image holds no data', 'send JPEG or PNG')
    if 'compressedDepth' in msg.format:
        what = f'format {quoted(msg.format)} is that of depth images (compressedDepth)'
        raise ImageError(ImageFault.ENCODING, what, 'remap the topic to the colour image of the camera (rgb8 or bgr8)')
    original, _, rest = (part.strip() for part in msg.format[:200].partition(';'))
    stored = rest.partition('compressed')[2].strip() if rest else ''
    stated = stored or (original if rest else '')
    data = bytes(memoryview(msg.data)[:32])
    if data.startswith(b'\x89PNG\r\n\x1a\n'):
        return _png_header(data, stated, msg)
    if data.startswith(b'\xff\xd8\xff'):
        return _jpeg_header(memoryview(msg.data).tobytes(), stated, msg)
    codec = _codec(data, msg.format)
    what = f'compressed image ({codec}, format {quoted(msg.format)}, {len(msg.data)} bytes) is neither JPEG nor PNG'
    raise ImageError(ImageFault.DATA, what, 'have the camera send JPEG or PNG')


def _codec(data: bytes, stated: str) -> str:
    """What other data seems to be."""
    if data.startswith((b'\x00\x00\x00\x01', b'\x00\x00\x01')) or stated[:4].lower() in ('h264', 'h265', 'hevc'):
        return 'a video stream'
    magic = {b'RIFF': 'WebP', b'II*\x00': 'TIFF', b'MM\x00*': 'TIFF', b'BM': 'BMP', b'GIF8': 'GIF'}
    return next((name for start, name in magic.items() if data.startswith(start)), 'of an unknown kind')


def _png_header(data: bytes, stated: str, msg: CompressedImage) -> ImageHeader:
    if len(data) < 29 or data[12:16] != b'IHDR':
        raise _damaged('PNG', msg, 'it has no header')
    width, height, bits, color = struct.unpack('>IIBB', data[16:26])
    channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(color)
    if not channels or bits not in (1, 2, 4, 8, 16):
        raise _damaged('PNG', msg, f'its header says colour type {color} with {bits} bits')
    return _checked('PNG', width, height, channels, 2 if bits == 16 else 1, stated, msg)


def _jpeg_header(data: bytes, stated: str, msg: CompressedImage) -> ImageHeader:
    if (scans := data.count(b'\xff\xda')) > _MAX_SCANS:
        what = f'JPEG image has {scans} scans, and {_MAX_SCANS} are allowed'
        raise ImageError(ImageFault.LIMIT, what, 'send baseline JPEG')
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], 'big')
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            bits, height, width, channels = struct.unpack('>BHHB', data[at + 4 : at + 10])
            if bits != 8 or channels not in (1, 3, 4):
                raise _damaged('JPEG', msg, f'it has {channels} channels of {bits} bits')
            return _checked('JPEG', width, height, channels, 1, stated, msg)
        if length < 2 or marker == 0xDA:
            break
        at += 2 + length
    raise _damaged('JPEG', msg, 'it has no header')


def _checked(
    codec: str, width: int, height: int, channels: int, sample_bytes: int, stated: str, msg: CompressedImage
) -> ImageHeader:
    """The header of a file, where it agrees with the encoding that the message states."""
    if not width or not height:
        raise ImageError(ImageFault.SIZE, f'{codec} image is {width}x{height}', 'send images that have pixels')
    if stated:
        known = known_encoding(stated)  # 16UC1 here is what it is on a raw topic
        if channels >= 3:
            return ImageHeader(width, height, '')  # the file says which channel is which, and so it is with a palette
        if known.sample_bytes == sample_bytes:
            return ImageHeader(width, height, stated if known.channels == 1 else '')
        what = f'{codec} image has one channel of {8 * sample_bytes} bits, and format {quoted(msg.format)} promises {stated}'
        raise ImageError(ImageFault.ENCODING, what, 'repair the format that the camera states')
    if channels < 3 and sample_bytes == 2:
        what = f'{codec} image has one channel of 16 bits, and format {quoted(msg.format)} does not say whether it is depth'
        raise ImageError(
            ImageFault.ENCODING, what, 'remap the topic to the colour image, or state mono16 in the format'
        )
    return ImageHeader(width, height, '')


def _damaged(codec: str, msg: CompressedImage, why: str) -> ImageError:
    what = (
        f'compressed image (format {quoted(msg.format)}, {len(msg.data)} bytes) cannot be decoded: {codec}, but {why}'
    )
    return ImageError(ImageFault.DATA, what, 'send JPEG or PNG')
