"""A bag with further topics: every message of the other bag, byte for byte and in its place, and new ones between them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wristworld_ros.data.formats.rosbag.content import opened_bag
from wristworld_ros.data.formats.rosbag.messages import Storage, new_bag
from wristworld_ros.errors import UserError


@dataclass(frozen=True)
class Added:
    """A new message: when it counts as logged, nanoseconds, its topic, its type, as in 'std_msgs/msg/String', and itself."""

    logged_ns: int
    topic: str
    kind: str
    message: Any


def add_messages(source: Path, target: Path, added: Iterable[Added]) -> None:
    """Write a bag with more messages. Messages of the source keep bytes, times, order, definitions and quality of service.

    Args:
        source: A bag, which is only read.
        target: A folder that does not exist.
        added: In order of their logged times; they are asked for one by one.

    Raises:
        UserError: The source cannot be read, or has a topic of another type.
    """
    with opened_bag(source) as bag, new_bag(target, storage_of(source)) as out:
        kinds = {connection.topic: out.adopt(connection, bag.typestore) for connection in bag.connections}
        first = ((logged, 0, connection.topic, data) for connection, logged, data in bag.messages())
        second = ((one.logged_ns, 1, one.topic, one) for one in _checked(added, kinds, source))
        for logged, place, topic, content in heapq.merge(first, second, key=lambda entry: entry[:2]):
            if place == 0:
                out.copy(topic, logged, content)
            else:
                out.write(topic, content.kind, logged, content.message)


def storage_of(bag: Path) -> Storage:
    """How a bag is stored."""
    files = [bag] if bag.is_file() else list(bag.iterdir())
    return 'sqlite3' if any('.db3' in path.suffixes for path in files) else 'mcap'


def topics_of(bag: Path) -> dict[str, str]:
    """Types of a bag's topics.

    Raises:
        UserError: It cannot be read.
    """
    with opened_bag(bag) as opened:
        return {connection.topic: connection.msgtype for connection in opened.connections}


def _checked(added: Iterable[Added], kinds: dict[str, str], source: Path) -> Iterator[Added]:
    for one in added:
        if kinds.get(one.topic, one.kind) != one.kind:
            raise UserError(
                f'{source} has {one.topic} of type {kinds[one.topic]}, and {one.kind} is added', 'rename it'
            )
        yield one
