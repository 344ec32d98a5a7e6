"""What the doctor says of frames, depth, the robot and a node that runs: from plain records, and over real topics."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import rclpy
from msgspec.structs import replace as replace_struct
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header, String
from tf2_msgs.msg import TFMessage

from wristworld_ros.apps.doctor.calibration import read_file
from wristworld_ros.apps.doctor.finding import exit_status
from wristworld_ros.apps.doctor.robot import (
    depth_findings,
    frame_findings,
    robot_findings,
    robot_sections,
    wrist_findings,
)
from wristworld_ros.apps.doctor.topics import survey_topics
from wristworld_ros.msg import VirtualWristStatus
from wristworld_ros.robot.calibration_file import Calibration, PlacedCamera, Quality, WristMount, write_calibration
from wristworld_ros.ros import robot_listener
from wristworld_ros.ros.conversions import message_data, to_image, to_stamp, to_transform
from wristworld_ros.ros.robot_survey import Depth, Description, Frame, Joints, RobotSurvey, RunningWrist
from wristworld_ros.ros.topic_survey import TopicSurvey
from wristworld_ros.settings import NodeSettings

MOUNTED = NodeSettings(anchors=['left'], wrist_mount='0.05 0 0.04 0 0 0 1')
CAMERA = Frame('left_optical', 'anchor_left', ('fr3_link0',), True)
HAND = Frame('fr3_hand', 'the hand', ('fr3_link8',), age=0.004, wait=0.012)
DEPTH = Depth(
    'left', '/anchor_left/depth/image_raw', 1, 30, 640, 480, '16UC1', 'left_optical', 0.002, 0.9, 0.4, 1.3
)  # fmt: skip
JOINTS = Joints(1, 50.0, ('j',), 0.003)
DESCRIPTION = Description(1, True, 'fr3_link0', ('j',), ('fr3_link0', 'arm'))
WRIST = RunningWrist('/virtual_wrist/status', True, 'RGBD', ('left', 'right'), (0.0012, None))
ALL = RobotSurvey(9, True, ('fr3_link0',), (CAMERA, HAND), (DEPTH,), (), JOINTS, DESCRIPTION, (WRIST,))


def only(findings):
    (found,) = findings
    return found


def test_a_desk_where_all_is_well_is_ok():
    sections = robot_sections(ALL, MOUNTED)
    assert [title for title, _ in sections] == ['Frames', 'Depth', 'Robot', 'Virtual wrist']
    assert [len(findings) for _, findings in sections] == [2, 1, 2, 2]
    assert exit_status(f for _, findings in sections for f in findings) == 0


def test_nothing_of_a_kind_is_ok_and_an_error_where_it_is_required():
    nothing = RobotSurvey(depth=(replace(DEPTH, publishers=0, images=0),))
    assert exit_status(f for _, findings in robot_sections(nothing, MOUNTED) for f in findings) == 0
    required = replace(MOUNTED, use_tf='require', use_depth='require', use_robot_model='require')
    silent = replace(nothing, description=Description(bad='No robot description', fix='start robot_state_publisher'))
    for find in (frame_findings, depth_findings, robot_findings):
        assert only(find(silent, required)).state == 'error'
    never = replace(MOUNTED, use_tf='never', use_depth='never', use_robot_model='never')
    for find in (frame_findings, depth_findings, robot_findings):
        assert find(ALL, never) == []


@pytest.mark.parametrize(
    ('frame', 'words', 'fix'),
    [
        (replace(HAND, bad='TF frame fr3_hand has two parents', fix='stop one'), 'The place of the hand is not known: TF', 'stop one'),
        (replace(HAND, age=-0.3), 'stamped 0.30 s in the future', 'chrony'),
        (replace(HAND, wait=0.25), '250 ms after the images of their time, and tf_timeout is 100 ms', 'raise tf_timeout'),
    ],
)  # fmt: skip
def test_a_frame_that_is_not_known_at_the_time_of_images_is_a_warning(frame, words, fix):
    found = frame_findings(replace(ALL, frames=(CAMERA, frame)), MOUNTED)[1]
    assert found.state == 'warning' and words in found.what and fix in found.fix


def test_a_base_frame_that_tf_has_not_is_said_once_with_the_roots_there_are():
    found = only(frame_findings(replace(ALL, base=False, roots=('panda_link0', 'world')), MOUNTED))
    assert found.state == 'warning' and 'fr3_link0' in found.what and 'panda_link0, world' in found.fix


def test_a_mount_that_is_not_given_is_said():
    found = frame_findings(ALL, replace(MOUNTED, wrist_mount=None))[-1]
    assert found.state == 'warning' and 'wrist_mount' in found.fix


GOOD = Quality(
    method='robot', poses=5, residual=2.1, unit='mm', expected_mm=1.9, expected_wrist_px=2.4, date='2025-05-01'
)
PLACE = {'xyz': [1.0, -0.4, 0.5], 'quaternion': [0.0, 0.0, 0.0, 1.0]}


def calibration(quality=GOOD, **changes):
    mount = WristMount(hand_frame='fr3_hand', quality=quality, **PLACE)
    given = {'base_frame': 'fr3_link0', 'anchors': {'left': PlacedCamera(quality=quality, **PLACE)}, 'wrist': mount}
    return Calibration(**(given | changes))


def test_what_a_calibration_file_has_is_not_asked_of_tf():
    unknown = replace(CAMERA, bad='TF has no frame left_optical', fix='publish it')
    survey, settings = replace(ALL, frames=(unknown, HAND)), replace(MOUNTED, wrist_mount=None)
    assert exit_status(frame_findings(survey, settings)) == 1
    assert exit_status(frame_findings(survey, settings, calibration())) == 0


@pytest.mark.parametrize(
    ('given', 'states', 'words'),
    [
        (calibration(), ['ok', 'ok'], 'on 2025-05-01 by robot with 5 poses, residual 2.1 mm, expected error 1.9 mm'),
        (calibration(replace_struct(GOOD, expected_mm=9.0)), ['warning', 'warning'], 'expected error 9.0 mm, where 5 mm can be had'),
        (calibration(replace_struct(GOOD, warnings=['Rotate about a second axis.'])), ['warning', 'warning'], '; Rotate about a second axis.'),
        (calibration(None), ['ok', 'ok'], 'given'),
        (calibration(base_frame='panda_link0'), ['error'], 'set base_frame to panda_link0'),
        (calibration(anchors={'front': PlacedCamera(**PLACE)}, wrist=None), ['error'], 'give the anchors the same names'),
    ],
)  # fmt: skip
def test_a_calibration_file_is_judged_by_what_it_says_of_itself(tmp_path, given, states, words):
    write_calibration(tmp_path / 'c.yaml', given)
    settings = replace(MOUNTED, wrist_mount=None, calibration_file=str(tmp_path / 'c.yaml'))
    _, findings = read_file(settings)
    assert [f.state for f in findings] == states and words in str(findings[0])


def test_a_calibration_file_that_is_missing_is_an_error(tmp_path):
    found, findings = read_file(replace(MOUNTED, calibration_file=str(tmp_path / 'none.yaml')))
    assert found is None and only(findings).state == 'error' and 'none.yaml' in only(findings).what
    assert read_file(MOUNTED) == (None, [])


@pytest.mark.parametrize(
    ('changes', 'words', 'fix'),
    [
        ({'publishers': 0, 'images': 0}, 'Nothing publishes /anchor_left/depth', '--remap anchor_left/depth/image_raw:=/its/topic'),
        ({'images': 0, 'bad': 'No depth images on it', 'fix': 'check'}, 'No depth images', 'check'),
        ({'bad': 'Depth is not registered to colour', 'fix': 'align'}, 'not registered', 'align'),
        ({'valid': 0.1}, '10% of the pixels', 'emitter'),
        ({'apart': 0.04}, '40 ms older than colour', 'enable_sync'),
        ({'apart': -0.04}, '40 ms newer than colour', 'enable_sync'),
    ],
)  # fmt: skip
def test_depth_that_cannot_be_used_is_a_warning(changes, words, fix):
    found = depth_findings(replace(ALL, depth=(replace(DEPTH, **changes), replace(DEPTH, name='right'))), MOUNTED)[0]
    assert found.state == 'warning' and words in found.what and fix in found.fix


def test_depth_topics_that_nobody_named_are_offered():
    survey = RobotSurvey(
        depth=(replace(DEPTH, publishers=0, images=0),), depth_topics=('/camera/aligned_depth/image_raw',)
    )
    found = only(depth_findings(survey, MOUNTED))
    assert found.state == 'warning' and '/camera/aligned_depth/image_raw' in found.what and '--remap' in found.fix


@pytest.mark.parametrize(
    ('changes', 'words', 'fix'),
    [
        ({'joints': replace(JOINTS, age=-0.1)}, 'in the future', 'chrony'),
        ({'joints': replace(JOINTS, rate=3.0)}, '3.0 messages/s', '5 times a second'),
        ({'description': replace(DESCRIPTION, bad='/joint_states lacks k', fix='publish it')}, 'lacks k', 'publish it'),
        (
            {'description': replace(DESCRIPTION, missing=('package://franka_description/hand.dae',))},
            'hand.dae',
            'install',
        ),
    ],
)
def test_a_robot_that_is_not_known_whole_is_a_warning(changes, words, fix):
    found = next(f for f in robot_findings(replace(ALL, **changes), MOUNTED) if f.state != 'ok')
    assert found.state == 'warning' and words in found.what and fix in found.fix


@pytest.mark.parametrize(
    ('changes', 'state', 'words'),
    [
        ({'active': False}, 'warning', 'is not active'),
        ({'reason': 'Anchor left has moved; calibrate it.'}, 'warning', 'no valid frames; Anchor left has moved; calibrate it.'),
        ({'geometry': 'RGB', 'lacks': ('TF has no frame a; publish it.',)}, 'warning', 'from RGB; TF has no frame a; publish it.'),
        ({'residuals': (0.04, 0.001)}, 'error', 'left 40.0 mm, right 1.0 mm, and max_residual is 30 mm; calibrate anchor_left again'),
        ({'residuals': (0.001, 0.015)}, 'warning', 'calibrate anchor_right again'),
    ],
)  # fmt: skip
def test_what_a_running_node_lacks_is_passed_on(changes, state, words):
    findings = wrist_findings(replace(WRIST, **changes), MOUNTED)
    assert any(f.state == state and words in str(f) for f in findings)


def test_all_of_it_survives_its_way_as_json():
    survey = TopicSurvey((), 2.0, 0, robot=ALL)
    assert TopicSurvey.from_json(survey.to_json()) == survey


# Over real topics

LATCHED = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
ARM = """<robot name="r"><link name="fr3_link0"/><link name="arm"><visual><geometry>{}</geometry></visual></link>
<joint name="j" type="prismatic"><parent link="fr3_link0"/><child link="arm"/><axis xyz="1 0 0"/>
<limit lower="0" upper="1" effort="1" velocity="1"/></joint></robot>"""
BOX = '<box size="0.1 0.1 0.1"/>'


class Desk:
    """An anchor with depth, TF, joint states, a robot description and a status, from a thread of its own.

    tf_ahead, depth_late: seconds that stamps are ahead and behind. second_parent: of the hand. depth_frame: of depth images.
    """

    def __init__(
        self, tf_ahead=0.0, depth_late=0.0, second_parent='', depth_frame='left_optical', shape=BOX, joint='j'
    ):
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self.node = node = rclpy.create_node('desk', context=self.context)
        self.tf_ahead, self.depth_late, self.parents = (
            tf_ahead,
            depth_late,
            ['fr3_link0', *filter(None, [second_parent])],
        )
        self.depth_frame, self.joint = depth_frame, joint
        self.image = node.create_publisher(Image, 'anchor_left/image_raw', 5)
        self.info = node.create_publisher(CameraInfo, 'anchor_left/camera_info', 5)
        self.depth = node.create_publisher(Image, 'anchor_left/depth/image_raw', 5)
        self.tf = node.create_publisher(TFMessage, '/tf', 100)
        self.static = node.create_publisher(TFMessage, '/tf_static', LATCHED)
        self.joints = node.create_publisher(JointState, '/joint_states', 10)
        self.status = node.create_publisher(VirtualWristStatus, '/virtual_wrist/status', 10)
        self.description = node.create_publisher(String, '/robot_description', LATCHED)
        self.static.publish(
            TFMessage(transforms=[to_transform(np.eye(4), Header(frame_id='fr3_link0'), 'left_optical')])
        )
        self.description.publish(String(data=ARM.format(shape)))
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(node)
        node.create_timer(0.05, self._tick)
        self.ended = False
        self.thread = threading.Thread(target=self._spin)
        self.thread.start()

    def _spin(self):
        while not self.ended:
            self.executor.spin_once(timeout_sec=0.05)

    def _tick(self):
        now = self.node.get_clock().now().nanoseconds
        for parent in self.parents:
            header = Header(stamp=to_stamp(now + round(self.tf_ahead * 1e9)), frame_id=parent)
            self.tf.publish(TFMessage(transforms=[to_transform(np.eye(4), header, 'fr3_hand')]))
        self.joints.publish(JointState(header=Header(stamp=to_stamp(now)), name=[self.joint], position=[0.1]))
        late = Header(stamp=to_stamp(now - round(self.depth_late * 1e9)), frame_id=self.depth_frame)
        depth = np.full((48, 64), 800, np.uint16)
        depth[:12] = 0
        self.depth.publish(
            Image(header=late, height=48, width=64, encoding='16UC1', step=128, data=message_data(depth))
        )
        header = Header(stamp=to_stamp(now), frame_id='left_optical')
        self.info.publish(
            CameraInfo(header=header, width=64, height=48, k=[60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0])
        )
        self.image.publish(to_image(np.zeros((48, 64, 3), np.uint8), header))
        status = VirtualWristStatus(state=VirtualWristStatus.ACTIVE, geometry=2, anchors=['left'], residuals=[0.002])
        self.status.publish(status)

    def close(self):
        self.ended = True
        self.thread.join()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def desk():
    made = []

    def make(**kwargs):
        made.append(Desk(**kwargs))
        return survey_topics(replace(MOUNTED, freshness=5.0, tf_timeout=2.0), [], 2.0).robot

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ('late_s', 'period_s', 'wait_s'), [(0.0, 0.1, 0.1), (0.3, 0.1, 0.4), (-0.2, 0.1, 0.0), (0.0, 0.5, 0.5)]
)
def test_how_long_images_wait_for_tf_is_told_from_both_arrivals(monkeypatch, late_s, period_s, wait_s):
    """Images come at once, 10 a second; transforms are stamped just before them."""
    edges, clock = robot_listener._Edges(), [0.0]
    monkeypatch.setattr(robot_listener.time, 'monotonic', lambda: clock[0])
    for i in range(60):
        clock[0] = i * period_s - 0.001 + late_s
        edges.add('hand', 'base', False, round((i * period_s - 0.001) * 1e9), round(clock[0] * 1e9))
    stamps = [round(i * period_s * 1e9) for i in range(3, 50)]
    images = robot_listener.SeenAnchor(
        'left', 'optical', 'optical', (48, 64), stamps, [stamp * 1e-9 for stamp in stamps]
    )
    assert edges.wait('hand', images) == pytest.approx(wait_s, abs=0.002)
    assert edges.lateness('hand') == pytest.approx(late_s, abs=1e-6)


def test_a_desk_is_heard_whole(desk):
    pytest.importorskip('yourdfpy')
    heard = desk()
    assert heard.base and heard.roots == ('fr3_link0',) and [f.known for f in heard.frames] == [True, True]
    assert heard.frames[0].static and not heard.frames[1].static and abs(heard.frames[1].age) < 1
    depth = only(heard.depth)
    assert (depth.width, depth.height, depth.encoding, depth.frame, depth.bad) == (64, 48, '16UC1', 'left_optical', '')
    assert depth.valid == pytest.approx(0.75) and depth.near == pytest.approx(0.8) and abs(depth.apart) < 0.01
    assert heard.joints.names == ('j',) and heard.joints.rate > 2
    assert heard.description.received and not heard.description.bad and heard.description.links == ('fr3_link0', 'arm')
    wrist = only(heard.wrists)
    assert wrist.topic == '/virtual_wrist/status' and wrist.residuals == pytest.approx((0.002,)) and wrist.active
    findings = [f for _, part in robot_sections(heard, replace(MOUNTED, tf_timeout=2.0)) for f in part]
    assert exit_status(findings) == 0, [str(f) for f in findings]


def test_faults_of_a_desk_are_heard(desk):
    pytest.importorskip('yourdfpy')
    heard = desk(second_parent='world', depth_frame='left_depth', shape='<mesh filename="package://nowhere/arm.stl"/>')
    assert 'two parents, fr3_link0 and world' in heard.frames[1].bad
    assert 'not registered' in only(heard.depth).bad
    assert heard.description.missing == ('package://nowhere/arm.stl',) and 'gives no surface' in heard.description.bad


def test_clocks_and_joints_that_do_not_fit_are_heard(desk):
    pytest.importorskip('yourdfpy')
    heard = desk(tf_ahead=0.4, depth_late=0.022, joint='k')
    assert heard.frames[1].age == pytest.approx(-0.4, abs=0.2)
    assert only(heard.depth).apart == pytest.approx(0.022, abs=0.005)
    assert '/joint_states lacks j' in heard.description.bad
