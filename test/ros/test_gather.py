"""What is known of one set, gathered from messages that are handed over directly: no camera, no stream, no waiting for DDS."""

from dataclasses import replace

import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from wristworld_ros.ros.conversions import message_data, to_stamp, to_transform
from wristworld_ros.ros.knowledge import Knowledge, ViewSource
from wristworld_ros.ros.known_wrist import DEFAULT_FOV
from wristworld_ros.ros.metrics import Metrics
from wristworld_ros.settings import NodeSettings

STAMP = 1_000_000_000
HW = (48, 64)
MOUNT = '0.05 0 0.04 0 0 0 1'
K = np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])


@pytest.fixture
def gatherer():
    """Makes a `Knowledge` of two anchors by settings, on a node that hears nothing."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node('knowing', context=context)

    def make(**settings):
        settings = NodeSettings(anchors=['left', 'right'], tf_timeout=0.0, **settings)
        return Knowledge(node, settings, Metrics(), HW)

    yield make
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def views(K=K):
    return [ViewSource(name, f'/anchor_{name}', STAMP, name, name, HW, K) for name in ('left', 'right')]


def pose(x, y, z):
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T


def know(knowledge, parent, child, *xyz):
    edge = to_transform(pose(*xyz), Header(stamp=to_stamp(STAMP), frame_id=parent), child)
    knowledge.transforms.add([edge], static=True)


def take_depth(knowledge, millimetres=800):
    depth = np.full(HW, millimetres, np.uint16)
    for name, camera in knowledge.depth.items():
        header = Header(stamp=to_stamp(STAMP), frame_id=name)
        data = message_data(depth)
        camera.take(Image(header=header, height=HW[0], width=HW[1], encoding='16UC1', step=2 * HW[1], data=data))


def test_a_stamp_that_comes_again_with_all_that_is_required_is_no_longer_unmet(gatherer):
    """A looping bag sends the same stamps again; what its first pass lacked must not make the frames of its second invalid."""
    knowledge = gatherer(use_depth='require')
    knowledge.gather(views())
    assert 'No depth images' in knowledge.unmet(STAMP)
    take_depth(knowledge)
    np.testing.assert_allclose(knowledge.gather(views()).depth, 0.8)
    assert knowledge.unmet(STAMP) == ''


def test_a_live_change_reaches_what_listens_to_the_robot(gatherer):
    knowledge = gatherer()
    knowledge.settings = replace(knowledge.settings, freshness=7.0)
    assert knowledge.robot.settings.freshness == 7.0


def test_a_mount_on_the_hand_is_the_wrist_camera_in_the_base_and_on_the_gripper(gatherer):
    knowledge = gatherer(wrist_mount=MOUNT, wrist_fov=60.0)
    know(knowledge, 'fr3_link0', 'fr3_hand', 0.3, 0.1, 0.5)
    known = knowledge.gather(views())
    np.testing.assert_allclose(np.linalg.inv(known.wrist.T_camera_world), pose(0.35, 0.1, 0.54), atol=1e-9)
    np.testing.assert_allclose(np.linalg.inv(known.mounted.T_camera_world), pose(0.05, 0, 0.04), atol=1e-9)
    f = HW[0] / 2 / np.tan(np.radians(30))
    np.testing.assert_allclose(known.wrist.K, [[f, 0, 31.5], [0, f, 23.5], [0, 0, 1]])
    assert (known.wrist.height, known.wrist.width) == HW


def test_a_wrist_camera_that_tf_has_needs_no_mount(gatherer):
    knowledge = gatherer(wrist_camera_frame='camera')
    know(knowledge, 'fr3_link0', 'fr3_hand', 0, 0, 0.5)
    know(knowledge, 'fr3_hand', 'camera', 0.03, 0, 0.1)
    known = knowledge.gather(views())
    np.testing.assert_allclose(np.linalg.inv(known.wrist.T_camera_world), pose(0.03, 0, 0.6), atol=1e-9)
    np.testing.assert_allclose(np.linalg.inv(known.mounted.T_camera_world), pose(0.03, 0, 0.1), atol=1e-9)


def test_the_intrinsics_of_the_camera_to_imitate_come_from_its_file(gatherer, tmp_path):
    file = tmp_path / 'wrist.yaml'
    numbers = [float(value) for value in K.ravel()]
    file.write_text(f'image_width: 64\nimage_height: 48\ncamera_matrix: {{rows: 3, cols: 3, data: {numbers}}}\n')
    knowledge = gatherer(wrist_mount=MOUNT, wrist_camera_info=str(file))
    know(knowledge, 'fr3_link0', 'fr3_hand', 0, 0, 0.5)
    np.testing.assert_allclose(knowledge.gather(views()).wrist.K, K)
    assert not knowledge.wrist.fov_is_guessed


def test_what_is_missing_is_named_one_step_at_a_time(gatherer):
    """A reader fixes calibration and places first; absent depth is named when these are there, a wrist without a place always."""
    knowledge = gatherer()
    knowledge.gather(views(K=None))
    text = ' '.join(knowledge.missing)
    assert 'calibration of anchor_left' in text and 'wrist_mount' in text
    assert 'place of anchor_left' not in text and 'depth' not in text

    knowledge = gatherer(wrist_mount=MOUNT)
    know(knowledge, 'fr3_link0', 'fr3_hand', 0, 0, 0.5)
    for name in ('left', 'right'):
        know(knowledge, 'fr3_link0', name, 0.1, 0, 0.5)
    knowledge.gather(views())
    assert 'No depth images' in ' '.join(knowledge.missing)


def test_with_everything_else_known_the_guessed_field_of_view_is_said(gatherer):
    knowledge = gatherer(wrist_mount=MOUNT, use_depth='never', use_robot_model='never')
    know(knowledge, 'fr3_link0', 'fr3_hand', 0, 0, 0.5)
    for name in ('left', 'right'):
        know(knowledge, 'fr3_link0', name, 0.1, 0, 0.5)
    known = knowledge.gather(views())
    np.testing.assert_allclose(known.T_base_anchor, [pose(0.1, 0, 0.5)] * 2)
    (sentence,) = knowledge.missing
    assert f'{DEFAULT_FOV:g} degrees' in sentence and 'wrist_fov' in sentence
