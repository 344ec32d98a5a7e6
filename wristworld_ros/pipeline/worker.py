"""Two threads that own the model. Callbacks hand anchor sets over; the newest wins, and what gives way is counted.

One thread looks (stage 1 and the condition map), the other draws (stage 2). The next set is looked at while the last one
is drawn; a set is only taken when the drawer is about to be free, so that no view grows old on the way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from wristworld_ros.types import AnchorSet, WristFrame


class Stream(Protocol):
    """What the worker drives: `streaming.VirtualWrist`."""

    def look(self, anchors: AnchorSet) -> Any: ...

    def draw(self, view: Any) -> list[WristFrame]: ...

    def reset(self) -> None: ...


class ModelWorker:
    """Makes a stream in a thread of its own and sends anchor sets through it.

    make: loads the model and returns the stream; whatever it raises, `start` raises.
    deliver: called in the drawing thread with the frames of each set. failed: called with what a look, a draw or a delivery raised.
    """

    def __init__(
        self,
        make: Callable[[], Stream],
        deliver: Callable[[list[WristFrame]], None],
        failed: Callable[[Exception], None],
    ):
        self._make, self._deliver, self._failed = make, deliver, failed
        self._wake = threading.Condition()
        # Held while frames are delivered, so that none comes after reset() or stop() returns.
        self._gate = threading.Lock()
        self._pending: AnchorSet | None = None
        self._view: tuple[Any, int] | None = None
        self._reset = self._stopped = False
        self._epoch = 0  # what belongs to an earlier one is not delivered
        self._made = threading.Event()
        self._error: Exception | None = None
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._look, 'model-look'), (self._draw, 'model-draw'))
        ]
        self.used = 0
        self.replaced = 0

    def start(self, alive: Callable[[], bool] = lambda: True) -> None:
        """Wait until the stream is made, as long as alive() holds."""
        for thread in self._threads:
            thread.start()
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
            self._wake.notify_all()

    def reset(self) -> None:
        """Forget what waits and what is being made, and empty the stream's caches before the next set."""
        with self._gate, self._wake:
            self._pending = None
            self._start_afresh()

    @property
    def busy(self) -> bool:
        """Whether a thread lives."""
        return any(thread.is_alive() for thread in self._threads)

    def stop(self, timeout: float = 0.5) -> bool:
        """Deliver nothing more and end the threads; False when one is still busy after that many seconds. It then ends
        by itself as soon as its work is done."""
        end = time.monotonic() + timeout
        with self._gate, self._wake:
            self._pending = None
            self._stopped = True
            self._start_afresh()
            self._wake.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0, end - time.monotonic()))
        return not self.busy

    def _start_afresh(self) -> None:
        self._reset = True
        self._epoch += 1

    def _look(self) -> None:
        try:
            self._stream = self._make()
        except Exception as error:
            self._error = error
            with self._wake:
                self._stopped = True
                self._wake.notify_all()
            return
        finally:
            self._made.set()
        while (job := self._next()) is not None:
            anchors, reset, epoch = job
            try:
                if reset:
                    self._stream.reset()
                view = self._stream.look(anchors)
            except Exception as error:
                self._fail(error, epoch)
                continue
            with self._wake:
                self._view = (view, epoch)
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._stopped or self._view is None)

    def _next(self) -> tuple[AnchorSet, bool, int] | None:
        with self._wake:
            self._wake.wait_for(lambda: self._stopped or self._pending is not None)
            if self._stopped or self._pending is None:
                return None
            anchors, self._pending = self._pending, None
            reset, self._reset = self._reset, False
            self.used += 1
            return anchors, reset, self._epoch

    def _draw(self) -> None:
        while (job := self._next_view()) is not None:
            view, epoch = job
            if epoch != self._epoch:
                continue
            try:
                frames = self._stream.draw(view)
                with self._gate:
                    if epoch == self._epoch:
                        self._deliver(frames)
            except Exception as error:  # delivering fetches clouds from the GPU
                self._fail(error, epoch)

    def _next_view(self) -> tuple[Any, int] | None:
        with self._wake:
            self._wake.wait_for(lambda: self._stopped or self._view is not None)
            if self._stopped:
                return None
            job, self._view = self._view, None
            self._wake.notify_all()
            return job

    def _fail(self, error: Exception, epoch: int) -> None:
        """Say so, forget, go on."""
        with self._gate:
            if epoch == self._epoch:
                self._failed(error)
        with self._wake:
            self._start_afresh()
