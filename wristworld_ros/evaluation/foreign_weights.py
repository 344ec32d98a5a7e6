"""Weights of the networks that measure, from files of other projects: tensors by name, and no code."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from wristworld_ros.errors import UserError

_LARGEST = 1 << 30  # bytes; the largest of these networks has 51 MB, AlexNet with its classifier 244 MB
_HELP = 'see "LPIPS and FVD" in docs/evaluation.md for where to find them'


def read_weights(paths: str, purpose: str) -> dict[str, torch.Tensor]:
    """The tensors of one or more files together, on the CPU.

    Args:
        paths: Files, separated by commas. safetensors, or torch files of tensors by name, of which nothing else is
            accepted, so that no code in them can run.
        purpose: What needs them, as in 'LPIPS'.

    Raises:
        UserError: A file is missing, is of another kind, or a tensor is given twice, not floating point or not finite.
    """
    found: dict[str, torch.Tensor] = {}
    for path in (Path(part.strip()).expanduser() for part in paths.split(',')):
        for name, tensor in _read(path, purpose).items():
            if name in found:
                raise UserError(f'{path} holds {name}, and so does a file before it', 'give every weight once')
            _check(name, tensor, path)
            found[name] = tensor
    return found


def _read(path: Path, purpose: str) -> dict[str, torch.Tensor]:
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise UserError(f'{path} is not a file', f'give the weights of {purpose} ({_HELP})')
        with path.open('rb') as file:
            start = file.read(8)
    except OSError as error:
        raise UserError(f'{purpose} needs its weights, and {path} cannot be read ({error.strerror})', _HELP) from None
    if info.st_size > _LARGEST:
        raise UserError(f'{path} has {info.st_size} bytes, more than any weights of {purpose}', _HELP)
    if start.startswith(b'PK') and _is_program(path):
        raise UserError(
            f'{path} is TorchScript, a program that can do anything when it is loaded', f'give weights alone ({_HELP})'
        )
    raw = _read_safetensors(path) if _is_safetensors(start, info.st_size) else _read_torch(path, purpose)
    if not isinstance(raw, Mapping) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in raw.items()
    ):
        raise UserError(f'{path} holds more than tensors by name', f'give the state dict alone ({_HELP})')
    return dict(raw)


def _is_safetensors(start: bytes, size: int) -> bool:
    """The first eight bytes are the length of a JSON header."""
    return len(start) == 8 and int.from_bytes(start, 'little') < min(size, 1 << 27)


def _is_program(path: Path) -> bool:
    """Whether an archive of torch holds code or constants, as TorchScript does."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False  # torch says what is wrong with it
    return any('/code/' in f'/{name}' or name.endswith('constants.pkl') for name in names)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f'{path} cannot be read as safetensors ({error})', 'get the file again') from None


def _read_torch(path: Path, purpose: str):
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception:  # the reader raises nearly anything for damaged or hostile files, and at length
        raise UserError(
            f'{path} is neither safetensors nor a torch file that holds tensors alone, and nothing of it was run',
            f'give the weights of {purpose} ({_HELP})',
        ) from None


def _check(name: str, tensor: torch.Tensor, path: Path) -> None:
    if name.endswith('num_batches_tracked'):
        return
    if not tensor.is_floating_point():
        raise UserError(f'{path}: tensor {name} is {tensor.dtype}', 'give weights in floating point')
    if not torch.isfinite(tensor).all():
        raise UserError(f'{path}: tensor {name} holds NaN or infinity', 'get the file again')
