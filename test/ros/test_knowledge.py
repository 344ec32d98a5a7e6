"""The node over real DDS with depth and TF: what reaches the model, what is published, and what it says is missing."""

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header, String
from tf2_msgs.msg import TFMessage

from wristworld_ros.errors import UserError
from wristworld_ros.msg import WristView
from wristworld_ros.robot.calibration_file import Calibration, CameraModel, PlacedCamera, WristMount, write_calibration
from wristworld_ros.ros.conversions import message_data, to_intrinsics, to_stamp, to_transform
from wristworld_ros.ros.known_wrist import read_camera_info
from wristworld_ros.types import FrameStatus, RobotPoints

MS = 1_000_000
LATCHED = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MOUNT = '0.05 0 0.04 0 0 0 1'
K = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]


def pose(x, y, z):
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T


def depth_image(depth, header):
    """The message of uint16 millimetres or float32 metres [H, W]."""
    height, width = depth.shape
    encoding, step = '16UC1' if depth.dtype == np.uint16 else '32FC1', depth.itemsize * width
    data = message_data(depth)
    return Image(header=header, height=height, width=width, encoding=encoding, step=step, data=data)


class Desk:
    """A stage with two RGB-D anchors, a hand that TF knows, and every set that reached the model."""

    def __init__(self, stage, **settings):
        self.s = stage(publish_invalid=True, points_stride=2, **settings).camera('left', 'right')
        self.depth = {
            name: self.s.peer.create_publisher(Image, f'anchor_{name}/depth/image_raw', 10) for name in self.s.senders
        }
        self.tf = self.s.peer.create_publisher(TFMessage, '/tf', 100)
        self.static = self.s.peer.create_publisher(TFMessage, '/tf_static', LATCHED)
        self.joints = self.s.peer.create_publisher(JointState, '/joint_states', 100)
        self.description = self.s.peer.create_publisher(String, '/robot_description', LATCHED)
        self.views = self.s.listen(WristView, 'wrist/view')
        self.sets = []

    def activate(self, calibrated=True):
        self.s.activate()
        inputs = self.s.node.inputs
        decode = inputs.decode

        def noted(matched):
            self.sets.append(decode(matched))
            return self.sets[-1]

        inputs.decode = noted
        if calibrated:
            for name in self.s.senders:
                self.s.calibrate(name, width=64, height=48, k=K)
            self.s.spin_until(lambda: len(inputs.calibrated) == 2)
        return self

    def place_anchors(self, parent='fr3_link0'):
        edges = [
            to_transform(pose(0.1 * i, 0, -0.5), Header(frame_id=parent), f'anchor_{name}_optical_frame')
            for i, name in enumerate(self.s.senders)
        ]
        self.static.publish(TFMessage(transforms=edges))
        self.s.spin_until(lambda: self.s.node.inputs.knowledge.transforms.has('anchor_right_optical_frame'))

    def send_hand(self, *stamps, parent='fr3_link0'):
        for when in stamps:
            edge = to_transform(pose(0.0, 0.0, 0.0), Header(stamp=to_stamp(when), frame_id=parent), 'fr3_hand')
            self.tf.publish(TFMessage(transforms=[edge]))

    def send(
        self, depth=None, hand=True, frame=None, offset_ms=0, hand_ms=(-50, 50), parents=('fr3_link0',), joints_ms=None
    ):
        """One set, with depth (uint16 or float32 [H, W]), the hand's pose and the joints at these times from the images."""
        stamp = self.s.now()
        for parent in parents if hand else ():
            self.send_hand(*(stamp + ms * MS for ms in hand_ms), parent=parent)
        for ms in joints_ms or ():
            self.joints.publish(
                JointState(header=Header(stamp=to_stamp(max(0, stamp + ms * MS))), name=['j'], position=[0.1])
            )
        for name, publisher in self.depth.items():
            if depth is not None:
                header = Header(
                    stamp=to_stamp(stamp + offset_ms * MS), frame_id=frame or f'anchor_{name}_optical_frame'
                )
                publisher.publish(depth_image(depth, header))
        self.s.spin(0.01)
        self.s.send_set(stamp)
        self.s.spin(0.05)

    def send_until(self, condition, **kwargs):
        for _ in range(200):
            if condition():
                return
            self.send(**kwargs)
        raise AssertionError(f'what was awaited did not come; missing: {self.missing}')

    @property
    def missing(self):
        return ' '.join(self.s.node.status().missing)


