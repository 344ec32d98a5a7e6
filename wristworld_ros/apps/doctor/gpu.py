"""The GPU, its driver, and whether torch is built for them."""

from __future__ import annotations

import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path

from wristworld_ros.apps.doctor.finding import Finding, error, ok, warning
from wristworld_ros.runtime.units import gib

CUDA_BUILD = 'install the CUDA build of torch (pytorch.org/get-started/locally tells the command)'


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver tells of it; memory in bytes."""

    name: str
    driver: str
    total: int
    free: int


@dataclass(frozen=True)
class Torch:
    """The installed torch: its version, the CUDA it is built for ('' for a CPU build), the architectures (sm_90, ...) it
    has code for, the GPUs it sees as (name, compute capability), and why it sees none, where it said so."""

    version: str
    cuda: str = ''
    architectures: tuple[str, ...] = ()
    gpus: tuple[tuple[str, tuple[int, int]], ...] = ()
    complaint: str = ''


def gpu_lines(device: str, driver: tuple[Gpu, ...], torch: Torch, card: bool) -> list[Finding]:
    """device: the setting (auto, cpu, cuda, cuda:N). driver: what nvidia-smi lists. card: an NVIDIA card is on the bus."""
    unusable = error if device.startswith('cuda') else warning
    if device == 'cpu':
        return [ok(f'The models run on the CPU, as the setting device says (torch {torch.version})')]
    if torch.gpus:
        return [_one(name, capability, driver, torch) for name, capability in torch.gpus]
    if driver and not torch.cuda:
        return [
            unusable(f'There is a GPU ({driver[0].name}), but torch {torch.version} is a build for the CPU', CUDA_BUILD)
        ]
    if driver:
        said = f' ({torch.complaint})' if torch.complaint else ''
        return [
            unusable(
                f'torch {torch.version}, built for CUDA {torch.cuda}, does not see the GPU {driver[0].name} with driver '
                f'{driver[0].driver}{said}',
                f'update the driver to one for CUDA {torch.cuda}, or install a torch built for an older CUDA, and see that '
                'CUDA_VISIBLE_DEVICES does not hide the GPU',
            )
        ]
    if card:
        fix = 'install its driver (on Ubuntu: sudo ubuntu-drivers install), restart, and see that nvidia-smi answers'
        return [unusable('There is an NVIDIA card, but no driver answers for it', fix)]
    if device.startswith('cuda'):
        return [
            error(
                f'The setting device is {device}, but there is no NVIDIA GPU here', 'use a machine with one, or device auto'
            )
        ]
    if torch.cuda:
        return [
            warning(
                f'There is no NVIDIA GPU here, while torch {torch.version} is built for CUDA {torch.cuda}; the models run on the CPU',
                'install the driver if there should be one, or set device to cpu if not',
            )
        ]
    return [ok(f'No GPU; the models run on the CPU (torch {torch.version})')]


def _one(name: str, capability: tuple[int, int], driver: tuple[Gpu, ...], torch: Torch) -> Finding:
    known = next((g for g in driver if g.name == name), None)
    more = f', {gib(known.total)}, driver {known.driver}' if known else ''
    what = f'{name}{more}, compute capability {capability[0]}.{capability[1]}; torch {torch.version} is built for CUDA {torch.cuda}'
    if torch.architectures and not runs_on(capability, torch.architectures):
        return error(
            f'{what} with code for {", ".join(torch.architectures)} only',
            f'install a torch that has code for sm_{capability[0]}{capability[1]}',
        )
    return ok(what)


def runs_on(capability: tuple[int, int], architectures: tuple[str, ...]) -> bool:
    """Whether code for these architectures runs on a GPU: machine code (sm_) on its own generation from its minor
    version up, portable code (compute_) on whatever is newer."""
    for architecture in architectures:
        kind, _, digits = architecture.partition('_')
        number = ''.join(c for c in digits if c.isdigit())
        if not number:
            continue
        has = (int(number[:-1]), int(number[-1]))
        if has <= capability and (kind == 'compute' or has[0] == capability[0]):
            return True
    return False


def read_driver() -> tuple[Gpu, ...]:
    """What nvidia-smi lists; empty where it is missing or finds no GPU."""
    query = ['nvidia-smi', '--query-gpu=name,driver_version,memory.total,memory.free', '--format=csv,noheader,nounits']
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_driver(done.stdout) if done.returncode == 0 else ()


def parse_driver(text: str) -> tuple[Gpu, ...]:
    """The rows 'name, driver, total MiB, free MiB' of nvidia-smi; a figure that it does not know becomes 0."""
    gpus = []
    for row in filter(str.strip, text.splitlines()):
        name, driver, *sizes = (cell.strip() for cell in row.rsplit(',', 3))
        total, free = (int(s) * 2**20 if s.isdigit() else 0 for s in sizes)
        gpus.append(Gpu(name, driver, total, free))
    return tuple(gpus)


def read_torch() -> Torch:
    """The installed torch; ImportError where there is none."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        there = torch.cuda.is_available()
    if not there:
        complaint = ' '.join(str(said[0].message).split(' (Triggered')[0].split()) if said else ''
        return Torch(torch.__version__, torch.version.cuda or '', complaint=complaint.rstrip('.'))
    numbers = range(torch.cuda.device_count())
    return Torch(
        torch.__version__,
        torch.version.cuda or '',
        tuple(torch.cuda.get_arch_list()),
        tuple((torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)) for i in numbers),
    )


def card_on_bus(bus: Path = Path('/sys/bus/pci/devices')) -> bool:
    """Whether an NVIDIA display controller is on the PCI bus, with or without a driver."""
    for device in bus.glob('*'):
        try:
            vendor, kind = ((device / name).read_text().strip() for name in ('vendor', 'class'))
        except OSError:
            continue
        if vendor == '0x10de' and kind.startswith('0x03'):
            return True
    return False
