"""Settings records as command-line options: one source, the record, for both."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

from wristworld_ros.setting import allowed, kind_of, shown

Record = TypeVar('Record')
_CONVERT: dict[str, Callable[[str], Any]] = {'int': int, 'float': float, 'str': str}
_METAVAR = {'int': 'N', 'float': 'X', 'str': 'TEXT'}


def add_options(
    parser: argparse._ActionsContainer, record: type, only: tuple[str, ...] = (), defaults: Any = None
) -> None:
    """Add an option for every field of a settings record: its name, type, choices, default and documentation.

    Args:
        parser: Where the options go.
        record: A dataclass whose fields are made by `setting.setting`.
        only: Names of the fields to offer; empty offers all.
        defaults: An instance whose values replace the record's own defaults.

    Raises:
        TypeError: A field has a type that no option can have.
    """
    for f in fields(record):
        if not only or f.name in only:
            _add_option(parser, f, default_of(f) if defaults is None else getattr(defaults, f.name))


def from_options(record: type[Record], args: argparse.Namespace) -> Record:
    """The settings record that parsed options describe; fields that were not offered keep their defaults."""
    return record(**{f.name: getattr(args, f.name) for f in fields(record) if hasattr(args, f.name)})  # type: ignore[arg-type]


def default_of(f: Field) -> Any:
    """The default of one field."""
    return f.default if f.default_factory is MISSING else f.default_factory()


def _add_option(parser: argparse._ActionsContainer, f: Field, default: Any) -> None:
    flag, kind, choices = '--' + f.name.replace('_', '-'), kind_of(f), f.metadata.get('choices')
    common: dict[str, Any] = {'dest': f.name, 'default': default, 'help': _help(f, default)}
    if kind == 'bool':
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
    elif kind == 'list':
        metavar = None if choices else 'NAME'
        parser.add_argument(flag, nargs='*' if choices else '+', choices=choices, metavar=metavar, **common)
    elif choices:
        parser.add_argument(flag, type=_CONVERT[kind], choices=choices, **common)
    else:
        parser.add_argument(flag, type=_converter(f, kind), metavar=_METAVAR[kind], **common)


def _converter(f: Field, kind: str) -> Callable[[str], Any]:
    """Text to value; the field's word for None becomes None."""
    convert, none, pattern = _CONVERT[kind], f.metadata.get('none'), f.metadata.get('pattern')

    def value(text: str) -> Any:
        if none and text == none:
            return None
        if pattern and not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f'{text!r} is not allowed; give {allowed(f)}')
        return convert(text)

    value.__name__ = f'{kind} or {none!r}' if none else kind  # argparse names it in "invalid ... value"
    return value


def _help(f: Field, default: Any) -> str:
    doc = f.metadata.get('doc', '').replace('%', '%%')
    value = ' '.join(map(str, default)) if isinstance(default, list | tuple) else shown(f, default)
    return f'{doc} Default: {value}.' if value != '' else doc