@pytest.fixture
def desk(stage):
    return lambda **settings: Desk(stage, **settings)


GOOD = np.full((48, 64), 800, np.uint16)


def test_with_depth_and_tf_frames_are_made_of_rgbd_in_the_base_frame(desk):
    d = desk(wrist_mount=MOUNT, wrist_fov=70.0)
    poses = d.s.listen(PoseStamped, 'wrist/pose')
    static = d.s.listen(TFMessage, '/tf_static', LATCHED)
    d.activate().place_anchors()
    d.send_until(lambda: any(v.geometry == WristView.RGBD for v in d.views) and poses, depth=GOOD)
    known = d.sets[-1]
    np.testing.assert_allclose(known.depth, 0.8, atol=1e-6)
    np.testing.assert_allclose(known.T_base_anchor, [pose(0, 0, -0.5), pose(0.1, 0, -0.5)], atol=1e-9)
    np.testing.assert_allclose(np.linalg.inv(known.wrist.T_camera_world), pose(0.05, 0, 0.04), atol=1e-9)
    assert np.isfinite(known.intrinsics).all()
    last = poses[-1]
    assert last.header.frame_id == 'fr3_link0' and last.pose.position.x == pytest.approx(0.05, abs=1e-6)
    d.s.spin_until(lambda: any(t.child_frame_id == 'virtual_wrist_optical_frame' for m in static for t in m.transforms))
    mounted = [t for m in static for t in m.transforms if t.child_frame_id == 'virtual_wrist_optical_frame']
    assert len(mounted) == 1 and mounted[0].header.frame_id == 'fr3_hand'
    assert mounted[0].transform.translation.z == pytest.approx(0.04)
    assert d.s.node.status().geometry == WristView.RGBD


def test_while_the_hand_is_not_known_yet_the_wrist_gets_no_other_parent(desk):
    d = desk(wrist_mount=MOUNT)
    edges = d.s.listen(TFMessage, '/tf')
    d.activate().place_anchors()
    d.send_until(
        lambda: any(v.geometry == WristView.RGB and v.status == FrameStatus.VALID for v in d.views), hand=False
    )
    d.send_until(lambda: any(v.geometry == WristView.CALIBRATED for v in d.views))
    assert {t.child_frame_id for m in edges for t in m.transforms} == {'fr3_hand'}


def test_pictures_alone_reach_the_model_alone_and_what_is_missing_is_listed(desk):
    d = desk().activate(calibrated=False)
    d.send_until(lambda: d.views, hand=False)
    assert not d.sets[-1].is_known and d.views[-1].geometry == WristView.RGB
    for word in ('camera_info', 'anchor_left', 'wrist_mount'):
        assert word in d.missing
    assert not d.s.warnings('not known')


def test_a_mount_goes_with_images_alone_with_or_without_tf(desk):
    d = desk(wrist_mount=MOUNT, wrist_fov=70.0).activate(calibrated=False)
    d.send_until(lambda: d.views, hand=False)
    known = d.sets[-1]
    assert not known.is_known and d.views[-1].geometry == WristView.RGB
    np.testing.assert_allclose(known.T_hand_wrist, pose(0.05, 0, 0.04), atol=1e-9)
    assert known.mounted.K[0, 0] == pytest.approx(known.mounted.height / 2 / np.tan(np.radians(35)))


def test_the_mount_of_a_wrist_camera_that_tf_has_is_looked_up(desk):
    d = desk(wrist_camera_frame='camera').activate(calibrated=False)
    d.static.publish(TFMessage(transforms=[to_transform(pose(0.03, 0, 0.1), Header(frame_id='fr3_hand'), 'camera')]))
    d.send_until(lambda: d.sets and d.sets[-1].mounted is not None)
    np.testing.assert_allclose(d.sets[-1].T_hand_wrist, pose(0.03, 0, 0.1), atol=1e-9)


