"""Single frames of a video file, by time or by number: seek to the key frame before, decode up to the frame.

Times are those that the container says; nothing is shifted to begin at 0. A file is open only while something is read from it, so
that thousands of episodes can be at hand. `data.video` reads and writes whole files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import av
import numpy as np

from wristworld_ros.data.video import Failure, VideoReader, decode_packet, packet_seconds, read_packets
from wristworld_ros.errors import UserError

TOLERANCE = 1e-4  # seconds between a time that is asked for and that of the frame which is given
_NEAR = 4  # frames ahead, up to which decoding on is cheaper than to seek
_DECODE_ON = 1.0  # seconds likewise, where the file has no index
_STEPS_BACK = (0.0, 0.5, 2.0, 8.0)  # seconds to seek earlier where the key frame found lies behind the wanted frame
_SAME = 1e-6  # seconds; two times of one frame


class MissingFrameError(UserError):
    """A video has no such frame, or it cannot be decoded. `place` is its place among those that were asked for."""

    def __init__(self, what: str, fix: str, place: int):
        super().__init__(what, fix)
        self.place = place


class VideoFrames:
    """The frames of one video file in any order.

    Args:
        path: A file that FFmpeg decodes.
        threads: Decoding threads; None lets FFmpeg choose.

    Attributes:
        width, height: Pixels, upright.
        rate: Mean frames per second, or None.

    Raises:
        UserError: There is no such file, or nothing in it can be decoded; see `VideoReader`.
    """

    def __init__(self, path: str | Path, threads: int | None = 1):
        self._reader = VideoReader(path, threads=threads)
        self.path = self._reader.path
        self.width, self.height, self.rate = self._reader.width, self._reader.height, self._reader.rate

    @cached_property
    def times(self) -> np.ndarray:
        """Times of all frames as the file's packets say, float64 [N] seconds, rising. The whole file is read, not decoded."""
        with self._reader.opened() as (file, stream):
            packets = read_packets(file, stream, [])
            times = [packet_seconds(packet) for packet in packets if packet.size and not packet.is_discard]
        return np.sort(np.asarray([seconds for seconds in times if seconds is not None], np.float64))

    def __len__(self) -> int:
        return len(self.times)

    def read(self, numbers: Sequence[int] | np.ndarray, pixels: str = 'rgb24') -> np.ndarray:
        """Frames by number in the order of their times; arguments and errors as in `read_at`.

        Raises:
            MissingFrameError: The file has fewer frames.
        """
        chosen = np.asarray(numbers, np.int64).reshape(-1)
        beyond = np.flatnonzero(chosen >= len(self.times))
        if len(beyond):
            raise MissingFrameError(
                f'{self.path} has {len(self.times)} frames, and number {chosen[beyond[0]]} is asked for',
                'copy or record the video again',
                int(beyond[0]),
            )
        return self.read_at(self.times[chosen], pixels=pixels)

    def read_at(
        self, times: Sequence[float] | np.ndarray, tolerance: float = TOLERANCE, pixels: str = 'rgb24'
    ) -> np.ndarray:
        """The frames of some times, in any order.

        Args:
            times: Seconds, N of them.
            tolerance: How far a frame's own time may be off, seconds.
            pixels: FFmpeg's name of the pixel format: 'rgb24' gives uint8 [N, H, W, 3]; 'gray12le' and 'gray16le' give uint16
                [N, H, W]; 'gray' gives uint8 [N, H, W].

        Raises:
            MissingFrameError: No frame has such a time, or it cannot be decoded whole; it names the first one.
            UserError: The file cannot be opened.
        """
        wanted = np.asarray(times, np.float64).reshape(-1)
        shape = (self.height, self.width, 3) if pixels == 'rgb24' else (self.height, self.width)
        out = np.empty((len(wanted), *shape), np.uint16 if pixels.endswith('le') else np.uint8)
        for place, image in self._found(wanted, tolerance, pixels):
            out[place] = image
        return out

    def broken_times(self, times: np.ndarray, tolerance: float = TOLERANCE) -> list[tuple[int, str]]:
        """Which of some times have no frame that can be decoded: their places in `times`, and why, as half a sentence."""
        broken: list[tuple[int, str]] = []
        wanted = np.asarray(times, np.float64).reshape(-1)
        for place, frame, nearest, why in self._matched(wanted, tolerance):
            if frame is None:
                broken.append((place, self._absence(float(wanted[place]), nearest, why)))
            elif frame.is_corrupt:
                broken.append((place, 'it is decoded with errors'))
        return sorted(broken)

    def _found(self, wanted: np.ndarray, tolerance: float, pixels: str) -> Iterator[tuple[int, np.ndarray]]:
        last: tuple[float, np.ndarray] | None = None
        for place, frame, nearest, why in self._matched(wanted, tolerance):
            seconds = float(wanted[place])
            if frame is None or frame.is_corrupt:
                reason = self._absence(seconds, nearest, why) if frame is None else 'it is decoded with errors'
                raise MissingFrameError(
                    f'{self.path} gives no frame at {seconds:.4f} s ({reason})',
                    'copy or record the video again',
                    place,
                )
            if last is None or last[0] != frame.time:
                last = frame.time, self._reader.upright(_image(frame, pixels))
            yield place, last[1]

    def _matched(
        self, wanted: np.ndarray, tolerance: float
    ) -> Iterator[tuple[int, av.VideoFrame | None, float | None, str]]:
        """Place in `wanted`, its frame or None, else the time of the nearest frame seen and what failed about there."""
        if not len(wanted):
            return
        order = np.argsort(wanted, kind='stable')
        with self._reader.opened() as (file, stream):
            cursor = _Cursor(file, stream, 1 / (self.rate or 10.0))
            for place in order:
                frame, nearest = cursor.at(float(wanted[place]), tolerance)
                yield int(place), frame, nearest, cursor.failure_near(float(wanted[place]))

    def _absence(self, seconds: float, nearest: float | None, why: str) -> str:
        if why:
            return why
        if nearest is None:
            return 'nothing can be decoded there'
        return f'the nearest is at {nearest:.4f} s, {abs(nearest - seconds) * 1000:.1f} ms off'


