"""How one setting is declared: a dataclass field with its meaning and bounds, shown, parsed and checked by that declaration.

A value that is worked out by the program is None in Python and has a word of its own everywhere else (`auto`, `never`, ...): no
number stands for it.
"""

from __future__ import annotations

import re
from dataclasses import Field, field, fields
from typing import Any

from wristworld_ros.errors import UserError

KINDS: dict[str, tuple[type, ...]] = {
    'bool': (bool,), 'int': (int,), 'float': (int, float), 'str': (str,), 'list': (list, tuple),
}  # fmt: skip
_NOUNS = {
    'bool': 'true or false',
    'int': 'a whole number',
    'float': 'a number',
    'str': 'a text',
    'list': 'a list of words',
}


def setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    live: bool = False,
    none: str = '',
    pattern: str = '',
    described: str = '',
) -> Any:
    """A field of a settings record.

    Args:
        default: Its value where none is given.
        doc: What it means, with units, as one or more sentences.
        low: Least number allowed.
        high: Largest number allowed.
        choices: Words allowed.
        live: Whether a running node takes a change at once.
        none: What None is called outside Python, as in 'auto'; '' where None is not allowed.
        pattern: Regular expression that a text, or every word of a list, matches as a whole. Such a list has at least one
            word, and none twice.
        described: What the pattern allows, in words.
    """
    metadata = {'doc': doc, 'low': low, 'high': high, 'choices': choices, 'live': live, 'none': none}
    metadata |= {'pattern': pattern, 'described': described}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def kind_of(f: Field) -> str:
    """The kind of a field's values: bool, int, float, str or list (of words).

    Raises:
        TypeError: A record has a field of another type; that is a mistake in the program, not of its user.
    """
    name = f.type if isinstance(f.type, str) else getattr(f.type, '__name__', str(f.type))
    kind, optional, rest = name.partition(' | None')
    if kind not in KINDS or rest or bool(optional) != bool(f.metadata.get('none')):
        raise TypeError(
            f'Setting {f.name} has type {name}; a setting is one of {", ".join(KINDS)}, and "| None" where `none` names it.'
        )
    return kind


def shown(f: Field, value: Any) -> Any:
    """A value as people write it: the word for None, everything else as it is."""
    return f.metadata['none'] if value is None else value


def parsed(f: Field, value: Any) -> Any:
    """The opposite of `shown`, for values from ROS or YAML: the word becomes None, an integer a float where one is wanted, and
    numbers in a list the words that they are written as."""
    if f.metadata.get('none') and value == f.metadata['none']:
        return None
    if kind_of(f) == 'float' and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind_of(f) == 'list' and isinstance(value, list):
        return [str(v) if isinstance(v, int | float) and not isinstance(v, bool) else v for v in value]
    return value


def check(settings: Any) -> None:
    """Raise UserError for the first value of a settings record that is not allowed."""
    for f in fields(settings):
        value = getattr(settings, f.name)
        if value is None and f.metadata.get('none'):
            continue
        _check_type(f, value)
        _check_value(f, value)
    if hasattr(settings, 'check_together'):
        settings.check_together()


def allowed(f: Field) -> str:
    """What a setting takes, in words: '0 to 1, or auto'."""
    m, parts = f.metadata, []
    if m.get('choices'):
        parts.append(', '.join(m['choices']))
    elif m.get('described'):
        parts.append(m['described'])
    elif m.get('low') is not None:
        parts.append(f'{m["low"]} to {m["high"]}' if m.get('high') is not None else f'{m["low"]} or more')
    if m.get('none'):
        parts.append(m['none'])
    return ', or '.join(parts)


def _check_type(f: Field, value: Any) -> None:
    kind = kind_of(f)
    wrong = not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != 'bool')
    if wrong or (kind == 'list' and not all(isinstance(v, str) for v in value)):
        word = f' or {f.metadata["none"]}' if f.metadata.get('none') else ''
        raise UserError(f'Setting {f.name} is {value!r}', f'give {_NOUNS[kind]}{word}')


def _check_value(f: Field, value: Any) -> None:
    m = f.metadata
    words = value if kind_of(f) == 'list' else [value]
    if m.get('choices') and (unknown := [v for v in words if v not in m['choices']]):
        raise UserError(
            f'Setting {f.name} is {value!r}, and {", ".join(map(repr, unknown))} is not allowed', f'give {allowed(f)}'
        )
    if m.get('pattern') and (wrong := [v for v in words if not re.fullmatch(m['pattern'], v)]):
        which = f', and {", ".join(map(repr, wrong))} is not allowed' if kind_of(f) == 'list' else ''
        raise UserError(f'Setting {f.name} is {value!r}{which}', f'give {allowed(f)}')
    if m.get('pattern') and not words:
        raise UserError(f'Setting {f.name} is empty', 'give at least one name')
    if (m.get('choices') or m.get('pattern')) and len(set(words)) < len(words):
        raise UserError(f'Setting {f.name} is {value!r}, which names one thing twice', 'name each once')
    if kind_of(f) in ('int', 'float'):
        low, high = m.get('low'), m.get('high')
        # Written so that NaN is refused too.
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            raise UserError(f'Setting {f.name} is {value!r}', f'give {allowed(f)}')
