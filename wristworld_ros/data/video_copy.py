"""Videos put together without decoding: frames of several files, one after the other, at one constant rate."""

from __future__ import annotations

from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av

from wristworld_ros.errors import UserError

_TICKS = 1024  # of the files' clocks, per frame
_SAME_TIME = 0.25  # of a frame, that a packet's time may be off its place


class JoinedVideo:
    """An MP4 file that grows by parts of other files, whose coded frames are taken as they are.

    Args:
        path: The file to write. Close it, or it cannot be read.
        rate: Frames per second.

    Attributes:
        frames: How many there are so far. size: Their bytes.
    """

    def __init__(self, path: Path, rate: float):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.rate, self.frames = path, Fraction(rate).limit_denominator(1001), 0
        self.size = 0
        self._file = av.open(str(path), 'w', format='mp4')
        self._stream: av.VideoStream | None = None
        self._kind: tuple = ()
        self._last_dts = -(1 << 62)

    def append(self, source: Path, start: float, count: int) -> bool:
        """Append the frames of a part of another file.

        Args:
            source: A file with one video stream.
            start: When its first frame is shown, seconds in that file.
            count: Frames.

        Returns:
            Whether it was possible: not where `can_join` is false, nor where the part was coded otherwise than what is here already.
            Then this file is as it was.

        Raises:
            UserError: The source cannot be read.
        """
        with _opened(source) as (file, stream):
            packets = _packets_of(source, file, stream, start, count, self.rate)
            if packets is None or (self._stream is not None and self._kind != _kind(stream)):
                return False
            if self._stream is None:
                self._stream = self._file.add_stream_from_template(stream, opaque=True)
                self._stream.time_base = 1 / (self.rate * _TICKS)
                self._kind = _kind(stream)
            self._write(packets)
        self.frames += count
        return True

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def _write(self, packets: list[tuple[av.Packet, int, int]]) -> None:
        assert self._stream is not None
        for packet, shown, decoded in packets:
            packet.stream = self._stream
            packet.time_base = 1 / (self.rate * _TICKS)
            packet.pts = (self.frames + shown) * _TICKS
            packet.dts = max((self.frames + decoded) * _TICKS, self._last_dts + 1)
            packet.duration = _TICKS
            self._last_dts = packet.dts
            self.size += packet.size
            self._file.mux(packet)


def can_join(source: Path, start: float, count: int, rate: float) -> bool:
    """Whether the frames of a part of a file can be taken as they are: it begins with a key frame, and all are there at this rate.

    Args:
        source: A file with one video stream.
        start: When its first frame is shown, seconds in that file.
        count: Frames.
        rate: Frames per second.

    Raises:
        UserError: The source cannot be read.
    """
    with _opened(source) as (file, stream):
        return _packets_of(source, file, stream, start, count, Fraction(rate).limit_denominator(1001)) is not None


@contextmanager
def _opened(source: Path):
    try:
        file = av.open(str(source))
        stream = file.streams.video[0]
    except (av.FFmpegError, IndexError) as error:
        raise _unreadable(source, error) from None
    with file:
        yield file, stream


def _unreadable(source: Path, error: Exception) -> UserError:
    why = getattr(error, 'strerror', None) or 'it has no video stream'
    return UserError(f'{source} cannot be copied ({why})', 'copy or record the video again')


def _packets_of(
    source: Path, file, stream, start: float, count: int, rate: Fraction
) -> list[tuple[av.Packet, int, int]] | None:
    """A part's packets in order of decoding, each with the places of its showing and its decoding, in frames.

    None where the part does not begin with a key frame, has frames missing or off their places, or is entangled with what is before it.
    """
    base = stream.time_base
    found: list[tuple[av.Packet, int, int]] = []
    try:
        file.seek(max(round(start / base), 0), stream=stream, backward=True)
        for packet in file.demux(stream):
            if not packet.size or packet.pts is None or packet.dts is None:
                continue
            place = (float(packet.pts * base) - start) * float(rate)
            if place > count - 1 + _SAME_TIME:
                # A later frame; where frames are reordered, one that is shown earlier can still follow.
                if len(found) == count or (float(packet.dts * base) - start) * float(rate) > count:
                    break
            elif place >= -_SAME_TIME:
                if abs(place - round(place)) > _SAME_TIME:
                    return None
                found.append((packet, round(place), round(place) - round((packet.pts - packet.dts) * base * rate)))
            elif found:
                return None
    except av.FFmpegError as error:
        raise _unreadable(source, error) from None
    whole = sorted(place for _, place, _ in found) == list(range(count))
    return found if whole and found[0][0].is_keyframe and found[0][1] == 0 else None


def _kind(stream) -> tuple:
    context = stream.codec_context
    return (
        context.codec.canonical_name,
        context.width,
        context.height,
        context.pix_fmt,
        bytes(context.extradata or b''),
    )
