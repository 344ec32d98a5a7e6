"""CUDA graphs: a step of some thousand kernels launched as one.

At batch 1 the networks' kernels are shorter than the time that Python takes to launch them. A graph is captured once for
every shape and then replayed from the same memory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch

from wristworld_ros.runtime.gpu_errors import first_sentence, is_device_lost, is_out_of_memory

log = logging.getLogger(__name__)
Tensors = tuple[torch.Tensor, ...]
# A capture begins by waiting for the whole device, which would break another capture in progress.
_CAPTURING = threading.Lock()


@dataclass
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[torch.Tensor | None, ...]
    outputs: Tensors


class CudaGraphRunner:
    """A function of tensors that is captured as a CUDA graph at the first call of its kind and replayed at later ones.

    Args:
        function: Tensors (or None) in, a tuple of tensors out. It must launch the same kernels whenever shapes, dtypes
            and key are the same, must not wait for the device, and may run more often than it is called: writing
            elsewhere (a cache's slot) twice must do no harm.
        enabled: False calls the function directly, as on a CPU. It becomes False, with a warning in the log, where CUDA
            cannot capture the function.
    """

    def __init__(self, function: Callable[..., Tensors], enabled: bool):
        self._function, self.enabled = function, enabled
        self._captured: dict[Hashable, _Captured] = {}
        self._pool = torch.cuda.graph_pool_handle() if enabled else None

    def __call__(self, *inputs: torch.Tensor | None, key: Hashable = None) -> Tensors:
        """The function's outputs, this call's own. key: whatever else the kernels depend on."""
        if not self.enabled:
            return self._function(*inputs)
        kind = (key, *(None if t is None else (t.shape, t.dtype) for t in inputs))
        if kind not in self._captured:
            try:
                self._captured[kind] = self._capture(inputs)
            except RuntimeError as error:
                if is_out_of_memory(error) or is_device_lost(error):
                    raise
                log.warning('CUDA cannot capture a step as a graph, so it runs without one: %s.', first_sentence(error))
                self.enabled = False
                return self._function(*inputs)
        captured = self._captured[kind]
        for held, given in zip(captured.inputs, inputs, strict=True):
            if held is not None:
                held.copy_(given, non_blocking=True)
        captured.graph.replay()
        return tuple(output.clone() for output in captured.outputs)

    def clear(self) -> None:
        """Free all graphs; the next call captures again."""
        self._captured.clear()

    def _capture(self, inputs: tuple[torch.Tensor | None, ...]) -> _Captured:
        held = tuple(None if t is None else t.clone() for t in inputs)
        here, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(here)
        with torch.cuda.stream(beside):  # libraries choose their kernels and tables are made before the capture
            for _ in range(2):
                self._function(*held)
        here.wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # The other stage's thread may allocate meanwhile; only this thread must do nothing that cannot be captured.
        with _CAPTURING, torch.cuda.graph(graph, self._pool, beside, 'thread_local'):
            outputs = self._function(*held)
        return _Captured(graph, held, outputs)
