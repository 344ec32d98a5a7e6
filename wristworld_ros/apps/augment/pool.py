"""Worker processes that take tasks one by one; one that dies is replaced, and its task given to another."""

from __future__ import annotations

import os
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from wristworld_ros.errors import UserError
from wristworld_ros.runtime.children import die_with

Result = TypeVar('Result')
ATTEMPTS = 3  # processes that a task may lose before the run gives up
_CONTEXT = get_context('spawn')  # a forked process could not use CUDA, nor locks that another thread holds
_PATIENCE = 10.0  # seconds that a process has to end by itself


def run_tasks(
    make: Callable[[], Callable[[int], Result]],
    tasks: Iterable[int],
    workers: int,
    on_lost: Callable[[int, int], object] = lambda task, code: None,
) -> Iterator[tuple[int, Result]]:
    """Do every task once, in processes.

    Args:
        make: Called once in each process; makes what does a task. It is pickled.
        tasks: Numbers of the tasks.
        workers: Processes at most.
        on_lost: Called with task and exit code where a process died; the task is done again.

    Yields:
        Task and result, in the order in which they end.

    Raises:
        UserError: A task raised one; or it lost `ATTEMPTS` processes.
        RuntimeError: A task raised anything else; the message holds its traceback.
    """
    waiting, lost = deque(tasks), Counter[int]()
    crew = [_Worker(make) for _ in range(min(workers, len(waiting)))]
    try:
        while waiting or any(worker.task is not None for worker in crew):
            for worker in crew:
                if worker.task is None and waiting:
                    worker.give(waiting.popleft())
            for connection in wait([worker.connection for worker in crew if worker.task is not None]):
                place = next(i for i, worker in enumerate(crew) if worker.connection is connection)
                worker = crew[place]
                task, answer = worker.task, worker.answer()
                assert task is not None
                if answer is not None:
                    yield task, answer.result()
                    continue
                code = worker.end()
                lost[task] += 1
                if lost[task] >= ATTEMPTS:
                    raise UserError(
                        f'Episode {task} ended its process {ATTEMPTS} times (exit code {code})',
                        'look whether memory ran out, and use fewer workers; start again to go on',
                    )
                on_lost(task, code)
                waiting.appendleft(task)
                crew[place] = _Worker(make)
    finally:
        for worker in crew:
            worker.dismiss()
        for worker in crew:
            worker.end(_PATIENCE)


@dataclass(frozen=True)
class _Answer:
    """What became of a task: a value, an error of its user's, or the traceback of a mistake in the program."""

    value: Any = None
    error: UserError | None = None
    trace: str = ''

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        if self.trace:
            raise RuntimeError(f'A worker process failed:\n{self.trace}')
        return self.value


class _Worker:
    """A process, this end of the pipe to it, and the number of the task that it is at, or None."""

    def __init__(self, make: Callable[[], Callable[[int], Any]]):
        self.connection, theirs = _CONTEXT.Pipe()
        self.task: int | None = None
        self._code: int | None = None
        self._process: BaseProcess = _CONTEXT.Process(target=_work, args=(make, theirs, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()  # else its end would not be noticed

    def give(self, task: int) -> None:
        self.task = task
        with suppress(OSError):  # it is gone, which reading from it will tell
            self.connection.send(task)

    def answer(self) -> _Answer | None:
        """What it says of its task; None where it is gone."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            return None
        self.task = None
        return answer

    def dismiss(self) -> None:
        """Let it end after its task; one that is at a task is killed."""
        if self.task is not None and self._code is None:
            self._process.kill()
        self.connection.close()

    def end(self, patience: float = 0.0) -> int:
        """Wait until it is gone, at most for so many seconds, then kill it; returns its exit code."""
        if self._code is None:
            self._process.join(patience)
            if self._process.exitcode is None:
                self._process.kill()
                self._process.join()
            self._code = self._process.exitcode
            self._process.close()
        assert self._code is not None
        return self._code


def _work(make: Callable[[], Callable[[int], Any]], connection: Connection, parent: int) -> None:
    """The life of a worker process."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    work = None
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            work = work or make()
            answer = _Answer(work(task))
        except UserError as error:
            answer = _Answer(error=error)
        except Exception:
            answer = _Answer(trace=traceback.format_exc())
        try:
            connection.send(answer)
        except OSError:
            return
