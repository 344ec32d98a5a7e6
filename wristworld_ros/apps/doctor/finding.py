"""One finding, and what all of them together mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

OK, WARNING, ERROR = STATES = ('ok', 'warning', 'error')  # in the order of their exit statuses


@dataclass(frozen=True)
class Finding:
    """What was found, and, unless all is well, what to do about it: two halves of one sentence, without the full stop.

    state: ok, warning (it works, less well than it could) or error (it does not work).
    """

    state: str
    what: str
    fix: str = ''

    def __post_init__(self):
        if self.state not in STATES:
            raise ValueError(f'A line has the state {self.state!r}; it takes one of {", ".join(STATES)}.')
        if (self.state == OK) != (self.fix == ''):
            raise ValueError(
                f'The line "{self.what}" is {self.state} and its fix {self.fix!r}; all but ok lines have one.'
            )

    def __str__(self) -> str:
        name = 'OK' if self.state == OK else self.state
        return f'{name:8}' + '; '.join(filter(None, (self.what, self.fix))) + '.'


def ok(what: str) -> Finding:
    """All is well."""
    return Finding(OK, what)


def warning(what: str, fix: str) -> Finding:
    """It works, less well than it could."""
    return Finding(WARNING, what, fix)


def error(what: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(ERROR, what, fix)


def from_error(raised: Exception) -> Finding:
    """The line of an exception of ours, whose sentence already is 'what; what to do.'"""
    what, _, fix = str(raised).rstrip('.').rpartition('; ')
    return error(what, fix) if what else error(fix, 'mend that and run this again')


def exit_status(lines: Iterable[Finding]) -> int:
    """0 when all is well, 1 with warnings only, 2 with an error."""
    return max((STATES.index(line.state) for line in lines), default=0)
