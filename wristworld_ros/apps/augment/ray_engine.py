"""Workers that are actors of a Ray cluster: one that runs already, or one on this machine for as long as the run lasts."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from functools import partial
from typing import Any

from wristworld_ros.apps.augment.engine import Answer, Make
from wristworld_ros.errors import UserError, require_package

_NO_LOCAL = 'look for memory and for programs that keep the processor busy, or use --engine local'
_NOT_STARTED = 'see that it runs and that this machine reaches it (`ray status`)'


class RayEngine:
    """Actors of a cluster, each with a model of its own.

    Every node must reach the data sets under the same paths and have this package installed.

    Args:
        address: Of a cluster, as `ray.init` takes it; None for one on this machine.
        gpus: Share of a GPU that each actor holds, 0 to 1.
        cpus: Processor cores that each actor holds.

    Raises:
        MissingPackageError: Ray is not installed.
    """

    def __init__(self, address: str | None = None, gpus: float = 0.0, cpus: int = 1):
        require_package('ray', 'ray', 'The engine ray')
        self._address, self._gpus, self._cpus = address, gpus, cpus
        self._started = False

    def __enter__(self) -> RayEngine:
        """Join the cluster, or start one.

        Raises:
            UserError: It cannot be reached, or has too little of what one actor needs.
        """
        os.environ.setdefault('RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO', '1')  # an actor without a share of a GPU sees none
        os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
        import ray

        if not ray.is_initialized():
            options: dict[str, Any] = {'address': self._address or 'local', 'logging_level': logging.ERROR}
            if self._address is None:
                options |= {'include_dashboard': False}
            try:
                ray.init(log_to_driver=False, **options)
            # Ray raises a bare Exception, among others, where the machine is too busy to start it in time.
            except Exception as error:
                ray.shutdown()
                if self._address is None:
                    raise UserError(f'Ray cannot be started on this machine ({_line(error)})', _NO_LOCAL) from error
                raise UserError(
                    f'The Ray cluster at {self._address} cannot be used ({_line(error)})', _NOT_STARTED
                ) from error
            self._started = True
        try:
            self._check_resources(ray.cluster_resources())
        except UserError:
            self.__exit__()
            raise
        self._actor = ray.remote(_Actor).options(
            num_cpus=self._cpus, num_gpus=self._gpus, max_restarts=0, max_task_retries=0
        )
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        if self._started:
            ray.shutdown()
            self._started = False

    def start(self, make: Make) -> RayWorker:
        """See `Engine.start`; an actor waits for its share of the cluster."""
        return RayWorker(self._actor.remote(make))

    def ready(self, worker: RayWorker) -> bool:
        """Whether an actor has got its share of the cluster, so that no task waits behind one that has not."""
        return worker.lives

    def wait(self, crew: list[RayWorker]) -> list[tuple[RayWorker, Answer | None]]:
        """See `Engine.wait`."""
        import ray

        pending = {worker.pending: worker for worker in crew if worker.pending is not None}
        first, _ = ray.wait(list(pending), num_returns=1)
        more, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        ended = []
        for reference in dict.fromkeys([*first, *more]):
            worker = pending[reference]
            had_task, answer = worker.task is not None, worker.answer()
            if answer is None or had_task:
                ended.append((worker, answer))
        return ended

    def _check_resources(self, there: dict[str, float]) -> None:
        for name, wanted in (('CPU', self._cpus), ('GPU', self._gpus)):
            if there.get(name, 0.0) < wanted:
                raise UserError(
                    f'A worker needs {wanted:g} {name}, and the Ray cluster has {there.get(name, 0.0):g}',
                    'give a smaller --gpus, or another --address' if name == 'GPU' else 'give another --address',
                )


class RayWorker:
    """An actor. pending: what it will answer next, None where nothing is asked. lives: whether it has answered before."""

    def __init__(self, actor: Any):
        self._actor, self.task, self.lives = actor, None, False
        self.pending = actor.live.remote()
        self._how = ''

    task: int | None

    def give(self, task: int) -> None:
        """See `Worker.give`."""
        self.task, self.pending = task, self._actor.do.remote(task)

    def answer(self) -> Answer | None:
        """What came; None where the actor is gone."""
        import ray

        reference, self.pending = self.pending, None
        try:
            answer = ray.get(reference)
        except ray.exceptions.RayError as error:  # the actor died, or could not be made
            self._how = _line(error)
            return None
        self.lives = True
        return answer

    def dismiss(self) -> None:
        """See `Worker.dismiss`."""
        import ray

        with suppress(Exception):  # gone, or the cluster is
            ray.kill(self._actor)

    def end(self, patience: float = 0.0) -> str:
        """See `Worker.end`; an actor that is dismissed is gone at once."""
        self.dismiss()
        return self._how or 'it was dismissed'


class _Actor:
    """In the worker process: makes what does tasks with the first one, and keeps it."""

    def __init__(self, make: Make):
        self._make, self._work = make, None

    def live(self) -> Answer:
        """Answers as soon as there is a process."""
        return Answer()

    def do(self, task: int) -> Answer:
        """One task."""
        if self._work is None:
            made = Answer.of(self._make)
            if made.value is None:
                return made
            self._work = made.value
        return Answer.of(partial(self._work, task))


def _line(error: Exception) -> str:
    """The first line of an exception's text, without its full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip('.') if lines else type(error).__name__
