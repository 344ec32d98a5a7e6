"""The one strict loader: every tensor must be present, be wanted and have the right shape before anything is changed.

`named_tensors` lists where a module's weights go, under any names; `load_strict` copies weights there, `adopt` and
`load_into` put weights in the place of the module's tensors. `empty_weights` builds modules to be filled that way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from accelerate import init_empty_weights
from torch import nn

from wristworld_ros.errors import UserError

# Name of a parameter -> the dtype it is kept in.
ParamDtype = Callable[[str], torch.dtype]
# accelerate patches torch's Module class while modules are built, so one thread does that at a time.
_BUILDING = threading.RLock()


@contextmanager
def empty_weights() -> Iterator[None]:
    """Build modules whose parameters have a shape and no memory (they are on the meta device); their buffers are real.

    Without it, a model of billions of parameters would be filled with random numbers before its weights are read. Only
    one thread of the process is in here at a time; others that want to be wait. What another thread builds meanwhile
    without this context is empty too, so threads that build modules while a model may be loading must use it.
    Parameters that a module shares between two names are no longer shared.
    """
    with _BUILDING, init_empty_weights(include_buffers=False):
        yield


def named_tensors(module: nn.Module, rename: Callable[[str], str] = str) -> dict[str, torch.Tensor]:
    """Parameters and saved buffers of a module under other names; a shared tensor is listed once.

    Args:
        module: Any module.
        rename: From the module's own name of a tensor to the wanted one.

    Returns:
        Name -> the module's own tensor, not a copy.

    Raises:
        ValueError: Two tensors get the same name.
    """
    saved = module.state_dict(keep_vars=True)
    tensors = dict(module.named_parameters())
    tensors |= {name: b for name, b in module.named_buffers() if name in saved}
    renamed = {rename(name): tensor for name, tensor in tensors.items()}
    if len(renamed) != len(tensors):
        raise ValueError('Two tensors of the module got the same name; the renaming must be one to one.')
    return renamed


def check_shapes(targets: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Check that weights have the names and shapes of their targets; no values are read.

    Args:
        targets: Name -> tensor to fill.
        weights: Name -> tensor; anything with a ``shape`` does.
        source: Where the weights come from, for the message.

    Raises:
        UserError: A tensor is missing, is not wanted, has another shape, or holds integers where numbers are wanted; it
            names the first, with both shapes.
    """
    if missing := [name for name in targets if name not in weights]:
        first = missing[0]
        raise UserError(
            f'{source}: key {first} is missing (wanted shape {list(targets[first].shape)}){_more(missing)}',
            'give the complete checkpoint of this configuration',
        )
    for name, target in targets.items():
        found = weights[name]
        if tuple(found.shape) != tuple(target.shape):
            raise UserError(
                f'{source}: key {name} has shape {list(found.shape)}, wanted {list(target.shape)}',
                'give the configuration that these weights were made with',
            )
        dtype = getattr(found, 'dtype', torch.float32)
        if target.dtype.is_floating_point and not dtype.is_floating_point:
            raise UserError(
                f'{source}: key {name} is stored as {str(dtype).removeprefix("torch.")}, and floating-point weights are wanted',
                'give the weights as float32, float16 or bfloat16 (quantized weights are not supported)',
            )
    if unknown := [name for name in weights if name not in targets]:
        first = unknown[0]
        raise UserError(
            f'{source}: key {first} (shape {list(weights[first].shape)}) is not part of this model{_more(unknown)}',
            'remove it or give the configuration that these weights were made with',
        )


def _more(names: list[str]) -> str:
    return f', and likewise {len(names) - 1} more' if len(names) > 1 else ''


def load_strict(targets: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy weights into the tensors of the same names.

    Args:
        targets: Name -> tensor to fill, as `named_tensors` lists them.
        weights: Name -> tensor, of any floating dtype.
        source: Where the weights come from, for the message.

    Raises:
        UserError: As `check_shapes`; nothing has been copied then.
    """
    check_shapes(targets, weights, source)
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(weights[name])


def adopt(
    module: nn.Module, targets: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], source: str
) -> None:
    """Put weights in the place of a module's tensors, uncopied and in their own dtype.

    For weights that a file maps into memory, and for modules without memory of their own (`empty_weights`).

    Args:
        module: The module to fill.
        targets: Name of a weight -> the module's own tensor, as `named_tensors` lists them.
        weights: Name -> tensor.
        source: Where the weights come from, for the message.

    Raises:
        UserError: As `check_shapes`; the module is unchanged then.
    """
    check_shapes(targets, weights, source)
    given = {id(target): weights[name] for name, target in targets.items()}
    # A tensor that the module shares has several names in its state, and all of them get the same weight.
    state = {name: given[id(own)] for name, own in module.state_dict(keep_vars=True).items()}
    _assign(module, state)


def _float32(name: str) -> torch.dtype:
    return torch.float32


def load_into(
    module: nn.Module,
    targets: Mapping[str, torch.Tensor],
    weights: Mapping[str, torch.Tensor],
    source: str,
    param_dtype: ParamDtype = _float32,
    device: torch.device | str = 'cpu',
) -> None:
    """Load weights one at a time, straight to the device and the dtype they are kept in; each is checked to be finite.

    Args:
        module: The module to fill, with or without memory of its own (`empty_weights`).
        targets: Name of a weight -> the module's own tensor, as `named_tensors` lists them.
        weights: Name -> tensor, of any floating dtype.
        source: Where the weights come from, for the message.
        param_dtype: The module's own name of a tensor -> the dtype it is kept in.
        device: Where the module goes, buffers that no file holds included.

    Raises:
        UserError: As `check_shapes`, or a weight is NaN or infinite; the module is unchanged then.
    """
    check_shapes(targets, weights, source)
    names = {id(target): name for name, target in targets.items()}
    loaded: dict[int, torch.Tensor] = {}
    state = {}
    for own, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in loaded:
            # empty_like keeps the order of the dimensions in memory (channels last).
            empty = torch.empty_like(tensor, dtype=param_dtype(own), device=device, requires_grad=False)
            loaded[id(tensor)] = empty.copy_(weights[names[id(tensor)]])
            _check_finite(empty, names[id(tensor)], source)
        state[own] = loaded[id(tensor)]
    _assign(module, state)
    module.to(device)


def _assign(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    with _BUILDING:  # assigning registers parameters, which another thread in `empty_weights` would make empty
        module.load_state_dict(state, assign=True)


def _check_finite(tensor: torch.Tensor, name: str, source: str) -> None:
    """Both extremes are finite exactly if every value is; one pass and no copy, for weights of many gigabytes."""
    if tensor.is_floating_point() and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
        dtype = str(tensor.dtype).removeprefix('torch.')
        raise UserError(
            f'{source}: key {name} holds NaN or infinity as {dtype}', 'copy the file again from where the model came'
        )


def cast_params(module: nn.Module, param_dtype: ParamDtype) -> None:
    """Convert a module's parameters, in place, to the dtype that each is kept in."""
    for name, parameter in module.named_parameters():
        parameter.data = parameter.data.to(param_dtype(name))
