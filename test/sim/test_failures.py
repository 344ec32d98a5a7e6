"""Success means that everything is there; OpenGL falls back and says so; a process ends quietly."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytest.importorskip('mujoco')
pytest.importorskip('robosuite')

from wristworld_ros import cli
from wristworld_ros.sim import opengl, simulate
from wristworld_ros.sim.settings import SimulatorSettings

RENDER = textwrap.dedent("""
    import logging
    from wristworld_ros.sim.opengl import mujoco, process_backend
    from wristworld_ros.sim.render import Renderer
    from wristworld_ros.sim.cameras import intrinsics, rolled_camera
    from wristworld_ros.types import Camera
    import numpy as np

    model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><light pos="0 0 3"/>'
        '<geom type="box" size=".1 .1 .1" group="1" rgba="1 0 0 1"/></worldbody></mujoco>')
    model.stat.extent, model.vis.map.znear, model.vis.map.zfar = 1.0, 0.01, 20.0
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = Renderer(model, 32, 32)
    renderer.update(data)
    camera = Camera(intrinsics(32, 32, 60), rolled_camera(np.array([1.0, 0, 1]), np.zeros(3), 0), 32, 32)
    image, depth = renderer.render(camera)
    assert image[16, 16, 0] > 2 * image[16, 16, 1].astype(int) and 0.8 < depth[16, 16] < 1.5, (image[16, 16], depth[16, 16])
    print(process_backend().name)
""")


def render(**variables):
    env = {k: v for k, v in os.environ.items() if k not in (*opengl.VARIABLES, 'DISPLAY')} | variables
    return subprocess.run([sys.executable, '-c', RENDER], env=env, capture_output=True, text=True, timeout=120)


def test_a_process_that_has_rendered_ends_without_a_word():
    done = render()
    assert (done.returncode, done.stderr) == (0, '') and done.stdout.strip() in opengl.NAMES.values()


@pytest.mark.parametrize(
    'variables',
    [
        {'MUJOCO_GL': 'glx'},
        {'MUJOCO_GL': 'nonsense'},
        {'MUJOCO_EGL_DEVICE_ID': '99'},
        {'MUJOCO_GL': 'glfw', 'DISPLAY': ':77'},
        {'MUJOCO_GL': 'egl', 'PYOPENGL_PLATFORM': 'osmesa'},
    ],
    ids=str,
)
def test_a_variable_in_the_way_is_named_and_does_not_stop_rendering(variables):
    done = render(**variables)
    assert done.returncode == 0, done.stderr
    assert all(f'{name}={value}' in done.stderr for name, value in variables.items())
    assert len(done.stderr.splitlines()) == 1


def test_a_display_that_nobody_serves_is_not_taken_for_a_screen():
    done = render(DISPLAY=':77')
    assert (done.returncode, done.stderr) == (0, '')


def test_without_any_opengl_every_attempt_and_variable_is_named(monkeypatch):
    def fails(backend):
        raise RuntimeError(f'{backend} is broken')

    for name in (*opengl.VARIABLES, 'DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(opengl, '_new_context', fails)
    monkeypatch.setenv('MUJOCO_GL', 'osmesa')
    with pytest.raises(opengl.OpenGLError, match=r'MUJOCO_GL=osmesa: OSMesa .*EGL .*egl is broken.*install libegl1'):
        opengl._open()
    assert os.environ['MUJOCO_GL'] == 'osmesa'


def test_a_process_that_dies_before_its_first_episode_is_a_failure(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(
        simulate, '_work', sys.exit
    )  # called with what it does not take, so that the process ends with 1
    with pytest.raises(simulate.SimulateError, match='ended with code 1 before its first episode') as caught:
        simulate.simulate(tmp_path, 2, workers=2, settings=SimulatorSettings(), progress=False)
    assert [index for index, _ in caught.value.report.failed] == [0, 1] and caught.value.report.rendered == 0
    assert cli.main(['simulate', str(tmp_path), '--episodes', '1', '--workers', '1']) == 1
    out, err = capfd.readouterr()
    assert '1 failed' in out and '1 of 1 episodes are not in' in err


def test_an_unknown_number_of_workers_or_episodes_is_refused(tmp_path):
    assert cli.main(['simulate', str(tmp_path), '--episodes', '0']) == cli.USER_ERROR
    assert cli.main(['simulate', str(tmp_path), '--fps', '15']) == cli.USER_ERROR


SMALL = ['--clip-frames', '2', '--anchor-width', '32', '--anchor-height', '24', '--wrist-size', '16', '--workers', '1']


def simulate_command(out, episodes, **more):
    command = [sys.executable, '-m', 'wristworld_ros.cli', 'simulate', str(out), '--episodes', str(episodes), *SMALL]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def test_a_full_disk_is_named_and_nothing_lies_there_half(tmp_path):
    def small_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

    process = simulate_command(tmp_path, 1, preexec_fn=small_disk)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and '1 failed' in out and 'Traceback' not in err
    assert 'cannot be written (File too large)' in err.splitlines()[-1]
    assert os.listdir(tmp_path) == []


def children(pid):
    found = []
    for entry in Path('/proc').iterdir():
        try:
            if entry.name.isdigit() and int((entry / 'stat').read_text().rsplit(')', 1)[1].split()[1]) == pid:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_killing_the_command_ends_its_processes(tmp_path):
    process = simulate_command(tmp_path, 1000)
    end = time.monotonic() + 90
    while not list(tmp_path.glob('0*')) and time.monotonic() < end:
        time.sleep(0.1)
    workers = children(process.pid)
    process.kill()
    process.communicate()
    assert workers
    while any(Path(f'/proc/{pid}').exists() for pid in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [pid for pid in workers if Path(f'/proc/{pid}').exists()]


@pytest.mark.parametrize('arguments', [['--episodes', '1000000000000'], ['--seed', '-1'], ['--workers', '-3']], ids=str)
def test_counts_that_cannot_be_are_refused(tmp_path, arguments, capsys):
    assert cli.main(['simulate', str(tmp_path / 'set'), *arguments]) == cli.USER_ERROR
    assert not (tmp_path / 'set').exists() and len(capsys.readouterr().err.splitlines()) == 1
