"""The node over real DDS: what it publishes, when, with which stamps, frames and QoS."""

import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import DescribeParameters
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage

from wristworld_ros.errors import UserError
from wristworld_ros.msg import VirtualWristStatus, WristView
from wristworld_ros.ros.conversions import to_compressed, to_ns, to_rgb, to_stamp

MS = 1_000_000


def call(stage, kind, name, request):
    """The answer of a service. A service that has not yet found its client answers into the void: give a new one time."""
    client = next((c for c in stage.peer.clients if c.srv_name == name), None)
    if client is None:
        client = stage.peer.create_client(kind, name)
        stage.spin_until(client.service_is_ready)
        stage.spin(1.0)
    for patience in (5.0, 5.0, 20.0) if kind is GetState else (20.0,):  # asking again changes nothing
        future, end = client.call_async(request), time.monotonic() + patience
        while not future.done() and time.monotonic() < end:
            stage.spin(0.05)
        if future.done():
            return future.result()
    raise AssertionError(f'{name} did not answer')


def transition(stage, which):
    return call(
        stage, ChangeState, '/virtual_wrist/change_state', ChangeState.Request(transition=Transition(id=which))
    ).success


def state(stage):
    return call(stage, GetState, '/virtual_wrist/get_state', GetState.Request()).current_state.label


def test_it_goes_through_its_lifecycle_and_publishes_only_while_active(stage):
    s = stage().camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw')
    assert state(s) == 'unconfigured'
    assert transition(s, Transition.TRANSITION_CONFIGURE) and state(s) == 'inactive'
    assert s.peer.count_subscribers('/anchor_left/image_raw') == 0
    assert transition(s, Transition.TRANSITION_ACTIVATE) and state(s) == 'active'
    s.settle()
    s.send_until(lambda: images)
    assert transition(s, Transition.TRANSITION_DEACTIVATE) and state(s) == 'inactive'
    stopped = s.now()
    for _ in range(5):
        s.send_set()
        s.spin(0.05)
    assert all(to_ns(image.header.stamp) < stopped for image in images)
    images.clear()
    assert transition(s, Transition.TRANSITION_ACTIVATE)
    s.settle()
    s.send_until(lambda: images)
    assert transition(s, Transition.TRANSITION_DEACTIVATE) and transition(s, Transition.TRANSITION_CLEANUP)
    assert state(s) == 'unconfigured' and s.peer.count_publishers('/wrist/image_raw') == 0
    assert transition(s, Transition.TRANSITION_CONFIGURE) and transition(s, Transition.TRANSITION_ACTIVATE)
    s.settle()
    images.clear()
    s.send_until(lambda: images)
    assert transition(s, Transition.TRANSITION_ACTIVE_SHUTDOWN) and state(s) == 'finalized'


def test_everything_about_a_frame_carries_the_stamp_of_its_anchors_and_the_right_frame(stage):
    s = stage(points_stride=3).camera('left', 'right')
    kinds = {
        'wrist/image_raw': Image, 'wrist/camera_info': CameraInfo, 'wrist/pose': PoseStamped, 'wrist/view': WristView,
        'wrist/condition/image_raw': Image, 'wrist/points': PointCloud2, '/tf': TFMessage,
    }  # fmt: skip
    got = {topic: s.listen(kind, topic) for topic, kind in kinds.items()}
    s.activate()
    sent = set(s.send_until(lambda: all(got.values())))
    image, info, pose, view = (got[t][0] for t in ('wrist/image_raw', 'wrist/camera_info', 'wrist/pose', 'wrist/view'))
    edge = got['/tf'][0].transforms[0]
    wrist, anchor = 'virtual_wrist_optical_frame', 'anchor_left_optical_frame'
    assert {m.header.frame_id for m in (image, info, view, got['wrist/condition/image_raw'][0])} == {wrist}
    assert {m.header.frame_id for m in (pose, edge, view.pose, got['wrist/points'][0])} == {anchor}
    assert edge.child_frame_id == wrist
    for topic, messages in got.items():
        for m in messages:
            header = m.transforms[0].header if topic == '/tf' else m.header
            assert to_ns(header.stamp) in sent, topic
    assert image.header == info.header == view.image.header == view.camera_info.header
    assert (info.width, info.height) == (image.width, image.height) and info.k[0] > 0 and list(info.d) == [0.0] * 5
    q, p, t = pose.pose.orientation, pose.pose.position, edge.transform.translation
    assert np.linalg.norm([q.x, q.y, q.z, q.w]) == pytest.approx(1) and (p.x, p.y, p.z) == (t.x, t.y, t.z)
    assert (
        view.status == WristView.VALID and view.reason == '' and 0 <= view.coverage <= 1 and 0 <= view.confidence <= 1
    )
    assert 0 <= view.latency <= view.age < 10
    assert got['wrist/points'][0].width > 0
    np.testing.assert_array_equal(
        to_rgb(view.image), to_rgb(next(m for m in got['wrist/image_raw'] if m.header == view.header))
    )


