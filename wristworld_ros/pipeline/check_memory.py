"""Whether a model has room: what it needs against what is free, said before its weights are loaded."""

from __future__ import annotations

from pathlib import Path

import torch

from wristworld_ros.models.config import ModelConfig, ModelError, find_model
from wristworld_ros.pipeline.model_directory import choose_device, choose_precision
from wristworld_ros.runtime.memory_estimate import IMAGE_HW, MemoryEstimate, need
from wristworld_ros.runtime.units import gib
from wristworld_ros.settings import StreamSettings

MARGIN = 1.25  # times the need: less is tight, for estimates are estimates and others use memory too
CHANGES = (
    'fewer anchors, a smaller chunk or history, precision bfloat16, or a smaller model'  # settings that make it less
)


def estimate_for(settings: StreamSettings, views: int, image_hw: tuple[int, int] = IMAGE_HW) -> tuple[MemoryEstimate, str]:
    """What these settings need, and the device (cpu, cuda) they need it on; arguments as in `need`.

    Raises ModelError, one sentence, where there is no such model or device, and ValueError where its configuration makes
    no model.
    """
    config = ModelConfig.read(find_model(settings.model) / 'config.json')
    device = choose_device(settings.device)
    half = choose_precision(config, settings.precision, device).itemsize
    return need(config, settings, views, image_hw, half), device


def check_memory(settings: StreamSettings, views: int, image_hw: tuple[int, int] = IMAGE_HW) -> str:
    """Raise ModelError, one sentence, where the memory that is free cannot suffice.

    Arguments as in `need`. Returns '' where there is enough and one sentence where it will be tight.
    """
    config = ModelConfig.read(find_model(settings.model) / 'config.json')
    if not (config.stage1 and config.generator):
        return ''  # loading it says what is wrong
    needed, device = estimate_for(settings, views, image_hw)
    return check_estimate(settings.model, needed, device)


def check_estimate(name: str, needed: MemoryEstimate, device: str) -> str:
    """What `check_memory` says of a model that needs so much on a device (cpu, cuda)."""
    free = free_gpu() if device == 'cuda' else free_ram()
    if not free:
        return ''
    kind, otherwise = ('GPU memory', ', or device cpu') if device == 'cuda' else ('RAM', '')
    what = f'{name} needs about {gib(needed.total)} of {kind} ({needed}), and {gib(free)} are free'
    if free < needed.total:
        raise ModelError(f'{what}; end other programs, or take {CHANGES}{otherwise}.')
    return '' if free >= MARGIN * needed.total else f'{what}, which is tight; if it fails, take {CHANGES}{otherwise}.'


def free_gpu() -> int:
    """Bytes of the GPU that this process may still take, with what torch holds and does not use."""
    free, _ = torch.cuda.mem_get_info()
    return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def free_ram(meminfo: Path = Path('/proc/meminfo'), group: Path = Path('/sys/fs/cgroup')) -> int:
    """Bytes that processes may still take: what the system has available, or less in a container with a limit; 0 where
    the system does not say."""
    try:
        kib = next(row.split()[1] for row in meminfo.read_text().splitlines() if row.startswith('MemAvailable:'))
    except (OSError, StopIteration):
        return 0
    free = int(kib) * 1024
    try:
        limit, used = ((group / name).read_text().strip() for name in ('memory.max', 'memory.current'))
    except OSError:
        return free
    return min(free, max(int(limit) - int(used), 1)) if limit.isdigit() else free
