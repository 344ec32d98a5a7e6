"""Checkpoints and weights of a run: read without running code, and written whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import check_file
from wristworld_ros.models.state_dict import load_strict
from wristworld_ros.runtime.files import write_atomically


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write what `torch.save` writes; the file is replaced as a whole. UserError where the disk refuses it."""
    with write_atomically(path) as part, open(part, 'wb') as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's writer hides what the file said
            raise _cause(error) from error


def read_checkpoint(path: Path, device: torch.device | str = 'cpu') -> dict[str, Any]:
    """Read a dictionary that `write_checkpoint` wrote; nothing in it is executed.

    Raises:
        UserError: It is no regular file, is damaged, or holds something else.
    """
    fix = 'give the file of a finished run, or start the run again in another --out'
    check_file(path, fix)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            state = torch.load(path, weights_only=True, map_location=device)
    except Exception as error:  # a damaged file can raise almost anything in the reader
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip('.')
        raise UserError(f'{path} cannot be read as a checkpoint ({reason})', fix) from None
    if not isinstance(state, dict):
        raise UserError(f'{path} holds a {type(state).__name__}, not a dictionary', fix)
    return state


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of one file of a model directory.

    Raises:
        UserError: It cannot be read, or is no safetensors file.
    """
    fix = 'give a .safetensors file of a model directory'
    check_file(path, fix)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f'{path} cannot be read as safetensors ({error})', fix) from None


def read_weights(module: nn.Module, path: Path) -> None:
    """Fill a module, strictly, from a file of its state dict.

    Raises:
        UserError: The file cannot be read, or its tensors are not the module's.
    """
    weights = read_checkpoint(path)
    if not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f'{path} holds more than tensors', 'give the model.pt of a finished run')
    load_strict(module.state_dict(), weights, str(path))


def _cause(error: BaseException) -> BaseException:
    """The OSError behind an error, where there is one."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError):
            return found
        found = found.__cause__ or found.__context__
    return error if 'write' not in str(error) else OSError(0, str(error).splitlines()[0])
