"""How tasks are spread over workers: one at a time each, done again where a worker dies, whatever the workers are."""

from __future__ import annotations

import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from wristworld_ros.errors import UserError

Result = TypeVar('Result')
Make = Callable[[], Callable[[int], Any]]  # makes what does a task; called once in each worker, so it can be pickled
ATTEMPTS = 3  # workers that a task may lose before the run gives up


class Worker(Protocol):
    """A process somewhere, which does one task at a time. task: what it is at, or None."""

    task: int | None

    def give(self, task: int) -> None:
        """Start a task; for one that is ready and at none."""

    def end(self, patience: float = 0.0) -> str:
        """Wait for its end, at most for so many seconds, then kill it; says how it ended, as in 'exit code -9'."""

    def dismiss(self) -> None:
        """Let it end, now if it is at a task."""


class Engine(AbstractContextManager, Protocol):
    """Where workers come from; what it needs itself lives as long as its context."""

    def start(self, make: Make) -> Worker:
        """A new worker, which need not be ready at once."""

    def wait(self, crew: list[Worker]) -> list[tuple[Worker, Answer | None]]:
        """Wait until one of the crew has become ready for tasks, has an answer or is gone.

        Returns:
            Those that are at no task any more with their answers; None in place of it for one that is gone.
        """

    def ready(self, worker: Worker) -> bool:
        """Whether a worker takes a task."""


@dataclass(frozen=True)
class Answer:
    """What became of a task: a value, an error of its user's, or the traceback of a mistake in the program."""

    value: Any = None
    error: UserError | None = None
    trace: str = ''

    @classmethod
    def of(cls, call: Callable[[], Any]) -> Answer:
        """Of a call; in a worker."""
        try:
            return cls(call())
        except UserError as error:
            return cls(error=error)
        except Exception:
            return cls(trace=traceback.format_exc())

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        if self.trace:
            raise RuntimeError(f'A worker process failed:\n{self.trace}')
        return self.value


def run_tasks(
    engine: Engine,
    make: Callable[[], Callable[[int], Result]],
    tasks: Iterable[int],
    workers: int,
    on_lost: Callable[[int, str], object] = lambda task, how: None,
    named: Callable[[int], str] = 'Task {}'.format,
) -> Iterator[tuple[int, Result]]:
    """Do every task once. A worker gets the next one when it has given back the last, so nothing piles up.

    Args:
        engine: Whose context has been entered.
        make: Called once in each worker; makes what does a task.
        tasks: Numbers of the tasks.
        workers: At most.
        on_lost: Called with task and how its worker ended; the task is done again.
        named: What a task is called in messages.

    Yields:
        Task and result, in the order in which they end.

    Raises:
        UserError: A task raised one; it lost `ATTEMPTS` workers; or so many did not even start.
        RuntimeError: A task raised anything else; the message holds its traceback.
    """
    waiting, lost, unborn = deque(tasks), Counter[int](), 0
    crew = [engine.start(make) for _ in range(min(workers, len(waiting)))]
    try:
        while waiting or any(worker.task is not None for worker in crew):
            for worker in crew:
                if worker.task is None and waiting and engine.ready(worker):
                    worker.give(waiting.popleft())
            for worker, answer in engine.wait(crew):
                task, worker.task = worker.task, None
                if answer is not None:
                    assert task is not None
                    yield task, answer.result()
                    continue
                how = worker.end()
                crew[crew.index(worker)] = engine.start(make)
                if task is None:
                    unborn += 1
                    if unborn >= ATTEMPTS:
                        raise UserError(
                            f'{ATTEMPTS} workers ended before they had started ({how})',
                            'see that where they run this package is installed and the data sets lie under the same paths',
                        )
                    continue
                lost[task] += 1
                if lost[task] >= ATTEMPTS:
                    raise UserError(
                        f'{named(task)} ended its process {ATTEMPTS} times ({how})',
                        'look whether memory ran out, and use fewer workers; start again to go on',
                    )
                on_lost(task, how)
                waiting.appendleft(task)
    finally:
        for worker in crew:
            worker.dismiss()
        for worker in crew:
            worker.end(patience=10.0)
