"""Loading weights by renaming, strictly: every key must be there, be wanted and have the shape that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

def named_tensors(module: nn.Module, rename: Callable[[str], str] = str) -> dict[str, torch.Tensor]:
    """Parameters and saved buffers of a module under other names; a shared tensor is listed once.

    module: any. rename: from the module's name to the wanted one; two names that meet are an error.
    Returns name -> the module's own tensor (not a copy).
    """
    saved = module.state_dict(keep_vars=True)
    tensors = dict(module.named_parameters())
    tensors |= {name: b for name, b in module.named_buffers() if name in saved}
    renamed = {rename(name): tensor for name, tensor in tensors.items()}
    if len(renamed) != len(tensors):
        raise ValueError('Two tensors of the module got one name; the renaming must be one to one.')
    return renamed


def check_shapes(targets: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Both hold the same names with the same shapes; arguments and errors as in ``load_strict``, nothing is read."""
    for name, target in targets.items():
        if name not in weights:
            raise ValueError(
                f'{source}: key {name} is missing (wanted shape {list(target.shape)}); '
                'give the complete checkpoint of this configuration.'
            )
        found = weights[name]
        if tuple(found.shape) != tuple(target.shape):
            raise ValueError(
                f'{source}: key {name} has shape {list(found.shape)}, wanted {list(target.shape)}; '
                'give the configuration that these weights were made with.'
            )
    for name, tensor in weights.items():
        if name not in targets:
            raise ValueError(
                f'{source}: key {name} (shape {list(tensor.shape)}) is not part of this model; '
                'remove it or give the configuration that these weights were made with.'
            )


def load_strict(targets: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy weights into tensors of the same names; nothing is copied unless everything fits.

    targets: name -> tensor to fill. weights: name -> tensor, any floating dtype. source: where the weights come
    from, for the message. Raises ValueError, one sentence: which key, shape found, shape wanted, what to do.
    """
    check_shapes(targets, weights, source)
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(weights[name])


def adopt(
    module: nn.Module, targets: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], source: str
) -> None:
    """Put weights in the place of a module's parameters, uncopied and in their own dtype: what a file that is mapped
    into memory needs, and a module built on the meta device.

    targets: as ``named_tensors(module)`` lists them. Other arguments and errors as in ``load_strict``.
    """
    check_shapes(targets, weights, source)
    given = {id(target): weights[name] for name, target in targets.items()}
    # A tensor that the module shares has several names in its state, and all of them get the one.
    state = {name: given[id(own)] for name, own in module.state_dict(keep_vars=True).items()}
    module.load_state_dict(state, assign=True)
