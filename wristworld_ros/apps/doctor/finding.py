"""One finding, and the exit status of all of them together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wristworld_ros.errors import UserError

OK, WARNING, ERROR = STATES = ('ok', 'warning', 'error')  # in the order of their exit statuses


@dataclass(frozen=True)
class Finding:
    """What was found and, unless it is ok, what to do about it: two halves of one sentence, without the full stop.

    state: ok, warning (it works, but less well than it could) or error (it does not work).
    """

    state: str
    what: str
    fix: str = ''

    def __post_init__(self):
        if self.state not in STATES:
            raise ValueError(f'A finding has the state {self.state!r}; it takes one of {", ".join(STATES)}.')
        if (self.state == OK) != (self.fix == ''):
            raise ValueError(
                f'The finding "{self.what}" is {self.state} and its fix {self.fix!r}; all but ok findings have one.'
            )

    def __str__(self) -> str:
        name = 'OK' if self.state == OK else self.state
        return f'{name:8}' + '; '.join(filter(None, (self.what, self.fix))) + '.'


def ok(what: str) -> Finding:
    """Nothing to do."""
    return Finding(OK, what)


def warning(what: str, fix: str) -> Finding:
    """It works, but less well than it could."""
    return Finding(WARNING, what, fix)


def error(what: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(ERROR, what, fix)


def from_error(raised: UserError) -> Finding:
    """The finding of an error that the package would raise."""
    return error(raised.what, raised.fix)


def exit_status(findings: Iterable[Finding]) -> int:
    """0 when all are ok, 1 with warnings only, 2 with an error."""
    return max((STATES.index(finding.state) for finding in findings), default=0)
