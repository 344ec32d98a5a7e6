"""The installation beside ROS: one script, which the Dockerfile uses too."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'scripts/install_ros'


def test_the_script_is_executable_and_its_syntax_is_right():
    assert os.access(SCRIPT, os.X_OK)
    assert subprocess.run(['bash', '-n', SCRIPT]).returncode == 0


def test_without_ros_it_ends_with_one_sentence(tmp_path):
    if any(Path('/opt/ros').glob('*/setup.bash')):
        pytest.skip('ROS is installed here')
    done = subprocess.run([SCRIPT, tmp_path / 'ws'], capture_output=True, text=True, env={**os.environ, 'DRY_RUN': '1'})
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and 'docker/Dockerfile' in done.stderr
    assert not (tmp_path / 'ws').exists()


def test_its_steps_hold_pip_to_apt_s_numpy_and_build_with_the_environment_s_python(tmp_path):
    """Dry, with an /opt/ros of our own."""
    (tmp_path / 'opt/jazzy').mkdir(parents=True)
    (tmp_path / 'opt/jazzy/setup.bash').touch()
    copy = tmp_path / 'scripts/install_ros'
    copy.parent.mkdir()
    copy.write_text(SCRIPT.read_text().replace('/opt/ros', str(tmp_path / 'opt')))
    shutil.copy(ROOT / 'constraints.txt', tmp_path)
    env = {**os.environ, 'DRY_RUN': '1'}
    env.pop('ROS_DISTRO', None)
    done = subprocess.run(['bash', copy, tmp_path / 'ws'], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert '-m venv --system-site-packages' in done.stdout and 'ros-jazzy-cv-bridge' in done.stdout
    installs = [line for line in done.stdout.splitlines() if ' -m pip install' in line]
    assert len(installs) == 2 and all('constraints.txt' in line for line in installs) and ' torch==' in installs[0]
    assert f'-DPython3_EXECUTABLE={tmp_path}/ws/venv/bin/python' in done.stdout
    assert not (tmp_path / 'ws').exists()


def test_the_dockerfile_runs_that_script():
    text = (ROOT / 'docker/Dockerfile').read_text()
    assert '/scripts/install_ros ' in text and re.search(r'^FROM ros:\$\{ROS_DISTRO\}', text, re.M)


def test_the_profile_lets_cyclone_dds_peers_receive_images():
    tree = ElementTree.parse(ROOT / 'config/fastdds_shared_memory.xml')
    space = {'p': 'http://www.eprosima.com'}
    found = {
        e.findtext('p:name', '', space): e.findtext('p:value', '', space) for e in tree.iterfind('.//p:property', space)
    }
    assert found == {'fastdds.type_propagation': 'disabled'}
    line = '<name>fastdds.type_propagation</name><value>disabled</value>'
    assert line in (ROOT / 'docs/ros.md').read_text()
