"""Which images of several cameras belong together, by stamp. Stamps are integers, nanoseconds."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any, NamedTuple

WINDOW_NS = 1_000_000_000
MAX_BYTES = 2**28
OVERHEAD = 1024  # bytes that every queued image counts for beside its data, so that empty ones are bounded too


class Stamped(NamedTuple):
    """An image, or a handle of one, its stamp, and the bytes it occupies."""

    stamp_ns: int
    item: Any
    size: int = 0


@dataclass
class SyncCounts:
    """Where images went that became part of no set, and how often the clock was set back (jumps).

    late: not newer than an earlier one of their camera. unmatched: older than a set, or than the window. pushed_out: removed
    because the queue was full. cleared: forgotten by a reset. matched: sets, each with one image of every camera.
    """

    late: int = 0
    unmatched: int = 0
    pushed_out: int = 0
    cleared: int = 0
    matched: int = 0
    jumps: int = 0


@dataclass
class FrameSync:
    """Matches the images of several cameras by stamp.

    Every image is in one set at most; the stamps of sets only grow until the clock jumps; of several possible sets the
    newest is made, and older images are dropped and counted; memory is bounded.

    Args:
        names: The cameras; the first one's stamp is the set's stamp.
        slop_ns: How far another stamp may be from it.
        jump_ns: A stamp that much older than the camera's newest means that the clock was set back.
        window_ns: How long an image waits for its partners: until its camera's newest stamp is that much newer.
        max_bytes: Of all images that wait, in equal shares per camera; the newest of each camera always stays.
        counts: Where to count.
    """

    names: tuple[str, ...]
    slop_ns: int
    jump_ns: int
    window_ns: int = WINDOW_NS
    max_bytes: int = MAX_BYTES
    counts: SyncCounts = field(default_factory=SyncCounts)

    def __post_init__(self):
        self.waiting: dict[str, list[Stamped]] = {name: [] for name in self.names}
        self.reset()

    def reset(self) -> None:
        """Forget every image; counters stay."""
        self.counts.cleared += self.queued
        self.waiting = {name: [] for name in self.names}
        self.newest: dict[str, int | None] = dict.fromkeys(self.names)
        self._bytes = dict.fromkeys(self.names, 0)

    @property
    def queued(self) -> int:
        """Images that wait for their partners."""
        return sum(len(queue) for queue in self.waiting.values())

    def add(self, name: str, stamp_ns: int, item: Any, size: int = 0) -> tuple[list[Stamped] | None, bool]:
        """Add one image.

        Args:
            name: Its camera.
            stamp_ns: Its stamp.
            item: The image, or a handle of it.
            size: Bytes that it occupies.

        Returns:
            The set that it completes (in the order of names) or None, and whether the clock was set back, in which case
            everything before this image is forgotten.
        """
        newest = self.newest[name]
        jumped = newest is not None and stamp_ns < newest - self.jump_ns
        if jumped:
            self.counts.jumps += 1
            self.reset()
            newest = None
        if newest is not None and stamp_ns <= newest:
            self.counts.late += 1
            return None, jumped
        self.newest[name] = stamp_ns
        self.waiting[name].append(Stamped(stamp_ns, item, size))
        self._bytes[name] += size + OVERHEAD
        found = self._match(name, stamp_ns)
        if found:
            self._remove(found)
        else:
            self._bound(name)
        return found, jumped

    def lags(self) -> dict[str, float | None]:
        """Seconds that each camera's newest stamp is behind the newest of all; None before its first image."""
        newest = max((stamp for stamp in self.newest.values() if stamp is not None), default=0)
        return {name: None if stamp is None else (newest - stamp) / 1e9 for name, stamp in self.newest.items()}

    def gap(self, name: str) -> float | None:
        """Seconds between a stamp of a camera and one of the first camera, the least of all that wait; None without any."""
        reference = self.waiting[self.names[0]]
        pairs = ((image, _nearest(reference, image.stamp_ns)) for image in self.waiting[name])
        return min((abs(a.stamp_ns - b.stamp_ns) / 1e9 for a, b in pairs if b), default=None)

    def _match(self, name: str, stamp_ns: int) -> list[Stamped] | None:
        """The newest complete set. There was none before the image of that stamp, so it is in reach of that image."""
        first, *others = self.names
        references = self.waiting[first]
        if name == first:
            references = references[-1:]
        else:
            start = bisect_left(references, stamp_ns - self.slop_ns, key=_stamp)
            references = references[start : bisect_left(references, stamp_ns + self.slop_ns + 1, key=_stamp)]
        for reference in reversed(references):
            found = [reference]
            for other in others:
                near = _nearest(self.waiting[other], reference.stamp_ns)
                if near is None or abs(near.stamp_ns - reference.stamp_ns) > self.slop_ns:
                    break
                found.append(near)
            else:
                return found
        return None

    def _remove(self, found: list[Stamped]) -> None:
        """Remove the set's images and everything older."""
        self.counts.matched += 1
        for name, taken in zip(self.names, found, strict=True):
            older = bisect_left(self.waiting[name], taken.stamp_ns, key=_stamp)
            self.counts.unmatched += older
            self._drop(name, older + 1)

    def _bound(self, name: str) -> None:
        """Drop what has waited for too long, and the oldest where there is too much."""
        queue, share = self.waiting[name], self.max_bytes // len(self.names)
        expired = bisect_left(queue, queue[-1].stamp_ns - self.window_ns, key=_stamp)
        self.counts.unmatched += expired
        self._drop(name, expired)
        while self._bytes[name] > share and len(self.waiting[name]) > 1:
            self.counts.pushed_out += 1
            self._drop(name, 1)

    def _drop(self, name: str, count: int) -> None:
        """Remove the oldest images of a camera."""
        queue = self.waiting[name]
        self._bytes[name] -= sum(image.size + OVERHEAD for image in queue[:count])
        del queue[:count]


def _stamp(image: Stamped) -> int:
    return image.stamp_ns


def _nearest(queue: list[Stamped], stamp_ns: int) -> Stamped | None:
    """The image with the nearest stamp, the older of two; None in an empty queue. The queue is in the order of stamps."""
    i = bisect_left(queue, stamp_ns, key=_stamp)
    return min(queue[max(0, i - 1) : i + 1], key=lambda image: abs(image.stamp_ns - stamp_ns), default=None)
