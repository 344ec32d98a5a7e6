"""`colcon build` and `colcon test`, on the ROS that is there or, where there is none, on the wheels."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGED = ('CMakeLists.txt', 'package.xml', 'LICENSE', 'msg', 'launch', 'config', 'scripts', 'wristworld_ros')
WITHOUT_ROS = 'ROS_DISTRO' not in os.environ

# Runs with the build's own messages in front: what a sourced workspace sees.
CHECK = r"""
import sys
from pathlib import Path
prefix = Path(sys.argv[1])
import rclpy, wristworld_ros
from wristworld_ros.msg import VirtualWristStatus, WristView
assert Path(wristworld_ros.__file__).is_relative_to(prefix), wristworld_ros.__file__
import wristworld_ros.msg
assert Path(wristworld_ros.msg.__file__).is_relative_to(prefix), wristworld_ros.msg.__file__
from ament_index_python.packages import get_package_prefix, get_package_share_directory
assert Path(get_package_prefix('wristworld_ros')) == prefix
share = Path(get_package_share_directory('wristworld_ros'))
for name in ('launch/virtual_wrist.launch.py', 'launch/demo.launch.py', 'config/virtual_wrist.yaml', 'config/virtual_wrist.rviz',
             'config/two_arms.yaml', 'config/foxglove_layout.json', 'config/diagnostics_aggregator.yaml',
             'config/fastdds_shared_memory.xml', 'package.xml', 'msg/WristView.msg'):
    assert (share / name).is_file(), name
for name in ('virtual_wrist', 'camera', 'rviz_starter', 'wristworld'):
    program = prefix / 'lib/wristworld_ros' / name
    assert program.stat().st_mode & 0o111, name
    assert program.read_text().splitlines()[0] == '#!' + sys.executable, name  # the Python that it was built with
rclpy.init()
node = rclpy.create_node('built_by_colcon')
for i, kind in enumerate((WristView, VirtualWristStatus)):
    node.create_publisher(kind, f'/hash_{i}', 1)
    print(node.get_publishers_info_by_topic(f'/hash_{i}')[0].topic_type_hash)
node.destroy_node()
rclpy.shutdown()
"""


@pytest.fixture(scope='module')
def workspace(tmp_path_factory):
    """The package built by colcon; the environment to use it in."""
    colcon = shutil.which('colcon', path=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    if colcon is None:
        pytest.skip('colcon is not installed')
    folder = tmp_path_factory.mktemp('workspace')
    source = folder / 'src/wristworld_ros'
    source.mkdir(parents=True)
    for name in PACKAGED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    (source / 'test/ros').mkdir(parents=True)
    shutil.copy(ROOT / 'test/ros/test_diagnostics.py', source / 'test/ros')
    env = {**os.environ, 'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'}
    env.pop('PYTHONPATH', None) if WITHOUT_ROS else None
    arguments = [f'-DPython3_EXECUTABLE={sys.executable}']
    if WITHOUT_ROS:
        env |= {'AMENT_PREFIX_PATH': sys.prefix, 'CMAKE_PREFIX_PATH': sys.prefix}
        arguments.append(f'-DCMAKE_PROJECT_INCLUDE={source}/scripts/wheels.cmake')
    run(folder, env, colcon, 'build', '--cmake-args', '-G', 'Ninja', *arguments)
    return folder, env, colcon


def run(folder, env, *command) -> str:
    nice = ['nice', '-n', '5'] if shutil.which('nice') else []
    done = subprocess.run([*nice, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    logs = folder / 'log/latest_build/wristworld_ros/stdout_stderr.log'
    assert done.returncode == 0, done.stdout + done.stderr + (logs.read_text()[-5000:] if logs.is_file() else '')
    return done.stdout


def sourced(workspace, *command) -> str:
    folder, env, _ = workspace
    script = f'. {folder}/install/setup.sh && exec "$@"'
    return run(folder, env, 'sh', '-c', script, 'sh', *command)


@pytest.mark.slow
def test_a_colcon_workspace_has_everything_and_the_same_type_hashes(workspace, typestore):
    prefix = workspace[0] / 'install/wristworld_ros'
    hashes = sourced(workspace, sys.executable, '-c', CHECK, str(prefix)).split()
    assert hashes == [typestore.hash_rihs01(f'wristworld_ros/msg/{n}') for n in ('WristView', 'VirtualWristStatus')]


@pytest.mark.slow
def test_colcon_test_passes_there(workspace):
    colcon = workspace[2]
    sourced(workspace, colcon, 'test', '--return-code-on-test-failure')
    assert '0 errors, 0 failures' in sourced(workspace, colcon, 'test-result', '--all')


@pytest.mark.slow
def test_a_node_of_the_workspace_starts(workspace):
    executable = workspace[0] / 'install/wristworld_ros/lib/wristworld_ros/virtual_wrist'
    out = sourced(
        workspace, 'sh', '-c', f'{executable} --ros-args -p autostart:=true -p model:=/nowhere 2>&1; echo status $?'
    )
    assert '/nowhere' in out and 'status 1' in out
