"""What the node does when its world misbehaves: bad images, silent cameras, clocks, slow models, full transports."""

import array
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, PointCloud2

from wristworld_ros.errors import UserError
from wristworld_ros.msg import VirtualWristStatus, WristView
from wristworld_ros.ros import virtual_wrist_node as virtual_wrist
from wristworld_ros.ros.conversions import to_ns, to_stamp

MS, S = 1_000_000, 1_000_000_000


def running(stage, names=('left', 'right'), **settings):
    """An active stage that has made frames, and the list that they go to."""
    s = stage(anchors=list(names), **settings).camera(*names)
    images = s.listen(Image, 'wrist/image_raw')
    s.activate().send_until(lambda: images)
    return s, images


def slow(monkeypatch, seconds):
    """Make every generation take at least so long."""
    load_stream = virtual_wrist.load_stream

    def load_slow(*args):
        stream = load_stream(*args)
        generate = stream.generate
        stream.generate = lambda observation: (time.sleep(seconds), generate(observation))[1]
        return stream

    monkeypatch.setattr(virtual_wrist, 'load_stream', load_slow)


# Loading


def test_missing_weights_fail_configure_with_the_file(stage, model_dir, tmp_path):
    for path in model_dir.iterdir():
        if path.name != 'stage1.safetensors':
            (tmp_path / path.name).write_bytes(path.read_bytes())
    s = stage(model=str(tmp_path))
    assert not s.node.autostart()
    s.spin_until(lambda: s.warnings('stage1.safetensors'))
    assert '\n' not in s.node.status().reason and s.node.status().state == VirtualWristStatus.UNCONFIGURED


def test_weights_of_the_wrong_shape_fail_configure_with_file_and_shapes(stage, model_dir, tmp_path):
    from safetensors.torch import load_file, save_file

    for path in model_dir.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / 'generator.safetensors')
    key = next(k for k, v in weights.items() if v.ndim == 2)
    weights[key] = weights[key][:-1].clone()
    save_file(weights, tmp_path / 'generator.safetensors')
    s = stage(model=str(tmp_path))
    assert not s.node.autostart()
    s.spin_until(lambda: s.warnings('generator.safetensors'))
    assert key in s.node.status().reason


def test_an_unknown_model_and_wrong_anchors_fail_configure_and_may_be_fixed(stage, model_dir):
    from rclpy.parameter import Parameter

    with pytest.raises(UserError, match='twice'):
        stage(model='/nowhere', anchors=['left', 'left'])
    s = stage(model='/nowhere')
    (refused,) = s.node.set_parameters([Parameter('anchors', value=['left', 'left'])])
    assert not refused.successful and 'twice' in refused.reason
    assert s.node.set_parameters([Parameter('anchors', value=['left', 'right'])])[0].successful
    assert not s.node.autostart()
    s.spin_until(lambda: s.warnings('/nowhere'))
    assert s.node.set_parameters([Parameter('model', value=str(model_dir))])[0].successful
    assert s.node.autostart()


# Images


@pytest.mark.parametrize(
    ('changes', 'counter'),
    [
        ({'encoding': 'no_such'}, 'images_bad_encoding'),
        ({'step': 7}, 'images_bad_step'),
        ({'height': 0}, 'images_bad_size'),
        ({'width': 0}, 'images_bad_size'),
        ({'data': array.array('B', bytes(100))}, 'images_bad_data'),
        ({'data': array.array('B')}, 'images_bad_data'),
    ],
)
def test_a_bad_image_is_dropped_counted_and_logged_once_with_its_topic(stage, changes, counter):
    s, images = running(stage)
    diagnostics = s.listen(DiagnosticArray, '/diagnostics')
    s.spin(0.3)
    images.clear()
    for _ in range(5):
        stamp = s.now()
        s.send('left', stamp)
        s.send('right', stamp, **changes)
        s.spin(0.05)
    s.spin_until(lambda: s.warnings('was dropped'))
    assert images == []
    assert getattr(s.node.status(), counter) >= 3
    (warning,) = s.warnings('was dropped')
    assert '/anchor_right/image_raw' in warning
    s.spin_until(lambda: any(d.status[0].level == DiagnosticStatus.WARN for d in diagnostics))
    s.send_until(lambda: images)


def test_compressed_data_without_an_image_is_dropped_and_counted(stage):
    s = (
        stage(transport='compressed')
        .camera('left', 'right', kind=CompressedImage, topic='image_raw/compressed')
        .activate()
    )
    for _ in range(5):
        s.senders['left'].publish(CompressedImage(format='jpeg', data=array.array('B', b'nothing of the kind')))
        s.spin(0.03)
    s.spin_until(lambda: s.node.status().images_bad_data)


