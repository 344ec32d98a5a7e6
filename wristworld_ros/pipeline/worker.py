"""Two threads that own the model. Callbacks hand matched images over; the newest set wins, and replaced ones are counted.

One thread reconstructs (stage 1 and the condition map), the other generates (stage 2): the next set is reconstructed while
the last one is generated. It is taken as late as possible, so that its observation is ready just when the generating thread
is free: taken earlier, it would only wait there while newer images arrive. Its images are decoded when it is taken, so
that those of replaced sets never are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from wristworld_ros.pipeline.observation import Observation
from wristworld_ros.types import AnchorSet, WristFrame


class Stream(Protocol):
    """What the worker drives: a `VirtualWrist`."""

    def reconstruct(self, anchors: AnchorSet) -> Observation:
        """First half; called in the reconstructing thread."""

    def generate(self, observation: Observation) -> list[WristFrame]:
        """Second half; called in the generating thread."""

    def reset(self) -> None:
        """Forget everything; called in the reconstructing thread."""


class MatchedImages(Protocol):
    """What is handed over: images of one time, as they were received."""

    def decode(self) -> AnchorSet | None:
        """The anchor set, or None where an image turns out to be unusable; called in the reconstructing thread."""


class StagePacing:
    """Estimates when to start reconstructing so that it ends when generation does, from how long both took before."""

    MARGIN = 0.25  # of the estimate; early costs latency, late costs rate
    _WEIGHT = 0.3  # of the newest duration in the running estimates

    def __init__(self):
        self._reconstruction = self._generation = 0.0
        self._generating_since: float | None = None

    def reconstructed(self, seconds: float) -> None:
        """A reconstruction took that long."""
        self._reconstruction += self._weight(self._reconstruction) * (seconds - self._reconstruction)

    def generation_started(self, now: float) -> None:
        """Generation starts."""
        self._generating_since = now

    def generation_ended(self, now: float) -> None:
        """Generation ends, well or not."""
        if self._generating_since is not None:
            seconds = now - self._generating_since
            self._generation += self._weight(self._generation) * (seconds - self._generation)
        self._generating_since = None

    def delay(self, now: float) -> float:
        """Seconds to wait before taking the next set; 0 when generation is idle or about to end."""
        if self._generating_since is None:
            return 0.0
        ends = self._generating_since + self._generation
        return max(0.0, ends - (1 + self.MARGIN) * self._reconstruction - now)

    def _weight(self, estimate: float) -> float:
        return self._WEIGHT if estimate else 1.0  # the first duration is the first estimate


class ModelWorker:
    """Makes a stream in a thread of its own and sends anchor sets through it.

    Args:
        make: Loads the model and returns the stream; whatever it raises, `start` raises.
        deliver: Called in the generating thread with the frames of each set.
        failed: Called with what reconstruction, generation or delivery raised.
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
        self._delivery = threading.Lock()
        self._pending: MatchedImages | None = None
        self._decoding = False
        self._observation: tuple[Observation, int] | None = None
        self._reset = self._stopped = False
        self._epoch = 0  # what belongs to an earlier one is not delivered
        self._made = threading.Event()
        self._error: Exception | None = None
        self._pacing = StagePacing()  # guarded by _wake
        self._threads = [
            threading.Thread(target=self._reconstruct_sets, name='reconstruct', daemon=True),
            threading.Thread(target=self._generate_frames, name='generate', daemon=True),
        ]
        self.used = 0  # sets that were decoded and given to the stream
        self.replaced = 0  # sets that waited when a newer one came, or when everything was reset

    def start(self, alive: Callable[[], bool] = lambda: True) -> None:
        """Wait until the stream is made, as long as alive() holds."""
        for thread in self._threads:
            thread.start()
        while not self._made.wait(0.1):
            if not alive():
                raise RuntimeError('stopped while the model was loading')
        if self._error is not None:
            raise self._error

    def submit(self, images: MatchedImages) -> None:
        """Hand one set over. A set that is still waiting is replaced by it."""
        with self._wake:
            self._drop_pending()
            self._pending = images
            self._wake.notify_all()

    @property
    def waiting(self) -> int:
        """Sets that were handed over and are neither used nor replaced."""
        with self._wake:
            return (self._pending is not None) + self._decoding

    def reset(self) -> None:
        """Drop what waits and what is in progress, and clear the stream's caches before the next set."""
        with self._delivery, self._wake:
            self._drop_pending()
            self._start_epoch()

    @property
    def busy(self) -> bool:
        """Whether a thread lives."""
        return any(thread.is_alive() for thread in self._threads)

    def stop(self, timeout: float = 0.5) -> bool:
        """Deliver nothing more and end the threads.

        Returns:
            False when one is still busy after `timeout` seconds. It ends by itself as soon as its work is done.
        """
        end = time.monotonic() + timeout
        with self._delivery, self._wake:
            self._drop_pending()
            self._stopped = True
            self._start_epoch()
            self._wake.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0, end - time.monotonic()))
        return not self.busy

    def _drop_pending(self) -> None:
        self.replaced += self._pending is not None
        self._pending = None

    def _start_epoch(self) -> None:
        self._reset = True
        self._epoch += 1

    def _reconstruct_sets(self) -> None:
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
        while (job := self._next_set()) is not None:
            images, reset, epoch = job
            try:
                started = time.monotonic()
                anchors = self._decode(images)
                if reset:
                    self._stream.reset()
                if anchors is None:
                    continue
                observation = self._stream.reconstruct(anchors)
            except Exception as error:
                self._fail(error, epoch)
                continue
            with self._wake:
                self._pacing.reconstructed(time.monotonic() - started)
                self._observation = (observation, epoch)
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._stopped or self._observation is None)

    def _decode(self, images: MatchedImages) -> AnchorSet | None:
        usable = True  # what fails in another way counts as used and as an error of the model
        try:
            anchors = images.decode()
            usable = anchors is not None
            return anchors
        finally:
            with self._wake:
                self._decoding = False
                self.used += usable

    def _next_set(self) -> tuple[MatchedImages, bool, int] | None:
        with self._wake:
            self._wake.wait_for(lambda: self._stopped or self._pending is not None)
            while not self._stopped and (delay := self._pacing.delay(time.monotonic())):
                self._wake.wait(delay)  # a newer set, a reset or the end of generation wakes it
            self._wake.wait_for(lambda: self._stopped or self._pending is not None)  # a reset may have dropped it
            if self._stopped or self._pending is None:
                return None
            images, self._pending = self._pending, None
            reset, self._reset = self._reset, False
            self._decoding = True
            return images, reset, self._epoch

    def _generate_frames(self) -> None:
        while (job := self._next_observation()) is not None:
            observation, epoch = job
            if epoch != self._epoch:
                continue
            try:
                frames = self._stream.generate(observation)
                with self._delivery:
                    if epoch == self._epoch:
                        self._deliver(frames)
            except Exception as error:  # delivery fetches clouds from the GPU
                self._fail(error, epoch)
            with self._wake:
                self._pacing.generation_ended(time.monotonic())
                self._wake.notify_all()

    def _next_observation(self) -> tuple[Observation, int] | None:
        with self._wake:
            self._wake.wait_for(lambda: self._stopped or self._observation is not None)
            if self._stopped:
                return None
            job, self._observation = self._observation, None
            self._pacing.generation_started(time.monotonic())
            self._wake.notify_all()
            return job

    def _fail(self, error: Exception, epoch: int) -> None:
        """Report the error, drop what is in progress, go on."""
        with self._delivery:
            if epoch == self._epoch:
                self._failed(error)
        with self._wake:
            self._start_epoch()
