"""Settings records say what they take, and everything that reads them agrees."""

from dataclasses import dataclass, fields

import pytest

from wristworld_ros.errors import UserError
from wristworld_ros.options import add_options
from wristworld_ros.setting import allowed, check, kind_of, parsed, setting, shown
from wristworld_ros.settings import CameraSettings, NodeSettings, StreamSettings, WindowSettings

RECORDS = [StreamSettings, NodeSettings, WindowSettings, CameraSettings]


@pytest.mark.parametrize('record', RECORDS)
def test_the_defaults_are_allowed(record):
    check(record())


@pytest.mark.parametrize('record', RECORDS)
def test_what_is_shown_is_read_back(record):
    for f in fields(record):
        value = getattr(record(), f.name)
        assert parsed(f, shown(f, value)) == value, f.name


# A height or a threshold of 0 means just that.
ZERO_IS_A_VALUE = {'table_height', 'min_confidence'}


@pytest.mark.parametrize('record', RECORDS)
def test_zero_is_no_setting_that_means_automatic(record):
    for f in fields(record):
        m = f.metadata
        if m['none'] and m['low'] is not None and f.name not in ZERO_IS_A_VALUE:
            assert m['low'] > 0, f'{f.name} takes 0 beside {m["none"]}'


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'chunk': 0}, 'chunk is 0; give 1 to 16'),
        ({'chunk': True}, 'chunk is True'),
        ({'chunk': 1.5}, 'chunk is 1.5; give a whole number'),
        ({'near': 0.0}, 'near is 0.0; give 0.001 to 1.0, or auto'),
        ({'near': float('nan')}, 'near is nan'),
        ({'device': 'tpu'}, 'device is .tpu.'),
        ({'seed': None}, 'seed is None'),
        ({'on_out_of_memory': ['history', 'history']}, 'twice'),
        ({'on_out_of_memory': 'history'}, 'list of words'),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(change, words):
    with pytest.raises(UserError, match=words):
        check(StreamSettings(**change))


def test_none_is_allowed_where_it_has_a_word():
    check(StreamSettings(near=None, threads=None, reanchor=None))
    near = next(f for f in fields(StreamSettings) if f.name == 'near')
    assert parsed(near, 'auto') is None and parsed(near, 1) == 1.0 and isinstance(parsed(near, 1), float)
    assert shown(near, None) == 'auto' and allowed(near) == '0.001 to 1.0, or auto'


@dataclass(frozen=True)
class Wrong:
    size: tuple = setting((1, 2), 'A size.')


@dataclass(frozen=True)
class WithoutWord:
    size: 'int | None' = setting(None, 'A size.')


@pytest.mark.parametrize('record', [Wrong, WithoutWord])
def test_a_field_of_an_unknown_type_is_a_mistake_that_shows(record):
    import argparse

    with pytest.raises(TypeError, match='size'):
        kind_of(fields(record)[0])
    with pytest.raises(TypeError, match='size'):
        add_options(argparse.ArgumentParser(), record)