def test_qos_is_what_the_cameras_offer_in_and_reliable_out(stage):
    s = stage().camera('left', 'right').activate()
    (sub,) = s.peer.get_subscriptions_info_by_topic('/anchor_left/image_raw')
    assert sub.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    for topic in ('/wrist/image_raw', '/wrist/camera_info', '/wrist/pose', '/wrist/view', '/wrist/points', '/tf'):
        infos = [i for i in s.peer.get_publishers_info_by_topic(topic) if i.node_name == 'virtual_wrist']
        assert [i.qos_profile.reliability for i in infos] == [ReliabilityPolicy.RELIABLE], topic


def test_qos_may_be_overridden_and_reliability_is_a_setting(stage):
    overrides = ['-p', 'qos_overrides./wrist/image_raw.publisher.reliability:=reliable']
    s = stage(overrides, reliable=False).camera('left', 'right').activate()
    qos = {t: s.peer.get_publishers_info_by_topic(t)[0].qos_profile for t in ('/wrist/image_raw', '/wrist/view')}
    assert qos['/wrist/view'].reliability == ReliabilityPolicy.BEST_EFFORT
    assert qos['/wrist/image_raw'].reliability == ReliabilityPolicy.RELIABLE


def test_what_nobody_subscribes_to_is_not_computed(stage, monkeypatch):
    made = []
    monkeypatch.setattr('wristworld_ros.ros.wrist_publisher.to_cloud', lambda *args: made.append(args))
    s = stage().camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw')
    s.activate().send_until(lambda: len(images) >= 3)
    assert made == []


def test_names_are_relative_to_the_namespace(stage):
    s = stage(['-r', '__ns:=/robot_1'])
    s.node.autostart()
    topics = dict(s.node.get_topic_names_and_types())
    assert {
        '/robot_1/wrist/image_raw',
        '/robot_1/anchor_left/image_raw',
        '/robot_1/virtual_wrist/status',
        '/tf',
        '/diagnostics',
    } <= set(topics)


def test_compressed_images_are_taken(stage):
    s = stage(transport='compressed').camera('left', 'right', kind=CompressedImage, topic='image_raw/compressed')
    images = s.listen(Image, 'wrist/image_raw')
    s.activate()
    rgb = np.zeros((48, 64, 3), np.uint8)
    for _ in range(100):
        if images:
            break
        stamp = to_stamp(s.now())
        for sender in s.senders.values():
            msg = to_compressed(rgb, CameraInfo().header)
            msg.header.stamp = stamp
            sender.publish(msg)
        s.spin(0.05)
    assert images


