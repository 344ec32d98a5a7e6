"""Child processes that end when the process that started them is gone, however that ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# Loaded here: between fork and exec a child must not load anything.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == 'linux' else None


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, even by SIGKILL; called first thing in the child.

    The parent, for the kernel, is the thread that started the child: start children from a thread that stays.

    Args:
        parent: Process id of the parent. Where it is gone already, this process ends at once.
    """
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
