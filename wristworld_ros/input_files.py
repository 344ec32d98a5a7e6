"""Files that come from outside: only regular files of a bounded size are opened, and JSON is decoded into types.

Every JSON file of the package is read here. A directory, pipe or device in place of a file, a file larger than it can
sensibly be, JSON nested without end, a key that is missing, unknown or of another type: each is one sentence.
"""

from __future__ import annotations

import dataclasses
import json
import math
import stat
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from wristworld_ros.errors import UserError

Kind = TypeVar('Kind')
# Numbers in files, bounded so that no file asks for unbounded work.
Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]  # channels, pixels, lengths
Depth = Annotated[int, msgspec.Meta(ge=0, le=512)]  # layers, blocks, rounds
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]

MAX_JSON = 16 << 20  # bytes; the largest that the package writes is some kilobytes per frame
MAX_LINES = 1 << 30  # bytes of a file of JSON lines, which grows with the length of a run
MAX_IMAGE = 256 << 20
RESTORE = 'restore it from where it came'
_KINDS = {
    stat.S_ISDIR: 'a directory', stat.S_ISFIFO: 'a named pipe', stat.S_ISSOCK: 'a socket', stat.S_ISCHR: 'a device',
    stat.S_ISBLK: 'a device',
}  # fmt: skip


def check_file(path: str | Path, fix: str = RESTORE, limit: int | None = None) -> Path:
    """Check that a path, links followed, is a regular file before anything opens it.

    Args:
        path: The file.
        fix: What to do where it is none.
        limit: Most bytes; None for no limit.

    Returns:
        The path.

    Raises:
        UserError: It is missing, is something else than a regular file, or is larger than the limit.
    """
    path = Path(path)
    try:
        facts = path.stat()
    except FileNotFoundError:
        raise UserError(f'{path} is missing', fix) from None
    except (OSError, ValueError) as error:  # a loop of links, a folder without permission, a NUL in the name
        raise UserError(f'{path} cannot be read ({getattr(error, "strerror", None) or error})', fix) from None
    if not stat.S_ISREG(facts.st_mode):
        kind = next((name for test, name in _KINDS.items() if test(facts.st_mode)), 'something else')
        raise UserError(f'{path} is {kind}, not a file', fix)
    if limit is not None and facts.st_size > limit:
        raise UserError(f'{path} has {facts.st_size} bytes, and at most {limit} are read', fix)
    return path


def read_bytes(path: str | Path, fix: str = RESTORE, limit: int = MAX_JSON) -> bytes:
    """The content of a regular file of bounded size; arguments and errors as in `check_file`."""
    path = check_file(path, fix, limit)
    try:
        with path.open('rb') as file:
            return file.read(limit)
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror or error})', 'make it readable') from None


def read_json(path: str | Path, kind: type[Kind], fix: str = RESTORE, limit: int = MAX_JSON) -> Kind:
    """Read a JSON file.

    Args:
        path: The file.
        kind: What it holds: a dataclass, a msgspec.Struct, or any type of these and of the built-in ones.
        fix: What to do where it does not.
        limit: Most bytes.

    Raises:
        UserError: The file cannot be read, is not JSON, or does not hold a `kind`; the sentence names file and key.
    """
    return decode_json(read_bytes(path, fix, limit), kind, str(path), fix)


def read_json_lines(path: str | Path, kind: type[Kind], fix: str = RESTORE) -> tuple[list[Kind], bool]:
    """Read a file with one JSON record per line.

    Args:
        path: The file; one that does not exist has no records.
        kind: What a line holds, as in `read_json`.
        fix: What to do where it does not.

    Returns:
        The records, and whether a last line without an end, which a killed program leaves, was left out.

    Raises:
        UserError: As in `read_json`; the sentence names the line.
    """
    if not Path(path).exists():
        return [], False
    *lines, rest = read_bytes(path, fix, MAX_LINES).split(b'\n')
    records = [
        decode_json(line, kind, f'{path}, line {number}', fix) for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not rest.strip():
        return records, False
    try:
        records.append(decode_json(rest, kind, str(path), fix))
    except UserError:
        return records, True
    return records, False


def decode_json(text: bytes | str, kind: type[Kind], source: str, fix: str = RESTORE) -> Kind:
    """Decode JSON text; arguments and errors as in `read_json`, with `source` for the file's name."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise _mismatch(error, source, fix) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f'{source} is not JSON ({str(error).rstrip(".")})', fix) from None
    except RecursionError:
        raise UserError(f'{source} is nested too deeply', fix) from None


def convert(value: Any, kind: type[Kind], source: str, fix: str = RESTORE, other_keys: bool = False) -> Kind:
    """Values that were decoded without a type, brought to one, e.g. a dictionary to a dataclass.

    Args:
        value: Dictionaries, lists, tuples, texts and numbers.
        kind: As in `read_json`.
        source: Where the value comes from, as the subject of a sentence.
        fix: What to do where it does not fit.
        other_keys: Whether keys that a dataclass does not have are ignored; they are refused otherwise.

    Raises:
        UserError: A value is missing, unknown, of another type or out of bounds, or the class itself refuses it.
    """
    if not other_keys and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        known = {field.name for field in dataclasses.fields(kind)}
        if unknown := sorted(str(key) for key in value if key not in known):
            raise UserError(
                f'{source} has the unknown key {", ".join(unknown)}', f'give some of {", ".join(sorted(known))}'
            )
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _mismatch(error, source, fix) from None
    except RecursionError:
        raise UserError(f'{source} is nested too deeply', fix) from None


def finite(value: Any) -> Any:
    """A value as JSON can hold it: numbers that are NaN or infinite become null."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any, indent: int | None = 1) -> str:
    """JSON text of a value, with its last line ended; `finite` is applied, so that every reader takes it."""
    return json.dumps(finite(value), indent=indent, allow_nan=False) + '\n'


def check_folder(folder: str | Path, what: str = '--out') -> Path:
    """Check, before any work, that files can go into a folder: it is one, or is not there yet.

    Args:
        folder: The path.
        what: What named it, for the message.

    Raises:
        UserError: Something else is in its place, or in the place of one of its parents.
    """
    folder = Path(folder)
    for path in (folder, *folder.parents):
        if path.is_dir():
            return folder
        if path.exists() or path.is_symlink():
            raise UserError(f'{what} is {folder}, and {path} is not a folder', 'choose another')
    return folder


def check_name(name: str, what: str) -> str:
    """Check that a name which becomes part of a path stays in its folder.

    Args:
        name: As in 'virtual_wrist'.
        what: What it names, as the subject of a sentence: '--name'.

    Returns:
        The name.

    Raises:
        UserError: It is empty, '.' or '..', hidden, too long, or holds a slash or a character that cannot be printed.
    """
    if (
        not name
        or name.startswith('.')
        or '/' in name
        or '\\' in name
        or not name.isprintable()
        or len(name.encode()) > 200
    ):
        raise UserError(
            f'{what} is {name!r}', 'give a plain name, without slashes and without a full stop at its start'
        )
    return name


def _mismatch(error: msgspec.ValidationError, source: str, fix: str) -> UserError:
    cause = error.__cause__
    if isinstance(cause, UserError):  # a dataclass that checks itself
        return UserError(cause.what if cause.what.startswith(source) else f'{source}: {cause.what}', cause.fix)
    reason, _, where = str(error).partition(' - at ')
    key = where.strip('`').removeprefix('$').removeprefix('.')
    reason = reason.rstrip('.')
    return UserError(f'{source}{f", {key}" if key else ""}: {reason[:1].lower()}{reason[1:]}', fix)
