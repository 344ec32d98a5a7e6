"""The pose recorder over real DDS: what it saves when the arm rests, and what it says is missing."""

import time

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header, String
from tf2_msgs.msg import TFMessage

from wristworld_ros.robot.arm_recording import read_arm_recording
from wristworld_ros.robot.calibration_images import read_intrinsics, read_poses
from wristworld_ros.ros.conversions import message_data, to_stamp, to_transform
from wristworld_ros.ros.pose_recorder_node import PoseRecorderNode
from wristworld_ros.settings import NodeSettings

HW = 48, 64
K = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Desk:
    """The recorder, and a peer that publishes what a workstation does."""

    def __init__(self, folder, count=2):
        self.contexts = rclpy.Context(), rclpy.Context()
        for context in self.contexts:
            rclpy.init(args=[], context=context)
        self.node = PoseRecorderNode(folder, 'left', count, NodeSettings(), context=self.contexts[0])
        self.peer = rclpy.create_node('peer', context=self.contexts[1])
        self.executors = [SingleThreadedExecutor(context=c) for c in self.contexts]
        for executor, node in zip(self.executors, (self.node, self.peer)):
            executor.add_node(node)
        make = self.peer.create_publisher
        self.color, self.depth = (
            make(Image, 'anchor_left/image_raw', 10),
            make(Image, 'anchor_left/depth/image_raw', 10),
        )
        self.info, self.joints = make(CameraInfo, 'anchor_left/camera_info', 10), make(JointState, '/joint_states', 10)
        self.tf, self.urdf = make(TFMessage, '/tf', 10), make(String, '/robot_description', LATCHED)

    def send(self, joint, depth=True, hand=True):
        """One moment: images, joints and TF with one stamp."""
        stamp = to_stamp(self.node.get_clock().now().nanoseconds)
        header = Header(stamp=stamp, frame_id='camera')
        h, w = HW
        self.info.publish(CameraInfo(header=header, width=w, height=h, k=K))
        if depth:
            values = np.full(HW, 800 + round(100 * joint), np.uint16)
            self.depth.publish(
                Image(header=header, height=h, width=w, encoding='16UC1', step=2 * w, data=message_data(values))
            )
        rgb = np.full((*HW, 3), 90, np.uint8)
        self.color.publish(Image(header=header, height=h, width=w, encoding='rgb8', step=3 * w, data=message_data(rgb)))
        self.joints.publish(JointState(header=header, name=['b', 'a'], position=[0.5, joint]))
        if hand:
            T = np.eye(4)
            T[0, 3] = joint
            self.tf.publish(
                TFMessage(transforms=[to_transform(T, Header(stamp=stamp, frame_id='fr3_link0'), 'fr3_hand')])
            )

    def rest_until(self, saved, joint, seconds=20.0, **kwargs):
        """Publish one pose of the arm until so many are saved."""
        end = time.monotonic() + seconds
        while self.node.saved < saved:
            assert time.monotonic() < end, 'no pose was saved'
            self.send(joint, **kwargs)
            self.spin(0.05)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for executor in self.executors:
                executor.spin_once(timeout_sec=0.002)

    def close(self):
        for executor in self.executors:
            executor.shutdown()
        self.node.destroy_node()
        self.peer.destroy_node()
        for context in self.contexts:
            rclpy.try_shutdown(context=context)


@pytest.fixture
def desk(tmp_path):
    found = Desk(tmp_path)
    yield found
    found.close()


def test_a_pose_is_saved_when_the_arm_has_moved_and_rests(desk, tmp_path, capsys):
    desk.urdf.publish(String(data='<robot/>'))
    desk.rest_until(1, 0.0)
    for _ in range(20):  # rests on: no second pose
        desk.send(0.0)
        desk.spin(0.05)
    assert desk.node.saved == 1
    for step in range(30):  # moves: no pose either
        desk.send(0.02 * step)
        desk.spin(0.03)
    assert desk.node.saved == 1
    desk.rest_until(2, 0.6)
    assert desk.node.done
    recording = read_arm_recording(tmp_path)
    assert recording.joints == ({'a': 0.0, 'b': 0.5}, {'a': 0.6, 'b': 0.5})
    np.testing.assert_allclose([depth.mean() for depth in recording.depth], [0.8, 0.86], atol=1e-6)
    assert (recording.pictures[1] == 90).all() and (tmp_path / 'robot.urdf').read_text() == '<robot/>'
    images, hands = read_poses(tmp_path)
    assert [path.exists() for path in images] == [True, True]
    np.testing.assert_allclose(hands[:, 0, 3], [0.0, 0.6], atol=1e-6)
    np.testing.assert_allclose(read_intrinsics(tmp_path).K.ravel(), K)
    assert 'Pose 2 of 2 saved (depth, pose of the hand)' in capsys.readouterr().out


def test_without_depth_a_board_can_be_used_and_it_is_said(desk, tmp_path, capsys):
    desk.rest_until(1, 0.0, depth=False)
    assert not (tmp_path / 'joints.csv').exists() and len(read_poses(tmp_path)[0]) == 1
    assert 'lacks depth: No depth images' in capsys.readouterr().err


def test_what_is_missing_is_said(desk, capsys):
    desk.spin(0.5)
    assert 'No images on /anchor_left/image_raw' in capsys.readouterr().err