def test_a_change_of_image_size_clears_everything(stage):
    s, images = running(stage)
    images.clear()
    s.send_until(lambda: images, rgb=np.zeros((60, 80, 3), np.uint8))
    assert s.node.status().resets >= 1


# Cameras and clocks


def test_while_a_camera_is_silent_the_wrist_is_quiet_and_both_come_back(stage):
    s, images = running(stage, freshness=0.5)
    diagnostics = s.listen(DiagnosticArray, '/diagnostics')
    s.spin(1.0)  # what was still on its way has arrived, however busy the machine
    images.clear()
    quiet = time.monotonic()
    while s.node.status().silent_anchors != ['right']:
        s.send('left', s.now())
        s.spin(0.05)
        assert time.monotonic() < quiet + 20
    assert images == []
    s.spin_until(lambda: s.warnings('/anchor_right/image_raw'))
    s.send('left', s.now())
    s.spin_until(
        lambda: any(d.status[0].level == DiagnosticStatus.ERROR and 'right' in d.status[0].message for d in diagnostics)
    )
    s.send_until(lambda: images)
    s.send_until(lambda: not s.node.status().silent_anchors)


def test_old_anchors_give_an_invalid_frame_and_the_view_says_why(stage):
    s = stage(freshness=0.5, publish_invalid=True).camera('left', 'right')
    images, views = s.listen(Image, 'wrist/image_raw'), s.listen(WristView, 'wrist/view')
    s.activate()
    start = s.now() - 3 * S
    for i in range(20):
        s.send_set(start + i * 30 * MS)
        s.spin(0.03)
        if views:
            break
    assert views and images == []
    assert views[0].status == WristView.STALE and 'freshness' in views[0].reason and views[0].age > 2
    assert s.node.status().frames_invalid >= 1 and s.node.status().frames_published == 0


def test_stamps_of_the_future_give_an_invalid_frame(stage):
    s = stage(freshness=0.5, publish_invalid=True).camera('left', 'right')
    images, views = s.listen(Image, 'wrist/image_raw'), s.listen(WristView, 'wrist/view')
    s.activate()
    start = s.now() + 60 * S
    for i in range(10):
        s.send_set(start + i * 30 * MS)
        s.spin(0.03)
    s.spin_until(lambda: s.node.status().frames_invalid and views)
    assert images == [] and 'future' in s.node.status().reason
    assert {v.status for v in views} == {WristView.STAMP_IN_FUTURE}


def test_stamps_that_jump_back_make_it_forget_and_fill_again(stage):
    s, images = running(stage, freshness=60.0)
    images.clear()
    stamp, deadline = s.now() - 20 * S, time.monotonic() + 30
    while not images and time.monotonic() < deadline:
        stamp = s.send_set(stamp + 50 * MS)
        s.spin(0.05)
    assert to_ns(images[-1].header.stamp) <= stamp and s.node.status().resets >= 1


def test_a_ros_clock_that_is_set_back_makes_it_forget_and_fill_again(stage):
    s = stage(['-p', 'use_sim_time:=true']).camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw')
    clock = s.peer.create_publisher(Clock, '/clock', 10)
    s.activate()

    def play(start, steps=200):
        for i in range(steps):
            stamp = start + i * 50 * MS
            clock.publish(Clock(clock=to_stamp(stamp)))
            s.spin(0.02)
            s.send_set(stamp)
            s.spin(0.03)
            if images:
                return

    play(100 * S)
    assert images and s.node.status().frames_invalid == 0
    s.spin(0.2)
    images.clear()
    play(10 * S)
    assert to_ns(images[0].header.stamp) < 50 * S and s.node.status().resets >= 1
    assert s.node.status().frames_invalid == 0