def test_anchors_of_different_sizes_are_resized_to_the_first_one_s(stage):
    s = stage().camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw')
    s.activate()
    seen = []
    reconstruct = s.node.stream.reconstruct
    s.node.stream.reconstruct = lambda anchors: (seen.append(anchors), reconstruct(anchors))[1]
    K = [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
    s.calibrate('left', width=64, height=48, k=K)
    s.calibrate('right', width=64, height=48, k=K)
    s.spin_until(lambda: len(s.node.inputs.calibrated) == 2)
    stamp = s.now()
    s.send('left', stamp, np.zeros((48, 64, 3), np.uint8))
    s.send('right', stamp, np.zeros((96, 128, 3), np.uint8))
    s.spin_until(lambda: images)
    assert seen[0].images.shape == (2, 48, 64, 3)
    np.testing.assert_allclose(seen[0].intrinsics[1], np.reshape(K, (3, 3)))  # scaled up to the image and down again


def test_it_can_be_switched_off_and_on_and_reset(stage):
    s = stage().camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw')
    s.activate().send_until(lambda: images)
    assert call(s, SetBool, '/virtual_wrist/enable', SetBool.Request(data=False)).success
    s.spin(0.2)
    images.clear()
    for _ in range(5):
        s.send_set()
        s.spin(0.05)
    assert images == []
    assert call(s, SetBool, '/virtual_wrist/enable', SetBool.Request(data=True)).success
    s.send_until(lambda: images)
    assert call(s, Trigger, '/virtual_wrist/reset', Trigger.Request()).success
    assert s.node.status().resets == 1
    images.clear()
    s.send_until(lambda: images)


def test_reset_before_configure_says_so(stage):
    answer = call(stage(), Trigger, '/virtual_wrist/reset', Trigger.Request())
    assert not answer.success and 'not configured' in answer.message


def test_parameters_are_described_and_checked(stage):
    s = stage()
    request = DescribeParameters.Request(names=['slop', 'chunk', 'transport', 'anchors'])
    slop, chunk, transport, _ = call(s, DescribeParameters, '/virtual_wrist/describe_parameters', request).descriptors
    assert slop.floating_point_range[0].to_value == 5.0 and 'seconds' in slop.description
    assert chunk.integer_range[0].from_value == 1 and 'raw, compressed' in transport.additional_constraints
    (wrong,) = s.node.set_parameters([Parameter('transport', value='pigeon')])
    assert not wrong.successful and 'raw, compressed' in wrong.reason
    assert not s.node.set_parameters([Parameter('slop', value=99.0)])[0].successful
    assert s.node.set_parameters([Parameter('slop', value=0.2)])[0].successful and s.node.settings.slop == 0.2


def test_live_settings_change_at_once_and_the_others_only_before_configure(stage):
    s = stage().camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw')
    s.activate().send_until(lambda: images)
    (refused,) = s.node.set_parameters([Parameter('chunk', value=2)])
    assert not refused.successful and 'not configured' in refused.reason
    assert s.node.set_parameters([Parameter('min_coverage', value=1.0), Parameter('min_confidence', value=1.0)])
    s.spin(0.3)
    images.clear()
    for _ in range(5):
        s.send_set()
        s.spin(0.05)
    assert images == [] and s.node.status().frames_invalid > 0
    assert 'min_co' in s.node.status().reason


def test_a_live_setting_reaches_every_part_of_the_running_node_with_its_new_value(stage):
    s = stage(publish_invalid=True).camera('left', 'right')
    views = s.listen(WristView, 'wrist/view')
    s.activate().send_until(lambda: views)
    assert s.node.set_parameters([Parameter('min_coverage', value=1.0)])[0].successful
    parts = s.node.stream, s.node.inputs, s.node.wrist_publisher
    assert [part.settings.min_coverage for part in parts] == [1.0] * 3
    s.send_until(lambda: any(v.status == WristView.LOW_COVERAGE for v in views))
    low = next(v for v in views if v.status == WristView.LOW_COVERAGE)
    assert low.coverage < 1.0 and 'min_coverage' in low.reason


def test_names_that_make_no_topic_or_frame_are_refused_before_anything_loads(stage):
    for settings in ({'anchors': ['left camera', 'right']}, {'wrist_frame': ''}, {'wrist_frame': 'my wrist'}):
        with pytest.raises(UserError, match=next(iter(settings))):
            stage(**settings)
    s = stage()
    for name, value in (
        ('anchors', ['left camera']),
        ('anchors', ['a', 'a']),
        ('wrist_frame', '/'),
        ('anchor_frame', ''),
    ):
        (refused,) = s.node.set_parameters([Parameter(name, value=value)])
        assert not refused.successful and name in refused.reason and '\n' not in refused.reason


def test_no_more_sets_are_used_than_max_rate_allows(stage):
    s = stage(max_rate=10.0).camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw')
    s.activate()
    start = s.now()
    for i in range(31):
        s.send_set(start + i * 20 * MS)
        s.spin(0.03)
    s.spin_until(lambda: s.node.status().sets_used >= 6)
    status = s.node.status()
    assert (
        6 <= status.sets_used <= 8
        and status.sets_over_rate == status.sets_matched - status.sets_used - status.sets_replaced
    )
    assert len(images) <= 8


def test_status_and_diagnostics_report_what_happens(stage):
    s = stage(slop=0.05).camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw')
    status, diagnostics = (
        s.listen(VirtualWristStatus, 'virtual_wrist/status'),
        s.listen(DiagnosticArray, '/diagnostics'),
    )
    s.activate().send_until(lambda: len(images) >= 5 and status and status[-1].frames_published >= 5)
    last = status[-1]
    assert last.state == VirtualWristStatus.ACTIVE and last.enabled and last.device == 'cpu'
    assert last.images_received >= 10 and last.sets_matched >= last.sets_used >= last.frames_published
    assert 0 < last.latency_p50 <= last.latency_p95 and last.frame_rate > 0 and last.memory > 10_000_000
    entry = diagnostics[-1].status[0]
    assert entry.name == '/virtual_wrist: virtual wrist' and entry.level == DiagnosticStatus.OK
    assert {v.key for v in entry.values} >= {'frames_published', 'latency_p95', 'images_bad_step', 'sets_replaced'}


def test_chunks_come_out_whole_with_a_stamp_for_each_frame(stage):
    s = stage(chunk=4).camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw')
    s.activate()
    sent = [s.send_set() for _ in range(4) if not s.spin(0.05)]
    deadline = time.monotonic() + 20
    while len(images) < 4 and time.monotonic() < deadline:
        s.spin(0.3)
        sent.append(s.send_set())
    stamps = [to_ns(m.header.stamp) for m in images]
    assert len(stamps) >= 4 and stamps == sorted(set(stamps)) and set(stamps) <= set(sent)
