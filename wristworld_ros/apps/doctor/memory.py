"""The memory that a model and its settings need, estimated, against what is free."""

from __future__ import annotations

from wristworld_ros.apps.doctor.finding import Finding, error, ok, warning
from wristworld_ros.pipeline.check_memory import CHANGES, MARGIN
from wristworld_ros.runtime.memory_estimate import MemoryEstimate
from wristworld_ros.runtime.units import gib

PROCESS = 600 * 2**20  # Python with torch, diffusers, OpenCV and ROS, before any weights
CUDA_PROCESS = 2 * 2**30  # RAM that a process with CUDA's libraries takes on top
CUDA_CONTEXT = 700 * 2**20  # GPU memory of a context with its kernels


def memory_lines(need: MemoryEstimate, device: str, ram_free: int, gpu_free: int, steps_applied: tuple[str, ...] = ()) -> list[Finding]:
    """device: cpu or cuda, where the models will run. ram_free, gpu_free: bytes; 0 is not known. rungs: what
    `on_out_of_memory` would give up there."""
    if device == 'cpu':
        return [_line('RAM', PROCESS + need.total, ram_free, str(need), 'a machine with more', steps_applied)]
    beside = PROCESS + CUDA_PROCESS + (need.weights if 'offload' in steps_applied else 0)
    parts = 'the process, and the weights with offload' if 'offload' in steps_applied else 'the process'
    return [
        _line('GPU memory', CUDA_CONTEXT + need.total, gpu_free, str(need), 'device cpu, or a GPU with more', steps_applied),
        _line('RAM', beside, ram_free, parts, 'a machine with more', ()),
    ]


def applicable(names: list[str], device: str, graphs: bool, history: int, light: bool) -> tuple[str, ...]:
    """Rungs of `on_out_of_memory` that would be taken on a device. light: the model has a light decoder that is not in
    use."""
    there = {
        'graphs': device == 'cuda' and graphs,
        'history': history > 1,
        'tiny_decoder': light,
        'offload': device == 'cuda',
    }
    return tuple(name for name in names if there[name])


def _line(kind: str, needed: int, free: int, parts: str, otherwise: str, steps_applied: tuple[str, ...]) -> Finding:
    what = f'{kind}: about {gib(needed)} needed ({parts})'
    if not free:
        return warning(
            f'{what}, and the system does not say how much is free', f'see for yourself that {gib(needed)} are'
        )
    what += f', {gib(free)} free'
    fix = f'end other programs, or take {CHANGES}, or {otherwise}'
    if free < needed:
        return error(what, fix)
    if free >= MARGIN * needed:
        return ok(what)
    given_up = f' (on_out_of_memory would give up, in this order: {", ".join(steps_applied)})' if steps_applied else ''
    return warning(f'{what}, which is tight{given_up}', fix)