def test_one_camera_alone_may_be_calibrated_and_placed(desk):
    d = desk(wrist_mount=MOUNT).activate(calibrated=False)
    d.s.calibrate('right', width=64, height=48, k=K)
    d.s.spin_until(lambda: d.s.node.inputs.calibrated == {'right'})
    edge = to_transform(pose(0, 0, -0.5), Header(frame_id='fr3_link0'), 'anchor_right_optical_frame')
    d.static.publish(TFMessage(transforms=[edge]))
    d.send_until(lambda: d.sets and d.sets[-1].T_base_anchor is not None)
    for values in (d.sets[-1].intrinsics, d.sets[-1].T_base_anchor):
        assert np.isnan(values[0]).all() and np.isfinite(values[1]).all()


@pytest.mark.parametrize(
    ('faulty', 'words'),
    [
        ({'depth': np.full((36, 64), 800, np.uint16)}, 'align_depth'),
        ({'depth': GOOD, 'frame': 'left_depth'}, 'not registered'),
        ({'depth': np.full((48, 64), 1, np.uint16)}, 'as if its numbers were metres; publish 16UC1 in millimetres'),
        ({'depth': np.full((48, 64), 800, np.float32)}, 'as if its numbers were millimetres; publish 32FC1 in metres'),
        ({'depth': np.zeros((48, 64), np.uint16)}, 'zero everywhere'),
        ({'depth': GOOD, 'offset_ms': -200}, '200 ms older'),
        (
            {'depth': GOOD, 'offset_ms': -90_000},
            '90.0 s before their colour images; have the driver stamp both by one clock',
        ),
    ],
)
def test_depth_that_cannot_be_used_is_said_and_frames_go_on_without(desk, faulty, words):
    d = desk(wrist_mount=MOUNT, slop=0.02, tf_timeout=0.02).activate()
    d.place_anchors()
    d.send_until(lambda: words in d.missing and any(v.geometry == WristView.CALIBRATED for v in d.views), **faulty)
    assert d.sets[-1].depth is None and d.sets[-1].wrist is not None
    assert d.s.warnings(words)


@pytest.mark.parametrize(
    ('faulty', 'words', 'fix'),
    [
        ({'hand': False}, 'TF has no frame fr3_hand', 'publish it on /tf'),
        ({'hand_ms': (-300, -100)}, 'TF fr3_link0 -> fr3_hand is', 'raise tf_timeout, or publish TF at a higher rate'),
        ({'hand_ms': (20_000,)}, 'are 20.0 s ahead of the node', 'use_sim_time'),
        ({'hand_ms': (-30_000,)}, 'are 30.0 s from the images', 'use_sim_time'),
        ({'parents': ('fr3_link0', 'world')}, 'fr3_hand has two parents, fr3_link0 and world', 'stop one of the nodes'),
    ],
)
def test_tf_that_cannot_be_used_is_said_and_frames_go_on_without(desk, faulty, words, fix):
    d = desk(wrist_mount=MOUNT, tf_timeout=0.02).activate()
    d.place_anchors()
    if faulty.get('hand', True):
        d.send_until(lambda: 'wrist' in d.missing, hand=False)
    d.send_until(lambda: words in d.missing and any(v.geometry == WristView.RGB for v in d.views), depth=GOOD, **faulty)
    assert fix in d.missing and d.sets[-1].wrist is None and d.sets[-1].T_base_anchor is not None


def test_tf_that_is_late_is_waited_for(desk):
    d = desk(wrist_mount=MOUNT, tf_timeout=2.0).activate()
    d.place_anchors()
    d.send_until(lambda: d.sets and d.sets[-1].wrist is not None)
    count, stamp = len(d.sets), d.s.now()
    d.s.send_set(stamp)
    d.s.spin(0.3)
    assert len(d.sets) == count  # the worker waits
    d.send_hand(stamp + 50 * MS)
    d.s.spin_until(lambda: len(d.sets) > count)
    assert d.sets[-1].stamp_ns == stamp and d.sets[-1].wrist is not None


def test_tf_that_falls_silent_is_said_with_its_publisher(desk):
    d = desk(wrist_mount=MOUNT, tf_timeout=0.02).activate()
    d.place_anchors()
    d.send_until(lambda: d.sets and d.sets[-1].wrist is not None)
    d.s.spin(1.1)
    d.send_until(lambda: 'TF fr3_link0 -> fr3_hand has been silent for' in d.missing, hand=False)
    assert 'robot_state_publisher' in d.missing and d.sets[-1].wrist is None


