"""A virtual_wrist node over real DDS, and the cameras and listeners around it."""

import array
import time

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from wristworld_ros.pipeline import save_model, tiny_random_model
from wristworld_ros.ros.conversions import to_stamp
from wristworld_ros.ros.virtual_wrist_node import VirtualWristNode

MS = 1_000_000


@pytest.fixture(scope='session')
def model_dir(tmp_path_factory):
    """A model directory with tiny random weights."""
    folder = tmp_path_factory.mktemp('model')
    save_model(tiny_random_model(0), folder)
    return folder


def random_image(height=48, width=64, value=None):
    """uint8 [H, W, 3], of one value where one is given."""
    if value is not None:
        return np.full((height, width, 3), value, np.uint8)
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


class Stage:
    """The node under test, a peer with cameras and listeners, one executor that the test itself spins.

    Images go from one participant to another; `spin_until` asserts that what is awaited comes.
    """

    def __init__(self, model_dir, capfd, ros_args=(), **settings):
        self.contexts = rclpy.Context(), rclpy.Context()
        rclpy.init(args=['--ros-args', *ros_args] if ros_args else [], context=self.contexts[0])
        rclpy.init(args=[], context=self.contexts[1])
        # Random weights cover and are confident of nothing in particular, and all anchors get one image: every frame shall be
        # valid unless a test says otherwise.
        settings = {
            'model': str(model_dir), 'threads': 2, 'min_coverage': 0.0, 'min_confidence': 0.0, 'check_anchors': False, 'freshness': 10.0,
            'diagnostics_period': 0.1,
        } | settings  # fmt: skip
        overrides = [Parameter(name, value=value) for name, value in settings.items()]
        self.node = VirtualWristNode(context=self.contexts[0], parameter_overrides=overrides)
        self.peer = rclpy.create_node('peer', context=self.contexts[1])
        self.executors = [SingleThreadedExecutor(context=c) for c in self.contexts]
        for executor, node in zip(self.executors, (self.node, self.peer)):
            executor.add_node(node)
        self.senders = {}
        self._capfd, self._log = capfd, []

    def close(self):
        self.node.stop()
        for executor in self.executors:
            executor.shutdown()
        for node in (self.node, self.peer):
            node.destroy_node()
        for context in self.contexts:
            rclpy.try_shutdown(context=context)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for executor in self.executors:
                executor.spin_once(timeout_sec=0.002)

    def spin_until(self, condition, timeout=20.0):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, 'what was awaited did not come'
            for executor in self.executors:
                executor.spin_once(timeout_sec=0.002)

    def activate(self):
        """Configure and activate, and wait until everybody has found everybody."""
        assert self.node.autostart()
        self.settle()
        return self

    def settle(self):
        self.spin_until(lambda: all(p.get_subscription_count() for p in self.senders.values()))
        self.spin_until(lambda: all(self.peer.count_publishers(s.topic_name) for s in self.peer.subscriptions))
        self.spin(0.2)

    def listen(self, kind, topic, qos=None):
        """A list that fills with the messages of a topic."""
        into = []
        self.peer.create_subscription(
            kind, topic, into.append, qos or QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        )
        return into

    def camera(self, *names, kind=Image, topic='image_raw'):
        """Publishers for these anchors, to be made before `activate`."""
        for name in names:
            self.senders[name] = self.peer.create_publisher(kind, f'anchor_{name}/{topic}', 10)
        return self

    def now(self):
        return self.node.get_clock().now().nanoseconds

    def send(self, name, stamp_ns, rgb=None, **changes):
        """One image of one anchor; changes overwrite fields of the message."""
        rgb = random_image() if rgb is None else rgb
        msg = Image(
            header=Header(stamp=to_stamp(stamp_ns), frame_id=f'anchor_{name}_optical_frame'), encoding='rgb8',
            height=rgb.shape[0], width=rgb.shape[1], step=3 * rgb.shape[1], data=array.array('B', rgb.tobytes()),
        )  # fmt: skip
        for field, value in changes.items():
            setattr(msg, field, value)
        self.senders[name].publish(msg)

    def send_set(self, stamp_ns=None, rgb=None):
        """One image of every anchor with one stamp, which is returned."""
        stamp_ns = self.now() if stamp_ns is None else stamp_ns
        for name in self.senders:
            self.send(name, stamp_ns, rgb)
        return stamp_ns

    def calibrate(self, name, **fields):
        self.peer.create_publisher(CameraInfo, f'anchor_{name}/camera_info', 10).publish(CameraInfo(**fields))

    def send_until(self, condition, period=0.03, timeout=20.0, **kwargs):
        """Sets at a steady pace until the condition holds; returns their stamps."""
        end, stamps = time.monotonic() + timeout, []
        while not condition():
            assert time.monotonic() < end, 'what was awaited did not come'
            stamps.append(self.send_set(**kwargs))
            self.spin(period)
        return stamps

    def warnings(self, text):
        """Logged warnings and errors that contain a text."""
        self._log += self._capfd.readouterr().err.splitlines()
        return [line for line in self._log if text in line and line.startswith(('[WARN]', '[ERROR]'))]


@pytest.fixture
def stage(model_dir, capfd):
    """Makes stages and closes them."""
    made = []

    def make(*args, **kwargs):
        made.append(Stage(model_dir, capfd, *args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()