def _image(frame: av.VideoFrame, pixels: str) -> np.ndarray:
    luma = frame.format.components[0]
    if pixels == 'gray12le' and frame.format.name != pixels and luma.bits == 12:
        # Depth beside empty colour planes: its codes are taken as they are, without a change of range.
        plane = frame.planes[0]
        return np.frombuffer(memoryview(plane), np.uint16).reshape(plane.height, plane.line_size // 2)[:, : plane.width]
    return frame.to_ndarray(format=pixels)


class _Cursor:
    """Decodes one open file toward times that only rise."""

    def __init__(self, file, stream, frame_time: float):
        self._file, self._stream, self._frame_time = file, stream, frame_time
        # The index has times of decoding, which run ahead of those of showing by as much as for the first frame.
        self._index = stream.index_entries
        self._ahead = (stream.start_time or 0) - self._index[0].timestamp if len(self._index) else 0
        self._frames: Iterator[av.VideoFrame] | None = None
        self._recent: list[av.VideoFrame] = []  # the last one before a wanted time and the first one from it on
        self._failures: list[Failure] = []

    def at(self, seconds: float, tolerance: float) -> tuple[av.VideoFrame | None, float | None]:
        """The frame of a time, or None with the time of the nearest one."""
        for back in _STEPS_BACK:
            if back or self._should_seek(seconds):
                self._seek(seconds - back)
            self._advance(seconds - tolerance - _SAME)
            found = min(self._recent, key=lambda frame: abs(frame.time - seconds), default=None)
            if found is not None and abs(found.time - seconds) <= tolerance + _SAME:
                return found, None
            if len(self._recent) > 1 or self._covers(seconds):
                break  # frames on both sides were seen, or all that there are before: seeking earlier gives no other
        return None, None if found is None else float(found.time)

    def failure_near(self, seconds: float) -> str:
        """What could not be decoded within a frame of a time; '' where nothing failed."""
        near = (
            why for time, why in self._failures if time is not None and abs(time - seconds) <= 0.75 * self._frame_time
        )
        return next(near, '')

    def _should_seek(self, seconds: float) -> bool:
        if self._frames is None or not self._recent:
            return True
        now = float(self._recent[-1].time)
        if seconds <= now:
            return False  # times rise, so the frame is among the recent ones
        if len(self._index):
            base = float(self._stream.time_base)
            key = self._index.search_timestamp(round((seconds + _SAME) / base) - self._ahead, backward=True)
            if key < 0:
                return False
            return (self._index[key].timestamp + self._ahead) * base > now + _NEAR * self._frame_time
        return seconds - now > _DECODE_ON

    def _seek(self, seconds: float) -> None:
        offset = max(round(seconds / float(self._stream.time_base)), self._stream.start_time or 0)
        self._file.seek(offset, stream=self._stream, backward=True)
        self._frames, self._recent = self._decoded(), []

    def _advance(self, seconds: float) -> None:
        """Decode until a frame is at this time or later, or the file ends."""
        assert self._frames is not None
        while not self._recent or self._recent[-1].time < seconds:
            frame = next(self._frames, None)
            if frame is None:
                return
            self._recent = [*self._recent[-1:], frame]

    def _covers(self, seconds: float) -> bool:
        return bool(self._recent) and self._recent[0].time <= seconds

    def _decoded(self) -> Iterator[av.VideoFrame]:
        for packet in read_packets(self._file, self._stream, self._failures):
            yield from (frame for frame in decode_packet(packet, self._failures) if frame.time is not None)
