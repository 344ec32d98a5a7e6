"""Errors that a user can fix are one sentence with two halves, everywhere."""

import ast
import pickle
from pathlib import Path

import pytest

from wristworld_ros.errors import MissingPackageError, UserError, require_package

PACKAGE = Path(__file__).resolve().parents[2] / 'wristworld_ros'


def test_the_halves_make_a_sentence():
    error = UserError('The cup is empty', 'fill it')
    assert str(error) == 'The cup is empty; fill it.' and (error.what, error.fix) == ('The cup is empty', 'fill it')


def test_an_error_survives_pickling_with_its_class_and_attributes():
    error = MissingPackageError('a', 'b')
    error.cause = 3
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is MissingPackageError and (again.what, again.fix, again.cause) == ('a', 'b', 3)


def test_a_missing_package_is_answered_with_the_command_that_installs_it():
    require_package('json', 'view', 'The report')
    with pytest.raises(
        MissingPackageError, match=r"The report needs .* no_such_package.*pip install 'wristworld-ros\[view\]'"
    ):
        require_package('no_such_package', 'view', 'The report')


def raised_user_errors():
    """(file, line, text of a half) of every UserError that is raised with a literal."""
    for path in sorted(PACKAGE.rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and len(node.args) == 2):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, 'attr', '')
            if name not in ('UserError', 'ModelError'):
                continue
            for half in node.args:
                parts = half.values if isinstance(half, ast.JoinedStr) else [half]
                text = ''.join(str(p.value) if isinstance(p, ast.Constant) else '{}' for p in parts)
                yield path.relative_to(PACKAGE), node.lineno, text


def test_no_half_ends_like_a_sentence():
    wrong = [
        f'{path}:{line} {text!r}' for path, line, text in raised_user_errors() if text.rstrip().endswith(('.', ';'))
    ]
    assert not wrong
