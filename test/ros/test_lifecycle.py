"""The node answers and reports while it configures, says what state it is in, and keeps a bond where one is wanted."""

import sys
import threading
import time
import types

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from wristworld_ros.msg import VirtualWristStatus
from wristworld_ros.ros import lifecycle, virtual_wrist_node, wrist_publisher
from wristworld_ros.ros.conversions import to_rgb
from wristworld_ros.types import FrameStatus, Verdict

CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE


def client_of(s, kind, name):
    client = s.peer.create_client(kind, name)
    s.spin_until(client.service_is_ready)
    s.spin(0.3)
    return client


def answer(s, client, request):
    future = client.call_async(request)
    s.spin_until(future.done)
    return future.result()


@pytest.fixture
def gate(monkeypatch):
    """Loading waits until the gate opens; `gate.error` is raised then, where there is one."""
    load, opened = virtual_wrist_node.load_stream, threading.Event()
    opened.error = None

    def wait(*args):
        assert opened.wait(30)
        if opened.error:
            raise opened.error
        return load(*args)

    monkeypatch.setattr(virtual_wrist_node, 'load_stream', wait)
    return opened


@pytest.mark.parametrize('fails', [False, True])
def test_services_status_and_diagnostics_go_on_while_the_weights_load(stage, gate, fails):
    s = stage(diagnostics_period=0.1)
    change = client_of(s, ChangeState, 'virtual_wrist/change_state')
    get = client_of(s, GetState, 'virtual_wrist/get_state')
    reset = client_of(s, Trigger, 'virtual_wrist/reset')
    status = s.listen(VirtualWristStatus, 'virtual_wrist/status')
    diagnostics = s.listen(DiagnosticArray, '/diagnostics')
    pending = change.call_async(ChangeState.Request(transition=Transition(id=CONFIGURE)))
    s.spin_until(lambda: s.node.configuring)
    status.clear()
    diagnostics.clear()
    s.spin_until(lambda: len(status) >= 3 and len(diagnostics) >= 3, timeout=3)
    assert answer(s, get, GetState.Request()).current_state.label == 'configuring'
    assert 'being loaded' in status[-1].reason and 'being loaded' in diagnostics[-1].status[0].message
    assert not answer(s, reset, Trigger.Request()).success
    refused = answer(s, change, ChangeState.Request(transition=Transition(id=CONFIGURE)))
    assert not refused.success
    (change_of_model,) = s.node.set_parameters([Parameter('chunk', value=2)])
    assert not change_of_model.successful
    assert s.node.set_parameters([Parameter('min_coverage', value=0.25)])[0].successful
    assert not pending.done()
    if fails:
        gate.error = ValueError('broken weights')
    gate.set()
    s.spin_until(pending.done)
    assert pending.result().success is not fails
    label = answer(s, get, GetState.Request()).current_state.label
    assert label == ('unconfigured' if fails else 'inactive')
    if fails:
        assert 'broken weights' in s.node.status().reason and not s.node.is_configured
    else:
        assert s.node.stream.settings.min_coverage == 0.25
        assert answer(s, change, ChangeState.Request(transition=Transition(id=ACTIVATE))).success


def test_starting_by_itself_goes_on_in_the_executor(stage, gate):
    s = stage(autostart=True)
    status = s.listen(VirtualWristStatus, 'virtual_wrist/status')
    s.executors[0].create_task(s.node.autostart_or_end)
    s.spin_until(lambda: len(status) >= 3, timeout=5)
    assert status[-1].state == VirtualWristStatus.UNCONFIGURED
    gate.set()
    s.spin_until(lambda: status[-1].state == VirtualWristStatus.ACTIVE)


def test_after_shutdown_status_and_diagnostics_say_finalized(stage):
    s = stage()
    status, diagnostics = (
        s.listen(VirtualWristStatus, 'virtual_wrist/status'),
        s.listen(DiagnosticArray, '/diagnostics'),
    )
    s.activate()
    change = client_of(s, ChangeState, 'virtual_wrist/change_state')
    assert answer(
        s, change, ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVE_SHUTDOWN))
    ).success
    s.spin_until(lambda: status and status[-1].state == VirtualWristStatus.FINALIZED)
    s.spin_until(lambda: 'finalized' in diagnostics[-1].status[0].message)
    assert diagnostics[-1].status[0].level == DiagnosticStatus.OK and status[-1].reason == ''


def test_a_frame_whose_publishing_failed_is_not_counted_as_published(stage, monkeypatch):
    s = stage().camera('left', 'right').activate()

    def fail(message):
        raise RuntimeError('the transport is full')

    monkeypatch.setattr(s.node.wrist_publisher._image, 'publish', fail)
    s.send_until(lambda: s.node.metrics['publish_errors'] >= 3)
    assert s.node.status().frames_published == 0 and s.node.status().frame_rate == 0


