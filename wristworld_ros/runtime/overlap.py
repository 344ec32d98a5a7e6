"""Steps of a pipeline in threads of their own: what one makes waits in a queue of fixed length for the next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar('Item')


class ReaderGoneError(Exception):
    """The thread that reads a channel has left it."""


class Channel(Generic[Item]):
    """Hands items from one thread to another, in order; the writer waits while `size` of them have not been taken.

    Args:
        size: Items that may wait.
    """

    def __init__(self, size: int):
        self._size, self._items = size, deque[Item]()
        self._changed = threading.Condition()
        self._ended = self._left = False
        self._error: BaseException | None = None

    def put(self, item: Item) -> None:
        """Hand an item over.

        Raises:
            ReaderGoneError: Nobody will take it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._left or len(self._items) < self._size)
            if self._left:
                raise ReaderGoneError
            self._items.append(item)
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more comes; the reader is told after the last item, by an exception where one is given. Once is enough: later calls
        change nothing."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def leave(self) -> None:
        """Read no more; for the reader."""
        with self._changed:
            self._left = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or bool(self._items))
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


def ahead(items: Iterable[Item], size: int = 2) -> Generator[Item, None, None]:
    """The same items, made in a thread of their own while the caller works on those before.

    Args:
        items: What is made; whatever it raises, the caller gets after the items before. A generator is closed in its thread.
        size: Items that are made before they are asked for, at most.
    """
    channel = Channel[Item](size)

    def make() -> None:
        try:
            for item in items:
                channel.put(item)
            channel.close()
        except ReaderGoneError:
            pass
        except BaseException as error:
            channel.close(error)
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = threading.Thread(target=make, name='ahead', daemon=True)
    thread.start()
    try:
        yield from channel
    finally:
        channel.leave()
        thread.join()
