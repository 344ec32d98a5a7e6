"""Lossless videos of what must come back to the bit: depth, labels of objects, images, codes. Errors as in `data.video`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np

from wristworld_ros.data.video import VideoReader, add_stream, first
from wristworld_ros.errors import UserError
from wristworld_ros.runtime.files import write_atomically

DEPTH_UNIT = 0.001  # metres


def write_depth_video(path: str | Path, depth: Iterable[np.ndarray], fps: float) -> int:
    """Write depth as lossless FFV1 of 16-bit millimetres; returns how many maps there were.

    Args:
        path: A `.mkv` file, which appears whole or not at all.
        depth: float [h, w], metres, 0 (or not finite) where unknown; 65.535 m at most.
        fps: Frames per second.
    """
    known = (np.nan_to_num(metres, nan=0.0, posinf=0.0, neginf=0.0) for metres in depth)
    return _write_lossless(
        path, (np.clip(m / DEPTH_UNIT + 0.5, 0, 65535).astype(np.uint16) for m in known), fps, 'gray16le'
    )


def write_code_video(path: str | Path, codes: Iterable[np.ndarray], fps: float, gop: int = 2) -> int:
    """Write uint16 codes [h, w] of 12 bits as lossless HEVC, an `.mp4` file that appears whole or not at all; returns their number."""
    params = f'lossless=1:bframes=0:keyint={gop}:min-keyint=1:scenecut=0:pools=1:frame-threads=1:log-level=none'
    options = {'x265-params': params, 'preset': 'fast'}
    return _write_lossless(path, codes, fps, 'gray12le', 'libx265', options)


def write_lossless_video(path: str | Path, images: Iterable[np.ndarray], fps: float) -> int:
    """Write uint8 RGB images [h, w, 3] as lossless FFV1, a `.mkv` file that appears whole or not at all; returns their number."""
    return _write_lossless(path, images, fps, 'bgr0', given='rgb24')


def read_depth_video(path: str | Path, stop: int | None = None) -> np.ndarray:
    """The first `stop` depth maps (None: all of them), float32 [T, H, W], metres, 0 where unknown."""
    return _read_lossless(path, stop, 'gray16le').astype(np.float32) * DEPTH_UNIT


def write_label_video(path: str | Path, labels: Iterable[np.ndarray], fps: float) -> int:
    """Write uint8 labels [h, w] as lossless FFV1, a `.mkv` file that appears whole or not at all; returns their number."""
    return _write_lossless(path, labels, fps, 'gray')


def read_label_video(path: str | Path, stop: int | None = None) -> np.ndarray:
    """The first `stop` label maps (None: all of them), uint8 [T, H, W]."""
    return _read_lossless(path, stop, 'gray')


def _write_lossless(
    path: str | Path,
    images: Iterable[np.ndarray],
    fps: float,
    pixels: str,
    codec: str = 'ffv1',
    options: dict | None = None,
    given: str | None = None,
) -> int:
    path, count = Path(path), 0
    with write_atomically(path) as part, av.open(str(part), 'w') as file:
        stream = add_stream(file, codec, fps, options or {'threads': '1'})
        for count, image in enumerate(images, start=1):
            if count == 1:
                stream.height, stream.width, stream.pix_fmt = *image.shape[:2], pixels
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=given or pixels)
            file.mux(stream.encode(frame.reformat(format=pixels) if given else frame))
        if not count:
            raise UserError(f'{path} would have no frames', 'give at least one map')
        file.mux(stream.encode())
    return count


def _read_lossless(path: str | Path, stop: int | None, pixels: str) -> np.ndarray:
    reader = VideoReader(path, threads=1)
    return np.stack([frame.to_ndarray(format=pixels) for _, frame in first(reader.decode(), stop)])
