"""The node beside a whole simulated desk over DDS: colour, depth, calibration, TF, joint states and robot description.

What is given is exact, so what is published must be; and a camera that is bumped must be named.
"""

import numpy as np
import pytest
import yaml
from rosgraph_msgs.msg import Clock
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header, String
from tf2_msgs.msg import TFMessage

pytest.importorskip('mujoco')
pytest.importorskip('robosuite')
pytest.importorskip('yourdfpy')

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from wristworld_ros.errors import UserError
from wristworld_ros.msg import VirtualWristStatus, WristView
from wristworld_ros.ros.conversions import message_data, to_camera_info, to_ns, to_quaternion, to_stamp, to_transform
from wristworld_ros.ros.transforms import TransformBuffer, pose_matrix
from wristworld_ros.sim.robot_description import BASE_FRAME, HAND_FRAME, joint_positions, robot_description
from wristworld_ros.sim.stream import LIVE_SETTINGS, SimulatorStream
from wristworld_ros.types import FrameStatus, PixelOrigin

LATCHED = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MS = 1_000_000
NAMES = {'anchor0': 'left', 'anchor1': 'right'}
WRIST_FRAME = 'virtual_wrist_optical_frame'


@pytest.fixture(scope='module')
def simulator():
    """The simulated arm; what it is asked for is of its last step."""
    stream = SimulatorStream(LIVE_SETTINGS, 1)
    yield stream
    stream.close()


@pytest.fixture(scope='module')
def description(simulator, tmp_path_factory):
    return robot_description(simulator.env.model, tmp_path_factory.mktemp('meshes'))


