"""Files from outside: whatever lies in the place of a JSON file is one sentence, and nothing hangs or fills the memory."""

import os
from dataclasses import dataclass

import pytest

from wristworld_ros import input_files
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import (
    check_file,
    check_name,
    convert,
    decode_json,
    json_text,
    read_json,
    read_json_lines,
)


@dataclass
class Entry:
    number: int
    share: input_files.Share = 0.5
    names: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (b'', 'is not JSON'),
        (b'\xff\xfe', 'is not JSON'),
        (b'{"number": 1', 'is not JSON'),
        (b'{"number": NaN}', 'is not JSON'),
        (b'{"number": 1e999}', 'number: number out of range'),
        (b'{"number": "1"}', 'number: expected `int`, got `str`'),
        (b'{"number": true}', 'number: expected `int`, got `bool`'),
        (b'{"number": null}', 'got `null`'),
        (b'{"number": 1, "share": 2.0}', 'share: expected `float` <= 1.0'),
        (b'{"number": 1, "names": "ab"}', 'names: expected `array`, got `str`'),
        (b'{"number": 1, "names": [1]}', r'names\[0\]: expected `str`'),
        (b'{}', 'missing required field `number`'),
        (b'[1]', 'expected `object`, got `array`'),
        (b'7', 'expected `object`, got `int`'),
        (b'[' * 10_000_000, 'expected `object`'),
        (b'{"other": ' + b'[' * 10_000_000, 'nested too deeply'),
        (b'{"number": 1, "other": ' + b'{"a":' * 1_000_000, 'nested too deeply'),
    ],
)
def test_json_that_is_not_what_is_wanted_is_one_sentence_with_file_and_key(tmp_path, text, words):
    path = tmp_path / 'file.json'
    path.write_bytes(text)
    with pytest.raises(UserError, match=words) as error:
        read_json(path, Entry, limit=100 << 20)
    assert str(path) in str(error.value) and '\n' not in str(error.value) and len(str(error.value)) < 400


def test_nesting_without_a_wanted_type_is_refused_too():
    with pytest.raises(UserError, match='nested too deeply'):
        decode_json('[' * 10_000_000, object, 'it')


def test_what_is_no_regular_file_is_named_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'zero').symlink_to('/dev/zero')
    (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
    for name, words in (
        ('pipe', 'a named pipe'),
        ('zero', 'a device'),
        ('', 'a directory'),
        ('none', 'missing'),
        ('loop', 'read'),
    ):
        with pytest.raises(UserError, match=words):
            read_json(tmp_path / name, Entry)
    with pytest.raises(UserError, match='cannot be read'):
        check_file('a\0b')


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / 'large.json'
    with path.open('wb') as file:
        file.truncate(1 << 40)  # sparse: no space on the disk
    with pytest.raises(UserError, match='and at most'):
        read_json(path, Entry)
    with pytest.raises(UserError, match='and at most'):
        read_json_lines(path, Entry)


def test_a_cut_last_line_is_left_out_and_said_and_others_are_errors(tmp_path):
    path = tmp_path / 'lines.jsonl'
    path.write_text('{"number": 1}\n{"number": 2}\n{"numb')
    assert read_json_lines(path, Entry) == ([Entry(1), Entry(2)], True)
    path.write_text('{"number": 1}\n{"number": 2}')
    assert read_json_lines(path, Entry) == ([Entry(1), Entry(2)], False)
    path.write_text('{"number": 1}\n{"numb\n{"number": 2}\n')
    with pytest.raises(UserError, match='line 2 is not JSON'):
        read_json_lines(path, Entry)
    assert read_json_lines(tmp_path / 'none', Entry) == ([], False)


def test_unknown_keys_are_refused_unless_said():
    with pytest.raises(UserError, match='The entry has the unknown key size; give some of names, number, share'):
        convert({'number': 1, 'size': 2}, Entry, 'The entry')
    assert convert({'number': 1, 'size': 2}, Entry, 'The entry', other_keys=True) == Entry(1)


def test_what_is_written_can_be_read_whatever_the_numbers():
    text = json_text({'a': float('nan'), 'b': [float('inf'), 1.5], 'c': (2,)})
    assert decode_json(text, dict, 'it') == {'a': None, 'b': [None, 1.5], 'c': [2]}


@pytest.mark.parametrize(
    'name', ['', '.', '..', '../x', 'a/b', '/etc/passwd', '.hidden', 'a\\b', 'a\0b', 'a\nb', 'x' * 300]
)
def test_a_name_that_leads_out_of_its_folder_is_refused(name):
    with pytest.raises(UserError, match='--name is'):
        check_name(name, '--name')


def test_plain_names_are_taken():
    for name in ('virtual_wrist', 'run 2', 'Küche-1.5', 'x..y'):
        assert check_name(name, '--name') == name
