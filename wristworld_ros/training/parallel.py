"""Data-parallel training: several processes, each with its own batches, one average gradient.

On a CPU many small processes of one thread beat one process of many threads by far: small models are all short
operations, and threads wait for each other at the end of each.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from wristworld_ros.errors import UserError
from wristworld_ros.runtime.process import keep_freed_memory


def rank() -> int:
    """This process's number, 0 for the one that logs and saves."""
    return dist.get_rank() if dist.is_initialized() else 0


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
    dist.init_process_group(
        'gloo', init_method=f'file://{folder / "store"}', rank=index, world_size=processes, timeout=timedelta(hours=2)
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


def from_first(value: float) -> float:
    """The first process's value, in all of them."""
    if not dist.is_initialized():
        return value
    tensor = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(tensor, 0)
    return float(tensor)


def average_gradients(module: nn.Module) -> None:
    """Replace every gradient by its mean over the processes."""
    if not dist.is_initialized():
        return
    parameters = [p for p in module.parameters() if p.requires_grad]
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for p, g in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = g.view_as(p)
