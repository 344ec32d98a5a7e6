"""Two stages that share a GPU too small for both: the idle stage's weights wait in RAM."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class OffloadedModules:
    """Modules whose weights wait in (pinned) RAM and are loaded to the device while they compute.

    The copies in RAM are made once and stay: weights do not change while they are used, so unloading costs nothing.

    Args:
        modules: The modules; None among them is ignored.
        device: Where they compute.
    """

    def __init__(self, modules: Iterable[nn.Module | None], device: torch.device):
        self.device = device
        tensors = {id(t): t for m in modules if m is not None for t in (*m.parameters(), *m.buffers())}
        self._copies = [(tensor, _copy_in_ram(tensor.data, device)) for tensor in tensors.values()]
        self.unload()

    def load(self) -> None:
        """Bring the weights to the device; where they do not all fit, none of them stays there."""
        try:
            for tensor, copy in self._copies:
                tensor.data = copy.to(self.device, non_blocking=True, copy=True)
        except BaseException:
            self.unload()
            raise

    def unload(self) -> None:
        """Free the device's copies, after waiting for whatever still computes with them."""
        if self.device.type == 'cuda':
            torch.cuda.current_stream(self.device).synchronize()
        for tensor, copy in self._copies:
            tensor.data = copy


def _copy_in_ram(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    copy = torch.empty_like(tensor, device='cpu', pin_memory=device.type == 'cuda')
    return copy.copy_(tensor)


class StageScheduler:
    """Which stage may compute. Both run side by side until `offload`; from then on they take turns."""

    def __init__(self):
        self._lock = threading.RLock()
        self.offloaded: tuple[OffloadedModules, OffloadedModules] | None = None

    @contextmanager
    def reconstructing(self) -> Iterator[None]:
        """While stage 1 computes."""
        with self._lock, self._loaded(0):
            yield

    @contextmanager
    def generating(self) -> Iterator[None]:
        """While stage 2 computes; it waits for nobody as long as nothing is offloaded."""
        if self.offloaded is None:
            yield
            return
        with self._lock, self._loaded(1):
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """While stage 1 does not compute. For the thread that generates."""
        with self._lock:
            yield

    def offload(
        self, first: Iterable[nn.Module | None], second: Iterable[nn.Module | None], device: torch.device
    ) -> None:
        """Keep the modules of both stages in RAM from now on. For the thread that generates, within `exclusive`."""
        self.offloaded = OffloadedModules(first, device), OffloadedModules(second, device)

    @contextmanager
    def _loaded(self, stage: int) -> Iterator[None]:
        if self.offloaded is None:
            yield
            return
        weights = self.offloaded[stage]
        weights.load()
        try:
            yield
        finally:
            weights.unload()
