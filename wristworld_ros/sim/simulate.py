"""Rendering sets of episodes in parallel: resumable, and one failure does not stop the rest."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np

from wristworld_ros.errors import UserError
from wristworld_ros.runtime import machine
from wristworld_ros.runtime.children import die_with
from wristworld_ros.runtime.files import clear_leftovers
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.sim.settings import SimulatorSettings, check_stored

MOST = 1_000_000  # episodes of a set, as their names have six digits
ATTEMPTS = 5  # seeds that an episode may take until its policy succeeds
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SimulateReport:
    """What `simulate` did.

    rendered, skipped (there before): numbers of episodes. failed: index and reason of those that are not there.
    seconds: how long it took. opengl: what rendered, '' where nothing was.
    """

    rendered: int
    skipped: int
    failed: tuple[tuple[int, str], ...]
    seconds: float
    opengl: str = ''


class SimulateError(UserError):
    """Not every episode that was asked for is there. report: what was done."""

    def __init__(self, what: str, fix: str, report: SimulateReport):
        super().__init__(what, fix)
        self.report = report


def episode_seed(seed: int, index: int, attempt: int = 0) -> int:
    """The seed of episode `index` of a set; a failed attempt is followed by the next."""
    return int(np.random.SeedSequence([seed, index, attempt]).generate_state(1)[0])


def simulate(
    out: str | Path,
    episodes: int,
    seed: int = 0,
    workers: int | None = None,
    settings: SimulatorSettings | None = None,
    progress: bool = True,
) -> SimulateReport:
    """Render `episodes` episodes into `out`/000000, `out`/000001, ... Those that are there already are left alone.

    Args:
        out: The folder of the set.
        episodes: How many it shall hold.
        seed: Of the set; an episode depends on it and on its own index only.
        workers: Processes; None takes one per core.
        settings: SimulatorSettings.
        progress: Whether to show a bar.

    Returns:
        SimulateReport, when every episode is there.

    Raises:
        SimulateError: An episode is missing at the end; the sentence names the cause, and `report` holds the rest.
        UserError: A setting is not allowed, or the folder cannot be made.
    """
    settings = settings or SimulatorSettings()
    check_stored(settings)
    if not 1 <= episodes <= MOST or (workers is not None and not 1 <= workers <= 1024):
        raise UserError(
            f'{episodes} episodes in {workers or "auto"} processes are asked for',
            f'give 1 to {MOST} episodes and 1 to 1024 processes',
        )
    if seed < 0:
        raise UserError(f'The seed is {seed}', 'give 0 or more')
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        clear_leftovers(out)
    except OSError as error:
        raise UserError(f'The folder {out} cannot be made ({error.strerror})', 'choose another') from error
    missing = [index for index in range(episodes) if not _is_there(out, index)]
    started = time.monotonic()
    pool = _Pool(out, settings, seed, missing, min(workers or machine.cores(), max(len(missing), 1)))
    with ProgressBar(
        total=len(missing), unit='episode', desc='simulate', disable=not progress, smoothing=0.05, mininterval=1
    ) as bar:
        pool.run(bar)
    # The folder has the last word, not what the processes reported.
    failed = tuple(
        (i, pool.reasons.get(i) or pool.broken or 'no process took it') for i in missing if not _is_there(out, i)
    )
    report = SimulateReport(
        len(missing) - len(failed), episodes - len(missing), failed, time.monotonic() - started, pool.opengl
    )
    if failed:
        index, reason = failed[0]
        what = f'{len(failed)} of {episodes} episodes are not in {out}. Episode {index}: {reason.strip().splitlines()[-1].rstrip(".")}'
        raise SimulateError(
            what, pool.fix or 'fix the cause and repeat the command, which renders only what is missing', report
        )
    return report


def _is_there(out: Path, index: int) -> bool:
    return (out / f'{index:06d}' / 'episode.json').is_file()


class _Pool:
    """Worker processes, one pipe each, so that it is always known which episode each of them is at.

    reasons: of the episodes that failed, by index. broken: why a process could not start its work; '' where all could.
    fix: what to do about that. opengl: what renders.
    """

    def __init__(self, out: Path, settings: SimulatorSettings, seed: int, missing: list[int], workers: int):
        self._arguments = settings, seed, str(out)
        self._todo = missing[::-1]
        self._workers = workers if missing else 0
        self._context = multiprocessing.get_context('spawn')
        self._at: dict[Connection, tuple[multiprocessing.process.BaseProcess, int | None]] = {}
        self.reasons: dict[int, str] = {}
        self.broken = self.fix = self.opengl = ''

    def run(self, bar: ProgressBar) -> None:
        try:
            for _ in range(self._workers):
                self._start()
            while self._at:
                for pipe in wait(list(self._at)):
                    self._hear(pipe, bar)
        finally:
            for process, _ in self._at.values():
                process.terminate()
                process.join()

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, os.getpid(), *self._arguments), daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends when the process does
        self._at[ours] = process, None

    def _hear(self, pipe: Connection, bar: ProgressBar) -> None:
        process, index = self._at[pipe]
        try:
            kind, *details = pipe.recv()
        except (EOFError, OSError):
            self._bury(pipe, bar)
            return
        if kind == 'ready':
            name, note = details
            if note and not self.opengl:
                log.warning('%s', note)
            self.opengl = name
        elif kind == 'broken':
            self.broken, self.fix = details
            self._todo.clear()  # whatever it is, it holds for every process
        elif index is not None:
            if kind == 'failed':
                self._fail(index, details[0])
            bar.update()
        following = self._todo.pop() if self._todo else None
        self._at[pipe] = process, following
        try:
            pipe.send(following)
        except OSError:
            self._bury(pipe, bar)

    def _bury(self, pipe: Connection, bar: ProgressBar) -> None:
        """A process has ended: as it was told to, or in the middle of an episode, or before its first one."""
        process, index = self._at.pop(pipe)
        pipe.close()
        process.join()
        if index is not None:
            self._fail(index, f'its process ended with code {process.exitcode}')
            bar.update()
            if self._todo:
                self._start()
        elif process.exitcode and not self.broken:
            self.broken = f'a simulator process ended with code {process.exitcode} before its first episode'
            log.error('%s.', self.broken[0].upper() + self.broken[1:])

    def _fail(self, index: int, reason: str) -> None:
        self.reasons[index] = reason
        log.error('Episode %d: %s', index, reason)


def _work(pipe: Connection, parent: int, settings: SimulatorSettings, seed: int, out: str) -> None:
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    os.environ.setdefault('LP_NUM_THREADS', '1')  # a software renderer keeps to its own core
    try:
        from wristworld_ros.sim.env import SimEnvs
        from wristworld_ros.sim.opengl import process_backend

        logging.getLogger('wristworld_ros.sim.opengl').disabled = True  # the note goes through the pipe, once for all
        backend = process_backend()
        envs = SimEnvs(settings)
        envs.of(0)  # whether there is OpenGL is found out now
    except UserError as error:
        pipe.send(('broken', error.what, error.fix))
        pipe.recv()
        return
    pipe.send(('ready', backend.name, backend.note))
    try:
        while (index := pipe.recv()) is not None:
            pipe.send(_render(envs, seed, index, Path(out)))
    except (EOFError, OSError):
        return  # the one who would hear of the result is gone


def _render(envs, seed: int, index: int, out: Path) -> tuple[str, ...]:
    """Render one episode: ('done',) or ('failed', reason)."""
    from wristworld_ros.sim.record import TaskFailed, record_episode

    for attempt in range(ATTEMPTS):
        try:
            number = episode_seed(seed, index, attempt)
            record_episode(envs.of(number), number, out / f'{index:06d}')
            return ('done',)
        except TaskFailed:
            continue
        except UserError as error:
            return 'failed', str(error)
        except Exception:
            return 'failed', traceback.format_exc(limit=-3)
    return 'failed', f'the policy failed {ATTEMPTS} times; another seed may succeed'
