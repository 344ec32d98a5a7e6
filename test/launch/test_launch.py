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

MOUNT = '0.05 0 0.04 0 0 0.7071068 0.7071068'
ROOT = Path(__file__).resolve().parents[2]
EXPECTED = {
    'virtual_wrist': {
        'anchors', 'topics', 'transport', 'model', 'device', 'rate', 'namespace', 'use_sim_time', 'autostart', 'respawn', 'rviz', 'params_file',
        'wrist_frame', 'anchor_frame', 'depth', 'depth_topics', 'base_frame', 'hand_frame', 'wrist_mount', 'wrist_mount_frame', 'wrist_camera_frame',
        'wrist_camera_info', 'calibration_file', 'joint_states', 'robot_description',
    },
    'demo': {
        'source', 'videos', 'anchors', 'camera_rate', 'loop', 'seed', 'model', 'device', 'rate', 'namespace', 'autostart', 'rviz',
        'params_file', 'transport', 'use_sim_time', 'wrist_frame', 'anchor_frame', 'depth', 'base_frame', 'hand_frame', 'wrist_mount',
        'wrist_camera_info',
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


def mapped(node, context):
    node._perform_substitutions(context)
    return dict(node.expanded_remapping_rules or [])


def test_depth_is_taken_beside_colour_as_realsense_has_it_or_where_it_is_said_to_be():
    topics = '/left/camera/color/image_raw,/cam_2/image_raw'
    (node,), context = nodes('virtual_wrist', anchors='a,b', topics=topics)
    found = mapped(node, context)
    assert found['anchor_a/depth/image_raw'] == '/left/camera/aligned_depth_to_color/image_raw'
    assert found['anchor_b/depth/image_raw/compressedDepth'] == '/cam_2/depth/image_raw/compressedDepth'
    (node,), context = nodes('virtual_wrist', anchors='a,b', topics=topics, depth_topics='/x/depth,/y/depth')
    assert mapped(node, context)['anchor_b/depth/image_raw'] == '/y/depth'
    with pytest.raises(ValueError, match='1 depth_topics for 2 anchors'):
        nodes('virtual_wrist', anchors='a,b', depth_topics='/one')


def test_a_topic_too_few_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match='1 topics for 2 anchors'):
        nodes('virtual_wrist', anchors='a,b', topics='/one')


def test_rviz_waits_for_the_frame_of_the_images_and_has_the_topics_of_the_node():
    found, context = nodes('virtual_wrist', rviz='true', anchors='a,b', topics='/cam_1/image_raw,/cam_2/image_raw')
    assert [n.node_executable for n in found] == ['virtual_wrist', 'rviz_starter']
    found[1]._perform_substitutions(context)
    assert dict(found[1].expanded_remapping_rules)['anchor_a/image_raw'] == '/cam_1/image_raw'


def test_rviz_stands_on_the_robot_s_base_where_the_wrist_camera_has_its_place_there(tmp_path):
    def fixed(**given):
        (_, starter), context = nodes('virtual_wrist', rviz='true', **given)
        starter._perform_substitutions(context)
        command = [''.join(getattr(part, 'text', '') for part in word) for word in starter.cmd]
        return command[command.index('--fixed-frame') + 1] if '--fixed-frame' in command else ''

    assert fixed() == ''
    assert fixed(wrist_mount=MOUNT) == 'fr3_link0'
    assert fixed(wrist_camera_frame='eye', base_frame='base') == 'base'
    (tmp_path / 'p.yaml').write_text(f'/**:\n  ros__parameters: {{wrist_mount: {MOUNT}, base_frame: there}}\n')
    assert fixed(params_file=str(tmp_path / 'p.yaml')) == 'there'


def anchors_of(node, context):
    """The anchors that a started node gets besides its parameter file."""
    node._perform_substitutions(context)
    return [rule[0] for rule in node.expanded_remapping_rules or [] if rule[0].endswith('camera_info')]


@pytest.mark.parametrize(('arm', 'anchors'), [('left_arm', 'side,top'), ('right_arm', 'top,opposite')])
def test_each_arm_of_one_parameter_file_has_its_own_anchors(arm, anchors):
    file = str(LAUNCH.parent / 'config/two_arms.yaml')
    (node,), context = nodes('virtual_wrist', namespace=arm, params_file=file, topics='/one/image_raw,/two/image_raw')
    assert anchors_of(node, context) == [f'anchor_{name}/camera_info' for name in anchors.split(',')]


@pytest.mark.parametrize(('text', 'words'), [('', 'is empty'), ('- a\n', 'list and no nodes'), ('a: [', 'not YAML')])
def test_a_file_that_is_no_parameter_file_is_answered_with_one_sentence(tmp_path, text, words):
    (tmp_path / 'p.yaml').write_text(text)
    with pytest.raises(ValueError, match=words):
        nodes('virtual_wrist', params_file=str(tmp_path / 'p.yaml'))


def written_parameters(node, context):
    """What a node is started with, by name."""
    import yaml

    node._perform_substitutions(context)
    merged = {}
    for path, is_file in node._Node__expanded_parameter_arguments:
        if is_file:
            for entry in yaml.full_load(Path(path).read_text()).values():
                merged |= entry.get('ros__parameters', {})
    return merged


def test_frames_transport_and_clock_reach_every_node_of_the_demo():
    given = {'transport': 'compressed', 'use_sim_time': 'true', 'wrist_frame': 'eye', 'anchor_frame': 'base'}
    found, context = nodes('demo', **given)
    camera, wrist = (written_parameters(node, context) for node in found)
    assert camera['transport'] == wrist['transport'] == 'compressed'
    assert camera['use_sim_time'] is wrist['use_sim_time'] is True
    assert (wrist['wrist_frame'], wrist['anchor_frame']) == ('eye', 'base')


def test_what_the_robot_knows_reaches_the_node():
    given = {'depth': 'false', 'wrist_mount': MOUNT, 'base_frame': 'panda_link0', 'hand_frame': 'panda_hand'}
    (node,), context = nodes(
        'virtual_wrist', joint_states='/franka/joint_states', wrist_camera_info='/real/camera_info', **given
    )
    written = written_parameters(node, context)
    assert (written['use_depth'], written['wrist_mount']) == ('never', MOUNT)
    assert (written['base_frame'], written['hand_frame']) == ('panda_link0', 'panda_hand')
    assert written['wrist_camera_info'] == '/real/camera_info'
    assert mapped(node, context)['/joint_states'] == '/franka/joint_states'
    assert '/robot_description' not in mapped(node, context)


def test_the_simulated_desk_s_true_mount_reaches_the_node():
    pytest.importorskip('robosuite', reason='the simulator is not installed')
    from wristworld_ros.ros.transforms import pose_text
    from wristworld_ros.sim.stream import wrist_mount

    (camera, wrist), context = nodes('demo', seed='7', depth='false')
    written = written_parameters(wrist, context)
    assert written['wrist_mount'] == pose_text(wrist_mount(7))
    assert written['wrist_camera_info'] == 'true_wrist/camera_info'
    assert written['use_depth'] == 'never' and written_parameters(camera, context)['depth'] is False
    (_, wrist), context = nodes('demo', source='videos', videos='a.mp4,b.mp4')
    assert written_parameters(wrist, context)['wrist_mount'] == 'unknown'


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
