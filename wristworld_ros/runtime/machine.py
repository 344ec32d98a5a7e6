"""What a number was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe(threads: int = 0) -> dict[str, str]:
    """The machine as text pairs: processor, cores, memory, accelerator, versions. threads: for torch; 0 leaves them."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    accelerator = torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'none'
    return {
        'processor': f'{_processor()}, {cores()} cores',
        'memory': f'{_memory_gib():.0f} GiB',
        'accelerator': accelerator,
        'torch': torch.__version__ + (f', {threads} threads' if threads else ''),
        'Python': platform.python_version(),
        'system': f'{platform.system()} {platform.machine()}',
    }


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def resident_mib() -> float:
    """Resident memory of this process, MiB; 0 where the system does not tell."""
    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


def _processor() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith(('model name', 'Model')):
                return ' '.join(line.split(':', 1)[1].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
