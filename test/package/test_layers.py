"""Imports run downward only, in no circle, and nothing outside ros/ knows ROS."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location('imports', ROOT / 'scripts/imports.py')
imports = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(imports)

GRAPH = imports.module_graph()
ROS = {
    'rclpy', 'sensor_msgs', 'std_msgs', 'geometry_msgs', 'diagnostic_msgs', 'tf2_msgs', 'std_srvs', 'builtin_interfaces',
    'rcl_interfaces', 'lifecycle_msgs', 'launch', 'launch_ros',
}  # fmt: skip


def test_every_import_runs_downward():
    assert not imports.upward(GRAPH)


def test_no_files_import_each_other_in_a_circle():
    assert not imports.circles(GRAPH)


@pytest.mark.parametrize('depth', [1, 2])
def test_no_folders_import_each_other_in_a_circle(depth):
    assert not imports.circles(imports.folder_graph(GRAPH, depth))


def test_circles_and_upward_imports_are_found_where_there_are_some():
    graph = {
        'wristworld_ros.types': {'wristworld_ros.apps.run'},
        'wristworld_ros.apps.run': {'wristworld_ros.types'},
        'wristworld_ros.attic.old': {'wristworld_ros.types'},
    }
    assert imports.upward(graph) == ['attic is on no floor', 'wristworld_ros.types imports wristworld_ros.apps.run']
    assert imports.circles(graph) == [['wristworld_ros.apps.run', 'wristworld_ros.types']]


def test_only_the_ros_folder_imports_ros():
    wrong = [
        f'{module} imports {name}'
        for module, path in imports.modules().items()
        if not module.startswith('wristworld_ros.ros')
        for name in imports.imported_names(path)
        if name.split('.')[0] in ROS or name.split('.')[:2] == ['wristworld_ros', 'msg']
    ]
    assert not wrong


def test_importing_everything_outside_ros_loads_no_rclpy():
    names = [m for m in imports.modules() if not m.startswith('wristworld_ros.ros.')]
    program = f'import importlib, sys\nfor name in {names}: importlib.import_module(name)\nassert "rclpy" not in sys.modules\n'
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
