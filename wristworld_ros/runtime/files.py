"""Files and directories that appear whole or not at all, and their hashes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wristworld_ros.errors import UserError

_PIECE = 1 << 24
# What a disk refuses; any other OSError inside `new_directory` comes from what the caller reads, and names its own file.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


def file_sha256(path: Path, on_bytes: Callable[[int], object] = lambda count: None) -> str:
    """sha256 of a file in hexadecimal; on_bytes is told the number of bytes as they are read."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            on_bytes(len(piece))
    return digest.hexdigest()


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well, and is gone when it does not.

    A run that is killed leaves it behind, empty or half written; the next one clears it (`clear_leftovers`).

    Raises:
        UserError: The file cannot be written (a full disk, no permission), or another run is writing it.
    """
    path = Path(path)
    part = path.with_name(f'.{path.stem}.part{path.suffix}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        if not _locked(lock):
            raise UserError(f'{path} is being written by another run', 'wait for it')
        try:
            yield part
            os.replace(part, path)
        except BaseException as error:
            part.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise write_error(path, error) from error
            raise
    finally:
        os.close(lock)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; errors as in `write_atomically`."""
    with write_atomically(path) as part:
        part.write_text(text)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed runs left in a folder: directories and files that were being made. Those of live runs stay.

    Args:
        folder: Where `write_atomically` and `new_directory` have written; it need not exist.
    """
    for entry in Path(folder).glob('.*'):
        directory = entry.is_dir() and not entry.is_symlink()
        if entry.name.endswith('.replaced') and directory:
            # A run that was killed between the two renames of a replacement leaves the only copy here.
            if os.path.lexists(entry.with_name(entry.name[1:].removesuffix('.replaced'))):
                shutil.rmtree(entry, ignore_errors=True)
            continue
        part = Path(entry.stem).suffix == '.part' or entry.suffix == '.part'
        if not (entry.name.endswith('.making') if directory else part and entry.is_file()):
            continue
        try:
            lock = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if _locked(lock):
                shutil.rmtree(entry, ignore_errors=True) if directory else entry.unlink(missing_ok=True)
        finally:
            os.close(lock)


def check_apart(source: Path, target: Path) -> None:
    """Raise UserError where one of two paths lies within the other, or both are one, also by symbolic links: what is only read would get
    files, or be replaced."""
    source, target = Path(source).expanduser(), Path(target).expanduser()
    ours, theirs = target.resolve(), source.resolve()
    if ours == theirs or theirs in ours.parents or ours in theirs.parents:
        raise UserError(f'{target} and {source} lie within each other', 'give a target beside the source')


@contextmanager
def new_directory(target: Path, replace: bool = False, marker: str = 'config.json') -> Iterator[Path]:
    """A directory that takes the target's name when the block ends well, and is gone when it does not.

    It lies beside the target, so that the last step is a rename. What a killed run left there is cleared by the next
    one; a run that is still at work is not disturbed.

    Args:
        target: The directory to make.
        replace: Whether an older directory gives way, at the end.
        marker: A file that every directory of this kind has; one without it is not replaced.

    Raises:
        UserError: The target exists and may not be replaced, another run is writing it, or the disk refuses (full, read
            only, no permission).
    """
    target = Path(target).expanduser().absolute()
    making, older = target.with_name(f'.{target.name}.making'), target.with_name(f'.{target.name}.replaced')
    try:
        making.mkdir(parents=True, exist_ok=True)
        lock = os.open(making, os.O_RDONLY)
    except OSError as error:
        raise write_error(target, error) from error
    try:
        if not _locked(lock):
            raise UserError(f'{target} is being written by another run', 'wait for it')
        try:
            if older.exists() and not target.exists():  # a run that was killed between its last two renames
                older.rename(target)
            _check_target(target, replace, marker)
            _clear(making)
            yield making
            if os.path.lexists(target):
                shutil.rmtree(older, ignore_errors=True)
                target.rename(older)
            making.rename(target)
            shutil.rmtree(older, ignore_errors=True)
        except BaseException as error:
            shutil.rmtree(making, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise write_error(target, error) from error
            raise
    finally:
        os.close(lock)


def _locked(descriptor: int) -> bool:
    """Take the lock of an open file or directory; False where another process has it. It goes with the process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class WriteError(UserError):
    """The disk refuses a file: another input would not help."""


def write_error(path: Path, error: OSError) -> WriteError:
    """What an operating system's refusal to write a file means to a user."""
    return WriteError(
        f'{path} cannot be written ({error.strerror or error})',
        'free disk space, check permissions, or choose another folder',
    )


def _check_target(target: Path, replace: bool, marker: str) -> None:
    if not os.path.lexists(target):
        return
    if not replace:
        raise UserError(f'{target} exists already', 'give another place, or replace it with --force')
    made_here = target.is_dir() and not target.is_symlink()
    if not made_here or (any(target.iterdir()) and not (target / marker).is_file()):
        raise UserError(f'{target} holds no {marker}, so --force does not replace it', 'give another place')


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
