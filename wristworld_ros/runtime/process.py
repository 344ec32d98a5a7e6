"""What a program decides for its whole process: threads, freed memory, precision of float32 products.

Nothing in the package does this by itself. Programs (`apps/`, the nodes in `ros/`, training processes) call it once, with
the model that they will run.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

SMALL = 50_000_000  # parameters
# glibc's malloc.h. Blocks above the threshold are mapped and unmapped one by one; 32 MiB is the most it accepts.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {_M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 1 << 30, _M_TOP_PAD: 64 << 20}


def configure_process(
    networks: tuple[nn.Module, ...], device: torch.device, threads: int | None = None, low_precision: bool = False
) -> None:
    """Prepare the process to stream a model.

    Args:
        networks: The networks that will run.
        device: Where they run.
        threads: CPU threads of each operation; None for one where the networks are small (a second thread would wait
            longer than it works), otherwise torch's own choice.
        low_precision: Whether the big networks are kept in bfloat16. What is float32 beside it (stage 1's heads) then
            need not be exact beyond TF32, and tensor cores may compute it.
    """
    if threads or count_parameters(networks) < SMALL:
        torch.set_num_threads(threads or 1)
    if device.type == 'cpu':
        keep_freed_memory()
    elif low_precision:
        torch.set_float32_matmul_precision('high')


def count_parameters(networks: tuple[nn.Module, ...]) -> int:
    """Parameters of all networks together."""
    return sum(p.numel() for network in networks for p in network.parameters())


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed, for the whole process; a frame on a CPU then takes a quarter less time.

    Every frame allocates and frees the same tensors. By default glibc hands large ones back to the kernel, which clears
    each page again for the next frame.

    Returns:
        False where the C library is not glibc: nothing is changed then.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in _SETTINGS.items())
