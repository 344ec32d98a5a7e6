"""Video files: the one reader of the package, and its writer of images for people; `lossless_video` writes what is measured.

The times of the frames decide, never a number in the header; a display matrix (a phone's quarter turn) is applied; damage
costs the frames that it hit and is counted, and only a file of which nothing can be decoded is an error.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from wristworld_ros.errors import UserError
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.runtime.files import write_atomically

log = logging.getLogger(__name__)

Failure = tuple[float | None, str]  # when something that could not be decoded is shown, seconds, and why

MAX_PIXELS = 8192 * 8192  # of a frame
_PROBED = 600  # packets whose times tell the rate
_ENCODERS = {'h264': 'libx264', 'av1': 'libsvtav1'}
_BT709 = 1  # its number in H.264's tables of colour spaces, primaries and transfer functions


class VideoReader:
    """A video file as upright RGB images with their own times.

    Iterating yields `(seconds, image uint8 [H, W, 3])`, with the first frame at 0. Every iteration decodes the file from
    its beginning, and `damage` tells what the latest one has lost so far.

    Args:
        path: A file that FFmpeg decodes.
        rate: Frames per second of a file whose frames have no times (raw H.264); not used for other files.
        threads: Decoding threads; None lets FFmpeg choose.

    Attributes:
        width, height: Pixels, as shown, i.e. after rotation.
        rate: Mean frames per second of the first 600 frames.
        frames: How many there are as far as the file says, or None.
        duration: Seconds as far as the file says, or None.

    Raises:
        UserError: There is no such file, nothing in it can be decoded, or its frames have no times and no rate is given.
    """

    _failures: list[Failure]
    _concealed: int
    _missing: int
    _ends_early: float | None

    def __init__(self, path: str | Path, rate: float | None = None, threads: int | None = None):
        self.path, self._threads = Path(path).expanduser(), threads
        if not self.path.is_file():
            raise UserError(f'There is no video file {self.path}', 'give the path of a video')
        self._forget_damage()
        with self.opened() as (file, stream):
            first, times = self._probe(file, stream)
            self.frames: int | None = stream.frames or None
            header_rate = float(stream.average_rate or 0)
            self.duration = _duration(file, stream)
            self._comparable = len(file.streams) == 1  # whether the file's duration is that of its images
        self._has_times = first.time is not None
        if not self._has_times and not rate:
            raise UserError(
                f'The frames of {self.path} have no times (a raw stream, without a container)',
                f'wrap it, naming its frames per second: ffmpeg -framerate 30 -i {self.path.name} -c copy {self.path.stem}.mp4',
            )
        self._turn = _orientation(first)
        self._coded_hw = first.height, first.width
        self.height, self.width = self._coded_hw[::-1] if self._turn[0] else self._coded_hw
        self.rate: float | None = _rate(times, header_rate) if self._has_times else float(rate or 0)
        self._start = min(times) if times else 0.0

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        for seconds, frame in self.decode():
            yield seconds, self.upright(frame.to_ndarray(format='rgb24'))

    @property
    def lost(self) -> int:
        """Frames that the latest iteration could not decode, as far as can be known."""
        return len(self._failures) + self._missing

    @property
    def damage(self) -> list[str]:
        """Sentences about what the latest iteration has lost; empty where the file is whole."""
        told = []
        if self._failures:
            time, why = self._failures[0]
            at = '' if time is None else f', the first at {max(time - self._start, 0):.2f} s'
            told.append(f'{self.path}: {_frames(len(self._failures))} could not be decoded{at} ({why}).')
        if self._concealed:
            told.append(f'{self.path}: {_frames(self._concealed)} decoded with errors.')
        if self._missing:
            told.append(
                f'{self.path}: the file announces {_frames(self.frames or 0)}, {self._missing} of which it does not hold.'
            )
        if self._ends_early is not None:
            told.append(f'{self.path}: the file announces {self.duration:.2f} s and ends at {self._ends_early:.2f} s.')
        return told

    def decode(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Times in seconds and frames as coded: not converted and not turned. For pixel formats other than RGB."""
        self._forget_damage()
        decoded = discarded = 0
        last = -1.0
        with self.opened() as (file, stream):
            for packet in read_packets(file, stream, self._failures):
                discarded += packet.is_discard
                for frame in decode_packet(packet, self._failures):
                    # A frame without a time, or with one that runs backward, follows its predecessor at the mean rate.
                    seconds = None if frame.time is None or not self._has_times else frame.time - self._start
                    if seconds is None or seconds <= last:
                        seconds = last + 1 / self.rate if last >= 0 and self.rate else max(last, 0.0)
                    last, decoded = seconds, decoded + 1
                    self._concealed += frame.is_corrupt
                    yield seconds, frame
        if not decoded:
            raise self._unreadable(self._failures[0][1] if self._failures else 'it holds no frames')
        self._missing = max((self.frames or 0) - discarded - decoded - len(self._failures), 0)
        if self.frames is None and self.duration and self._comparable and self.rate:
            end = last + 1 / self.rate
            self._ends_early = end if self.duration - end > max(0.5, 3 / self.rate) else None

    def _probe(self, file, stream) -> tuple[av.VideoFrame, list[float]]:
        """The first frame that can be decoded, and the times of the first packets."""
        first, times = None, []
        for packet in read_packets(file, stream, self._failures):
            seconds = packet_seconds(packet)
            if seconds is not None and not packet.is_discard:
                times.append(seconds)
            if first is None:
                first = next(iter(decode_packet(packet, self._failures)), None)
            elif len(times) >= _PROBED:
                break
        if first is None:
            raise self._unreadable(self._failures[0][1] if self._failures else 'it holds no frames')
        return first, times

    @contextmanager
    def opened(self):
        """The open file and its video stream, for as long as the block lasts; errors as in the constructor."""
        try:
            with av.open(str(self.path)) as file:
                if not file.streams.video:
                    raise UserError(f'{self.path} has no video stream', 'give the path of a video')
                stream = file.streams.video[0]
                pixels = stream.codec_context.width * stream.codec_context.height
                if pixels > MAX_PIXELS:
                    raise UserError(
                        f'{self.path} is {stream.codec_context.width}x{stream.codec_context.height}, and at most {MAX_PIXELS} '
                        'pixels are read',
                        'give a smaller video',
                    )
                stream.codec_context.options = {'max_pixels': str(MAX_PIXELS)}  # of frames that change the size
                if self._threads:
                    stream.thread_count = self._threads
                yield file, stream
        except av.FFmpegError as error:
            raise self._unreadable(_why(error)) from error

    def _unreadable(self, why: str) -> UserError:
        return UserError(f'The video {self.path} cannot be decoded ({why})', 'give a file that FFmpeg decodes')

    def upright(self, image: np.ndarray) -> np.ndarray:
        """A decoded image [H, W, ...] as it is shown: turned, and of the size that the file began with."""
        if image.shape[:2] != self._coded_hw:  # a stream may change its size; its first frame decides here
            image = resize_images(image[None], self._coded_hw)[0]
        transpose, flip_rows, flip_columns = self._turn
        if transpose:
            image = image.transpose(1, 0, 2)
        image = image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
        return np.ascontiguousarray(image)

    def _forget_damage(self) -> None:
        self._failures = []
        self._concealed = self._missing = 0
        self._ends_early = None


