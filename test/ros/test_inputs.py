"""What the node does with images: limits, quality of service, decoding, counters that add up, and a sentence for every cause."""

import array
import threading

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from wristworld_ros.ros import image_inputs
from wristworld_ros.ros.conversions import message_data, to_stamp

MS, S = 1_000_000, 1_000_000_000
WAYS_OUT = (
    'images_bad_encoding', 'images_bad_step', 'images_bad_size', 'images_bad_data', 'images_over_limit', 'images_late',
    'images_unmatched', 'images_pushed_out', 'images_cleared',
)  # fmt: skip


def packed(stamp_ns, pixels, fmt='', codec='.png', keep=1.0):
    data = cv2.imencode(codec, pixels)[1]
    msg = CompressedImage(format=fmt, data=message_data(data[: int(keep * len(data))]))
    msg.header = Header(stamp=to_stamp(stamp_ns), frame_id='cam')
    return msg


def compressed_stage(stage, **settings):
    s = stage(transport='compressed', **settings)
    return s.camera('left', 'right', kind=CompressedImage, topic='image_raw/compressed')


def assert_adds_up(s):
    status, inputs, worker = s.node.status(), s.node.inputs, s.node.worker
    ways = {name: getattr(status, name) for name in WAYS_OUT}
    assert status.images_received == sum(ways.values()) + inputs.queued + 2 * status.sets_matched, ways
    assert status.sets_matched == status.sets_used + status.sets_replaced + status.sets_over_rate + worker.waiting
    return status


# Decoding


def test_images_are_decoded_in_the_thread_that_uses_them_and_only_those_that_are_used(stage, monkeypatch):
    threads, to_rgb = [], image_inputs.to_rgb
    monkeypatch.setattr(
        image_inputs, 'to_rgb', lambda *args: (threads.append(threading.current_thread().name), to_rgb(*args))[1]
    )
    s = stage(max_rate=5.0).camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw')
    s.activate().send_until(lambda: len(images) >= 2)
    s.spin(0.3)
    status = assert_adds_up(s)
    assert set(threads) == {'reconstruct'} and status.sets_over_rate > 0
    assert len(threads) == 2 * status.sets_used < 2 * status.sets_matched


# Counters


def test_every_image_of_every_kind_is_accounted_for(stage):
    s = stage(max_image_pixels=10_000, sync_window=0.5, max_queue_bytes=2**20, max_rate=20.0).camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw')
    s.activate().send_until(lambda: images)
    kinds = [
        {'encoding': 'no_such'}, {'encoding': '16UC1'}, {'step': 7}, {'height': 0}, {'data': array.array('B', bytes(100))},
        {'rgb': np.zeros((8, 400, 3), np.uint8)}, {'rgb': np.zeros((200, 200, 3), np.uint8)}, {'rgb': np.zeros((24, 32, 3), np.uint8)},
    ]  # fmt: skip
    for i in range(3 * len(kinds)):
        stamp = s.now()
        s.send('left', stamp)
        s.send('right', stamp, **kinds[i % len(kinds)])
        s.send('left', stamp - 5 * MS)  # late
        s.spin(0.02)
    s.send_set(s.now() - 20 * S)  # the clock is set back
    s.spin(0.2)
    start = s.now()
    for i in range(40):  # no partners; the window, then the bytes
        s.send('left', start + i * 20 * MS, np.zeros((60, 80, 3), np.uint8))
        s.spin(0.005)
    s.node.inputs.enabled = False
    s.send_set()
    s.spin(0.2)
    s.node.inputs.enabled = True
    s.send_set()
    s.spin(0.5)
    status = assert_adds_up(s)
    for name in WAYS_OUT:
        if name != 'images_pushed_out':
            assert getattr(status, name) > 0, name
    s.node.inputs.restart()
    assert s.node.inputs.queued == 0
    assert_adds_up(s)


def test_images_are_pushed_out_where_the_queue_is_full_and_counted(stage):
    s = stage(max_queue_bytes=2**20, sync_window=60.0).camera('left', 'right').activate()
    big, start = np.zeros((200, 300, 3), np.uint8), s.now()
    for i in range(8):
        s.send('left', start + i * MS, big)
        s.spin(0.05)
    assert s.node.inputs.queued == 2 and assert_adds_up(s).images_pushed_out == 6


