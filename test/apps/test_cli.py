import subprocess
import sys

import pytest

from wristworld_ros import cli


def run(*arguments):
    return subprocess.run([sys.executable, '-m', 'wristworld_ros.cli', *arguments], capture_output=True, text=True)


def test_help_names_every_command_and_loads_neither_torch_nor_ros():
    code = (
        'import sys; from wristworld_ros import cli\n'
        'try: cli.main(["--help"])\n'
        'except SystemExit: pass\n'
        'print(sorted({"torch", "rclpy", "numpy"} & set(sys.modules)))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == '[]'
    assert all(name in done.stdout for name in cli.COMMANDS)


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
    ['evaluate', '.', '--ablation', 'nothing'],
    ['generate', 'no/such/episode'],
    ['generate', __file__],
    ['generate', '.', '--steps', '-1'],
])  # fmt: skip
def test_what_the_user_can_mend_is_one_sentence_and_status_2(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'wristworld {arguments[0]}: ') and len(error.strip().splitlines()) == 1
    assert 'Traceback' not in error
    assert not (tmp_path / 'reports').exists()


@pytest.mark.parametrize('name', [n for n in cli.COMMANDS if n != 'train'])
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, '--help'])
    assert stop.value.code == 0
    assert f'wristworld {name}' in capsys.readouterr().out


def test_ctrl_c_ends_with_status_130(monkeypatch, capsys):
    from wristworld_ros.apps import evaluate as command

    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, 'run', interrupted)
    assert cli.main(['evaluate', 'x']) == 130
