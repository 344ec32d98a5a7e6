"""Two stages that take turns on the GPU: the weights of the one that rests wait in RAM."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class OffloadedModules:
    """Modules whose weights wait in (pinned) RAM and come to the device for their turn.

    The copies in RAM are made once and stay: weights do not change while they are used, so leaving costs nothing.
    modules: None among them is passed over. device: where they work.
    """

    def __init__(self, modules: Iterable[nn.Module | None], device: torch.device):
        self.device = device
        tensors = {id(t): t for m in modules if m is not None for t in (*m.parameters(), *m.buffers())}
        self._waiting = [(tensor, _in_ram(tensor.data, device)) for tensor in tensors.values()]
        self.leave()

    def enter(self) -> None:
        """Bring the weights to the device; a device that has no room for all of them is left with none."""
        try:
            for tensor, kept in self._waiting:
                tensor.data = kept.to(self.device, non_blocking=True, copy=True)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Let go of the device's copies; what still computes with them is waited for."""
        if self.device.type == 'cuda':
            torch.cuda.current_stream(self.device).synchronize()
        for tensor, kept in self._waiting:
            tensor.data = kept


def _in_ram(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    kept = torch.empty_like(tensor, device='cpu', pin_memory=device.type == 'cuda')
    return kept.copy_(tensor)


class StageScheduler:
    """Who may compute. Looking and drawing go on side by side until `park`; from then on one waits for the other."""

    def __init__(self):
        self._lock = threading.RLock()
        self.offloaded: tuple[OffloadedModules, OffloadedModules] | None = None

    @contextmanager
    def reconstructing(self) -> Iterator[None]:
        """The first stage's turn."""
        with self._lock, self._present(0):
            yield

    @contextmanager
    def generating(self) -> Iterator[None]:
        """The second stage's turn; nobody waits for it as long as nothing is parked."""
        if self.offloaded is None:
            yield
            return
        with self._lock, self._present(1):
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """While nobody looks. For the thread that draws."""
        with self._lock:
            yield

    def park(self, first: Iterable[nn.Module | None], second: Iterable[nn.Module | None], device: torch.device) -> None:
        """Take turns from now on. For the thread that draws, within `exclusive`."""
        self.offloaded = OffloadedModules(first, device), OffloadedModules(second, device)

    @contextmanager
    def _present(self, which: int) -> Iterator[None]:
        if self.offloaded is None:
            yield
            return
        weights = self.offloaded[which]
        weights.enter()
        try:
            yield
        finally:
            weights.leave()
