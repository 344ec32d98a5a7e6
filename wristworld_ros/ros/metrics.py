"""What happened, counted: for ~/status, /diagnostics and the log."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from pathlib import Path

import numpy as np


class Metrics:
    """Counters, rates and latencies of one run. Safe to use from the model's thread and the executor's."""

    WINDOW_S = 10.0

    def __init__(self):
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._events: dict[str, deque[float]] = {}
        self._latencies: deque[float] = deque(maxlen=256)
        self._said: dict[tuple[str, ...], float] = {}
        self.started = time.monotonic()
        self.reason = ''
        self.failure = ''  # of the model, until it is reported: a good frame may follow within the period

    def add(self, what: str, n: int = 1) -> None:
        with self._lock:
            self._counts[what] += n

    def tick(self, what: str) -> None:
        """Count an event whose rate matters."""
        with self._lock:
            self._counts[what] += 1
            self._events.setdefault(what, deque(maxlen=10_000)).append(time.monotonic())

    def latency(self, seconds: float) -> None:
        with self._lock:
            self._latencies.append(seconds)

    def __getitem__(self, what: str) -> int:
        with self._lock:
            return self._counts[what]

    def rate(self, what: str) -> float:
        """Events a second over the last ten seconds, or since the start."""
        now = time.monotonic()
        with self._lock:
            events = self._events.get(what, ())
            recent = sum(now - t < self.WINDOW_S for t in events)
        return recent / max(min(self.WINDOW_S, now - self.started), 1e-3)

    def percentile(self, q: float) -> float:
        """Of the last 256 latencies, seconds; NaN when there is none."""
        with self._lock:
            return float(np.percentile(self._latencies, q)) if self._latencies else float('nan')

    def should_log(self, *what: str, every: float = 5.0) -> bool:
        """True at most once in so many seconds for the same words; rclpy throttles by line of code, not by topic."""
        now = time.monotonic()
        with self._lock:
            last = self._said.get(what)
            if last is not None and now - last < every:
                return False
            self._said[what] = now
            return True


def resident_bytes() -> int:
    """Memory of this process that is in RAM; 0 where the system does not say."""
    try:
        for line in Path('/proc/self/status').read_text().splitlines():
            if line.startswith('VmRSS:'):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
