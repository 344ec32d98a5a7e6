import os
import time

import pytest
import yaml

from wristworld_ros.apps.processes import DemoError, ProcessGroup, ros_parameters, wait_for
from wristworld_ros.settings import CameraSettings, NodeSettings


def test_parameters_keep_their_types_through_the_command_line():
    settings = CameraSettings(source='videos', videos=["a's.mp4", 'b c.mp4'], anchors=['1', 'x'], rate=10)
    given = dict(argument.split(':=', 1) for argument in ros_parameters(settings)[2::2])
    parsed = {name: yaml.safe_load(value) for name, value in given.items()}
    assert parsed == {k: v for k, v in vars(settings).items() if v != []}
    assert yaml.safe_load(dict(a.split(':=', 1) for a in ros_parameters(NodeSettings())[2::2])['publish_tf']) is True


def test_a_process_that_ends_is_told_with_its_last_words(tmp_path, monkeypatch):
    (tmp_path / 'falls.py').write_text('print("ready"); raise SystemExit("The camera is not there.")')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    with ProcessGroup(tmp_path / 'logs') as family:
        family.start('camera', 'falls', [])
        with pytest.raises(DemoError, match=r'The camera ended with status 1: The camera is not there \(all of it'):
            wait_for(lambda: False, family, 30, 'It')


def test_leaving_ends_every_process_even_one_that_does_not_listen(tmp_path, monkeypatch):
    (tmp_path / 'deaf.py').write_text(
        'import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint("up", flush=True)\ntime.sleep(60)'
    )
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    started = time.monotonic()
    with ProcessGroup(tmp_path / 'logs') as family:
        child = family.start('deaf', 'deaf', [])
        wait_for(lambda: child.last_words() == 'up', family, 30, 'It')
        pid = child.process.pid
        monkeypatch.setattr(child, 'stop', lambda stop=child.stop: stop(patience=0.3))
    assert time.monotonic() - started < 20
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_waiting_too_long_is_told_with_what_the_processes_said(tmp_path, monkeypatch):
    (tmp_path / 'sleeps.py').write_text('import time\nprint("still loading", flush=True)\ntime.sleep(60)')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    with ProcessGroup(tmp_path / 'logs') as family:
        child = family.start('node', 'sleeps', [])
        wait_for(lambda: child.last_words() == 'still loading', family, 30, 'It')
        with pytest.raises(DemoError, match='The first frame did not come within 0 s; last words: node: still loading'):
            wait_for(lambda: False, family, 0, 'The first frame')


def test_killing_the_parent_ends_the_children_too(tmp_path):
    import signal
    import subprocess
    import sys
    from pathlib import Path

    (tmp_path / 'sleeps.py').write_text('import time\ntime.sleep(60)')
    code = (
        'import time\nfrom wristworld_ros.apps.processes import Family\n'
        f'with Family({str(tmp_path / "logs")!r}) as family:\n'
        '    print(family.start("node", "sleeps", []).process.pid, flush=True)\n    time.sleep(60)'
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])
    parent = subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, env={**os.environ, 'PYTHONPATH': path}
    )
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(20) == 143
    parent.stdout.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
