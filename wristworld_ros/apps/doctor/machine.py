"""Checks of the machine: the GPU, its driver and whether torch is built for them; package versions; free memory.

What is read from the system (`read_*`) is separate from what is made of it (`*_findings`), which takes plain values. Nothing
here needs torch before it is known to be installed.
"""

from __future__ import annotations

import platform
import re
import subprocess
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from wristworld_ros.apps.doctor.finding import Finding, error, ok, warning
from wristworld_ros.runtime.machine import format_bytes

if TYPE_CHECKING:
    from wristworld_ros.runtime.memory_estimate import MemoryEstimate

CUDA_BUILD = 'install the CUDA build of torch (pytorch.org/get-started/locally shows the command)'
# What pyproject.toml asks for; a test keeps the two equal. '' takes any version.
MIN_PYTHON = '3.11'
MIN_VERSIONS = {
    'scipy': '',
    'torch': '2.4',
    'diffusers': '0.35',
    'transformers': '4.46',
    'numpy': '',
    'opencv-python-headless': '',
    'Pillow': '',
    'safetensors': '',
    'av': '',
    'tqdm': '',
    'accelerate': '',
    'msgspec': '0.19',
    'pyyaml': '',
    'transforms3d': '0.4.2',
}
# Where another distribution may provide the module (e.g. apt's python3-opencv), the module decides.
MODULES = {'opencv-python-headless': 'cv2', 'Pillow': 'PIL', 'pyyaml': 'yaml'}
PROCESS = 600 * 2**20  # bytes: Python with torch, diffusers, OpenCV and ROS, before any weights
CUDA_PROCESS = 2 * 2**30  # bytes of RAM that a process with CUDA's libraries takes in addition
CUDA_CONTEXT = 700 * 2**20  # bytes of GPU memory of a context with its kernels


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver reports it; memory in bytes."""

    name: str
    driver: str
    total: int
    free: int


@dataclass(frozen=True)
class Torch:
    """The installed torch.

    cuda: the version it is built for, '' for a CPU build. architectures: those it has code for (sm_90, ...). gpus: those
    it sees, as (name, compute capability). warning: why it sees none, where it said so.
    """

    version: str
    cuda: str = ''
    architectures: tuple[str, ...] = ()
    gpus: tuple[tuple[str, tuple[int, int]], ...] = ()
    warning: str = ''


def gpu_findings(device: str, driver: tuple[Gpu, ...], torch: Torch, card: bool) -> list[Finding]:
    """Whether the models can run where they should.

    Args:
        device: The setting (auto, cpu, cuda, cuda:N).
        driver: What nvidia-smi lists.
        torch: The installed one.
        card: Whether an NVIDIA card is on the PCI bus.
    """
    unusable = error if device.startswith('cuda') else warning
    if device == 'cpu':
        return [ok(f'The models run on the CPU, as the setting device says (torch {torch.version})')]
    if torch.gpus:
        return [_gpu_finding(name, capability, driver, torch) for name, capability in torch.gpus]
    if driver and not torch.cuda:
        return [unusable(f'There is a GPU ({driver[0].name}), but torch {torch.version} is a CPU build', CUDA_BUILD)]
    if driver:
        said = f' ({torch.warning})' if torch.warning else ''
        return [
            unusable(
                f'torch {torch.version}, built for CUDA {torch.cuda}, does not see the GPU {driver[0].name} with driver '
                f'{driver[0].driver}{said}',
                f'update the driver to one for CUDA {torch.cuda}, or install a torch built for an older CUDA, and check that '
                'CUDA_VISIBLE_DEVICES does not hide the GPU',
            )
        ]
    if card:
        fix = 'install its driver (on Ubuntu: sudo ubuntu-drivers install), restart, and check that nvidia-smi answers'
        return [unusable('There is an NVIDIA card, but no driver answers for it', fix)]
    if device.startswith('cuda'):
        return [
            error(
                f'The setting device is {device}, but there is no NVIDIA GPU here',
                'use a machine with one, or device auto',
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


def _gpu_finding(name: str, capability: tuple[int, int], driver: tuple[Gpu, ...], torch: Torch) -> Finding:
    known = next((g for g in driver if g.name == name), None)
    more = f', {format_bytes(known.total)}, driver {known.driver}' if known else ''
    what = f'{name}{more}, compute capability {capability[0]}.{capability[1]}; torch {torch.version} is built for CUDA {torch.cuda}'
    if torch.architectures and not runs_on(capability, torch.architectures):
        return error(
            f'{what} and has code for {", ".join(torch.architectures)} only',
            f'install a torch that has code for sm_{capability[0]}{capability[1]}',
        )
    return ok(what)


def runs_on(capability: tuple[int, int], architectures: tuple[str, ...]) -> bool:
    """Whether code for these architectures runs on a GPU of this compute capability.

    Machine code (sm_) runs on its own generation from its minor version up, portable code (compute_) on everything newer.
    """
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
    """The rows 'name, driver, total MiB, free MiB' of nvidia-smi; a figure that it does not have becomes 0."""
    gpus = []
    for row in filter(str.strip, text.splitlines()):
        name, driver, *sizes = (cell.strip() for cell in row.rsplit(',', 3))
        total, free = (int(s) * 2**20 if s.isdigit() else 0 for s in sizes)
        gpus.append(Gpu(name, driver, total, free))
    return tuple(gpus)


def read_torch() -> Torch:
    """The installed torch; ImportError where there is none."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        available = torch.cuda.is_available()
    if not available:
        message = ' '.join(str(caught[0].message).split(' (Triggered')[0].split()) if caught else ''
        return Torch(torch.__version__, torch.version.cuda or '', warning=message.rstrip('.'))
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


