"""Nodes as separate processes: started with a log each, watched, and stopped in order."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np


class DemoError(ValueError):
    """Something the user can mend; the message is one sentence."""


class ManagedProcess:
    """A Python module run as a process of its own session, so that Ctrl-C reaches it only through us.

    name: for messages. module: run with -m. log: file for its output. env: added to ours.
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
            )  # fmt: skip

    def check(self) -> None:
        """DemoError with what it said last when it has ended by itself."""
        if self.process.poll() is not None:
            raise DemoError(
                f'The {self.name} ended with status {self.process.returncode}: {self.last_words()} (all of it: {self.log})'
            )

    def last_words(self) -> str:
        """The last line that says something."""
        try:
            lines = [line.strip() for line in self.log.read_text(errors='replace').splitlines() if line.strip()]
        except OSError:
            lines = []
        return lines[-1].rstrip('.') if lines else 'it said nothing'

    def resident_bytes(self) -> int:
        """Resident memory, bytes; 0 when it has ended or the system does not tell."""
        try:
            pages = int(Path(f'/proc/{self.process.pid}/statm').read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0
        return pages * os.sysconf('SC_PAGE_SIZE')

    def stop(self, patience: float = 8.0) -> int:
        """Ask it to end, then insist; returns its exit status."""
        for sig, wait in ((signal.SIGINT, patience), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            if self.process.poll() is not None:
                break
            self.process.send_signal(sig)
            try:
                self.process.wait(wait)
            except subprocess.TimeoutExpired:
                continue
        return self.process.wait()


class ProcessGroup:
    """Children that live and end together; use it with `with`. They end in the opposite order of their start."""

    def __init__(self, logs: Path):
        self.logs = Path(logs)
        self.children: list[ManagedProcess] = []
        self._before: Any = None
        self.env = ros_environment()

    def start(self, name: str, module: str, arguments: Sequence[str], env: Mapping[str, str] | None = None) -> ManagedProcess:
        """Start a module; see `ManagedProcess`."""
        log = self.logs / f'{name.replace(" ", "_")}.log'
        child = ManagedProcess(name, module, arguments, log, {**self.env, **(env or {})})
        self.children.append(child)
        return child

    def check(self) -> None:
        """DemoError when any has ended."""
        for child in self.children:
            child.check()

    def __enter__(self) -> ProcessGroup:
        # A plain kill must not leave the children behind: they are sessions of their own.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, _leave)
        return self

    def __exit__(self, *_) -> None:
        for child in reversed(self.children):
            child.stop()
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


def _leave(*_) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def ros_environment() -> dict[str, str]:
    """Keeps the processes to themselves: loopback and a domain of their own, unless the user has chosen these.

    They import the very package that starts them.
    """
    domain = os.environ.get('ROS_DOMAIN_ID') or str(random.SystemRandom().randint(20, 99))
    reach = os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE') or 'LOCALHOST'
    ours = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([ours, *filter(None, [os.environ.get('PYTHONPATH')])])
    return {'ROS_DOMAIN_ID': domain, 'ROS_AUTOMATIC_DISCOVERY_RANGE': reach, 'PYTHONPATH': path}


def ros_parameters(record) -> list[str]:
    """A settings record as `--ros-args -p name:=value ...`; empty lists are left out (ROS cannot tell their type)."""
    arguments = ['--ros-args']
    for f in fields(record):
        name, value = f.name, getattr(record, f.name)
        if isinstance(value, list | tuple):
            if not value:
                continue
            value = '[' + ', '.join("'" + str(v).replace("'", "''") + "'" for v in value) + ']'
        elif isinstance(value, bool):
            value = str(value).lower()
        elif f.type == 'float':
            value = np.format_float_positional(float(value), trim='0')  # ROS takes 10 for a whole number, 10.0 for this
        elif isinstance(value, str):
            value = "'" + value.replace("'", "''") + "'"
        arguments += ['-p', f'{name}:={value}']
    return arguments


def wait_for(condition, family: ProcessGroup, seconds: float, what: str) -> None:
    """Wait until condition() is true; DemoError when a child ends or time is up."""
    end = time.monotonic() + seconds
    while not condition():
        family.check()
        if time.monotonic() > end:
            logs = ', '.join(f'{c.name}: {c.last_words()}' for c in family.children)
            raise DemoError(f'{what} did not come within {seconds:.0f} s; last words: {logs} (logs: {family.logs})')
        time.sleep(0.2)
