"""Settings records as command-line options: one source, `settings.py`, for both."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, fields
from typing import Any

_KINDS = {'int': int, 'float': float, 'str': str}


def add_options(
    parser: argparse._ActionsContainer, record: type, only: tuple[str, ...] = (), defaults: Any = None
) -> None:
    """Add an option for every field of a settings dataclass: its name, type, choices, default and documentation.

    record: a dataclass whose fields are bool, int, float, str or list (of words). only: field names to take; empty
    takes all. defaults: an instance whose values replace the record's own defaults.
    """
    for f in fields(record):
        if only and f.name not in only:
            continue
        default = getattr(defaults, f.name) if defaults is not None else _default(f)
        doc = f.metadata.get('doc', '').replace('%', '%%')
        shown = ' '.join(map(str, default)) if isinstance(default, list | tuple) else default
        text = f'{doc} Default: {shown}.' if shown != '' else doc
        flag, kind = '--' + f.name.replace('_', '-'), f.type if isinstance(f.type, str) else f.type.__name__
        common: dict[str, Any] = {'dest': f.name, 'default': default, 'help': text}
        if kind == 'bool':
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        elif kind.startswith(('list', 'tuple')):
            choices = f.metadata.get('choices')
            parser.add_argument(
                flag, nargs='*' if choices else '+', choices=choices, metavar=None if choices else 'NAME', **common
            )
        elif kind in _KINDS:
            choices = f.metadata.get('choices')
            metavar = None if choices else {'int': 'N', 'float': 'X', 'str': 'TEXT'}[kind]
            parser.add_argument(flag, type=_KINDS[kind], choices=choices, metavar=metavar, **common)


def from_options(record: type, args: argparse.Namespace) -> Any:
    """The settings record that parsed options describe; fields that were not offered keep their defaults."""
    return record(**{f.name: getattr(args, f.name) for f in fields(record) if hasattr(args, f.name)})


def _default(f) -> Any:
    return f.default if f.default is not MISSING else f.default_factory()
