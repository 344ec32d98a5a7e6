"""What happened, counted: for ~/status, /diagnostics and the log."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import Any

import numpy as np

WINDOW_S = 10.0  # over which rates are taken
LATENCIES = 256  # the last ones, over which percentiles are taken


class Metrics:
    """Counters, rates and latencies since the node was configured. Safe to use from the model's thread and the executor's.

    reason: why the last frame was invalid, or what failed last, one sentence; empty when all is well.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Start from zero, as for a node that was never configured."""
        with self._lock:
            self._counts: Counter[str] = Counter()
            self._events: dict[str, deque[float]] = {}
            self._latencies: deque[float] = deque(maxlen=LATENCIES)
            self._logged: dict[tuple[str, ...], float] = {}
            self._failure = ''
            self._started = time.monotonic()
        self.reason = ''

    def count(self, what: str, times: int = 1) -> None:
        """One more event of a kind, of so many items."""
        with self._lock:
            self._counts[what] += times
            self._events.setdefault(what, deque(maxlen=10_000)).append(time.monotonic())

    def __getitem__(self, what: str) -> int:
        with self._lock:
            return self._counts[what]

    def rate(self, what: str) -> float:
        """Events per second over the last ten seconds, or since the start."""
        now = time.monotonic()
        with self._lock:
            events = self._events.get(what, ())
            recent = sum(now - t < WINDOW_S for t in events)
            started = self._started
        return recent / max(min(WINDOW_S, now - started), 1e-3)

    def add_latency(self, seconds: float) -> None:
        """Seconds from stamp to publishing of one frame."""
        with self._lock:
            self._latencies.append(seconds)

    def latency_percentile(self, q: float) -> float:
        """Of the last latencies, seconds; NaN when there is none."""
        with self._lock:
            return float(np.percentile(self._latencies, q)) if self._latencies else float('nan')

    def fail(self, reason: str) -> None:
        """An anchor set was lost to the model. The reason is kept until it is reported: a valid frame may follow before."""
        with self._lock:
            self._counts['model_errors'] += 1
            self._failure = reason
        self.reason = reason

    @property
    def failure(self) -> str:
        """Reason of the last failure of the model that was not reported yet, or ''."""
        with self._lock:
            return self._failure

    def failures_reported(self, model_errors: int) -> None:
        """A report went out that counts so many failures of the model; later ones are still to be reported."""
        with self._lock:
            if self._counts['model_errors'] == model_errors:
                self._failure = ''

    def should_log(self, *what: str, every: float = 5.0) -> bool:
        """True at most once in `every` seconds for the same words; rclpy throttles by line of code, not by topic.

        The words name a kind of event and where it happened, never its figures: those differ each time.
        """
        now = time.monotonic()
        with self._lock:
            last = self._logged.get(what)
            if last is not None and now - last < every:
                return False
            self._logged[what] = now
            return True


def publish_counted(publisher: Any, message: Any, metrics: Metrics, logger: Any) -> None:
    """Publish; publish() may raise (a full transport, a context that shuts down), which is counted and logged, not raised."""
    try:
        publisher.publish(message)
    except Exception as error:
        metrics.count('publish_errors')
        metrics.reason = f'Publishing on {publisher.topic_name} failed: {error}'
        if metrics.should_log('publish', publisher.topic_name):
            logger.warning(metrics.reason)
