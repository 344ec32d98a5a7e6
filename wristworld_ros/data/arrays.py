"""Arrays in .npz files, read within bounds."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import check_file

MAX_BYTES = 1 << 30  # of all arrays of a file together


def read_arrays(path: str | Path, fix: str, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Every array of an .npz file by name; nothing in it is executed.

    Args:
        path: The file.
        fix: What to do where it cannot be read.
        only: Names of the arrays that are read, as far as they are there; None for all.

    Raises:
        UserError: It is no regular file, is no .npz file, holds objects, or unpacks to more than `MAX_BYTES`.
    """
    path = check_file(path, fix, MAX_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
        if total > MAX_BYTES:
            raise UserError(f'{path} unpacks to {total} bytes, and at most {MAX_BYTES} are read', fix)
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files if only is None or name in only}
    except UserError:
        raise
    except (OSError, ValueError, EOFError, MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip('.')
        raise UserError(f'{path} cannot be read as arrays ({reason})', fix) from None
