"""How long something takes, and the most memory it took."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

LEAST_REPEATS, MOST_REPEATS = 3, 50


def once_ms(run: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call, until the device has done all of it."""
    _wait(device)
    started = time.perf_counter()
    run()
    _wait(device)
    return (time.perf_counter() - started) * 1e3


def median_ms(run: Callable[[], object], device: torch.device, seconds: float = 1.0) -> float:
    """Median of 3 to 50 calls, as many as fit in `seconds`; call it once before, to warm up."""
    return statistics.median(_calls_ms(run, device, seconds))


def fastest_ms(run: Callable[[], object], device: torch.device, seconds: float = 1.0) -> float:
    """The fastest of those calls: what the device can do."""
    return min(_calls_ms(run, device, seconds))


def _calls_ms(run: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    spent = [once_ms(run, device) for _ in range(LEAST_REPEATS)]
    while len(spent) < MOST_REPEATS and sum(spent) < seconds * 1e3:
        spent.append(once_ms(run, device))
    return spent


def reset_peak(device: torch.device) -> None:
    """Forget the highest memory so far; where the system does not allow that it stays that of the whole process."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')


def peak_mib(device: torch.device) -> float:
    """Highest memory since `reset_peak`, MiB: what torch had allocated on a GPU, resident memory of the process on a CPU
    (0 where the system does not tell)."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        status = Path('/proc/self/status').read_text()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith('VmHWM')]
    return float(found[0]) / 1024 if found else 0.0


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