def version_findings(python: str, found: Mapping[str, str | None]) -> list[Finding]:
    """Python and the packages against the least versions that the models run with.

    Args:
        python: Its version.
        found: Version of each package of `MIN_VERSIONS`, None where it is not installed.
    """
    findings = []
    if _numbers(python) < _numbers(MIN_PYTHON):
        findings.append(error(f'Python is {python}', f'use {MIN_PYTHON} or newer'))
    for name, least in MIN_VERSIONS.items():
        version, wanted = found.get(name), f'{name}>={least}' if least else name
        if version is None:
            findings.append(error(f'{name} is not installed', f"pip install '{wanted}'"))
        elif least and _numbers(version) < _numbers(least):
            findings.append(error(f'{name} is {version}, older than {least}', f"pip install '{wanted}'"))
    versions = ', '.join(f'{name} {version}' for name, version in found.items() if version)
    return findings or [ok(f'Python {python}, {versions}')]


def read_versions() -> tuple[str, dict[str, str | None]]:
    """The version of this Python and the installed version of each package of `MIN_VERSIONS`."""
    return platform.python_version(), {name: _version(name) for name in MIN_VERSIONS}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
    try:
        return __import__(MODULES[name]).__version__ if name in MODULES else None
    except ImportError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version: 2.13.0+cpu and 2.13.0rc1 become (2, 13, 0)."""
    return tuple(int(n) for n in re.match(r'[\d.]*', version)[0].strip('.').split('.') if n)


def memory_findings(
    needed: MemoryEstimate, device: str, ram_free: int, gpu_free: int, oom_steps: tuple[str, ...] = ()
) -> list[Finding]:
    """The memory that a model and its settings need, estimated, against what is free.

    Args:
        needed: By the model, besides the process.
        device: cpu or cuda, where the models will run.
        ram_free: Bytes; 0 where the system does not say.
        gpu_free: Bytes; 0 where the driver does not say.
        oom_steps: What `on_out_of_memory` would give up there; see `applicable_steps`.
    """
    if device == 'cpu':
        return [_memory_finding('RAM', PROCESS + needed.total, ram_free, str(needed), 'a machine with more', oom_steps)]
    offload = 'offload' in oom_steps
    ram = PROCESS + CUDA_PROCESS + (needed.weights if offload else 0)
    parts = 'the process, and the weights with offload' if offload else 'the process'
    gpu, other_gpu = CUDA_CONTEXT + needed.total, 'device cpu, or a GPU with more'
    return [
        _memory_finding('GPU memory', gpu, gpu_free, str(needed), other_gpu, oom_steps),
        _memory_finding('RAM', ram, ram_free, parts, 'a machine with more', ()),
    ]


def applicable_steps(
    names: list[str], device: str, graphs: bool, history: int, has_tiny_decoder: bool
) -> tuple[str, ...]:
    """Steps of `on_out_of_memory` that would free something.

    Args:
        names: The setting.
        device: cpu or cuda.
        graphs: The setting.
        history: The setting.
        has_tiny_decoder: Whether the model has a tiny decoder that is not in use.
    """
    applicable = {
        'graphs': device.startswith('cuda') and graphs,
        'history': history > 1,
        'tiny_decoder': has_tiny_decoder,
        'offload': device.startswith('cuda'),
    }
    return tuple(name for name in names if applicable[name])


def _memory_finding(
    kind: str, needed: int, free: int, parts: str, alternative: str, oom_steps: tuple[str, ...]
) -> Finding:
    from wristworld_ros.pipeline.memory_check import MARGIN, SAVINGS

    what = f'{kind}: about {format_bytes(needed)} needed ({parts})'
    if not free:
        fix = f'check that {format_bytes(needed)} are'
        return warning(f'{what}, and the system does not say how much is free', fix)
    what += f', {format_bytes(free)} free'
    fix = f'end other programs, or use {SAVINGS}, or {alternative}'
    if free < needed:
        return error(what, fix)
    if free >= MARGIN * needed:
        return ok(what)
    given_up = f' (on_out_of_memory would give up, in this order: {", ".join(oom_steps)})' if oom_steps else ''
    return warning(f'{what}, which is tight{given_up}', fix)
