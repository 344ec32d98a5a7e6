"""Between host and device: copies that do not make one wait for the other, and time measured on either."""

from __future__ import annotations

import time

import numpy as np
import torch


def upload(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """The array as a tensor of the same dtype on the device; to a GPU from pinned memory, without waiting."""
    tensor = torch.from_numpy(array)
    if device.type != 'cuda':
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def download(*tensors: torch.Tensor) -> list[np.ndarray]:
    """The tensors' values once they are computed: one wait for all of them, and only for this thread's stream."""
    if tensors[0].device.type != 'cuda':
        return [t.cpu().numpy() for t in tensors]
    pinned = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for host, tensor in zip(pinned, tensors, strict=True):
        host.copy_(tensor, non_blocking=True)
    done = torch.cuda.Event()
    done.record()
    done.synchronize()
    return [host.numpy() for host in pinned]


class StageTimer:
    """Times the stages of a step one after another: by the device's clock on a GPU, where the host runs ahead.

    Args:
        device: Where the work runs. The first stage starts now.
    """

    def __init__(self, device: torch.device):
        self._cuda = device.type == 'cuda'
        self._events: list = []
        self.split()

    def split(self) -> None:
        """End a stage and start the next one."""
        if self._cuda:
            self._events.append(torch.cuda.Event(enable_timing=True))
            self._events[-1].record()
        else:
            self._events.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Seconds of each stage; on a GPU to be called once the results have been downloaded."""
        pairs = zip(self._events, self._events[1:], strict=False)
        return [start.elapsed_time(end) / 1e3 if self._cuda else end - start for start, end in pairs]
