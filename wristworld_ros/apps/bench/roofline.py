"""The floor of a part: the time below which this machine cannot do it, whatever the program.

A part has a number of operations and of bytes that must be moved at least. The floor is the larger of operations over the
matrix rate and bytes over the bandwidth, both measured here, in the same run, on a large matrix product and a large copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from wristworld_ros.apps.bench.timing import fastest_ms

MATRIX = {'cpu': 2048, 'cuda': 8192}
COPIED_MIB = {'cpu': 256, 'cuda': 2048}


@dataclass(frozen=True)
class Rates:
    """What a device reaches. operations: a second, by dtype, a multiplication and an addition count two. bandwidth:
    bytes a second, read and written."""

    operations: dict[str, float]
    bandwidth: float

    def fastest(self, other: Rates) -> Rates:
        """The better of two measurements: a busy machine shows less than it can do, never more."""
        operations = {name: max(rate, other.operations[name]) for name, rate in self.operations.items()}
        return Rates(operations, max(self.bandwidth, other.bandwidth))


@dataclass(frozen=True)
class Work:
    """What a part must do at least. operations: of matrix products, convolutions and attention. moved: bytes."""

    operations: float
    bytes_moved: float

    def roofline_ms(self, rates: Rates) -> float:
        """Milliseconds; operations at the fastest rate of all precisions that the model holds."""
        return max(self.operations / max(rates.operations.values()), self.bytes_moved / rates.bandwidth) * 1e3

    def bound(self, rates: Rates) -> str:
        """Which of both the floor is: operations or bytes."""
        operations = self.operations / max(rates.operations.values())
        return 'operations' if operations >= self.bytes_moved / rates.bandwidth else 'bytes'


def measure_rates(device: torch.device, dtypes: Iterable[torch.dtype]) -> Rates:
    """Matrix rate in each dtype and bandwidth, with as many threads as torch has now."""
    side, operations = MATRIX[device.type], {}
    for dtype in dtypes:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        torch.mm(a, b, out=out)
        ms = fastest_ms(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device)
        operations[str(dtype).removeprefix('torch.')] = 2 * side**3 / ms * 1e3
    source = torch.zeros(COPIED_MIB[device.type] * 2**18, device=device)
    target = torch.zeros_like(source)
    ms = fastest_ms(lambda: target.copy_(source), device)
    return Rates(operations, 2 * source.numel() * source.element_size() / ms * 1e3)


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


def count_operations(run: Callable[[], object]) -> float:
    """Operations of one call, as torch counts them: matrix products, convolutions, attention; nothing element by element."""
    # torch counts the attention kernels of GPUs, and not that of CPUs.
    on_a_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations}
    with FlopCounterMode(display=False, custom_mapping=on_a_cpu) as counter:
        run()
    return float(counter.get_total_flops())


def _attention_operations(query, key, value, *args, out_shape=None, **kwargs) -> int:
    """Of shapes [B, heads, L, d], [B, heads, S, d] and [B, heads, S, e]: both matrix products."""
    return 2 * math.prod(query[:3]) * key[2] * (query[3] + value[3])
