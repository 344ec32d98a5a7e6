"""The launch files declare what the docs say, and start nodes that make frames."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec('launch_ros') is None or find_spec('launch') is None:
    pytest.skip('launch_ros is not installed; it comes with ROS, not as a wheel', allow_module_level=True)

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import IncludeLaunchDescription, OpaqueFunction, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node

try:
    LAUNCH = Path(get_package_share_directory('wristworld_ros')) / 'launch'
except PackageNotFoundError:
    pytest.skip('wristworld_ros is not installed', allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = {
    'virtual_wrist': {
        'anchors', 'topics', 'transport', 'model', 'device', 'rate', 'namespace', 'use_sim_time', 'autostart', 'respawn', 'rviz', 'params_file',
    },
    'demo': {
        'source', 'videos', 'anchors', 'camera_rate', 'loop', 'seed', 'model', 'device', 'rate', 'namespace', 'autostart', 'rviz',
        'params_file',
    },
}  # fmt: skip


def described(name: str) -> LaunchDescription:
    source = PythonLaunchDescriptionSource(str(LAUNCH / f'{name}.launch.py'))
    return source.try_get_launch_description_without_context()


def nodes(name: str, **arguments) -> tuple[list[Node], LaunchContext]:
    """The nodes that a launch file would start with these arguments."""
    context = LaunchContext()
    found, todo = [], list(described(name).entities)
    context.launch_configurations.update(arguments)
    while todo:
        entity = todo.pop(0)
        if isinstance(entity, Node):
            found.append(entity)
        elif not isinstance(entity, SetEnvironmentVariable):
            todo = [*(entity.visit(context) or []), *todo]
    return found, context


@pytest.mark.parametrize('name', EXPECTED)
def test_the_arguments_are_declared_and_described(name):
    arguments = described(name).get_launch_arguments()
    assert {a.name for a in arguments} >= EXPECTED[name]
    assert all(len(a.description) > 10 for a in arguments)


def test_topics_of_one_s_own_are_remapped_with_their_calibrations():
    (node,), context = nodes('virtual_wrist', anchors='a,b', topics='/cam_1/image_raw,/cam_2/color/image_raw', rate='5')
    node._perform_substitutions(context)
    mapped = dict(node.expanded_remapping_rules)
    assert mapped['anchor_a/image_raw'] == '/cam_1/image_raw'
    assert mapped['anchor_b/camera_info'] == '/cam_2/color/camera_info'
    assert mapped['anchor_b/image_raw/compressed'] == '/cam_2/color/image_raw/compressed'


def test_a_topic_too_few_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match='1 topics for 2 anchors'):
        nodes('virtual_wrist', anchors='a,b', topics='/one')


def test_rviz_is_started_when_asked_for():
    found, _ = nodes('virtual_wrist', rviz='true')
    assert [n.node_executable for n in found] == ['virtual_wrist', 'rviz2']


def test_the_demo_has_cameras_and_the_virtual_wrist():
    entities = described('demo').entities
    assert any(isinstance(e, IncludeLaunchDescription) for e in entities) and any(
        isinstance(e, OpaqueFunction) for e in entities
    )
    found, _ = nodes('demo', source='videos', videos='a.mp4,b.mp4')
    assert [n.node_executable for n in found] == ['camera', 'virtual_wrist']


def test_launched_nodes_make_frames(model_folder, clip, tmp_path):
    """The demo launch file on two copies of a clip, through real processes and topics."""
    import rclpy
    from sensor_msgs.msg import Image

    params = tmp_path / 'params.yaml'
    params.write_text(
        '/**:\n  ros__parameters: {anchors: [left, right], min_coverage: 0.0, min_confidence: 0.0, check_anchors: false, freshness: 20.0, threads: 2}\n'
    )
    arguments = {
        'source': 'videos', 'videos': f'{clip},{clip}', 'model': str(model_folder), 'params_file': str(params), 'camera_rate': '5',
    }  # fmt: skip
    program = (
        'import sys\n'
        'from launch import LaunchDescription, LaunchService\n'
        'from launch.actions import IncludeLaunchDescription\n'
        'from launch.launch_description_sources import PythonLaunchDescriptionSource\n'
        'arguments = [a.split(":=", 1) for a in sys.argv[2:]]\n'
        'service = LaunchService()\n'
        'source = PythonLaunchDescriptionSource(sys.argv[1])\n'
        'service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)]))\n'
        'sys.exit(service.run())\n'
    )
    env = {
        **os.environ,
        'ROS_LOG_DIR': str(tmp_path),
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
    }
    process = subprocess.Popen(
        [sys.executable, '-c', program, str(LAUNCH / 'demo.launch.py'), *(f'{k}:={v}' for k, v in arguments.items())],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    rclpy.init()
    node, got = rclpy.create_node('listener'), []
    node.create_subscription(Image, 'wrist/image_raw', got.append, 10)
    try:
        end = node.get_clock().now().nanoseconds + 90 * 10**9
        while len(got) < 3 and process.poll() is None and node.get_clock().now().nanoseconds < end:
            rclpy.spin_once(node, timeout_sec=0.1)
    finally:
        node.destroy_node()
        rclpy.shutdown()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert len(got) >= 3, output
    assert output.count('process has finished cleanly') == 2, output


@pytest.fixture
def model_folder(tmp_path):
    from wristworld_ros.pipeline import save_model, tiny_random_model

    save_model(tiny_random_model(0), tmp_path / 'model')
    return tmp_path / 'model'


@pytest.fixture
def clip(tmp_path):
    import av
    import numpy as np

    path = tmp_path / 'clip.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        for i in range(20):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * i, np.uint8), format='rgb24'))
            )
        container.mux(stream.encode())
    return path
