"""What the networks compute in, and weights that take that form as they are read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from wristworld_ros.models.state_dict import check_fit

_BUILDING = threading.Lock()
# Whether a parameter of that name may be held in half precision.
Rule = Callable[[str], bool]


@contextmanager
def init_empty_weights() -> Iterator[None]:
    """Within this, modules are built with parameters that have shapes and no memory; their buffers are real.

    A model of three billion parameters would otherwise be filled with random numbers before its weights are read. What
    other threads build meanwhile is as ever; if they want the same, they wait.
    """
    builder = threading.get_ident()

    def shapeless(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta and threading.get_ident() == builder:
            parameter = nn.Parameter(parameter.to('meta'), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    with _BUILDING:
        register = nn.Module.register_parameter
        nn.Module.register_parameter = shapeless  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Module.register_parameter = register  # type: ignore[method-assign]


def load_into(
    module: nn.Module, targets: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], source: str,
    half: torch.dtype = torch.float32, rule: Rule = lambda name: False, device: torch.device | str = 'cpu',
) -> None:  # fmt: skip
    """Put weights in the place of a module's tensors, one at a time on the device and in the precision they will have.

    targets: the module's own tensors under the names of the weights. half: dtype of those that `rule` allows; all others
    become float32. Raises ValueError, one sentence, before anything is changed: key, shape found, shape wanted.
    """
    check_fit(targets, weights, source)
    names = {id(target): name for name, target in targets.items()}
    placed: dict[int, torch.Tensor] = {}
    state = {}
    for own, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in placed:
            dtype = half if rule(own) else torch.float32
            empty = torch.empty_like(
                tensor, dtype=dtype, device=device, requires_grad=False
            )  # keeps the memory's order
            placed[id(tensor)] = empty.copy_(weights[names[id(tensor)]])
        state[own] = placed[id(tensor)]
    module.load_state_dict(state, assign=True)
    module.to(device)  # buffers that no file holds


def cast_params(module: nn.Module, half: torch.dtype, rule: Rule) -> None:
    """Hold the parameters that `rule` allows in another precision, in place."""
    for name, parameter in module.named_parameters():
        if rule(name):
            parameter.data = parameter.data.to(half)