def test_images_from_before_the_first_tf_are_said_to_be_so(desk):
    d = desk(wrist_mount=MOUNT, tf_timeout=0.02).activate()
    d.place_anchors()
    d.send_hand(d.s.now() + 950 * MS)
    d.s.spin_until(lambda: d.s.node.inputs.knowledge.transforms.has('fr3_hand'))
    d.send_until(lambda: 's after the image' in d.missing, hand=False)
    assert 'begins' in d.missing and 'compare clocks' in d.missing and d.sets[-1].wrist is None


SLIDER = """<robot name="r"><link name="fr3_link0"/><link name="arm"><visual><geometry>{}</geometry></visual></link>
<joint name="j" type="prismatic"><parent link="fr3_link0"/><child link="arm"/><axis xyz="1 0 0"/>
<limit lower="0" upper="1" effort="1" velocity="1"/></joint></robot>"""
BOX, MESH = '<box size="0.1 0.1 0.1"/>', '<mesh filename="package://nowhere/hand.stl"/>'


def robot_desk(desk, description, **settings):
    """A desk where nothing but the robot may be missing."""
    d = desk(wrist_mount=MOUNT, wrist_fov=70.0, tf_timeout=0.05, **settings).activate()
    d.place_anchors()
    if description is not None:
        d.description.publish(String(data=description))
    return d


def test_the_robots_surface_is_at_the_joints_of_the_image(desk):
    d = robot_desk(desk, SLIDER.format(BOX))
    d.send_until(lambda: d.sets and d.sets[-1].robot_points is not None, depth=GOOD, joints_ms=(-50, 50))
    np.testing.assert_allclose(d.sets[-1].robot_points.points.mean(0), [0.1, 0, 0], atol=0.005)
    assert d.missing == ''


@pytest.mark.parametrize(
    ('description', 'faulty', 'words', 'fix'),
    [
        (None, {'joints_ms': (-50, 50)}, 'No robot description on /robot_description', 'start robot_state_publisher'),
        ('no xml', {'joints_ms': (-50, 50)}, 'is not a URDF that can be read', 'publish the text that xacro makes'),
        (SLIDER.format(MESH), {'joints_ms': (-50, 50)}, 'gives no surface, for meshes are missing (package://nowhere/hand.stl)',
         'install the package'),
        (SLIDER.format(BOX), {}, 'No joint states on /joint_states', 'start joint_state_broadcaster'),
        (SLIDER.format(BOX), {'joints_ms': (-400,)}, 'ms behind the image', 'raise tf_timeout'),
        (SLIDER.format(BOX), {'joints_ms': (-(10**12),)}, 's behind the image', 'use_sim_time'),
        (SLIDER.format(BOX), {'joints_ms': (20_000,)}, 's after the image', 'use_sim_time'),
        (SLIDER.format(BOX).replace('"j"', '"k"'), {'joints_ms': (-50, 50)}, '/joint_states lacks k', 'let all joints be published'),
    ],
)  # fmt: skip
def test_a_robot_that_is_not_known_is_said_and_frames_go_on_without(desk, description, faulty, words, fix):
    d = robot_desk(desk, description)
    d.send_until(
        lambda: words in d.missing and any(v.geometry == WristView.RGBD for v in d.views), depth=GOOD, **faulty
    )
    assert fix in d.missing and d.sets[-1].robot_points is None and d.sets[-1].depth is not None


def test_joint_states_that_fall_silent_are_said(desk):
    d = robot_desk(desk, SLIDER.format(BOX), freshness=0.3)
    d.send_until(lambda: d.sets and d.sets[-1].robot_points is not None, depth=GOOD, joints_ms=(-50, 50))
    d.send_until(lambda: '/joint_states has been silent for' in d.missing, depth=GOOD)
    assert 'joint_state_broadcaster' in d.missing and d.sets[-1].robot_points is None