def test_images_that_turn_out_to_be_damaged_when_they_are_used_are_counted_and_the_log_stays_readable(stage, capfd):
    s = compressed_stage(stage)
    images = s.listen(Image, 'wrist/image_raw')
    s.activate()
    rgb = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for _ in range(8):
        stamp = s.now()
        s.senders['left'].publish(packed(stamp, rgb, codec='.jpg'))
        s.senders['right'].publish(packed(stamp, rgb, codec='.jpg', keep=0.5))
        s.spin(0.05)
    s.spin_until(lambda: s.node.status().images_bad_data and not s.node.worker.waiting)
    status = assert_adds_up(s)
    assert images == [] and status.images_bad_data == status.images_unmatched == status.decoder_messages >= 5
    assert status.sets_used == status.sets_matched == 0
    assert '/anchor_right/image_raw/compressed' in status.reason and 'cannot be decoded' in status.reason
    s.spin_until(lambda: s.warnings('was dropped'))
    assert len(s.warnings('was dropped')) == 1 and not [line for line in s._log if not line.startswith('[')]


def test_drops_are_logged_by_topic_and_kind_of_fault_not_by_text(stage):
    s = stage().camera('left', 'right').activate()
    for i in range(12):
        s.send('right', s.now(), step=i)  # another text each time
        s.send('right', s.now(), encoding=f'other_{i}')
        s.send('left', s.now(), step=i)
        s.send('right', s.now(), np.zeros((20 + i, 60, 3), np.uint8))  # another size each time
        s.spin(0.02)
    s.spin_until(lambda: len(s.warnings('was dropped')) >= 3)
    assert len(s.warnings('was dropped')) == 3
    assert len([line for line in s._log if 'Starting over' in line]) <= 1


# Limits


@pytest.mark.parametrize('hw', [(500, 2), (2, 500), (120, 120)])
def test_images_over_the_limits_are_dropped_unseen_and_the_reason_names_the_setting(stage, hw):
    s = stage(max_image_pixels=10_000).camera('left', 'right').activate()
    for _ in range(5):
        s.send_set(rgb=np.zeros((*hw, 3), np.uint8))
        s.spin(0.03)
    s.spin_until(lambda: s.node.status().images_over_limit >= 6)
    status = assert_adds_up(s)
    assert status.sets_matched == 0 and 'max_' in status.reason and f'{hw[1]}x{hw[0]}' in status.reason


def test_images_that_need_more_memory_than_is_free_are_over_the_limit(stage, monkeypatch):
    monkeypatch.setattr('wristworld_ros.pipeline.memory_check.free_ram', lambda: 2**20)
    monkeypatch.setattr('wristworld_ros.ros.model_loading.check_memory', lambda *args: '')
    s = stage().camera('left', 'right').activate()
    for _ in range(3):
        s.send_set(rgb=np.zeros((1200, 1600, 3), np.uint8))
        s.spin(0.1)
    s.spin_until(lambda: s.node.status().images_over_limit and not s.node.worker.waiting)
    assert '1600x1200' in assert_adds_up(s).reason and s.node.status().sets_used == 0
    views = s.listen(Image, 'wrist/image_raw')
    s.send_until(lambda: views)  # small ones go on


# Quality of service


def reliability(s):
    (sub,) = s.peer.get_subscriptions_info_by_topic('/anchor_left/image_raw')
    return sub.qos_profile.reliability


def test_a_subscription_is_as_reliable_as_the_publishers_and_follows_those_that_come(stage):
    s = stage(anchors=['left']).activate()
    assert reliability(s) == ReliabilityPolicy.BEST_EFFORT, 'as long as nobody publishes'
    s.camera('left')
    s.spin_until(lambda: reliability(s) == ReliabilityPolicy.RELIABLE)
    images = s.listen(Image, 'wrist/image_raw')
    s.send_until(lambda: images)
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    other = s.peer.create_publisher(Image, 'anchor_left/image_raw', best_effort)
    s.spin_until(lambda: reliability(s) == ReliabilityPolicy.BEST_EFFORT)
    s.peer.destroy_publisher(other)
    s.spin_until(lambda: reliability(s) == ReliabilityPolicy.RELIABLE)


@pytest.mark.parametrize('wanted', ['reliable', 'best_effort'])
def test_reliability_and_depth_are_settings(stage, wanted):
    s = stage(anchors=['left'], input_reliability=wanted, input_depth=3).camera('left').activate()
    assert reliability(s).name.lower() == wanted


