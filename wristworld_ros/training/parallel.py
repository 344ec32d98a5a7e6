"""Processes that train together, however they were started.

`run_parallel` starts some on this machine; torchrun and `accelerate launch` start them on any number of machines, and tell each its
place in its environment. Either way accelerate finds the same environment and joins them.

On a CPU many small processes of one thread beat one process of many threads by far: small models are all short
operations, and threads wait for each other at the end of each.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from accelerate import PartialState

from wristworld_ros.errors import UserError
from wristworld_ros.runtime.process import keep_freed_memory

_TIMEOUT = timedelta(hours=2)  # of one process for another, which may be preparing data


def rank() -> int:
    """This process's number, 0 for the one that logs and saves."""
    return dist.get_rank() if dist.is_initialized() else 0


def process_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def launched() -> bool:
    """Whether torchrun or accelerate started this process as one of several."""
    return int(os.environ.get('WORLD_SIZE', '1')) > 1


def join(device: str) -> PartialState:
    """This process's place among those that train together: alone, or as its environment says.

    Args:
        device: cpu or cuda.
    """
    cpu = device == 'cpu'
    if PartialState._shared_state and PartialState().device.type != torch.device(device).type:
        PartialState._reset_state()
    return PartialState(cpu=cpu, timeout=_TIMEOUT) if launched() else PartialState(cpu=cpu)


@contextmanager
def first_process_before_others(device: str) -> Iterator[None]:
    """What the first process prepares on disk, the others then find there."""
    with join(device).main_process_first():
        yield


def run_parallel(processes: int, threads: int | None, function: Callable, *args) -> None:
    """Call `function(*args)` in several processes, or right here for one. Sets threads and malloc of the processes.

    Args:
        processes: How many.
        threads: CPU threads of each; None for one where there are several processes, otherwise torch's own choice.
        function: Must be picklable, as its arguments.

    Raises:
        UserError: One of them raised it; a process that fails ends all of them.
    """
    if processes <= 1:
        keep_freed_memory()
        if threads:
            torch.set_num_threads(threads)
        function(*args)
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            mp.spawn(_start, (processes, threads or 1, Path(folder), function, args), nprocs=processes)
        except mp.ProcessRaisedException:
            for path in sorted(Path(folder).glob('*.error')):
                raise pickle.loads(path.read_bytes()) from None
            raise


def _start(index: int, processes: int, threads: int, folder: Path, function: Callable, args: tuple) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    place = {'RANK': index, 'LOCAL_RANK': index, 'WORLD_SIZE': processes, 'LOCAL_WORLD_SIZE': processes}
    place['OMP_NUM_THREADS'] = threads  # without it accelerate chooses a number of its own
    os.environ |= {key: str(value) for key, value in place.items()}
    dist.init_process_group(
        'gloo', init_method=f'file://{folder / "store"}', rank=index, world_size=processes, timeout=_TIMEOUT
    )
    try:
        function(*args)
    except UserError as error:
        # What spawn hands over is the text of a traceback.
        (folder / f'{index}.error').write_bytes(pickle.dumps(error))
        raise
    finally:
        dist.destroy_process_group()


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone; it would otherwise train on unnoticed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
