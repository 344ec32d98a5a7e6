"""Workers that are processes of this machine, each at the other end of a pipe."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from wristworld_ros.apps.augment.engine import Answer, Make
from wristworld_ros.runtime.children import die_with

_CONTEXT = get_context('spawn')  # a forked process could not use CUDA, nor locks that another thread holds


class LocalEngine:
    """Processes of this machine; there is nothing to set up for them."""

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def start(self, make: Make) -> LocalWorker:
        """See `Engine.start`."""
        return LocalWorker(make)

    def ready(self, worker: LocalWorker) -> bool:
        """A process takes tasks from its first moment on."""
        return True

    def wait(self, crew: list[LocalWorker]) -> list[tuple[LocalWorker, Answer | None]]:
        """See `Engine.wait`."""
        busy = {worker.connection: worker for worker in crew if worker.task is not None}
        return [(busy[connection], busy[connection].answer()) for connection in wait(list(busy))]  # type: ignore[index]


class LocalWorker:
    """A process, this end of the pipe to it, and the number of the task that it is at, or None."""

    def __init__(self, make: Make):
        self.connection, theirs = _CONTEXT.Pipe()
        self.task: int | None = None
        self._how = ''
        self._process: BaseProcess = _CONTEXT.Process(target=_work, args=(make, theirs, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()  # else its end would not be noticed

    def give(self, task: int) -> None:
        """See `Worker.give`."""
        self.task = task
        with suppress(OSError):  # it is gone, which reading from it will tell
            self.connection.send(task)

    def answer(self) -> Answer | None:
        """What it says of its task; None where it is gone."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def dismiss(self) -> None:
        """See `Worker.dismiss`."""
        if self.task is not None and not self._how:
            self._process.kill()
        self.connection.close()

    def end(self, patience: float = 0.0) -> str:
        """See `Worker.end`."""
        if not self._how:
            self._process.join(patience)
            if self._process.exitcode is None:
                self._process.kill()
                self._process.join()
            self._how = f'exit code {self._process.exitcode}'
            self._process.close()
        return self._how


def _work(make: Make, connection: Connection, parent: int) -> None:
    """The life of a worker process."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    work = None
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        answer = Answer()
        if work is None:
            answer = Answer.of(make)
            work = answer.value
        if work is not None:
            answer = Answer.of(partial(work, task))
        try:
            connection.send(answer)
        except OSError:
            return