class Desk:
    """A stage whose cameras, arm and TF are the simulator's. off: motions of anchors, [4, 4] by name, that TF does not know of.

    truth: T_base_wrist by stamp. observations: all that were reconstructed.
    """

    def __init__(self, stage, simulator, description, folder, depth=True, robot=True, **settings):
        self.simulator, self.with_depth, self.with_robot = simulator, depth, robot
        self.stamp_ns = 1_000_000 * MS
        simulator.reset(1)
        self.off, self.truth, self.observations = {}, {}, []
        wrist = simulator.env.wrist
        info = {
            'image_width': wrist.size,
            'image_height': wrist.size,
            'camera_matrix': {'data': wrist.K.ravel().tolist()},
        }
        (folder / 'wrist.yaml').write_text(yaml.safe_dump(info))
        mount = wrist.T_hand_wrist
        self.s = stage(
            wrist_mount=' '.join(f'{value:.12f}' for value in (*mount[:3, 3], *to_quaternion(mount))),
            wrist_camera_info=str(folder / 'wrist.yaml'), publish_invalid=True, use_sim_time=True, **settings,
        ).camera(*NAMES.values())  # fmt: skip
        peer = self.s.peer
        self.depth = {
            name: peer.create_publisher(Image, f'anchor_{name}/depth/image_raw', 10) for name in NAMES.values()
        }
        self.infos = {
            name: peer.create_publisher(CameraInfo, f'anchor_{name}/camera_info', 10) for name in NAMES.values()
        }
        self.clock = peer.create_publisher(Clock, '/clock', 10)
        self.tf = peer.create_publisher(TFMessage, '/tf', 100)
        self.static = peer.create_publisher(TFMessage, '/tf_static', LATCHED)
        self.joints = peer.create_publisher(JointState, '/joint_states', 10)
        self.buffer = TransformBuffer()
        peer.create_subscription(TFMessage, '/tf', lambda m: self.buffer.add(m.transforms), 100)
        peer.create_subscription(TFMessage, '/tf_static', lambda m: self.buffer.add(m.transforms, static=True), LATCHED)
        self.views = self.s.listen(WristView, 'wrist/view')
        self.statuses = self.s.listen(VirtualWristStatus, 'virtual_wrist/status')
        self.s.activate()
        self._keep_observations()
        if robot:
            peer.create_publisher(String, '/robot_description', LATCHED).publish(String(data=description))
            self.s.spin_until(lambda: self.s.node.inputs.knowledge.robot.model is not None)
        self._place_anchors()

    def _keep_observations(self):
        reconstruct = self.s.node.stream.reconstruct

        def kept(anchors):
            self.observations.append(reconstruct(anchors))
            return self.observations[-1]

        self.s.node.stream.reconstruct = kept

    def _place_anchors(self):
        cameras = self.simulator.cameras()
        edges = [
            to_transform(
                np.linalg.inv(cameras[key].T_camera_world), Header(frame_id=BASE_FRAME), f'anchor_{name}_optical_frame'
            )
            for key, name in NAMES.items()
        ]
        self.static.publish(TFMessage(transforms=edges))
        self.s.spin_until(lambda: self.s.node.inputs.knowledge.transforms.has('anchor_right_optical_frame'))

    def step(self):
        """One moment of the simulator on all topics, a tenth of a second after the one before; returns its stamp.

        It takes as long as the node takes for it: nothing depends on how fast the machine is.
        """
        env = self.simulator.env
        self.simulator.step()
        stamp_ns = self.stamp_ns = self.stamp_ns + 100 * MS
        stamp = to_stamp(stamp_ns)
        self.clock.publish(Clock(clock=stamp))
        self.truth[stamp_ns] = np.linalg.inv(self.simulator.cameras()['wrist'].T_camera_world)
        T_base_hand = self.truth[stamp_ns] @ np.linalg.inv(env.wrist.T_hand_wrist)
        hand = to_transform(T_base_hand, Header(stamp=stamp, frame_id=BASE_FRAME), HAND_FRAME)
        self.tf.publish(TFMessage(transforms=[hand]))
        positions = joint_positions(env.model, env.data)
        self.joints.publish(
            JointState(header=Header(stamp=stamp), name=list(positions), position=list(positions.values()))
        )
        images = {}
        for key, camera in self.simulator._cameras().items():
            if key in NAMES:
                images[NAMES[key]] = self._send_depth(NAMES[key], camera, stamp_ns)
        self.s.spin_until(lambda: self._has_arrived(stamp_ns, images))
        for name, image in images.items():
            self.s.send(name, stamp_ns, image)
        self.s.spin_until(lambda: self.observations and self.observations[-1].anchors.stamp_ns == stamp_ns)
        self.s.spin(0.02)
        return stamp_ns

    def _has_arrived(self, stamp_ns, images):
        """Whether the node has all that it will look up for images of that stamp."""
        knowledge = self.s.node.inputs.knowledge
        try:
            knowledge.transforms.lookup(BASE_FRAME, HAND_FRAME, stamp_ns)
            for name, image in images.items() if self.with_depth else ():
                frame = f'anchor_{name}_optical_frame'
                knowledge.depth[name].depth_for(stamp_ns, frame, image.shape[:2], 0.0)
            if self.with_robot:
                knowledge.robot.surface(stamp_ns, BASE_FRAME, 0.0)
        except UserError:
            return False
        return self.s.node.now() >= stamp_ns and len(self.s.node.inputs.calibrated) == len(images)

    def _send_depth(self, name, camera, stamp_ns):
        """Depth and calibration of an anchor; returns its image."""
        header = Header(stamp=to_stamp(stamp_ns), frame_id=f'anchor_{name}_optical_frame')
        moved = type(camera)(
            camera.K, self.off.get(name, np.eye(4)) @ camera.T_camera_world, camera.width, camera.height
        )
        image, depth = self.simulator.env.renderer.render(moved)
        self.infos[name].publish(to_camera_info(camera.K, camera.width, camera.height, header))
        if self.with_depth:
            millimetres = np.round(depth * 1e3).astype(np.uint16)
            self.depth[name].publish(
                Image(
                    header=header, height=camera.height, width=camera.width, encoding='16UC1', step=2 * camera.width,
                    data=message_data(millimetres),
                )
            )  # fmt: skip
        return image

    def step_until(self, condition, most=100):
        for _ in range(most):
            if condition():
                return
            self.step()
        raise AssertionError(f'what was awaited did not come; missing: {self.s.node.status().missing}')

    def published(self, stamp_ns, parent=BASE_FRAME):
        """T_base_wrist as TF has it at a time."""
        return self.buffer.lookup(parent, WRIST_FRAME, stamp_ns)


