"""One thread that owns the model. Callbacks hand anchor sets over; the newest wins, and what gives way is counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from wristworld_ros.types import AnchorSet, WristFrame


class Stream(Protocol):
    """What the worker drives: `streaming.VirtualWrist`."""

    def push(self, anchors: AnchorSet) -> list[WristFrame]: ...

    def reset(self) -> None: ...


class ModelWorker:
    """Makes a stream in a thread of its own and pushes anchor sets through it there.

    make: loads the model and returns the stream; whatever it raises, `start` raises.
    deliver: called in the thread with the frames of each push. failed: called there with what a push raised.
    """

    def __init__(
        self,
        make: Callable[[], Stream],
        deliver: Callable[[list[WristFrame]], None],
        failed: Callable[[Exception], None],
    ):
        self._make, self._deliver, self._failed = make, deliver, failed
        self._wake = threading.Condition()
        self._gate = (
            threading.Lock()
        )  # held while frames are delivered, so that none comes after reset() or stop() returns
        self._pending: AnchorSet | None = None
        self._reset = self._stopped = False
        self._epoch = 0
        self._made = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name='model', daemon=True)
        self.used = 0
        self.replaced = 0

    def start(self, alive: Callable[[], bool] = lambda: True) -> None:
        """Wait until the stream is made, as long as alive() holds."""
        self._thread.start()
        while not self._made.wait(0.1):
            if not alive():
                raise RuntimeError('stopped while the model was loading')
        if self._error is not None:
            raise self._error

    def submit(self, anchors: AnchorSet) -> None:
        """Hand one set over. A set that is still waiting gives way to it."""
        with self._wake:
            self.replaced += self._pending is not None
            self._pending = anchors
            self._wake.notify()

    def reset(self) -> None:
        """Forget what waits and what is being made, and empty the stream's caches before the next set."""
        with self._wake, self._gate:
            self._pending = None
            self._reset = True
            self._epoch += 1

    @property
    def busy(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    def stop(self, timeout: float = 0.5) -> bool:
        """Deliver nothing more and end the thread; False when it is still busy after that many seconds. It then ends by
        itself as soon as its push returns."""
        with self._wake, self._gate:
            self._pending = None
            self._stopped = True
            self._epoch += 1
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            stream = self._make()
        except Exception as error:
            self._error = error
            return
        finally:
            self._made.set()
        while (job := self._next()) is not None:
            anchors, reset, epoch = job
            try:
                if reset:
                    stream.reset()
                frames = stream.push(anchors)
            except Exception as error:  # out of memory, for one: say so, forget, go on
                with self._gate:
                    if epoch == self._epoch:
                        self._failed(error)
                with self._wake:
                    self._reset = True
                continue
            with self._gate:
                if epoch == self._epoch:
                    self._deliver(frames)

    def _next(self) -> tuple[AnchorSet, bool, int] | None:
        with self._wake:
            self._wake.wait_for(lambda: self._stopped or self._pending is not None)
            if self._stopped or self._pending is None:
                return None
            anchors, self._pending = self._pending, None
            reset, self._reset = self._reset, False
            self.used += 1
            return anchors, reset, self._epoch
