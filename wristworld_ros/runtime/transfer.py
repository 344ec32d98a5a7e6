"""Between the host and the device: copies that do not make one wait for the other, and time taken on either."""

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
    """The tensors' values, once they are there: all of them for one wait, and only for this thread's stream."""
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
    """Moments of a step, to tell how long its parts took: of the device's clock on a GPU, where the host runs ahead."""

    def __init__(self, device: torch.device):
        self._cuda = device.type == 'cuda'
        self._at: list = []
        self.mark()

    def mark(self) -> None:
        """A part ends here."""
        if self._cuda:
            self._at.append(torch.cuda.Event(enable_timing=True))
            self._at[-1].record()
        else:
            self._at.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Of each part; on a GPU to be asked once the step's results are there."""
        pairs = zip(self._at, self._at[1:], strict=False)
        return [a.elapsed_time(b) / 1e3 if self._cuda else b - a for a, b in pairs]