def read_packets(file, stream, failures: list[Failure]) -> Iterator[av.Packet]:
    """The packets of a stream; where what follows cannot even be split into packets, that is added to the failures."""
    packets = file.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:
            failures.append((None, _why(error)))
            return
        yield packet


def decode_packet(packet: av.Packet, failures: list[Failure]) -> list[av.VideoFrame]:
    """The frames that come out of the decoder with a packet; a packet that cannot be decoded is added to the failures."""
    try:
        return packet.decode()
    except av.FFmpegError as error:
        failures.append((packet_seconds(packet), _why(error)))
        return []


def packet_seconds(packet: av.Packet) -> float | None:
    """When a packet is shown, seconds; None where it does not say."""
    stamp = packet.pts if packet.pts is not None else packet.dts
    return None if stamp is None or not packet.time_base else float(stamp * packet.time_base)


def read_frames(path: str | Path, stop: int | None = None, threads: int | None = None) -> np.ndarray:
    """The first `stop` images of a video (None: all of them), uint8 [T, H, W, 3] RGB. Damage is logged as a warning."""
    reader = VideoReader(path, threads=threads)
    images = [image for _, image in first(reader, stop)]
    for sentence in reader.damage:
        log.warning('%s', sentence)
    return np.stack(images)


def write_video(
    path: str | Path,
    images: Iterable[np.ndarray],
    fps: float,
    crf: int = 12,
    preset: str = 'fast',
    threads: int = 1,
    faststart: bool = True,
    codec: str = 'h264',
    gop: int = 24,
) -> int:
    """Write images as H.264 or AV1, yuv420p in BT.709, while they come. The file appears whole or not at all.

    Args:
        path: Its ending names the container, as in `.mp4`.
        images: uint8 [h, w, 3] RGB, all of one size, whose sides are even.
        fps: Frames per second.
        crf: Quality, 0 (best) to 51, or to 63 for AV1.
        preset: The encoder's name of a trade of time for size; a number from 0 (slow) to 13 for AV1.
        threads: Encoding threads; the file's bytes depend on their number.
        faststart: Put the index first, so that a browser plays the file while it loads.
        codec: 'h264' or 'av1'.
        gop: Frames from one key frame to the next.

    Returns:
        How many images there were.

    Raises:
        UserError: There is no image, their size is odd, or the file cannot be written.
    """
    path, count = Path(path), 0
    options = {'crf': str(crf), 'preset': preset, 'g': str(gop)}
    options |= {'svtav1-params': f'lp={threads}'} if codec == 'av1' else {'threads': str(threads)}
    with (
        write_atomically(path) as part,
        av.open(str(part), 'w', options={'movflags': '+faststart'} if faststart else {}) as file,
    ):
        stream = add_stream(file, _ENCODERS[codec], fps, options)
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = int(ColorRange.MPEG)
        for count, image in enumerate(images, start=1):
            if count == 1:
                height, width = image.shape[:2]
                if height % 2 or width % 2:
                    raise UserError(
                        f'{path} would be {width}x{height} pixels, and H.264 takes even numbers',
                        'resize or crop the images',
                    )
                stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='rgb24')
            frame = frame.reformat(format='yuv420p', dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
            with _own_scheduling() if count == 1 else nullcontext():
                file.mux(stream.encode(frame))
        if not count:
            raise UserError(f'{path} would have no frames', 'give at least one image')
        file.mux(stream.encode())
    return count


@contextmanager
def _own_scheduling() -> Iterator[None]:
    """Undo what SVT-AV1 does to the thread that opens it where that runs as root: real-time priority, which starves the machine."""
    if not hasattr(os, 'sched_getscheduler'):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != before[0]:
            os.sched_setscheduler(0, *before)


def add_stream(file, encoder: str, fps: float, options: dict) -> av.VideoStream:
    """A stream of a file that is being written, by an encoder of FFmpeg with its options."""
    return cast(av.VideoStream, file.add_stream(encoder, rate=Fraction(fps).limit_denominator(1001), options=options))


def first(frames: Iterable, stop: int | None) -> Iterator:
    """The first `stop` of some frames; None for all."""
    for i, frame in enumerate(frames):
        yield frame
        if stop is not None and i + 1 >= stop:
            return


def _frames(count: int) -> str:
    return f'{count} frame' if count == 1 else f'{count} frames'


def _why(error: av.FFmpegError) -> str:
    return error.strerror or type(error).__name__


def _duration(file, stream) -> float | None:
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    return file.duration / av.time_base if file.duration else None


def _rate(times: list[float], header: float) -> float | None:
    """Mean rate that the frames' times say. The header's figure, which is exact, is taken where the times confirm it."""
    span = max(times) - min(times) if times else 0.0
    if span <= 0:
        return header or None
    measured = (len(times) - 1) / span
    return header if header and abs(measured / header - 1) < 0.01 else measured


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """How a frame's display matrix turns it: whether to transpose it, then to flip its rows, then its columns.

    The matrix takes coded to shown pixels: x' = a x + c y, y' = b x + d y. Angles are rounded to quarter turns.
    """
    matrix = frame.side_data.get('DISPLAYMATRIX')
    if matrix is None:
        return False, False, False
    values = np.frombuffer(bytes(matrix), np.int32)  # type: ignore[call-overload]
    a, b, c, d = (int(values[i]) for i in (0, 1, 3, 4))
    if math.hypot(a, d) >= math.hypot(b, c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0
