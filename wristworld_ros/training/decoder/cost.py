"""What a light decoder costs beside the full one: operations counted, time measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from wristworld_ros.models.wan.autoencoders import WanAutoencoder
from wristworld_ros.models.wan.tiny_decoder import TinyAutoencoder, TinyDecoder


@dataclass(frozen=True)
class DecodingCost:
    """Of one latent frame in the middle of a stream. full_operations, tiny_operations: multiplications and additions of
    convolutions and matrix products. full_seconds, tiny_seconds: medians on `machine`. hw: pixels of the pictures."""

    full_operations: int
    tiny_operations: int
    full_seconds: float
    tiny_seconds: float
    hw: tuple[int, int]
    machine: str

    @property
    def operations_ratio(self) -> float:
        """How many times as many operations the full decoder takes."""
        return self.full_operations / self.tiny_operations

    @property
    def time_ratio(self) -> float:
        """How many times as long the full decoder takes."""
        return self.full_seconds / self.tiny_seconds


@torch.no_grad()
def decoding_cost(
    full: WanAutoencoder, light: TinyDecoder, hw: tuple[int, int], device: str = 'cpu', seconds: float = 5.0
) -> DecodingCost:
    """Count and time both decoders on random latents. hw: pixels. seconds: that timing takes about, each."""
    full, light = full.eval().to(device), light.eval().to(device)
    shape = (1, full.latent_channels, 1, hw[0] // full.spatial_stride, hw[1] // full.spatial_stride)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    found = []
    for autoencoder in (full, TinyAutoencoder(full, light)):
        autoencoder.reset()
        autoencoder.decode_next(latents)  # the first latent frame is another kind of work
        with FlopCounterMode(display=False) as counter:
            autoencoder.decode_next(latents)
        found.append((counter.get_total_flops(), _median_seconds(autoencoder.decode_next, latents, device, seconds)))
        autoencoder.reset()
    (full_operations, full_seconds), (tiny_operations, tiny_seconds) = found
    return DecodingCost(full_operations, tiny_operations, full_seconds, tiny_seconds, hw, machine(device))


def machine(device: str) -> str:
    """The kind of machine that was measured on, in words."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f'a CPU with {threads} thread{"s" * (threads > 1)}'


def _median_seconds(function: Callable, latents: torch.Tensor, device: str, seconds: float) -> float:
    spent: list[float] = []
    while len(spent) < 3 or (sum(spent) < seconds and len(spent) < 100):
        started = time.perf_counter()
        function(latents)
        if device == 'cuda':
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - started)
    return sorted(spent)[len(spent) // 2]
