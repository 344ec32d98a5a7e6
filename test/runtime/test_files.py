"""Files and directories appear whole or not at all."""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys

import pytest

from wristworld_ros.errors import UserError
from wristworld_ros.runtime.files import clear_leftovers, file_sha256, new_directory, write_atomically


def test_the_hash_is_sha256_and_every_byte_is_counted(tmp_path):
    path, seen = tmp_path / 'file', []
    path.write_bytes(b'x' * 1000)
    assert file_sha256(path, seen.append) == hashlib.sha256(b'x' * 1000).hexdigest() and sum(seen) == 1000


def test_a_file_appears_at_the_end(tmp_path):
    path = tmp_path / 'new' / 'file.txt'
    with write_atomically(path) as part:
        part.write_text('all of it')
        assert not path.exists()
    assert path.read_text() == 'all of it' and os.listdir(path.parent) == ['file.txt']


def test_a_file_that_was_not_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / 'file.txt'
    path.write_text('old')
    with pytest.raises(KeyError), write_atomically(path) as part:
        part.write_text('half')
        raise KeyError
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['file.txt']


def test_a_full_disk_is_one_sentence(tmp_path):
    with (
        pytest.raises(UserError, match=r'file\.txt cannot be written \(No space left'),
        write_atomically(tmp_path / 'file.txt'),
    ):
        raise OSError(28, 'No space left on device')


def test_a_directory_appears_at_the_end_and_replaces_only_its_own_kind(tmp_path):
    target = tmp_path / 'model'
    with new_directory(target) as making:
        (making / 'config.json').write_text('1')
        assert not target.exists()
    assert (target / 'config.json').read_text() == '1'
    with (
        pytest.raises(UserError, match='exists already; give another place, or replace it with --force'),
        new_directory(target),
    ):
        pass
    with new_directory(target, replace=True) as making:
        (making / 'config.json').write_text('2')
    assert (target / 'config.json').read_text() == '2' and os.listdir(tmp_path) == ['model']
    (target / 'config.json').unlink()
    (target / 'thesis.txt').write_text('years of work')
    with pytest.raises(UserError, match=r'holds no config\.json'), new_directory(target, replace=True):
        pass
    assert (target / 'thesis.txt').exists()


def test_two_runs_do_not_write_one_directory(tmp_path):
    making = tmp_path / '.model.making'
    making.mkdir()
    lock = os.open(making, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(UserError, match='another run'), new_directory(tmp_path / 'model'):
        pass
    os.close(lock)


def test_what_a_killed_run_left_is_cleared(tmp_path):
    making = tmp_path / '.model.making'
    (making / 'half').mkdir(parents=True)
    with new_directory(tmp_path / 'model') as folder:
        (folder / 'config.json').write_text('{}')
    assert os.listdir(tmp_path / 'model') == ['config.json']


HALF = """
import os, signal, sys
from pathlib import Path
from wristworld_ros.runtime.files import new_directory, write_atomically
folder = Path(sys.argv[1])
with new_directory(folder / 'episode') as making, write_atomically(folder / 'video.mp4') as part:
    (making / 'half').write_text('half')
    part.write_text('half')
    print('half', flush=True)
    sys.stdin.read()
"""


def test_leftovers_of_a_killed_run_are_cleared_and_those_of_a_live_one_stay(tmp_path):
    (tmp_path / '.hidden').write_text('of the user')
    (tmp_path / '.config').mkdir()
    run = subprocess.Popen([sys.executable, '-c', HALF, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    run.stdout.readline()
    half = {'.config', '.hidden', '.episode.making', '.video.part.mp4'}
    assert set(os.listdir(tmp_path)) == half
    clear_leftovers(tmp_path)
    assert set(os.listdir(tmp_path)) == half, 'a run that is still at work was disturbed'
    with pytest.raises(UserError, match='being written by another run'), write_atomically(tmp_path / 'video.mp4'):
        pass
    assert (tmp_path / '.video.part.mp4').read_text() == 'half'
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdin.close()
    run.stdout.close()
    clear_leftovers(tmp_path)
    assert set(os.listdir(tmp_path)) == {'.config', '.hidden'}
    clear_leftovers(tmp_path / 'none')


def test_the_only_copy_of_a_replaced_directory_is_not_cleared(tmp_path):
    (tmp_path / '.model.replaced').mkdir()
    (tmp_path / '.model.replaced' / 'config.json').write_text('1')
    clear_leftovers(tmp_path)
    assert (tmp_path / '.model.replaced' / 'config.json').exists()
    (tmp_path / 'model').mkdir()
    clear_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ['model']


def test_a_part_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / 'other').write_text('kept')
    (tmp_path / '.file.part.txt').symlink_to(tmp_path / 'other')
    with pytest.raises(UserError, match='cannot be written'), write_atomically(tmp_path / 'file.txt') as part:
        part.write_text('gone')
    assert (tmp_path / 'other').read_text() == 'kept'
