"""Writing a model directory: all of it or nothing, and one tensor at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from wristworld_ros.pipeline import ModelError

# safetensors' names of what checkpoints hold.
_DTYPES = {
    torch.float64: 'F64', torch.float32: 'F32', torch.float16: 'F16', torch.bfloat16: 'BF16', torch.int64: 'I64',
    torch.int32: 'I32', torch.int16: 'I16', torch.int8: 'I8', torch.uint8: 'U8', torch.bool: 'BOOL',
}  # fmt: skip
_PIECE = 1 << 24

Count = Callable[[int], object]


@contextmanager
def new_directory(target: Path, force: bool = False) -> Iterator[Path]:
    """A directory that takes the target's name when the block ends well, and is gone when it does not.

    It lies beside the target, so that the last step is a rename. What a killed run left there is cleared by the next
    one; a run that is still at work is not disturbed. force: an older model directory gives way, at the end.
    Raises ModelError when the target is there without force, is no model directory, or another run is writing it.
    """
    target = target.expanduser().absolute()
    making = target.with_name(f'.{target.name}.converting')
    older = target.with_name(f'.{target.name}.replaced')
    target.parent.mkdir(parents=True, exist_ok=True)
    making.mkdir(exist_ok=True)
    lock = os.open(making, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelError(f'{target} is being written by another conversion; wait for it.') from None
        try:
            if older.exists() and not target.exists():  # a run that was killed between its last two renames
                older.rename(target)
            _check_target(target, force)
            _clear(making)
            yield making
            if os.path.lexists(target):
                shutil.rmtree(older, ignore_errors=True)
                target.rename(older)
            making.rename(target)
            shutil.rmtree(older, ignore_errors=True)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def _check_target(target: Path, force: bool) -> None:
    if not os.path.lexists(target):
        return
    if not force:
        raise ModelError(f'{target} is there already; give another --out, or --force to replace it.')
    model = target.is_dir() and not target.is_symlink()
    if not model or (any(target.iterdir()) and not (target / 'config.json').is_file()):
        raise ModelError(f'{target} is no model directory, so --force does not replace it; give another --out.')


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def stored_dtype(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype a tensor has on disk: its own, or the wanted one where it is floating."""
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def stored_bytes(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None) -> int:
    """Bytes that tensors take on disk."""
    return sum(t.numel() * stored_dtype(t, dtype).itemsize for t in tensors.values())


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None, count: Count = lambda n: None
) -> str:
    """Write a safetensors file; memory holds one tensor at a time (the library's own writer holds them all).

    tensors: name -> tensor on the CPU, perhaps mapped from a file. dtype: of floating tensors on disk, None leaves each
    as it is. count: told the bytes as they are written. Returns the file's sha256. Raises ValueError naming a tensor
    that is not finite in its dtype on disk, or of a dtype that the format has not.
    """
    header, ordered, end = {'__metadata__': {'format': 'pt'}}, [], 0
    # The format wants aligned tensors without gaps: widest first.
    for name in sorted(tensors, key=lambda n: (-stored_dtype(tensors[n], dtype).itemsize, n)):
        tensor, kind = tensors[name], stored_dtype(tensors[name], dtype)
        if kind not in _DTYPES:
            raise ValueError(f'{path.name}: {name} is {tensor.dtype}, which cannot be stored; choose another --dtype.')
        start, end = end, end + tensor.numel() * kind.itemsize
        header[name] = {'dtype': _DTYPES[kind], 'shape': list(tensor.shape), 'data_offsets': [start, end]}
        ordered.append((name, tensor, kind))
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open('xb') as file:
        for part in (len(text).to_bytes(8, 'little'), text):
            file.write(part)
            digest.update(part)
        for name, tensor, kind in ordered:
            tensor = tensor.detach().to(kind)
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise ValueError(
                    f'{path.name}: {name} is not finite as {kind}; choose another --dtype, or download its file again.'
                )
            data = memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
            for at in range(0, len(data), _PIECE):
                piece = data[at : at + _PIECE]
                file.write(piece)
                digest.update(piece)
                count(len(piece))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def file_sha256(path: Path, count: Count = lambda n: None) -> str:
    """sha256 of a file; count is told the bytes as they are read."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            count(len(piece))
    return digest.hexdigest()
