"""Keys of what is derived from recorded files: a cache that another file or other settings made is never taken."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_SMALL = 1 << 20  # bytes; larger files count by size and time of change


def cache_key(source: Path, **settings: Any) -> str:
    """Key of what is made from a file or a directory with some settings, 16 hexadecimal digits.

    Small files count by their content, large ones by size and time of change; where the source lies does not count.

    Args:
        source: The file, or the directory of an episode.
        settings: Everything else that the result depends on, as JSON can hold it; Paths and dataclasses as text.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=repr).encode())
    source = Path(source)
    for path in sorted(source.rglob('*')) if source.is_dir() else [source]:
        if path.is_file():
            name = path.relative_to(source).as_posix() if source.is_dir() else path.name
            digest.update(f'\0{name}\0'.encode())
            digest.update(_identity(path))
    return digest.hexdigest()[:16]


def _identity(path: Path) -> bytes:
    facts = path.stat()
    if facts.st_size <= _SMALL:
        return hashlib.sha256(path.read_bytes()).digest()
    return f'{facts.st_size} {facts.st_mtime_ns}'.encode()