def test_meshes_that_are_missing_are_said_and_the_other_links_used(desk):
    two = SLIDER.format(BOX).replace(
        '<link name="fr3_link0"/>', f'<link name="fr3_link0"><visual><geometry>{MESH}</geometry></visual></link>'
    )
    d = robot_desk(desk, two)
    d.send_until(lambda: 'hand.stl' in d.missing, depth=GOOD, joints_ms=(-50, 50))
    assert 'Some links of /robot_description have no surface' in d.missing and 'install the package' in d.missing
    assert set(d.sets[-1].robot_points.links) == {'arm'}


def test_anchors_that_tf_does_not_connect_are_said_with_both_roots(desk):
    d = desk(wrist_mount=MOUNT).activate()
    d.place_anchors(parent='world')
    d.send_until(lambda: 'root world' in d.missing)
    assert d.sets[-1].T_base_anchor is None


@pytest.mark.parametrize(
    ('required', 'words'),
    [('use_tf', 'TF has no frame'), ('use_depth', 'No depth images'), ('use_robot_model', 'No robot description')],
)
def test_what_is_required_and_missing_makes_frames_invalid(desk, required, words):
    d = desk(**{required: 'require'}).activate()
    d.send_until(lambda: d.views, hand=False)
    assert d.views[-1].status == FrameStatus.REQUIRED_MISSING and words in d.views[-1].reason


def test_what_is_never_wanted_is_not_listened_to(desk):
    d = desk(wrist_mount=MOUNT, use_tf='never', use_depth='never', use_robot_model='never').activate()
    d.send_until(lambda: d.sets, depth=GOOD)
    assert d.sets[-1].depth is None and d.sets[-1].wrist is None and d.missing == ''
    assert not d.s.node.inputs.knowledge.transforms.has('fr3_hand')


def test_a_calibration_file_of_the_wrist_camera_is_read_strictly(tmp_path):
    good = tmp_path / 'wrist.yaml'
    good.write_text(f'image_width: 64\nimage_height: 48\ncamera_matrix: {{rows: 3, cols: 3, data: {K}}}\n')
    assert read_camera_info(good).k.tolist() == K
    for text in (
        '',
        '[1]',
        'image_width: 64',
        ': ',
        f'image_width: 64\nimage_height: 48\ncamera_matrix: {{data: {[0.0] * 9}}}',
    ):
        good.write_text(text)
        with pytest.raises(UserError):
            read_camera_info(good)


def test_k_of_rectified_images_is_that_of_p_and_of_raw_ones_that_of_k():
    rectified = [50.0, 0.0, 30.0, 0.0, 0.0, 50.0, 22.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info = CameraInfo(width=64, height=48, k=K, p=rectified)
    np.testing.assert_allclose(to_intrinsics(info, 64, 48).ravel(), K)
    np.testing.assert_allclose(to_intrinsics(info, 64, 48, rectified=True), [[50, 0, 30], [0, 50, 22], [0, 0, 1]])
    info.binning_x = info.binning_y = 2
    np.testing.assert_allclose(to_intrinsics(info, 32, 24, rectified=True)[0, 0], 25)
    np.testing.assert_allclose(to_intrinsics(CameraInfo(width=64, height=48, k=K), 64, 48, rectified=True).ravel(), K)


def test_a_robot_whose_root_is_not_the_base_is_brought_there_by_tf(desk):
    d = desk(wrist_mount=MOUNT).activate()
    d.place_anchors()
    knowledge = d.s.node.inputs.knowledge

    def surface(stamp_ns, base, deadline):
        return RobotPoints(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.uint8), np.array(['tip'])), 'world'

    knowledge.robot.surface = surface
    edge = to_transform(pose(0, 0, 0.7), Header(frame_id='world'), 'fr3_link0')
    d.static.publish(TFMessage(transforms=[edge]))
    d.send_until(lambda: d.sets and d.sets[-1].robot_points is not None)
    np.testing.assert_allclose(d.sets[-1].robot_points.points, [[0, 0, -0.7]], atol=1e-6)


BENT = (-0.3, 0.1, 0.0, 0.0, 0.0)


def bent_calibration(d, names=('left', 'right')):
    for name in names:
        d.s.calibrate(name, width=64, height=48, k=K, d=list(BENT), distortion_model='plumb_bob')
    d.s.spin_until(lambda: len(d.s.node.inputs.calibrated) == len(names))


