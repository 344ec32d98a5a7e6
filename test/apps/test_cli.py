import os
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
    ['generate', '.', '--name', '../escaped'],
    ['generate', '.', '--name', '/tmp/escaped'],
    ['generate', '.', '--name', ''],
    ['generate', '.', '--out', __file__],
    ['generate', '/dev/zero'],
    ['generate', 'pipe'],
    ['generate', 'pipe', 'pipe'],
    ['generate', 'hostile'],
    ['demo', '--anchors', 'pipe'],
    ['demo', '--out', __file__],
    ['demo', '--model', 'hostile'],
    ['demo', '--view', '--view-bind', 'nowhere'],
    ['evaluate', __file__],
    ['evaluate', 'set', '--out', __file__],
    ['evaluate', 'empty'],
    ['evaluate', 'set', '--model', 'hostile'],
    ['report', 'pipe'],
    ['report', 'hostile'],
    ['report', __file__],
    ['convert', 'pipe', '--out', 'made'],
    ['convert', __file__, '--out', 'made'],
    ['convert', 'empty', '--out', 'made', '--sizes', 'pipe'],
    ['convert', 'empty', '--out', 'made', '--sizes', 'deep.json'],
    ['simulate', __file__],
    ['simulate', '/proc/none'],
    ['train', 'stage1', __file__],
    ['train', 'stage1', 'set', '--out', __file__],
    ['train', 'stage1', 'empty'],
    ['train', 'stage2', 'set', '--stage1', 'empty'],
    ['train', 'stage2', 'set', '--stage1', 'hostile'],
    ['train', 'tiny-decoder', 'set', '--model', 'hostile'],
    ['train', 'package', '--stage1', 'empty', '--stage2', 'empty'],
    ['train', 'package', '--stage1', 'empty', '--stage2', 'empty', '--name', '../x'],
    ['bench', '--only', 'stream', '--model', 'hostile'],
    ['bench', '--only', 'parts', '--out', __file__],
    ['run', '--remap', 'nothing'],
    ['run', '--chunk', '99'],
    *([name, '--no-such-option'] for name in cli.COMMANDS),
    ['simulate', 'set', '--episods', '3'],
    ['simulate', 'set', '--episodes', 'three'],
    ['generate'],
])  # fmt: skip
def test_what_the_user_can_fix_is_one_sentence_and_status_2(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hostile_files(tmp_path)
    try:
        assert cli.main(arguments) == 2
    except SystemExit as end:  # argparse's way
        assert end.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f'wristworld {arguments[0]}: ') and len(error.strip().splitlines()) == 1
    assert 'Traceback' not in error
    for made in ('reports', 'made', 'runs', '../escaped.mp4'):
        assert not (tmp_path / made).exists()


def hostile_files(folder):
    """A pipe, an empty folder, an endless JSON, an episode and a model directory that hold nonsense, and a set of one."""
    os.mkfifo(folder / 'pipe')
    (folder / 'empty').mkdir()
    (folder / 'deep.json').write_text('{"stage1": ' + '[' * 1_000_000)
    for name in ('hostile', 'set/000000'):
        (folder / name).mkdir(parents=True)
        for file in ('config.json', 'episode.json', 'recording.json', 'run.json'):
            (folder / name / file).write_text('{"format": 1, "version": 1, "name": ["a"], "anchors": 3}')
        for file in ('tracks.npz', 'model.pt', 'stage1.safetensors', 'mean_wrist.png'):
            (folder / name / file).write_bytes(b'nonsense')


def test_an_unknown_option_is_told_with_the_one_that_may_be_meant(capsys):
    with pytest.raises(SystemExit):
        cli.main(['simulate', 'out', '--episods', '3'])
    assert (
        'unrecognized arguments: --episods 3 (did you mean --episodes?); see wristworld simulate --help.'
        in capsys.readouterr().err
    )


def test_what_the_system_refuses_of_a_path_is_one_sentence(monkeypatch, capsys):
    raising(PermissionError(13, 'Permission denied', '/root/x.mp4'), monkeypatch)
    assert cli.main(['evaluate', 'x']) == 2
    assert (
        capsys.readouterr().err
        == 'wristworld evaluate: /root/x.mp4: Permission denied; give another path, or change it.\n'
    )


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


def test_a_reader_that_ends_early_is_no_traceback():
    code = (
        'import sys; from wristworld_ros import cli; from wristworld_ros.apps import report\n'
        'report.run = lambda args: [print("a line") for _ in range(100_000)] and 0\n'
        'sys.exit(cli.main(["report", "folder"]))'
    )  # fmt: skip
    command = [sys.executable, '-c', code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == 'a line\n'
        program.stdout.close()
        assert program.stderr.read() == '' and program.wait() == cli.OUTPUT_CLOSED
