"""Which anchor images belong together. No ROS in it: stamps are integers, nanoseconds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Stamped(NamedTuple):
    """An image (or whatever else stands for one) and its stamp."""

    stamp_ns: int
    item: Any


@dataclass
class SyncCounts:
    """late: came after a newer set had been made. unmatched: never found partners. jumps: the clock was set back."""

    late: int = 0
    unmatched: int = 0
    matched: int = 0
    jumps: int = 0


@dataclass
class AnchorSync:
    """Matches the images of several cameras by stamp.

    names: the cameras; the first one's stamp is the set's stamp. slop_ns: how far another stamp may be from it.
    jump_ns: a stamp that much older than the camera's newest is a clock that was set back. depth: images kept a camera.

    Promises: every image is in one set at most; the stamps of sets only grow until the clock jumps; of several possible
    sets the newest is made, and what is older is dropped and counted; memory is bounded.
    """

    names: tuple[str, ...]
    slop_ns: int
    jump_ns: int
    depth: int = 8
    counts: SyncCounts = field(default_factory=SyncCounts)

    def __post_init__(self):
        self.reset()

    def reset(self) -> None:
        """Forget every image; counters stay."""
        self.waiting: dict[str, deque[Stamped]] = {name: deque() for name in self.names}
        self.newest: dict[str, int | None] = dict.fromkeys(self.names)

    def add(self, name: str, stamp_ns: int, item: Any) -> tuple[list[Stamped] | None, bool]:
        """Take one image in. Returns the set that it completes (in the order of names) or None, and whether the clock was
        set back, in which case everything before this image is forgotten."""
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
        queue = self.waiting[name]
        queue.append(Stamped(stamp_ns, item))
        if len(queue) > self.depth:
            queue.popleft()
            self.counts.unmatched += 1
        return self._match(), jumped

    def _match(self) -> list[Stamped] | None:
        """The newest complete set, if there is one."""
        first, *others = self.names
        for reference in reversed(self.waiting[first]):
            found = [reference]
            for name in others:
                near = min(self.waiting[name], key=lambda s: abs(s.stamp_ns - reference.stamp_ns), default=None)
                if near is None or abs(near.stamp_ns - reference.stamp_ns) > self.slop_ns:
                    break
                found.append(near)
            else:
                self._take(found)
                return found
        return None

    def _take(self, found: list[Stamped]) -> None:
        """Remove the set's images and everything older."""
        self.counts.matched += 1
        for name, taken in zip(self.names, found, strict=True):
            queue = self.waiting[name]
            while queue and queue[0].stamp_ns <= taken.stamp_ns:
                self.counts.unmatched += queue.popleft().stamp_ns < taken.stamp_ns
