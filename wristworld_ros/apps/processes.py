"""Nodes as separate processes: started with a log each, watched, and stopped in order."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from wristworld_ros.errors import UserError
from wristworld_ros.runtime.children import die_with
from wristworld_ros.runtime.machine import resident_bytes
from wristworld_ros.setting import kind_of, shown

# Signals in order, and how long each is waited for, seconds.
STOP_SIGNALS = ((signal.SIGINT, 8.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0))


class ManagedProcess:
    """A Python module run as a process in a session of its own, so that Ctrl-C reaches it only through us.

    It is killed when this process dies, even by SIGKILL; start it from a thread that lives as long.

    Args:
        name: For messages.
        module: Run with -m.
        arguments: Of the module.
        log: File for its output.
        env: Added to our environment.
    """

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ):
        self.name, self.log = name, Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, 'wb') as out:
            self.process = subprocess.Popen(
                [sys.executable, '-u', '-m', module, *arguments], stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, start_new_session=True,
                preexec_fn=functools.partial(die_with, os.getpid()),
            )  # fmt: skip

    def check(self) -> None:
        """Raise UserError, with what it said last, when it has ended by itself."""
        if self.process.poll() is not None:
            raise UserError(
                f'The {self.name} ended with status {self.process.returncode}: {self.last_line()}',
                f'see its log, {self.log}',
            )

    def last_line(self) -> str:
        """The last line of its log that is not empty, without a full stop."""
        try:
            lines = [line.strip() for line in self.log.read_text(errors='replace').splitlines() if line.strip()]
        except OSError:
            lines = []
        return lines[-1].rstrip('.') if lines else 'it printed nothing'

    def resident_bytes(self) -> int:
        """Resident memory, bytes; 0 when it has ended or the system does not say."""
        return resident_bytes(self.process.pid)

    def stop(self, signals: Sequence[tuple[signal.Signals, float]] = STOP_SIGNALS) -> int:
        """Ask it to end, then insist; returns its exit status.

        Args:
            signals: In order, each with the seconds until the next.
        """
        for number, patience in signals:
            if self.process.poll() is not None:
                break
            self.process.send_signal(number)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        return self.process.wait()


class ProcessGroup:
    """Processes that start and end together; use it with `with`. They end in the opposite order of their start.

    Args:
        logs: Folder of their logs.

    Attributes:
        members: The processes, in the order of their start.
        env: Variables that all of them get.
    """

    def __init__(self, logs: Path):
        self.logs = Path(logs)
        self.members: list[ManagedProcess] = []
        self.env = ros_environment()
        self._previous_handler: Any = None

    def start(
        self, name: str, module: str, arguments: Sequence[str], env: Mapping[str, str] | None = None
    ) -> ManagedProcess:
        """Start a module; arguments as in `ManagedProcess`."""
        log = self.logs / f'{name.replace(" ", "_")}.log'
        member = ManagedProcess(name, module, arguments, log, {**self.env, **(env or {})})
        self.members.append(member)
        return member

    def check(self) -> None:
        """Raise UserError when any has ended."""
        for member in self.members:
            member.check()

    def __enter__(self) -> ProcessGroup:
        # A plain kill must not leave the members behind: they are sessions of their own.
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGTERM, _exit_on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for member in reversed(self.members):
            member.stop()
        if self._previous_handler is not None:
            signal.signal(signal.SIGTERM, self._previous_handler)


def _exit_on_signal(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def ros_environment() -> dict[str, str]:
    """Variables that keep the processes to themselves: loopback and a ROS domain of their own, unless the user has chosen
    these. The processes import the same package as the one that starts them."""
    domain = os.environ.get('ROS_DOMAIN_ID') or str(random.SystemRandom().randint(20, 99))
    discovery = os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE') or 'LOCALHOST'
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([package, *filter(None, [os.environ.get('PYTHONPATH')])])
    return {'ROS_DOMAIN_ID': domain, 'ROS_AUTOMATIC_DISCOVERY_RANGE': discovery, 'PYTHONPATH': path}


def ros_parameters(record: Any) -> list[str]:
    """A settings record as `--ros-args -p name:=value ...`; empty lists are left out (ROS cannot tell their type)."""
    arguments = ['--ros-args']
    for f in fields(record):
        value = shown(f, getattr(record, f.name))
        if isinstance(value, list | tuple):
            if not value:
                continue
            value = '[' + ', '.join(map(_quoted, value)) + ']'
        elif isinstance(value, bool):
            value = str(value).lower()
        elif isinstance(value, str):
            value = _quoted(value)
        elif kind_of(f) == 'float':
            value = np.format_float_positional(float(value), trim='0')  # ROS takes 10 for an integer
        arguments += ['-p', f'{f.name}:={value}']
    return arguments


def remappings(rules: Sequence[str]) -> list[str]:
    """`--remap` rules as `-r FROM:=TO ...`, to follow `--ros-args`.

    Raises:
        UserError: A rule is none.
    """
    for rule in rules:
        if ':=' not in rule:
            raise UserError(f'--remap is {rule!r}', 'give FROM:=TO')
    return [word for rule in rules for word in ('-r', rule)]


def wait_for(condition: Callable[[], bool], group: ProcessGroup, seconds: float, what: str) -> None:
    """Wait until a condition holds.

    Args:
        condition: Asked five times per second.
        group: Processes that must keep running.
        seconds: How long at most.
        what: What is waited for, as the subject of a sentence.

    Raises:
        UserError: A process has ended, or time is up.
    """
    end = time.monotonic() + seconds
    while not condition():
        group.check()
        if time.monotonic() > end:
            lines = ', '.join(f'{member.name}: {member.last_line()}' for member in group.members)
            raise UserError(f'{what} did not come within {seconds:.0f} s ({lines})', f'see the logs in {group.logs}')
        time.sleep(0.2)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
