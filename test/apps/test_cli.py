import subprocess
import sys

import pytest

from wristworld_ros import cli
from wristworld_ros.errors import UserError


def run(*arguments):
    return subprocess.run([sys.executable, '-m', 'wristworld_ros.cli', *arguments], capture_output=True, text=True)


def loaded_after(code, modules):
    """Which of some modules a program has loaded at its end."""
    code += f'\nprint(sorted({modules!r} & set(sys.modules)))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1], done.stdout


def test_help_names_every_command_and_loads_neither_torch_nor_ros():
    code = (
        'import sys; from wristworld_ros import cli\n'
        'try: cli.main(["--help"])\n'
        'except SystemExit: pass'
    )  # fmt: skip
    loaded, printed = loaded_after(code, {'torch', 'rclpy', 'numpy'})
    assert loaded == '[]'
    assert all(name in printed for name in cli.COMMANDS)


def test_the_version_loads_neither_torch_nor_ros():
    code = (
        'import sys; from wristworld_ros import cli\n'
        'try: cli.main(["--version"])\n'
        'except SystemExit: pass'
    )  # fmt: skip
    loaded, printed = loaded_after(code, {'torch', 'rclpy', 'numpy'})
    assert loaded == '[]' and printed.startswith('wristworld_ros ')


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_help_of_a_command_loads_neither_torch_nor_ros(name):
    code = (
        'import sys; from wristworld_ros import cli\n'
        f'try: cli.main([{name!r}, "--help"])\n'
        'except SystemExit as end: assert end.code == 0'
    )
    loaded, printed = loaded_after(code, {'torch', 'rclpy'})
    assert loaded == '[]'
    assert f'wristworld {name}' in printed


def test_an_unknown_command_is_refused_with_status_2():
    done = run('dance')
    assert done.returncode == 2 and 'dance' in done.stderr


@pytest.mark.parametrize('arguments', [
    ['evaluate', 'no/such/folder'],
    ['demo', '--anchors', 'no_such.mp4'],
    ['demo', '--anchors', __file__],
    ['demo', '--chunk', '99'],
    ['report', 'no/such/recording'],
    ['bench', '--only', 'stream', '--model', 'no/such/model'],
    ['bench', '--history', '-1'],
    ['doctor', '--anchors', 'left', 'left'],
    ['doctor', '--remap', 'somewhere'],
    ['doctor', '--rate', '-1'],
    ['evaluate', '.', '--ablation', 'nothing'],
    ['generate', 'no/such/episode'],
    ['generate', __file__],
    ['generate', '.', '--steps', '-1'],
])  # fmt: skip
def test_what_the_user_can_fix_is_one_sentence_and_status_2(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'wristworld {arguments[0]}: ') and len(error.strip().splitlines()) == 1
    assert 'Traceback' not in error
    assert not (tmp_path / 'reports').exists()


def raising(error, monkeypatch):
    from wristworld_ros.apps import evaluate as command

    def run(args):
        raise error

    monkeypatch.setattr(command, 'run', run)


def test_the_traceback_of_a_users_error_is_shown_on_request_before_its_sentence(monkeypatch, capsys):
    raising(UserError('It is wrong', 'fix it'), monkeypatch)
    monkeypatch.setenv('WRISTWORLD_TRACEBACK', '1')
    assert cli.main(['evaluate', 'x']) == 2
    error = capsys.readouterr().err
    assert error.startswith('Traceback') and error.endswith('wristworld evaluate: It is wrong; fix it.\n')


@pytest.mark.parametrize('bug', [ValueError('bad'), OSError('no'), ModuleNotFoundError('gone'), KeyError('key')])
def test_a_bug_keeps_its_traceback(monkeypatch, bug):
    raising(bug, monkeypatch)
    with pytest.raises(type(bug)):
        cli.main(['evaluate', 'x'])


def test_ctrl_c_ends_with_status_130(monkeypatch):
    raising(KeyboardInterrupt(), monkeypatch)
    assert cli.main(['evaluate', 'x']) == 130
