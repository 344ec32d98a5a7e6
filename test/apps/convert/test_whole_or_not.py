"""A conversion that ends in the middle, however it ends, leaves the target as it was."""

import os

import pytest

from wristworld_ros.apps.convert import convert as module
from wristworld_ros.errors import UserError
from wristworld_ros.pipeline.model_directory import load_stage1

STAGE1 = 'VGGT/checkpoint.pt'


def test_an_existing_target_is_kept_unless_forced_and_then_wholly_replaced(release, tmp_path, convert):
    out = convert(release, tmp_path / 'out', parts='stage1')
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(UserError, match='--force'):
        convert(release, out)
    assert before == {p.name: p.read_bytes() for p in out.iterdir()}
    (out / 'left over').write_text('of the old model')
    convert(release, out, force=True)
    assert sorted(os.listdir(out)) == [
        'README.md', 'autoencoder.safetensors', 'config.json', 'generator.safetensors', 'stage1.safetensors'
    ]  # fmt: skip
    assert os.listdir(tmp_path) == ['out']


def test_force_replaces_no_directory_that_is_not_a_model(release, tmp_path, convert):
    precious = tmp_path / 'home' / 'thesis.txt'
    precious.parent.mkdir()
    precious.write_text('everything')
    with pytest.raises(UserError, match='--force does not replace it'):
        convert(release, precious.parent, force=True)
    assert precious.read_text() == 'everything'


def test_a_target_that_holds_the_sources_is_refused(own_release, convert):
    (own_release / 'config.json').write_text('{}')
    with pytest.raises(UserError, match='would replace'):
        convert(own_release, own_release, force=True)
    assert (own_release / STAGE1).exists()


@pytest.mark.parametrize('error', [OSError('No space left on device'), KeyboardInterrupt()])
@pytest.mark.parametrize('force', [False, True])
def test_an_end_in_the_middle_leaves_the_target_as_it_was(release, tmp_path, monkeypatch, error, force, convert):
    out, real = tmp_path / 'out', module.write_tensors
    if force:
        convert(release, out, parts='stage1')
    before = {p.name: p.read_bytes() for p in out.iterdir()} if force else None

    def dies(path, *args):
        if path.name == 'generator.safetensors':
            path.write_bytes(b'half of it')
            raise error
        return real(path, *args)

    monkeypatch.setattr(module, 'write_tensors', dies)
    with pytest.raises((type(error), UserError)):
        convert(release, out, force=force)
    assert os.listdir(tmp_path) == (['out'] if force else [])
    if force:
        assert before == {p.name: p.read_bytes() for p in out.iterdir()}


def test_what_a_killed_run_left_is_cleared_by_the_next(release, tmp_path, convert):
    """A child process dies while it writes, without any of Python's cleaning up."""

    def killed(path, *args):
        path.write_bytes(b'half of it')
        os._exit(9)

    pid = os.fork()
    if pid == 0:
        try:
            module.write_tensors = killed
            convert(release, tmp_path / 'out', parts='stage1')
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    (left,) = os.listdir(tmp_path)
    assert left != 'out' and os.listdir(tmp_path / left) == ['stage1.safetensors']
    out = convert(release, tmp_path / 'out', parts='stage1')
    assert os.listdir(tmp_path) == ['out']
    load_stage1(str(out))


def test_a_run_killed_while_it_swaps_directories_gives_the_old_model_back(release, tmp_path, convert):
    out = convert(release, tmp_path / 'out', parts='stage1')
    out.rename(tmp_path / '.out.replaced')
    with pytest.raises(UserError, match='exists already'):
        convert(release, out, parts='stage1')
    load_stage1(str(out))


def test_two_runs_do_not_write_one_target(release, tmp_path, monkeypatch, convert):
    real = module.write_tensors

    def second(*args):
        monkeypatch.setattr(module, 'write_tensors', real)
        with pytest.raises(UserError, match='another run'):
            convert(release, tmp_path / 'out', parts='stage1')
        return real(*args)

    monkeypatch.setattr(module, 'write_tensors', second)
    load_stage1(str(convert(release, tmp_path / 'out', parts='stage1')))
