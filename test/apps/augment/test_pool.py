"""Worker processes: every task once, and what becomes of tasks that fail."""

import math
import operator
import os
from functools import partial

import pytest

from wristworld_ros.apps.augment.engine import ATTEMPTS, run_tasks
from wristworld_ros.apps.augment.pool import LocalEngine
from wristworld_ros.errors import UserError

# What a worker does must be importable in another process: functions of the standard library, bound to their first argument.
SQUARE_ROOT = partial(partial, math.sqrt)
DIVIDE_ONE = partial(partial, operator.truediv, 1)
END_PROCESS = partial(partial, os._exit)


def test_every_task_is_done_once_by_any_number_of_workers():
    for workers in (1, 3):
        done = list(run_tasks(LocalEngine(), SQUARE_ROOT, range(7), workers))
        assert sorted(done) == [(task, math.sqrt(task)) for task in range(7)]


def test_a_mistake_of_the_program_is_told_with_its_traceback():
    with pytest.raises(RuntimeError, match='ZeroDivisionError'):
        list(run_tasks(LocalEngine(), DIVIDE_ONE, [0], 1))


def test_a_task_that_ends_its_process_each_time_ends_the_run():
    lost = []
    with pytest.raises(UserError, match=rf'Task 5 ended its process {ATTEMPTS} times \(exit code 5\)'):
        list(run_tasks(LocalEngine(), END_PROCESS, [5], 2, lambda task, how: lost.append((task, how))))
    assert lost == [(5, 'exit code 5')] * (ATTEMPTS - 1)
