"""How long something takes, the most memory it took, and its roofline: the time below which this machine cannot do it.

A part performs a number of floating-point operations (flops) and moves a number of bytes at least. Its roofline is the larger
of flops over the matrix rate and bytes over the bandwidth (Williams et al. 2009, doi 10.1145/1498765.1498785), both measured
here, in the same run, on a large matrix product and a large copy.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

MIN_REPEATS, MAX_REPEATS = 3, 50
MATRIX_SIDE = {'cpu': 2048, 'cuda': 8192}
COPIED_MIB = {'cpu': 256, 'cuda': 2048}


@dataclass(frozen=True)
class Rates:
    """What a device reaches. flops: per second, by dtype; a multiplication and an addition are two. bandwidth: bytes per
    second, read and written."""

    flops: dict[str, float]
    bandwidth: float

    def fastest(self, other: Rates) -> Rates:
        """The better of two measurements: a busy machine shows less than it can do, never more."""
        flops = {name: max(rate, other.flops[name]) for name, rate in self.flops.items()}
        return Rates(flops, max(self.bandwidth, other.bandwidth))


@dataclass(frozen=True)
class Work:
    """What a part must do at least. flops: of matrix products, convolutions and attention. bytes: moved."""

    flops: float
    bytes: float

    def roofline_ms(self, rates: Rates) -> float:
        """Milliseconds; flops at the fastest rate of all precisions that the model holds."""
        return max(self.flops / max(rates.flops.values()), self.bytes / rates.bandwidth) * 1e3

    def bound(self, rates: Rates) -> str:
        """Which of the two decides: flops or bytes."""
        return 'flops' if self.flops / max(rates.flops.values()) >= self.bytes / rates.bandwidth else 'bytes'


def once_ms(run: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call, until the device has finished it."""
    _synchronize(device)
    started = time.perf_counter()
    run()
    _synchronize(device)
    return (time.perf_counter() - started) * 1e3


def median_ms(run: Callable[[], object], device: torch.device, seconds: float = 1.0) -> float:
    """Median of 3 to 50 calls, as many as fit in `seconds`; call it once before, to warm up."""
    return statistics.median(_calls_ms(run, device, seconds))


def fastest_ms(run: Callable[[], object], device: torch.device, seconds: float = 1.0) -> float:
    """The fastest of those calls: what the device can do."""
    return min(_calls_ms(run, device, seconds))


def reset_peak(device: torch.device) -> None:
    """Forget the highest memory so far; where the system does not allow that it stays that of the whole process."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')


def peak_mib(device: torch.device) -> float:
    """Highest memory since `reset_peak`, MiB: what torch had allocated on a GPU, resident memory of the process on a CPU
    (0 where the system does not say)."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        status = Path('/proc/self/status').read_text()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith('VmHWM')]
    return float(found[0]) / 1024 if found else 0.0


def measure_rates(device: torch.device, dtypes: Iterable[torch.dtype]) -> Rates:
    """Matrix rate in each dtype and bandwidth, with the current number of threads."""
    side, flops = MATRIX_SIDE[device.type], {}
    for dtype in dtypes:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        torch.mm(a, b, out=out)
        ms = fastest_ms(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device)
        flops[str(dtype).removeprefix('torch.')] = 2 * side**3 / ms * 1e3
    source = torch.zeros(COPIED_MIB[device.type] * 2**18, device=device)
    target = torch.zeros_like(source)
    ms = fastest_ms(lambda: target.copy_(source), device)
    return Rates(flops, 2 * source.numel() * source.element_size() / ms * 1e3)


def model_dtypes(*networks: nn.Module) -> list[torch.dtype]:
    """Precisions in which networks hold at least a hundredth of their weights."""
    counts: dict[torch.dtype, int] = {}
    for network in networks:
        for parameter in network.parameters():
            counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
    return [dtype for dtype, count in counts.items() if count >= sum(counts.values()) / 100]


def weight_bytes(modules: Iterable[nn.Module]) -> int:
    """Bytes of the weights of modules; a shared one counts once."""
    weights = {id(p): p for module in modules for p in module.parameters()}
    return sum(p.numel() * p.element_size() for p in weights.values())


def tensor_bytes(*tensors: torch.Tensor) -> int:
    """Bytes of tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)


def count_flops(run: Callable[[], object]) -> float:
    """Flops of one call, as torch counts them: matrix products, convolutions, attention; nothing element by element."""
    # torch counts the attention kernels of GPUs, but not that of CPUs.
    on_a_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with FlopCounterMode(display=False, custom_mapping=on_a_cpu) as counter:
        run()
    return float(counter.get_total_flops())


def _attention_flops(query, key, value, *args, out_shape=None, **kwargs) -> int:
    """Of shapes [B, heads, L, d], [B, heads, S, d] and [B, heads, S, e]: both matrix products."""
    return 2 * math.prod(query[:3]) * key[2] * (query[3] + value[3])


def _calls_ms(run: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    spent = [once_ms(run, device) for _ in range(MIN_REPEATS)]
    while len(spent) < MAX_REPEATS and sum(spent) < seconds * 1e3:
        spent.append(once_ms(run, device))
    return spent


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
