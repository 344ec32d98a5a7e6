"""Weights of finished runs: safetensors, read without running code, and written whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import check_file
from wristworld_ros.models.state_dict import load_strict
from wristworld_ros.pipeline.model_saving import save_weights
from wristworld_ros.runtime.files import write_atomically

WEIGHTS = 'model.safetensors'
_EARLIER = 'model.pt'  # what finished runs of earlier versions left
EARLIER_CHECKPOINT = 'last.pt'  # and what they continued at
_FIX = 'give a finished run, or start the run again in another --out'


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; it is replaced as a whole. UserError where the disk refuses it."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with write_atomically(path) as part:
        save_weights(plain, part)
        part.chmod(0o644)  # safetensors makes it readable for its owner alone


def weights_file(folder: Path) -> Path:
    """The weights that a finished run left in its folder; the name they would have where it left none."""
    earlier = folder / _EARLIER
    return earlier if earlier.exists() and not (folder / WEIGHTS).exists() else folder / WEIGHTS


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a run's folder, of a safetensors file, or of a file that torch saved; nothing is executed.

    Of a run of an earlier version that is not finished, these are the averaged weights it has reached.

    Raises:
        UserError: It is no regular file, is damaged, or holds something else.
    """
    path = _file_of(path) if path.is_dir() else path
    check_file(path, _FIX)
    state = _read(path)
    if isinstance(state, dict) and isinstance(state.get('average'), dict):
        state = state['average']
    if not isinstance(state, dict):
        raise UserError(f'{path} holds a {type(state).__name__}, not a dictionary', _FIX)
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f'{path} holds more than tensors', _FIX)
    return state


def read_weights(module: nn.Module, path: Path) -> None:
    """Fill a module, strictly; see `read_tensors`.

    Raises:
        UserError: The file cannot be read, or its tensors are not the module's.
    """
    load_strict(module.state_dict(), read_tensors(path), str(path))


def _file_of(folder: Path) -> Path:
    path, earlier = weights_file(folder), folder / EARLIER_CHECKPOINT
    return earlier if earlier.exists() and not path.exists() else path


def _read(path: Path) -> object:
    try:
        if path.suffix == '.safetensors':
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return torch.load(path, weights_only=True, map_location='cpu')
    except Exception as error:  # a damaged file can raise almost anything in the reader
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip('.')
        kind = 'safetensors' if path.suffix == '.safetensors' else 'weights'
        raise UserError(f'{path} cannot be read as {kind} ({reason})', _FIX) from None
