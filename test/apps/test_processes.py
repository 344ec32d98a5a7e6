import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from wristworld_ros.apps.processes import STOP_SIGNALS, ProcessGroup, ros_parameters, wait_for
from wristworld_ros.errors import UserError
from wristworld_ros.setting import parsed
from wristworld_ros.settings import CameraSettings, NodeSettings


def test_parameters_keep_their_types_through_the_command_line():
    settings = CameraSettings(source='videos', videos=["a's.mp4", 'b c.mp4'], anchors=['1', 'x'], rate=10, width=None)
    given = dict(argument.split(':=', 1) for argument in ros_parameters(settings)[2::2])
    by_name = {f.name: f for f in fields(CameraSettings)}
    values = {name: parsed(by_name[name], yaml.safe_load(value)) for name, value in given.items()}
    assert values == {k: v for k, v in vars(settings).items() if v != []}
    assert type(values['rate']) is float and given['width'] == "'auto'" and given['wrist_video'] == "'none'"
    assert yaml.safe_load(dict(a.split(':=', 1) for a in ros_parameters(NodeSettings())[2::2])['publish_tf']) is True


def test_a_process_that_ends_is_told_with_its_last_line(tmp_path, monkeypatch):
    (tmp_path / 'fails.py').write_text('print("ready"); raise SystemExit("The camera is not there.")')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    with ProcessGroup(tmp_path / 'logs') as group:
        group.start('camera', 'fails', [])
        with pytest.raises(UserError, match=r'The camera ended with status 1: The camera is not there; see its log'):
            wait_for(lambda: False, group, 30, 'It')


def test_leaving_ends_every_process_even_one_that_ignores_sigint(tmp_path, monkeypatch):
    (tmp_path / 'stubborn.py').write_text(
        'import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint("up", flush=True)\ntime.sleep(60)'
    )
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    started = time.monotonic()
    with ProcessGroup(tmp_path / 'logs') as group:
        member = group.start('stubborn', 'stubborn', [])
        wait_for(lambda: member.last_line() == 'up', group, 30, 'It')
        pid = member.process.pid
        monkeypatch.setattr(
            member, 'stop', lambda stop=member.stop: stop([(number, 0.3) for number, _ in STOP_SIGNALS])
        )
    assert time.monotonic() - started < 20
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_waiting_too_long_is_reported_with_the_last_line_of_each_process(tmp_path, monkeypatch):
    (tmp_path / 'sleeps.py').write_text('import time\nprint("still loading", flush=True)\ntime.sleep(60)')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    with ProcessGroup(tmp_path / 'logs') as group:
        member = group.start('node', 'sleeps', [])
        wait_for(lambda: member.last_line() == 'still loading', group, 30, 'It')
        with pytest.raises(UserError, match=r'The first frame did not come within 0 s \(node: still loading\)'):
            wait_for(lambda: False, group, 0, 'The first frame')


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_killing_the_parent_ends_the_members_too(tmp_path, number, status):
    (tmp_path / 'sleeps.py').write_text('import time\ntime.sleep(60)')
    code = (
        'import time\nfrom wristworld_ros.apps.processes import ProcessGroup\n'
        f'with ProcessGroup({str(tmp_path / "logs")!r}) as group:\n'
        '    print(group.start("node", "sleeps", []).process.pid, flush=True)\n    time.sleep(60)'
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])
    parent = subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, env={**os.environ, 'PYTHONPATH': path}
    )
    pid = int(parent.stdout.readline())
    parent.send_signal(number)
    assert parent.wait(20) == status
    parent.stdout.close()
    end = time.monotonic() + 10
    while Path(f'/proc/{pid}').exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f'/proc/{pid}').exists()
