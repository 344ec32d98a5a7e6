"""A bar of progress for people who watch, and lines for files that are read later."""

from __future__ import annotations

import io
import sys
from typing import Any, TextIO

from tqdm import tqdm

_SECONDS = 30.0  # between two lines of a log


class ProgressBar(tqdm):
    """tqdm's bar on a terminal. Elsewhere (a log of a batch job, a pipe) the same figures as plain lines, at the start, at the end and
    every half minute: no carriage returns, which would make one endless line of a log."""

    def __init__(self, *args: Any, **kwargs: Any):
        stream = kwargs.get('file') or sys.stderr
        if not stream.isatty():
            kwargs |= {'file': _Lines(stream), 'ncols': 0, 'dynamic_ncols': False, 'mininterval': _SECONDS}
        super().__init__(*args, **kwargs)


class _Lines(io.TextIOBase):
    """Takes what is meant to overwrite a line of a terminal, and writes it as a line; what would only clear one is left out."""

    def __init__(self, stream: TextIO):
        self._stream, self._last = stream, ''

    @property
    def encoding(self) -> str:
        """The stream's; tqdm asks for it."""
        return getattr(self._stream, 'encoding', None) or 'ascii'

    def write(self, text: str) -> int:
        """Write the text as a line of its own, unless the line before is the same."""
        line = text.strip()
        if line and line != self._last:
            self._stream.write(f'{line}\n')
            self._stream.flush()
            self._last = line
        return len(text)
