"""Which images of several cameras belong together, by stamp. Stamps are integers, nanoseconds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Stamped(NamedTuple):
    """An image, or a handle of one, and its stamp."""

    stamp_ns: int
    item: Any


@dataclass
class SyncCounts:
    """Images that arrived after a newer set had been made (late), images that never found partners (unmatched), sets made
    (matched), and how often the clock was set back (jumps)."""

    late: int = 0
    unmatched: int = 0
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
        depth: Images kept per camera.
        counts: Where to count.
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
        """Add one image.

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
                self._remove(found)
                return found
        return None

    def _remove(self, found: list[Stamped]) -> None:
        """Remove the set's images and everything older."""
        self.counts.matched += 1
        for name, taken in zip(self.names, found, strict=True):
            queue = self.waiting[name]
            while queue and queue[0].stamp_ns <= taken.stamp_ns:
                self.counts.unmatched += queue.popleft().stamp_ns < taken.stamp_ns