def test_tf_leaves_before_the_image_it_belongs_to(stage, monkeypatch):
    s = stage().camera('left', 'right')
    order = []
    send = wrist_publisher.publish_counted
    monkeypatch.setattr(
        wrist_publisher, 'publish_counted', lambda pub, *rest: (order.append(pub.topic_name), send(pub, *rest))[1]
    )
    s.activate().send_until(lambda: len(order) >= 8)
    assert order.index('/tf') < order.index('/wrist/image_raw')


def test_activation_is_logged_once(stage, capfd):
    s = stage().activate()
    s.spin(0.3)
    s.warnings('')
    lines = [line for line in s._log if 'Active on cpu' in line]
    assert len(lines) == 1 and 'anchor_left, anchor_right' in lines[0] and '/wrist/image_raw' in lines[0]


class Lines(list):
    """A logger that keeps what it is told."""

    def info(self, text):
        self.append(f'info: {text}')

    def warning(self, text):
        self.append(f'warning: {text}')


def test_that_every_frame_is_invalid_is_said_once_and_taken_back_once(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(wrist_publisher.time, 'monotonic', lambda: clock[0])
    lines = Lines()
    log = wrist_publisher.ValidityLog(lines)
    bad = Verdict(FrameStatus.LOW_COVERAGE, 'Only 3 % is covered.')
    for i in range(100):
        clock[0] = 0.1 * i
        log.add(bad)
    assert len(lines) == 1 and 'Every wrist frame is invalid' in lines[0] and 'Only 3 % is covered.' in lines[0]
    log.add(Verdict())
    log.add(Verdict())
    assert len(lines) == 2 and 'valid again, after 100' in lines[1]
    log.add(bad)
    assert len(lines) == 2  # one frame is not every frame
    for i in range(1000):  # some frames are valid and most are not: a warning a minute
        clock[0] += 0.1
        log.add(bad if i % 50 else Verdict())
    assert sum(line.startswith('warning') for line in lines) <= 3


def test_compressed_images_are_encoded_only_when_somebody_subscribes(stage, monkeypatch):
    made, encode = [], wrist_publisher.to_compressed
    monkeypatch.setattr(wrist_publisher, 'to_compressed', lambda *args: (made.append(args), encode(*args))[1])
    s = stage(jpeg_quality=97).camera('left', 'right')
    raw = s.listen(Image, 'wrist/image_raw')
    s.activate().send_until(lambda: len(raw) >= 2)
    assert made == []
    jpeg = s.listen(CompressedImage, 'wrist/image_raw/compressed')
    s.send_until(lambda: jpeg)
    assert made[0][2] == 97
    image = next(m for m in raw if m.header == jpeg[0].header)
    shown, sent = (to_rgb(m).astype(int).mean((0, 1)) for m in (jpeg[0], image))  # of noise, JPEG keeps the mean
    assert abs(shown - sent).max() < 5 and jpeg[0].format.startswith('rgb8; jpeg')


@pytest.mark.parametrize(
    ('given', 'namespace', 'frame'),
    [
        ('auto', '', 'virtual_wrist_optical_frame'),
        ('auto', '/left_arm', 'left_arm/virtual_wrist_optical_frame'),
        ('eye', '/left_arm', 'eye'),
        ('/eye', '', 'eye'),
    ],
)
def test_two_namespaces_have_two_wrist_frames_and_no_frame_begins_with_a_slash(stage, given, namespace, frame):
    s = stage(['-r', f'__ns:={namespace}'] if namespace else [], wrist_frame=given)
    edges, images = s.listen(TFMessage, '/tf'), s.listen(Image, f'{namespace}/wrist/image_raw')
    for name in ('left', 'right'):
        s.senders[name] = s.peer.create_publisher(Image, f'{namespace}/anchor_{name}/image_raw', 10)
    s.activate()
    while not (edges and images):
        stamp = s.now()
        for name in s.senders:
            s.send(name, stamp, header=Header(stamp=lifecycle.to_stamp(stamp), frame_id='/camera_link'))
        s.spin(0.03)
    (edge,) = edges[0].transforms
    assert (edge.header.frame_id, edge.child_frame_id) == ('camera_link', frame)
    assert images[0].header.frame_id == frame


def test_a_wrist_frame_that_is_the_anchor_s_is_never_its_own_parent(stage):
    s = stage(wrist_frame='anchor_left_optical_frame').camera('left', 'right')
    edges, images = s.listen(TFMessage, '/tf'), s.listen(Image, 'wrist/image_raw')
    s.activate().send_until(lambda: len(images) >= 3)
    assert edges == [] and len(s.warnings('which is that of the virtual wrist camera')) == 1
    frames = [Parameter('wrist_frame', value='/a'), Parameter('anchor_frame', value='a')]
    refused = stage().node.set_parameters_atomically(frames)
    assert not refused.successful and 'its own parent' in refused.reason


REMAPPED = ['-r', 'anchor_left/image_raw:=/cam_1/color/image_raw', '-r', 'anchor_right/image_raw:=/cam_2/image_raw']


@pytest.mark.parametrize(
    ('transport', 'more', 'topics'),
    [
        ('raw', [], {'/cam_1/color/image_raw', '/cam_1/color/camera_info', '/cam_2/image_raw', '/cam_2/camera_info'}),
        ('compressed', [], {'/cam_1/color/image_raw/compressed', '/cam_1/color/camera_info', '/cam_2/camera_info'}),
        ('raw', ['-r', 'anchor_left/camera_info:=/calibration'], {'/calibration', '/cam_2/camera_info'}),
    ],
)
def test_calibration_follows_a_remapped_image_topic(stage, transport, more, topics):
    s = stage([*more, *REMAPPED], transport=transport).activate()
    s.spin_until(lambda: topics <= {t for t in topics if s.peer.count_subscribers(t)})
    infos = [
        t for t, kinds in s.node.get_subscriber_names_and_types_by_node('virtual_wrist', '/') if 'camera_info' in t
    ]
    assert 'calibration' in str(topics) or '/anchor_left/camera_info' not in infos


def test_swapped_cameras_stay_swapped(stage):
    s = stage(
        ['-r', 'anchor_left/image_raw:=anchor_right/image_raw', '-r', 'anchor_right/image_raw:=anchor_left/image_raw']
    )
    seen = []
    s.camera('left', 'right').activate()
    take = s.node.inputs.take_image
    s.node.inputs.take_image = lambda anchor, msg: (seen.append((anchor.name, msg.header.frame_id)), take(anchor, msg))
    s.send_until(lambda: len(seen) >= 4)
    assert {name for name, frame in seen if 'right' in frame} == {'left'}
    assert s.peer.count_subscribers('/anchor_right/camera_info') == 1


def test_without_a_clock_status_diagnostics_and_one_warning_come_all_the_same(stage, monkeypatch):
    monkeypatch.setattr(virtual_wrist_node, 'CLOCK_PATIENCE_S', 0.2)
    s = stage(['-p', 'use_sim_time:=true'])
    status, diagnostics = (
        s.listen(VirtualWristStatus, 'virtual_wrist/status'),
        s.listen(DiagnosticArray, '/diagnostics'),
    )
    s.activate()
    status.clear()
    s.spin_until(lambda: len(status) >= 4 and diagnostics)
    s.spin(0.5)
    assert '/clock' in status[-1].reason and 'use_sim_time' in status[-1].reason
    assert '/clock' in diagnostics[-1].status[0].message
    assert len(s.warnings('/clock')) == 1


def test_a_bond_that_cannot_be_kept_fails_configure_with_what_to_install(stage, monkeypatch):
    monkeypatch.setitem(sys.modules, 'bond', None)
    monkeypatch.setitem(sys.modules, 'bond.msg', None)
    s = stage(bond_heartbeat=0.1)
    assert not s.node.autostart()
    assert 'ros-$ROS_DISTRO-bond' in s.node.status().reason


class Heartbeat:
    """The fields of bond/msg/Status; see the publisher below, which keeps it instead of sending it."""

    def __init__(self, id='', instance_id='', active=False):
        self.id, self.instance_id, self.active = id, instance_id, active
        self.header, self.heartbeat_timeout, self.heartbeat_period = Header(), 0.0, 0.0


def test_a_bond_beats_while_active_and_is_broken_on_purpose(stage, monkeypatch):
    monkeypatch.setitem(sys.modules, 'bond', types.ModuleType('bond'))
    messages = types.ModuleType('bond.msg')
    messages.Status = Heartbeat
    monkeypatch.setitem(sys.modules, 'bond.msg', messages)
    s = stage(bond_heartbeat=0.05)
    beats, create = [], s.node.create_publisher

    def publisher(kind, topic, *args, **kwargs):
        if topic != 'bond':
            return create(kind, topic, *args, **kwargs)
        out = create(CameraInfo, topic, *args)  # any message: what it would carry is kept here
        out.publish = beats.append
        return out

    monkeypatch.setattr(s.node, 'create_publisher', publisher)
    assert s.node.trigger_configure() == virtual_wrist_node.SUCCESS
    s.spin(0.2)
    assert beats == []
    assert s.node.trigger_activate() == virtual_wrist_node.SUCCESS
    s.spin_until(lambda: len(beats) >= 3)
    assert {(b.id, b.active, b.heartbeat_timeout) for b in beats} == {('virtual_wrist', True, lifecycle.BOND_TIMEOUT_S)}
    assert len({b.instance_id for b in beats}) == 1 and beats[0].instance_id
    assert s.node.trigger_deactivate() == virtual_wrist_node.SUCCESS
    assert not beats[-1].active
    count = len(beats)
    time.sleep(0.15)
    s.spin(0.15)
    assert len(beats) == count
