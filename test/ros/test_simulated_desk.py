"""The simulated desk with all that a real one says, and the node with the model that ships, over real DDS."""

import numpy as np
import pytest
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from wristworld_ros.msg import WristView
from wristworld_ros.ros.camera_node import CameraNode
from wristworld_ros.ros.conversions import to_compressed_depth, to_depth_image, to_ns
from wristworld_ros.ros.depth_camera import metric_depth
from wristworld_ros.ros.desk_recorder import DeskRecorder
from wristworld_ros.ros.transforms import TransformBuffer, pose_matrix, pose_text
from wristworld_ros.settings import NodeSettings

LATCHED = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Desk:
    """The node under test beside the camera node; every set that reached the model, and every frame that came of one."""

    def __init__(self, stage, camera, **settings):
        self.s = stage(**settings)
        self.camera = CameraNode(
            context=self.s.contexts[1],
            parameter_overrides=[Parameter(name, value=value) for name, value in camera.items()],
        )
        self.s.executors[1].add_node(self.camera)
        self.recorder = DeskRecorder(self.s.peer, ('left', 'right'))
        self.views, self.sets, self.transforms = self.s.listen(WristView, 'wrist/view'), [], TransformBuffer(keep_s=600)
        self.s.peer.create_subscription(TFMessage, '/tf_static', self._fix, LATCHED)
        self.s.peer.create_subscription(TFMessage, '/tf', lambda msg: self.transforms.add(msg.transforms), 100)
        self.parents = {}

    def _fix(self, msg):
        self.transforms.add(msg.transforms, static=True)
        self.parents |= {edge.child_frame_id: edge.header.frame_id for edge in msg.transforms}

    def activate(self):
        assert self.s.node.autostart()
        decode = self.s.node.inputs.decode

        def noted(matched):
            self.sets.append(decode(matched))
            return self.sets[-1]

        self.s.node.inputs.decode = noted
        return self

    def last(self, geometry):
        return next((view for view in reversed(self.views) if view.geometry == geometry), None)

    def close(self):
        self.s.executors[1].remove_node(self.camera)
        self.camera.close()
        self.camera.destroy_node()


@pytest.fixture
def desk(stage):
    pytest.importorskip('robosuite', reason='the simulator is not installed')
    pytest.importorskip('yourdfpy', reason='the robot extra is not installed')
    made = []

    def make(camera, **settings):
        given = {'model': 'sim_tiny', 'threads': 1, 'tf_timeout': 1.0, 'publish_invalid': True, 'freshness': 60.0}
        made.append(Desk(stage, {'rate': 2.0, 'seed': 5} | camera, **(given | settings)))
        return made[-1].activate()

    yield make
    for one in made:
        one.close()


def mount(seed):
    from wristworld_ros.sim.stream import wrist_mount

    return pose_text(wrist_mount(seed))


def test_the_node_makes_rgbd_frames_of_the_desk_at_the_true_place_of_its_wrist(desk):
    d = desk({'sensor_errors': False}, wrist_mount=mount(5), wrist_camera_info='true_wrist/camera_info')
    d.s.spin_until(lambda: d.sets and d.sets[-1].robot_points is not None and d.last(WristView.RGBD), timeout=90)
    count = len(d.views)
    d.s.spin_until(lambda: len(d.views) >= count + 3, timeout=60)
    assert d.s.node.status().geometry == WristView.RGBD and not d.s.node.status().missing
    known = d.sets[-1]
    assert (known.depth > 0).mean() > 0.9 and np.isfinite(known.T_base_anchor).all()
    assert {'fr3_leftfinger', 'fr3_link7'} <= set(known.robot_points.links)
    assert d.parents['virtual_wrist_optical_frame'] == 'fr3_hand'
    view = d.views[-1]
    stamp = to_ns(view.header.stamp)
    found, true = (
        d.transforms.lookup('fr3_link0', frame, stamp)
        for frame in ('virtual_wrist_optical_frame', 'true_wrist_optical_frame')
    )
    assert np.linalg.norm(found[:3, 3] - true[:3, 3]) < 0.001
    angle = np.degrees(np.arccos(np.clip((np.trace(found[:3, :3].T @ true[:3, :3]) - 1) / 2, -1, 1)))
    assert angle < 0.1
    pose = view.pose.pose.position
    np.testing.assert_allclose([pose.x, pose.y, pose.z], true[:3, 3], atol=0.001)
    assert view.pose.header.frame_id == 'fr3_link0'
    assert np.nanmax(view.residuals) < 0.01  # anchors see the arm where joints and calibration put it


