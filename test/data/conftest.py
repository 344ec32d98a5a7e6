"""Small videos of the kinds that cameras, phones and browsers leave behind."""

import struct
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from wristworld_ros.data.recording import CONDITION, WRIST, RecordingWriter

X264 = {'preset': 'ultrafast', 'bf': '0'}


def scene(i, width, height):
    """A moving bright square on a gradient; the top rows are red, so that 'up' is known."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 90)], -1).astype(np.uint8)
    side, left = height // 6, (i * 4) % (width - height // 6)
    image[height // 2 : height // 2 + side, left : left + side] = (250, 250, 60)
    image[: height // 10] = (230, 20, 20)
    return image


def grey(seconds, first=20, slope=60):
    """An image whose grey level is the time it was taken at."""
    return np.full((48, 64, 3), round(first + slope * seconds), np.uint8)


def write_raw(
    path, images, rate=10, codec='libx264', pixels='yuv420p', options=X264, times=None, container=None, **file
):
    """Without the package's writer: any codec, container and times."""
    with av.open(str(path), 'w', options=container or {}, **file) as output:
        stream = output.add_stream(codec, rate=Fraction(rate).limit_denominator(100000), options=options)
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format='rgb24').reformat(format=pixels)
            if times is not None:
                frame.pts, frame.time_base = round(times[i] * 1000), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def set_display_matrix(path, matrix):
    """Write a display matrix into an MP4's track header, as a phone does; the coded images stay."""
    data = bytearray(path.read_bytes())
    start = data.index(b'tkhd') + 4
    offset = start + 4 + (32 if data[start] else 20) + 16
    data[offset : offset + 36] = struct.pack('>9i', *matrix)
    path.write_bytes(data)
    return path


def overwrite_packets(path, chosen):
    """Fill packets with 0xFF, as a bad disk does."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        packets = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
    for index in chosen:
        position, size = packets[index]
        data[position : position + size] = b'\xff' * size
    path.write_bytes(data)
    return path


@pytest.fixture(scope='session')
def make():
    """The functions above, for tests."""
    return SimpleNamespace(
        scene=scene,
        grey=grey,
        write_raw=write_raw,
        set_display_matrix=set_display_matrix,
        overwrite_packets=overwrite_packets,
    )


@pytest.fixture
def recorded(tmp_path):
    """A small recording, as the recorder node leaves it."""
    writer = RecordingWriter(tmp_path / 'recording', {'about': 'a test'}, ('left',))
    writer.start()
    for i in range(12):
        stamp = 10**18 + i * 100_000_000
        writer.image('anchor_left', stamp, scene(i, 64, 48))
        for stream in (CONDITION, WRIST):
            writer.image(stream, stamp, scene(i, 32, 32))
        writer.line('views', {
            'stamp_ns': stamp, 'received_ns': stamp + 10**8, 'coverage': 0.8, 'confidence': 0.5, 'agreement': 0.9, 'latency': 0.05, 'age': 0.1,
            'valid': True, 'status': 'VALID', 'reason': '',
        })  # fmt: skip
    writer.close()
    return tmp_path / 'recording'