@pytest.fixture
def desk(stage, simulator, description, tmp_path):
    return lambda **settings: Desk(stage, simulator, description, tmp_path, **settings)


def difference(one, other):
    """Metres and degrees between two poses."""
    turn = Rotation.from_matrix(one[:3, :3].T @ other[:3, :3]).magnitude()
    return float(np.linalg.norm(one[:3, 3] - other[:3, 3])), float(np.degrees(turn))


def to_matrix(pose):
    p, q = pose.position, pose.orientation
    return pose_matrix((p.x, p.y, p.z, q.x, q.y, q.z, q.w))


@pytest.mark.parametrize('depth', [True, False])
def test_pose_and_tf_of_the_wrist_are_those_of_the_true_camera(desk, depth):
    geometry = WristView.RGBD if depth else WristView.CALIBRATED
    d = desk(depth=depth)
    d.step_until(lambda: sum(v.geometry == geometry for v in d.views) >= 8)
    views = [v for v in d.views if v.geometry == geometry and v.status == FrameStatus.VALID]
    assert len(views) >= 5
    places = []
    for view in views:
        stamp_ns = to_ns(view.header.stamp)
        assert view.pose.header.frame_id == BASE_FRAME
        for found in (to_matrix(view.pose.pose), d.published(stamp_ns)):
            metres, degrees = difference(found, d.truth[stamp_ns])
            assert metres < 1e-3 and degrees < 0.1
        places.append(d.truth[stamp_ns][:3, 3])
    assert np.ptp(places, axis=0).max() > 0.01  # the arm moved meanwhile


def test_the_robots_own_surface_reaches_the_condition_map_and_fits_what_is_measured(desk):
    d = desk()

    def robot_pixels():
        maps = [o.condition.origin for o in d.observations if o.condition.origin is not None]
        return max((int((origin == PixelOrigin.ROBOT).sum()) for origin in maps), default=0)

    def all_is_known():
        last = d.statuses[-1] if d.statuses else VirtualWristStatus()
        return last.geometry == WristView.RGBD and np.isfinite(last.residuals).all() and not last.missing

    d.step_until(lambda: robot_pixels() > 20 and all_is_known())
    points = next(o.anchors.robot_points for o in reversed(d.observations) if o.anchors.robot_points is not None)
    assert {'fr3_leftfinger', 'fr3_rightfinger', 'fr3_link7'} <= set(points.links)
    assert len(d.statuses[-1].residuals) == 2 and max(d.statuses[-1].residuals) < 0.003


def test_an_anchor_that_is_bumped_by_2_cm_and_2_degrees_is_named_within_5_seconds(desk):
    d = desk(diagnostics_period=0.2)
    d.step_until(lambda: sum(np.isfinite(o.residuals).all() for o in d.observations if len(o.residuals)) >= 30)
    assert not any(v.status == FrameStatus.ANCHOR_MOVED for v in d.views)
    bump = np.eye(4)
    bump[:3, :3] = Rotation.from_euler('y', 2, degrees=True).as_matrix()
    bump[:3, 3] = 0.02, 0, 0
    d.off['right'] = bump
    began = d.step()

    def named():
        return any(v.status == FrameStatus.ANCHOR_MOVED for v in d.views)

    d.step_until(named)
    view = next(v for v in d.views if v.status == FrameStatus.ANCHOR_MOVED)
    assert (to_ns(view.header.stamp) - began) * 1e-9 < 5.0
    assert 'Anchor right' in view.reason and 'left' not in view.reason and 'calibrate' in view.reason
    d.step_until(lambda: 'Anchor right' in d.statuses[-1].reason)
    assert d.statuses[-1].residuals[1] > 3 * d.statuses[-1].residuals[0]
