"""Reading anchor videos that belong together, frame by frame, and writing one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# Videos whose rates differ by more than this share do not run in step.
RATE_SLACK = 0.01


class Videos:
    """Synchronised videos: frame i of each shows one moment. The shortest ends them all.

    fps: frames a second. names: of the files, without ending. frames: how many there are as far as the files tell, 0 for
    unknown. Raises ValueError (FileNotFoundError for a missing one), one sentence, for files that PyAV cannot read, and
    for sizes or rates that differ.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = tuple(Path(p) for p in paths)
        self.names = tuple(path.stem for path in self.paths)
        sizes, rates, counts = [], [], []
        for path in self.paths:
            if not path.exists():
                raise FileNotFoundError(f'{path} is not there; give an episode, or one video for each anchor camera.')
            with _opened(path) as (_, stream):
                sizes.append((stream.width, stream.height))
                rates.append(float(stream.average_rate or 10))
                counts.append(stream.frames)
        for path, size, rate in zip(self.paths, sizes, rates, strict=True):
            if size != sizes[0]:
                raise ValueError(
                    f'{path} is {size[0]}x{size[1]} and {self.paths[0]} {sizes[0][0]}x{sizes[0][1]}; bring the videos to '
                    'one size.'
                )
            if abs(rate / rates[0] - 1) > RATE_SLACK:
                raise ValueError(
                    f'{path} has {rate:g} frames a second and {self.paths[0]} {rates[0]:g}; bring the videos to one rate.'
                )
        self.fps, self.frames = rates[0], min(counts)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Pictures of one moment after the other, uint8 [V, H, W, 3]."""
        yield from (np.stack(moment) for moment in zip(*(_pictures(path) for path in self.paths), strict=False))


def write_video(path: Path, pictures: Iterator[np.ndarray], fps: float, crf: int = 12) -> int:
    """Write pictures uint8 [h, w, 3] (even sizes) as H.264 while they come; returns how many there were.

    The file appears whole or not at all. crf: quality, 0 (best) to 51.
    """
    part = path.with_name(f'.{path.stem}.part{path.suffix}')
    count = 0
    try:
        with av.open(str(part), 'w', options={'movflags': '+faststart'}) as file:
            options = {'crf': str(crf), 'preset': 'fast', 'threads': '1', 'colorprim': 'bt709', 'g': '24'}
            stream = file.add_stream('libx264', rate=Fraction(fps).limit_denominator(1001), options=options)
            for count, picture in enumerate(pictures, start=1):
                if count == 1:
                    stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], 'yuv420p'
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
            file.mux(stream.encode())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return count


@contextmanager
def _opened(path: Path):
    try:
        with av.open(str(path)) as file:
            yield file, file.streams.video[0]
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f'{path} is no video that can be read ({error}); give a file that PyAV decodes.') from error


def _pictures(path: Path) -> Iterator[np.ndarray]:
    with _opened(path) as (file, stream):
        for frame in file.decode(stream):
            yield frame.to_ndarray(format='rgb24')