def test_a_bag_is_replayed_and_may_loop(stage, tmp_path):
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_JAZZY)
    image, header, time_ = (
        types.types[t] for t in ('sensor_msgs/msg/Image', 'std_msgs/msg/Header', 'builtin_interfaces/msg/Time')
    )
    with Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {
            n: writer.add_connection(f'/anchor_{n}/image_raw', image.__msgtype__, typestore=types)
            for n in ('left', 'right')
        }
        for i in range(20):
            stamp = 1000 * S + i * 100 * MS
            for name, connection in topics.items():
                msg = image(
                    header(time_(stamp // S, stamp % S), f'cam_{name}'),
                    48,
                    64,
                    'bgr8',
                    0,
                    192,
                    np.full(48 * 192, i, np.uint8),
                )
                writer.write(connection, stamp, types.serialize_cdr(msg, image.__msgtype__))
    s = stage(['-p', 'use_sim_time:=true']).camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw')
    clock = s.peer.create_publisher(Clock, '/clock', 10)
    s.activate()
    for _ in range(2):
        before = len(images)
        with Reader(tmp_path / 'bag') as reader:
            for connection, stamp, raw in reader.messages():
                clock.publish(Clock(clock=to_stamp(stamp)))
                s.spin(0.01)
                s.senders[connection.topic.split('_')[1].split('/')[0]].publish(raw)
                s.spin(0.02)
        s.spin(0.3)
        assert len(images) > before
        assert all(1000 * S <= to_ns(m.header.stamp) < 1002 * S for m in images)
    assert s.node.status().resets >= 1 and s.node.status().frames_invalid == 0


# A slow model, failures


def test_when_the_model_is_slower_than_the_cameras_the_newest_set_wins(stage, monkeypatch):
    slow(monkeypatch, 0.25)
    s = stage().camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw')
    s.activate()
    sent = s.send_until(lambda: len(images) >= 5, period=0.02)
    status = s.node.status()
    assert status.sets_replaced > status.sets_used >= 5
    for m in images:
        stamp = to_ns(m.header.stamp)
        assert stamp in sent
    # A set is reconstructed while the one before it is generated: its age is two generations, not a queue of them.
    assert status.latency_p95 < 1.0


@pytest.mark.parametrize('half', ['reconstruct', 'generate'])
def test_a_model_that_fails_on_a_set_is_reported_and_goes_on(stage, monkeypatch, half):
    s, images = running(stage)
    work = getattr(s.node.stream, half)
    broken = [RuntimeError('CUDA out of memory')] * 3

    def sometimes(given):
        if broken:
            raise broken.pop()
        return work(given)

    monkeypatch.setattr(s.node.stream, half, sometimes)
    s.spin(0.2)
    images.clear()
    s.send_until(lambda: images)
    assert s.node.status().model_errors == 3
    s.spin_until(lambda: s.warnings('out of memory'))
    assert len(s.warnings('out of memory')) == 1


@pytest.mark.parametrize('part', ['stage1', 'generator'])
def test_nan_out_of_a_network_is_never_published_as_an_image_and_is_gone_with_its_cause(stage, part):
    s = stage(publish_invalid=True, points_stride=1).camera('left', 'right')
    images, views = s.listen(Image, 'wrist/image_raw'), s.listen(WristView, 'wrist/view')
    clouds, diagnostics = s.listen(PointCloud2, 'wrist/points'), s.listen(DiagnosticArray, '/diagnostics')
    s.activate().send_until(lambda: images)
    model = s.node.stream.model
    weight = {'stage1': model.stage1.wrist_head.pose_branch.fc2.bias, 'generator': model.generator.decoder.last.bias}[
        part
    ]
    right = weight.clone()
    weight.fill_(float('nan'))
    s.send_until(lambda: any(v.status != WristView.VALID for v in views))
    weight.copy_(right)
    seen = len(images)
    s.send_until(lambda: len(images) > seen + 3)
    bad = [v for v in views if v.status != WristView.VALID]
    stamps = {to_ns(v.header.stamp) for v in bad}
    assert all(v.status == WristView.NOT_FINITE for v in bad)
    assert all('not finite' in v.reason and not any(v.image.data) for v in bad)
    assert not stamps & {to_ns(m.header.stamp) for m in [*images, *clouds]}
    status = s.node.status()
    assert status.frames_invalid == status.model_errors == len(bad)
    s.spin_until(lambda: any('not finite' in d.status[0].message for d in diagnostics))
    assert any(d.status[0].level == DiagnosticStatus.ERROR for d in diagnostics)
    assert len(s.warnings('not finite')) == 1


def test_publish_may_raise_and_is_counted(stage, monkeypatch):
    s, images = running(stage)
    publish, left = Publisher.publish, [3]

    def fail(self, msg):
        if self.topic_name == '/wrist/image_raw' and left[0]:
            left[0] -= 1
            raise RuntimeError('the transport is full')
        return publish(self, msg)

    monkeypatch.setattr(Publisher, 'publish', fail)
    s.spin(0.2)
    images.clear()
    s.send_until(lambda: images)
    assert s.node.status().publish_errors == 3


def test_deactivating_while_a_frame_is_made_lets_none_out_afterwards(stage, monkeypatch):
    slow(monkeypatch, 0.5)
    s = stage().camera('left', 'right')
    images = s.listen(Image, 'wrist/image_raw', qos=QoSProfile(depth=10))
    s.activate()
    s.send_until(lambda: s.node.status().sets_used)
    start = time.monotonic()
    s.node.trigger_deactivate()
    assert time.monotonic() - start < 0.4
    s.spin(1.0)
    assert images == []


def test_stopping_while_a_frame_is_made_takes_less_than_two_seconds(stage, monkeypatch):
    slow(monkeypatch, 4.0)
    s = stage().camera('left', 'right').activate()
    s.send_until(lambda: s.node.status().sets_used > 1)  # the first is being generated
    start = time.monotonic()
    assert not s.node.stop()
    assert time.monotonic() - start < 2