def test_distortion_is_said_once_with_its_fix_and_stays(desk):
    d = desk(wrist_mount=MOUNT).activate(calibrated=False)
    bent_calibration(d)
    d.send_until(lambda: 'set rectify' in d.missing and len(d.sets) > 3)
    assert 'anchor_left' in d.missing and 'pixels' in d.missing
    np.testing.assert_allclose(d.sets[-1].intrinsics[0].ravel(), K)
    assert len(d.s.warnings('distorted')) == 2  # one for each camera


def test_images_and_depth_are_rectified_where_that_is_wanted(desk):
    d = desk(wrist_mount=MOUNT, rectify=True).activate(calibrated=False)
    d.place_anchors()
    bent_calibration(d)
    depth = np.tile(np.arange(800, 864, dtype=np.uint16), (48, 1))
    d.send_until(lambda: d.sets and d.sets[-1].depth is not None and d.sets[-1].intrinsics is not None, depth=depth)
    sent = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)  # what the stage sends
    lens = d.s.node.inputs._anchors[0].lens(64, 48)
    assert 'distorted' not in d.missing and lens.rectification is not None
    np.testing.assert_allclose(d.sets[-1].intrinsics[0], lens.K)
    assert not np.allclose(lens.K.ravel(), K)
    np.testing.assert_allclose(d.sets[-1].depth[0], lens.rectification.depth(depth * np.float32(1e-3)), atol=1e-6)
    np.testing.assert_array_equal(d.sets[-1].images[0], lens.rectification.image(sent))
    assert d.s.node.inputs._anchors[0].lens(64, 48) is lens  # made once


@pytest.fixture
def calibration_file(tmp_path):
    """Writes a calibration of the left anchor and of the wrist, with changes; returns its path."""

    def write(camera=None, **changes):
        left = PlacedCamera(xyz=[0.3, 0, -0.5], quaternion=[0, 0, 0, 1], camera=camera)
        wrist = WristMount(hand_frame='fr3_hand', xyz=[0.05, 0, 0.04], quaternion=[0, 0, 0, 1], camera=camera)
        known = Calibration(**({'base_frame': 'fr3_link0', 'anchors': {'left': left}, 'wrist': wrist} | changes))
        write_calibration(tmp_path / 'calibration.yaml', known)
        return str(tmp_path / 'calibration.yaml')

    return write


def test_a_calibration_file_wins_over_tf_for_the_anchors_that_it_names(desk, calibration_file):
    d = desk(calibration_file=calibration_file()).activate()
    d.place_anchors()
    d.send_until(lambda: any(v.geometry == WristView.RGBD for v in d.views), depth=GOOD)
    known = d.sets[-1]
    np.testing.assert_allclose(known.T_base_anchor, [pose(0.3, 0, -0.5), pose(0.1, 0, -0.5)], atol=1e-9)
    np.testing.assert_allclose(np.linalg.inv(known.wrist.T_camera_world), pose(0.05, 0, 0.04), atol=1e-9)


def test_a_calibration_file_stands_in_for_camera_info_and_places_without_tf(desk, calibration_file):
    camera = CameraModel(128, 96, [120.0, 0, 63.5, 0, 120, 47.5, 0, 0, 1])
    d = desk(calibration_file=calibration_file(camera), use_tf='never').activate(calibrated=False)
    d.send_until(lambda: d.sets, hand=False)
    known = d.sets[-1]
    np.testing.assert_allclose(known.intrinsics[0].ravel(), K, atol=1e-9)
    assert np.isnan(known.intrinsics[1]).all()
    np.testing.assert_allclose(known.T_base_anchor[0], pose(0.3, 0, -0.5))
    assert np.isnan(known.T_base_anchor[1]).all() and known.wrist is None


def test_the_wrist_mount_of_the_settings_wins_over_that_of_the_file(desk, calibration_file):
    d = desk(calibration_file=calibration_file(), wrist_mount='0 0 0.1 0 0 0 1').activate()
    d.send_until(lambda: d.sets and d.sets[-1].wrist is not None)
    np.testing.assert_allclose(np.linalg.inv(d.sets[-1].wrist.T_camera_world), pose(0, 0, 0.1), atol=1e-9)


