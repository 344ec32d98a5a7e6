"""Numbers in words."""

from __future__ import annotations


def gib(n_bytes: float) -> str:
    """Bytes: GiB, or MiB below one."""
    if n_bytes >= 2**30:
        return f'{n_bytes / 2**30:.1f} GiB'
    return f'{n_bytes / 2**20:.0f} MiB' if n_bytes >= 10 * 2**20 else f'{n_bytes / 2**20:.1f} MiB'