def test_what_the_recorder_notes_of_a_frame_is_what_the_model_was_told(desk):
    d = desk({}, wrist_mount=mount(5), wrist_camera_info='true_wrist/camera_info')
    d.s.spin_until(lambda: d.sets and d.sets[-1].robot_points is not None and d.last(WristView.RGBD), timeout=90)
    view = d.last(WristView.RGBD)
    record, known = d.recorder.record(view), next(s for s in d.sets if s.stamp_ns == to_ns(view.header.stamp))
    for i, name in enumerate(known.names):
        np.testing.assert_allclose(np.reshape(record['intrinsics'][name], (3, 3)), known.intrinsics[i])
        np.testing.assert_allclose(np.reshape(record['T_base_anchor'][name], (4, 4)), known.T_base_anchor[i], atol=1e-9)
    np.testing.assert_allclose(np.reshape(record['T_wrist_base'], (4, 4)), known.wrist.T_camera_world, atol=1e-6)
    assert set(record['joints']) == {*(f'fr3_joint{i}' for i in range(1, 8)), 'fr3_finger_joint1', 'fr3_finger_joint2'}
    assert d.recorder.record(WristView()) is None


@pytest.mark.parametrize(
    ('camera', 'geometry'),
    [({'depth': False}, WristView.CALIBRATED), ({'depth': False, 'robot': False}, WristView.RGB)],
)
def test_a_desk_that_says_less_gives_frames_of_a_lesser_geometry(desk, camera, geometry):
    d = desk(camera, wrist_mount=mount(5))
    d.s.spin_until(lambda: d.last(geometry), timeout=90)
    assert d.last(WristView.RGBD) is None and d.sets[-1].depth is None


def test_sensor_errors_move_what_tf_says_of_the_anchors_and_not_the_wrist(desk):
    d = desk({}, wrist_mount=mount(5))
    d.s.spin_until(lambda: d.last(WristView.RGBD) and d.sets[-1].robot_points is not None, timeout=90)
    true = [c.T_camera_world for name, c in d.camera.source._stream.cameras().items() if name != 'wrist']
    for found, camera in zip(d.sets[-1].T_base_anchor, true, strict=True):
        error = camera @ found
        assert np.linalg.norm(error[:3, 3]) == pytest.approx(0.005, abs=1e-4)
        assert np.degrees(np.arccos((np.trace(error[:3, :3]) - 1) / 2)) == pytest.approx(0.5, abs=0.01)
    assert 0.9 < (d.sets[-1].depth > 0).mean() < 0.999  # shadows of edges
    assert not (np.array(d.last(WristView.RGBD).residuals) > 0.03).any()


def test_compressed_desks_are_rgbd_too(desk):
    d = desk({'transport': 'compressed'}, wrist_mount=mount(5), transport='compressed')
    d.s.spin_until(lambda: d.last(WristView.RGBD), timeout=90)


def test_depth_messages_keep_millimetres_and_what_is_unknown():
    depth = np.float32([[0, 0.5, 1.2344], [9.9996, 70, 0.0004]])
    header = Header(frame_id='camera')
    for msg, kind in ((to_depth_image(depth, header), Image), (to_compressed_depth(depth, header), CompressedImage)):
        assert isinstance(msg, kind) and msg.header.frame_id == 'camera'
        np.testing.assert_allclose(metric_depth(msg, 't', 10**6), [[0, 0.5, 1.234], [10, 65.535, 0]], atol=1e-6)


def test_a_mount_in_words_is_the_mount():
    T = pose_matrix((0.05, -0.01, 0.04, 0.5, -0.5, 0.5, 0.5))
    np.testing.assert_allclose(pose_matrix(map(float, pose_text(T).split())), T, atol=1e-8)


def test_the_desk_s_frames_are_the_node_s_defaults():
    from wristworld_ros.sim.robot_description import BASE_FRAME, HAND_FRAME

    assert (NodeSettings().base_frame, NodeSettings().hand_frame) == (BASE_FRAME, HAND_FRAME)
