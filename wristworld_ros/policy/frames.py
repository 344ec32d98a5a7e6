"""The three promises of a wrist camera, over any source of frames: an image that is valid and fresh, or an error.

`read` waits for the next frame, `async_read` for one that this reader has not had, `read_latest` for nothing. What counts is
the newest frame: where it is invalid the one before it is not given instead, for the scene has moved on.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from numbers import Real
from typing import Protocol

from wristworld_ros.errors import UserError
from wristworld_ros.policy.errors import (
    CameraClosedError,
    FrameTimeoutError,
    InvalidFrameError,
    StaleFrameError,
)
from wristworld_ros.types import FrameStatus, ReceivedFrame, WristImage

MAX_AGE_S = 0.5  # as the node's own setting `freshness`
MAX_WAIT_S = 3600.0
DO_WITHOUT = 'act without a wrist image, or stop, until one is valid'


class LatestFrame:
    """The newest frame of a stream, counted. One thread puts, any number of them wait; a frame nobody waited for is lost."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number, self._closed = 0, False
        self._frame: ReceivedFrame | None = None

    def put(self, frame: ReceivedFrame) -> None:
        """A newer frame takes the place of the one before."""
        with self._changed:
            self._number, self._frame = self._number + 1, frame
            self._changed.notify_all()

    def get(self) -> tuple[int, ReceivedFrame | None]:
        """The newest frame and how many there were with it; 0 and None before the first.

        Raises:
            CameraClosedError: The stream has ended.
        """
        return self.wait(-1, 0.0)

    def wait(self, after: int, timeout: float) -> tuple[int, ReceivedFrame | None]:
        """The newest frame once there were more than `after`, or after so many seconds whatever there is.

        Raises:
            CameraClosedError: The stream has ended, or ended meanwhile.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._number > after, timeout)
            if self._closed:
                raise CameraClosedError('The wrist camera is closed', 'open it again')
            return self._number, self._frame

    def close(self) -> None:
        """The stream has ended: whoever waits or asks gets a CameraClosedError."""
        with self._changed:
            self._closed, self._frame = True, None
            self._changed.notify_all()


@dataclass(frozen=True)
class Silence:
    """Why no frame comes, and what to do about it; halves of a sentence, without a full stop."""

    what: str
    fix: str


class FrameSource(Protocol):
    """Where readers get frames from."""

    latest: LatestFrame

    def now_ns(self) -> int:
        """The clock that stamps are compared with, nanoseconds."""

    def why_silent(self) -> Silence:
        """Why no frame comes, as far as that is known."""


class FrameReader:
    """Reads a source. Several readers of one source do not take frames from each other; one reader belongs to one thread.

    Args:
        source: Where the frames come from.
        max_age: The oldest image that is ever given, seconds from its stamp; `read_latest` may ask for less or more.
    """

    def __init__(self, source: FrameSource, max_age: float = MAX_AGE_S):
        self._source, self._max_age = source, _seconds('max_age', max_age)
        self._had = 0

    def read(self, timeout: float = 1.0) -> WristImage:
        """The next frame: one that arrives after this call.

        Args:
            timeout: How long to wait for it, seconds.

        Raises:
            InvalidFrameError: It is invalid.
            StaleFrameError: It shows too old a moment.
            FrameTimeoutError: None came in time.
            CameraClosedError: The camera is closed, or was meanwhile.
        """
        before, _ = self._source.latest.get()
        number, frame = self._source.latest.wait(before, _seconds('timeout', timeout))
        if frame is None or number == before:
            raise self._timed_out(timeout)
        self._had = number
        return self._checked(frame, self._max_age)

    def async_read(self, timeout: float = 0.2) -> WristImage:
        """The newest frame that this reader has not had: at once where there is one, otherwise the next.

        One that has grown too old meanwhile is passed over.

        Args:
            timeout: How long to wait for it, seconds.

        Raises:
            InvalidFrameError: It is invalid.
            StaleFrameError: Too old ones came, and no other in time.
            FrameTimeoutError: None came in time.
            CameraClosedError: The camera is closed, or was meanwhile.
        """
        end, stale = time.monotonic() + _seconds('timeout', timeout), None
        while True:
            number, frame = self._source.latest.wait(self._had, max(0.0, end - time.monotonic()))
            if frame is None or number == self._had:
                raise stale or self._timed_out(timeout)
            self._had = number
            try:
                return self._checked(frame, self._max_age)
            except StaleFrameError as error:
                stale = error

    def read_latest(self, max_age: float | None = None) -> WristImage:
        """The newest frame, at once, whether this reader has had it or not; for `async_read` it counts as not had.

        Args:
            max_age: Seconds from its stamp that it may have; None is the reader's own limit.

        Raises:
            InvalidFrameError: It is invalid.
            StaleFrameError: It is older than that.
            FrameTimeoutError: There is none yet.
            CameraClosedError: The camera is closed.
        """
        limit = self._max_age if max_age is None else _seconds('max_age', max_age)
        _, frame = self._source.latest.get()
        if frame is None:
            raise self._timed_out(0.0)
        return self._checked(frame, limit)

    def _checked(self, frame: ReceivedFrame, max_age: float) -> WristImage:
        """Its image; raises where it is too old, ahead of the clock, or invalid."""
        age = (self._source.now_ns() - frame.stamp_ns) * 1e-9
        if age > max_age:
            silence = self._source.why_silent()
            what = f'The newest wrist frame is {age:.2f} s old, and {max_age:g} s are allowed ({silence.what})'
            raise StaleFrameError(what, silence.fix, FrameStatus.STALE)
        if age < -max_age:
            what = f'The newest wrist frame is stamped {-age:.2f} s in the future'
            fix = 'let node and reader share a clock (use_sim_time, or the clocks of two machines)'
            raise InvalidFrameError(what, fix, FrameStatus.STAMP_IN_FUTURE)
        if frame.image is None:
            verdict = frame.verdict
            kind = StaleFrameError if verdict.status is FrameStatus.STALE else InvalidFrameError
            what = f'The newest wrist frame is invalid, {verdict.status.name} ({verdict.reason.rstrip(".")})'
            raise kind(what, DO_WITHOUT, verdict.status)
        return replace(frame.image, age_s=age)

    def _timed_out(self, timeout: float) -> FrameTimeoutError:
        silence = self._source.why_silent()
        waited = f'came within {timeout:g} s' if timeout else 'has come yet'
        return FrameTimeoutError(f'No wrist frame {waited} ({silence.what})', silence.fix)


def _seconds(name: str, value: float) -> float:
    """A time span, checked."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= MAX_WAIT_S:
        raise UserError(f'{name} is {value!r}', f'give seconds, 0 to {MAX_WAIT_S:g}')
    return float(value)