def test_the_wrist_mount_of_a_file_is_published_as_the_parent_of_the_virtual_camera(desk, calibration_file):
    d = desk(calibration_file=calibration_file())
    static = d.s.listen(TFMessage, '/tf_static', LATCHED)
    d.activate().place_anchors()

    def mounted():
        return [t for m in static for t in m.transforms if t.child_frame_id == 'virtual_wrist_optical_frame']

    d.send_until(mounted, depth=GOOD)
    assert mounted()[0].header.frame_id == 'fr3_hand' and mounted()[0].transform.translation.x == pytest.approx(0.05)


def hand_wrist(d):
    """Where the wrist camera of the last set is on the gripper, [4, 4]; None where that is not known."""
    mounted = d.sets[-1].mounted if d.sets else None
    return None if mounted is None else np.linalg.inv(mounted.T_camera_world)


QUARTER = np.sqrt(0.5)
FROM_FLANGE = [
    [QUARTER, -QUARTER, 0, 0.05 * QUARTER],
    [QUARTER, QUARTER, 0, 0.05 * QUARTER],
    [0, 0, 1, 0.04],
    [0, 0, 0, 1],
]  # MOUNT on the gripper


def test_a_mount_on_the_flange_is_turned_by_45_degrees_on_the_gripper(desk):
    d = desk(wrist_mount=MOUNT, wrist_mount_frame='fr3_link8').activate()
    d.place_anchors()
    d.send_until(lambda: hand_wrist(d) is not None and 'fr3_link8' in d.missing)
    np.testing.assert_allclose(hand_wrist(d), FROM_FLANGE, atol=1e-9)
    assert d.sets[-1].wrist is None  # TF does not say where the flange is


def test_a_mount_in_a_frame_of_tf_is_known_on_the_gripper_and_in_the_base(desk):
    d = desk(wrist_mount=MOUNT, wrist_mount_frame='plate')
    static = d.s.listen(TFMessage, '/tf_static', LATCHED)
    d.activate().place_anchors()
    d.send_until(lambda: 'plate' in d.missing)
    assert hand_wrist(d) is None and d.sets[-1].wrist is None
    d.static.publish(TFMessage(transforms=[to_transform(pose(0, 0, 0.1), Header(frame_id='fr3_hand'), 'plate')]))

    def parent():
        edges = [t for message in static for t in message.transforms]
        return next((t.header.frame_id for t in edges if t.child_frame_id == 'virtual_wrist_optical_frame'), None)

    d.send_until(lambda: hand_wrist(d) is not None and d.sets[-1].wrist is not None and parent())
    np.testing.assert_allclose(hand_wrist(d), pose(0.05, 0, 0.14), atol=1e-9)
    np.testing.assert_allclose(np.linalg.inv(d.sets[-1].wrist.T_camera_world), pose(0.05, 0, 0.14), atol=1e-9)
    assert parent() == 'plate'


def test_a_calibration_file_may_have_the_wrist_camera_in_another_frame_than_the_hand_s(desk, calibration_file):
    wrist = WristMount(hand_frame='fr3_link8', xyz=[0.05, 0, 0.04], quaternion=[0, 0, 0, 1])
    d = desk(calibration_file=calibration_file(wrist=wrist), use_tf='never').activate()
    d.send_until(lambda: hand_wrist(d) is not None)
    np.testing.assert_allclose(hand_wrist(d), FROM_FLANGE, atol=1e-9)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (None, 'is missing'),
        ({'base_frame': 'world'}, 'base_frame'),
        (
            {'anchors': {'top': PlacedCamera(xyz=[0, 0, 1], quaternion=[0, 0, 0, 1])}, 'wrist': None},
            'none of them is in the setting anchors',
        ),
    ],
)
def test_a_calibration_file_that_cannot_be_used_is_one_sentence_at_configure(stage, calibration_file, changes, words):
    path = calibration_file(**(changes or {}))
    s = stage(calibration_file=path if changes is not None else path + '.none')
    assert not s.node.autostart()
    assert s.warnings(words)


def test_without_tf_a_mount_in_a_frame_that_nobody_knows_is_refused_at_configure(stage):
    s = stage(wrist_mount=MOUNT, wrist_mount_frame='plate', use_tf='never')
    assert not s.node.autostart()
    assert s.warnings('plate') and s.warnings('use_tf')
