"""Rendering sets of episodes in parallel: resumable, and no failure stops the rest."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wristworld_ros.sim.settings import SimulatorSettings

ATTEMPTS = 5
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SimulateReport:
    """What `simulate` did. rendered, skipped (there before): episodes. failed: index and reason."""

    rendered: int
    skipped: int
    failed: tuple[tuple[int, str], ...]
    seconds: float


def episode_seed(seed: int, index: int, attempt: int = 0) -> int:
    """The seed of episode `index` of a set; a failed attempt is followed by the next."""
    return int(np.random.SeedSequence([seed, index, attempt]).generate_state(1)[0])


def simulate(
    out: str | Path,
    episodes: int,
    seed: int = 0,
    workers: int = 0,
    tasks: str | None = None,
    settings: SimulatorSettings | None = None,
    progress: bool = True,
) -> SimulateReport:
    """Render `episodes` episodes into `out`/000000, `out`/000001, ... Those that are there already are left alone.

    Arguments: workers: processes; 0 takes one a core. tasks: overrides settings.tasks.
    Returns: SimulateReport.
    """
    settings = settings or SimulatorSettings()
    if tasks:
        settings = replace(settings, tasks=tasks)
    settings.task_shares()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    missing = [index for index in range(episodes) if not (out / f'{index:06d}' / 'episode.json').is_file()]
    skipped = episodes - len(missing)
    workers = min(workers or os.cpu_count() or 1, max(len(missing), 1))
    context = multiprocessing.get_context('spawn')
    jobs, results = context.Queue(), context.Queue()
    for index in missing:
        jobs.put(index)
    for _ in range(workers):
        jobs.put(None)
    started = time.time()

    def start(slot):
        process = context.Process(target=_work, args=(slot, settings, seed, str(out), jobs, results), daemon=True)
        process.start()
        return process

    processes = {slot: start(slot) for slot in range(workers)}
    busy: dict[int, int | None] = dict.fromkeys(processes)
    failed: list[tuple[int, str]] = []
    done = 0
    bar = _bar(len(missing), progress)
    while done < len(missing) and processes:
        try:
            slot, kind, index, reason = results.get(timeout=1.0)
        except queue.Empty:
            for slot, process in list(processes.items()):
                if process.is_alive():
                    continue
                del processes[slot]
                if process.exitcode == 0:
                    continue
                if busy[slot] is None:
                    log.error('A simulator process ended with code %s before its first episode.', process.exitcode)
                    continue
                failed.append((busy[slot], f'its process ended with code {process.exitcode}'))
                log.error('Episode %d: %s.', *failed[-1])
                busy[slot], done = None, done + 1
                bar.update(1)
                processes[slot] = start(slot)
            continue
        if kind == 'begin':
            busy[slot] = index
            continue
        busy[slot], done = None, done + 1
        if kind == 'failed':
            failed.append((index, reason))
            log.error('Episode %d: %s', index, reason)
        bar.update(1)
    bar.close()
    for process in processes.values():
        process.join(timeout=5)
        if process.is_alive():
            process.terminate()
    return SimulateReport(done - len(failed), skipped, tuple(failed), time.time() - started)


def _bar(total: int, shown: bool):
    from tqdm import tqdm

    return tqdm(total=total, unit='episode', desc='simulate', disable=not shown, smoothing=0.05)


def _work(slot: int, settings: SimulatorSettings, seed: int, out: str, jobs, results) -> None:
    os.environ.setdefault('LP_NUM_THREADS', '1')  # a software renderer keeps to its own core
    from wristworld_ros.sim.record import SimEnv, TaskFailed, record_episode

    world = SimEnv(settings)
    parent = os.getppid()
    while (index := jobs.get()) is not None:
        if os.getppid() != parent:
            return  # the one who would hear of the result is gone
        results.put((slot, 'begin', index, ''))
        kind, reason = 'failed', f'the policy failed {ATTEMPTS} times; try another seed.'
        for attempt in range(ATTEMPTS):
            try:
                record_episode(world, episode_seed(seed, index, attempt), Path(out) / f'{index:06d}')
                kind, reason = 'done', ''
                break
            except TaskFailed:
                continue
            except Exception:
                reason = traceback.format_exc(limit=4)
                break
        results.put((slot, kind, index, reason))
