"""Facts about the machine and this process: what a number was measured on, and how much memory there is."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe(threads: int | None = None) -> dict[str, str]:
    """The machine as text pairs: processor, cores, memory, accelerator, versions.

    Args:
        threads: CPU threads that torch was told to use; None leaves them out.
    """
    import torch  # Not at the top: the CLI's help and the doctor's first checks need no torch.

    accelerator = torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'none'
    return {
        'processor': f'{_processor()}, {cores()} cores',
        'memory': f'{_total_memory() / 2**30:.0f} GiB',
        'accelerator': accelerator,
        'torch': torch.__version__ + (f', {threads} threads' if threads else ''),
        'Python': platform.python_version(),
        'system': f'{platform.system()} {platform.machine()}',
    }


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def has_bfloat16_instructions() -> bool:
    """Whether this processor multiplies bfloat16 itself, so that convolutions are faster in it than in float32."""
    import torch

    capabilities = getattr(torch.cpu, 'get_capabilities', dict)()  # torch 2.10 or newer
    return any(capabilities.get(name, False) for name in ('avx512_bf16', 'amx_bf16', 'bf16'))


def resident_bytes(process: int | str = 'self') -> int:
    """Resident memory of a process, bytes; 0 where it has ended or the system does not say.

    Args:
        process: Its id; 'self' is this one.
    """
    try:
        pages = int(Path(f'/proc/{process}/statm').read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf('SC_PAGE_SIZE')


def free_ram(meminfo: Path = Path('/proc/meminfo'), group: Path = Path('/sys/fs/cgroup')) -> int:
    """Bytes that processes may still take; 0 where the system does not say.

    That is what the system has available, or less in a container with a limit. What `memory.current` of a container
    counts as used includes file pages that would be given back, so they count as free.
    """
    try:
        kib = next(row.split()[1] for row in meminfo.read_text().splitlines() if row.startswith('MemAvailable:'))
    except (OSError, StopIteration):
        return 0
    free = int(kib) * 1024
    try:
        limit, used = ((group / name).read_text().strip() for name in ('memory.max', 'memory.current'))
    except OSError:
        return free
    return min(free, max(int(limit) - int(used) + _reclaimable(group), 1)) if limit.isdigit() else free


def free_gpu(device: str = 'cuda') -> int:
    """Bytes of the GPU (cuda, or cuda:N) that this process may still take, with what torch holds and does not use."""
    import torch

    gpu = torch.device(device).index
    free, _ = torch.cuda.mem_get_info(gpu)
    return free + torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)


def format_bytes(count: float) -> str:
    """Bytes in words: GiB, or MiB below one."""
    if count >= 2**30:
        return f'{count / 2**30:.1f} GiB'
    return f'{count / 2**20:.0f} MiB' if count >= 10 * 2**20 else f'{count / 2**20:.1f} MiB'


def _reclaimable(group: Path) -> int:
    """File pages of a control group that the kernel drops when memory is needed, bytes."""
    try:
        rows = dict(row.split() for row in (group / 'memory.stat').read_text().splitlines())
        return int(rows.get('inactive_file', 0))
    except (OSError, ValueError):
        return 0


def _processor() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith(('model name', 'Model')):
                return ' '.join(line.split(':', 1)[1].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _total_memory() -> int:
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