def test_a_reliable_subscription_to_a_best_effort_camera_is_named(stage):
    s = stage(anchors=['left'], input_reliability='reliable', freshness=0.2)
    s.peer.create_publisher(
        Image, 'anchor_left/image_raw', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    s.activate()
    s.spin_until(lambda: 'input_reliability' in s.node.status().reason, timeout=10)


# A sentence for every cause


def wait_for_reason(s, send, *words):
    """Send at about 30 Hz until the reason and a diagnostic contain the words."""
    diagnostics, i = s.listen(DiagnosticArray, '/diagnostics'), 0
    for i in range(300):
        send(i, s.now())
        s.spin(0.03)
        if all(word in s.node.status().reason for word in words):
            break
    reason = s.node.status().reason
    assert all(word in reason for word in words), reason
    assert '\n' not in reason and reason.endswith('.')
    s.spin_until(lambda: any(d.status[0].message == reason or words[0] in d.status[0].message for d in diagnostics))
    assert all(d.status[0].level != DiagnosticStatus.OK for d in diagnostics[-1:])
    return s.node.status()


def both(s, left, right):
    s.send('left', left)
    s.send('right', right)


def test_clocks_that_are_seconds_apart_are_named_with_camera_lag_window_and_fix(stage):
    s = stage().camera('left', 'right').activate()
    status = wait_for_reason(
        s, lambda i, t: both(s, t, t - 3 * S), '/anchor_right/image_raw', '3.0', 'behind', 'sync_window', 'chrony'
    )
    assert list(status.anchors) == ['left', 'right'] and status.anchor_lags[1] == pytest.approx(3.0, abs=0.2)
    s.spin_until(lambda: s.warnings('behind'))
    assert len(s.warnings('behind')) == 1


def test_cameras_that_are_never_triggered_together_are_named_with_gap_slop_and_fix(stage):
    s = stage(slop=0.01).camera('left', 'right').activate()
    start = s.now()
    wait_for_reason(
        s,
        lambda i, t: both(s, start + i * 100 * MS, start + i * 100 * MS + 40 * MS),
        '/anchor_right',
        '0.040',
        'slop',
        '0.01',
    )


def test_a_camera_that_lags_within_the_window_gives_frames(stage):
    s = stage(slop=0.02).camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw')
    s.activate()
    start = s.now()
    for i in range(120):
        both(s, start + i * 33 * MS, start + i * 33 * MS - 297 * MS)
        s.spin(0.01)
        if len(images) > 3:
            break
    assert len(images) > 3 and assert_adds_up(s).anchor_lags[1] == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize(
    ('stamp', 'word'), [(lambda t, first: 0, 'stamped 0'), (lambda t, first: first, 'repeat the stamp')]
)
def test_stamps_that_stand_still_are_named(stage, stamp, word):
    s = stage().camera('left', 'right').activate()
    first = s.now()
    wait_for_reason(s, lambda i, t: both(s, t, stamp(t, first)), word, '/anchor_right/image_raw', 'driver')


def test_a_size_that_flickers_is_named_with_the_sizes(stage):
    s = stage().camera('left', 'right').activate()

    def send(i, t):
        s.send('left', t)
        s.send('right', t, np.zeros((60 if i % 2 else 48, 64, 3), np.uint8))

    wait_for_reason(s, send, '/anchor_right/image_raw', '64x48 and 64x60', 'one size')


def test_a_silent_camera_is_a_reason_with_what_explains_it(stage):
    s = stage(freshness=0.3).camera('left')
    s.activate()
    wait_for_reason(s, lambda i, t: s.send('left', t), '/anchor_right/image_raw', 'nothing publishes it')


def test_images_of_a_type_that_is_not_read_are_the_reason(stage):
    s = stage().camera('left', 'right').activate()

    def send(i, t):
        s.send('left', t)
        s.send('right', t, encoding='8UC3')

    wait_for_reason(s, send, '/anchor_right/image_raw', '8UC3', 'rgb8')
    assert 'cv_bridge' not in s.node.status().reason


@pytest.mark.parametrize(
    ('fmt', 'word'),
    [('16UC1; png compressed ', 'depth'), ('16UC1; compressedDepth png', 'compressedDepth'), ('png', 'depth')],
)
def test_depth_on_a_compressed_topic_never_becomes_an_image(stage, fmt, word):
    s = compressed_stage(stage)
    images = s.listen(Image, 'wrist/image_raw')
    s.activate()
    depth = np.full((48, 64), 900, np.uint16)

    def send(i, t):
        for sender in s.senders.values():
            sender.publish(packed(t, depth, fmt))

    status = wait_for_reason(s, send, word, '/image_raw/compressed')
    assert images == [] and status.images_bad_encoding > 0 and status.sets_matched == 0


# Frames and calibrations


def test_a_slash_before_a_frame_is_left_out(stage):
    s = stage().camera('left', 'right')
    edges = s.listen(TFMessage, '/tf')
    s.activate()
    for _ in range(60):
        stamp = to_stamp(s.now())
        for name in s.senders:
            s.send(name, s.now(), header=Header(stamp=stamp, frame_id='//camera_link'))
        s.spin(0.03)
        if edges:
            break
    assert {e.transforms[0].header.frame_id for e in edges} == {'camera_link'}
    s.spin_until(lambda: s.warnings('slash'))
    assert len(s.warnings('slash')) == 1


@pytest.mark.parametrize('frame', ['virtual_wrist_optical_frame', '/virtual_wrist_optical_frame'])
def test_images_in_the_frame_of_the_virtual_wrist_give_frames_and_no_tf(stage, frame):
    s = stage().camera('left', 'right')
    edges, images = s.listen(TFMessage, '/tf'), s.listen(Image, 'wrist/image_raw')
    s.activate()
    for _ in range(100):
        stamp = s.now()
        for name in s.senders:
            s.send(name, stamp, header=Header(stamp=to_stamp(stamp), frame_id=frame))
        s.spin(0.03)
        if images and s.warnings('No TF is published'):
            break
    (said,) = s.warnings('No TF is published')
    assert images and edges == [] and 'set wrist_frame or anchor_frame' in said


@pytest.mark.parametrize('frame', ['x' * 100_000, 'a\nb'])
def test_a_frame_that_no_transform_may_have_is_refused(stage, frame):
    s = stage().camera('left', 'right')
    edges = s.listen(TFMessage, '/tf')
    s.activate()

    def send(i, t):
        for name in s.senders:
            s.send(name, t, header=Header(stamp=to_stamp(t), frame_id=frame))

    status = wait_for_reason(s, send, '/anchor_left/image_raw', 'anchor_frame')
    assert edges == [] and len(status.reason) < 500


def test_an_absurd_calibration_is_used_for_no_set_and_named_once(stage):
    s = stage().camera('left', 'right')
    images, seen = s.listen(Image, 'wrist/image_raw'), []
    s.activate()
    reconstruct = s.node.stream.reconstruct
    s.node.stream.reconstruct = lambda anchors: (seen.append(anchors.intrinsics), reconstruct(anchors))[1]
    right = {'width': 64, 'height': 48, 'k': [60.0, 0, 32, 0, 60, 24, 0, 0, 1]}
    publishers = [s.peer.create_publisher(CameraInfo, f'anchor_{name}/camera_info', 10) for name in ('left', 'right')]
    s.spin(0.5)
    publishers[0].publish(CameraInfo(**right))
    publishers[1].publish(CameraInfo(**right | {'k': [float('nan')] * 9}))
    s.spin_until(lambda: s.warnings('calibration of /anchor_right'))
    assert s.node.inputs.calibrated == {'left'}
    s.send_until(lambda: len(images) > 2)
    assert all(np.isnan(K[1]).all() for K in seen if K is not None) and len(s.warnings('calibration of')) == 1
    assert np.isfinite(seen[-1][0]).all()
    publishers[1].publish(CameraInfo(**right))
    s.spin_until(lambda: len(s.node.inputs.calibrated) == 2)
    s.send_until(lambda: np.isfinite(seen[-1]).all())


def test_negative_stamps_do_no_harm(stage):
    s = stage(publish_invalid=True).camera('left', 'right').activate()
    for i in range(5):
        for name in s.senders:
            s.send(name, 0, header=Header(stamp=Time(sec=-5 + i, nanosec=0)))
        s.spin(0.05)
    s.spin_until(lambda: s.node.status().frames_invalid)
    assert_adds_up(s)
