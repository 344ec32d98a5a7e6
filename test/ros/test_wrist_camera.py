"""`policy.WristCamera` over real DDS: what the node publishes is an image or an error, and never a blank image."""

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from geometry_msgs.msg import Pose, PoseStamped
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock

from wristworld_ros.errors import UserError
from wristworld_ros.msg import VirtualWristStatus
from wristworld_ros.policy import CameraClosedError, FrameTimeoutError, InvalidFrameError, StaleFrameError, WristCamera
from wristworld_ros.ros.conversions import to_stamp
from wristworld_ros.types import FrameStatus, Geometry

S = 1_000_000_000


@pytest.fixture
def wrist(view_publisher):
    """A publisher and a camera that have found each other; ages up to 100 s are allowed unless a test says less."""
    publisher, camera = view_publisher(), WristCamera(max_age=100.0)
    publisher.wait_for_reader()
    yield publisher, camera
    camera.close()


def send_and_wait(publisher, *cameras, **kwargs):
    """Send a view, and wait until it is every camera's newest; returns its stamp. It is sent again where one missed it."""
    stamp_ns = publisher.send(**kwargs)
    start = again = time.monotonic()
    while any((frame := camera.latest.get()[1]) is None or frame.stamp_ns != stamp_ns for camera in cameras):
        assert time.monotonic() < start + 60, 'what was sent did not arrive'
        if time.monotonic() > again + 5:
            again = time.monotonic()
            publisher.send(**kwargs | {'stamp_ns': stamp_ns})
        time.sleep(0.005)
    return stamp_ns


def test_a_valid_view_becomes_an_image_with_all_that_was_said_of_it(wrist):
    publisher, camera = wrist
    stamp_ns = send_and_wait(publisher, camera, value=42)
    image = camera.read_latest()
    assert image.image.shape == (48, 64, 3) and image.image.dtype == np.uint8 and (image.image == 42).all()
    assert image.stamp_ns == stamp_ns and 0 < image.age_s < 10
    np.testing.assert_allclose(image.camera.K, publisher.K)
    np.testing.assert_allclose(image.camera.T_camera_world, np.linalg.inv(publisher.T_base_wrist), atol=1e-12)
    assert (image.camera.width, image.camera.height, image.world) == (64, 48, 'fr3_link0')
    assert image.frame_id == 'virtual_wrist_optical_frame' and image.geometry is Geometry.RGBD
    assert (image.coverage, image.confidence, image.agreement) == (0.75, 0.5, 0.25)
    np.testing.assert_allclose(image.residuals, [0.001, 0.002], rtol=1e-6)
    with pytest.raises(ValueError, match='read-only'):
        image.image[0] = 1


def test_an_invalid_view_raises_with_its_status_and_gives_no_image(wrist):
    publisher, camera = wrist
    for status in [s for s in FrameStatus if s is not FrameStatus.VALID]:
        send_and_wait(publisher, camera, value=42)
        send_and_wait(publisher, camera, status=status)
        kind = StaleFrameError if status is FrameStatus.STALE else InvalidFrameError
        for read in (camera.read_latest, camera.async_read):
            with pytest.raises(kind, match='3 %') as error:
                read()
            assert error.value.status is status and status.name in str(error.value)
        assert camera.latest.get()[1].image is None


def test_read_gives_a_frame_that_came_after_the_call(wrist):
    publisher, camera = wrist
    send_and_wait(publisher, camera)
    publisher.keep_sending()
    asked = publisher.now_ns()
    for _ in range(3):
        image = camera.read(timeout=10.0)
        assert image.stamp_ns > asked - S // 10
        asked = max(asked, image.stamp_ns + 1)


def test_async_read_gives_every_frame_once(wrist):
    publisher, camera = wrist
    stamp_ns = send_and_wait(publisher, camera)
    assert camera.async_read().stamp_ns == stamp_ns
    with pytest.raises(FrameTimeoutError, match=r'within 0\.05 s'):
        camera.async_read(timeout=0.05)
    assert camera.read_latest().stamp_ns == stamp_ns


def test_an_old_frame_raises_instead_of_being_given(wrist):
    publisher, camera = wrist
    send_and_wait(publisher, camera, stamp_ns=publisher.now_ns() - 3 * S)
    with pytest.raises(StaleFrameError, match=r'\d\.\d+ s old, and 0\.5 s are allowed') as error:
        camera.read_latest(max_age=0.5)
    assert error.value.status is FrameStatus.STALE and isinstance(error.value, TimeoutError)
    assert camera.read_latest().age_s > 3


def test_a_stamp_of_another_clock_raises(wrist):
    publisher, camera = wrist
    send_and_wait(publisher, camera, stamp_ns=publisher.now_ns() + 1000 * S)
    with pytest.raises(InvalidFrameError, match='in the future') as error:
        camera.read_latest()
    assert error.value.status is FrameStatus.STAMP_IN_FUTURE


def test_a_view_that_is_damaged_or_of_another_version_is_no_frame(wrist):
    publisher, camera = wrist
    publisher.send(status=FrameStatus.LOW_COVERAGE)
    send_and_wait(publisher, camera, value=1)
    for number, changes in enumerate(({'pose': PoseStamped(pose=Pose())}, {'status': 200})):
        if 'pose' in changes:
            changes['pose'].pose.orientation.w = 5.0
        before = camera.latest.get()[0]
        publisher.send(value=number, **changes)
        deadline = time.monotonic() + 60
        while 'could not be used' not in camera.why_silent().what and time.monotonic() < deadline:
            time.sleep(0.01)
        assert camera.latest.get()[0] == before
        assert 'could not be used' in camera.why_silent().what
        send_and_wait(publisher, camera, value=number)


def test_without_a_node_the_sentence_names_the_topic_and_how_to_start_it():
    with WristCamera(namespace='left_arm') as camera:
        with pytest.raises(FrameTimeoutError, match=r'/left_arm/wrist/view.*wristworld run') as error:
            camera.read(timeout=0.05)
        assert isinstance(error.value, TimeoutError) and error.value.status is None
        with pytest.raises(FrameTimeoutError, match='has come yet'):
            camera.read_latest()


def test_what_the_node_says_of_itself_explains_the_silence(wrist):
    publisher, camera = wrist
    publisher.wait_for_reader(publisher.statuses)

    def said(**fields):
        publisher.statuses.publish(VirtualWristStatus(**fields))
        return camera.why_silent().what

    def until(words, **fields):
        end = time.monotonic() + 60
        while words not in (what := said(**fields)):
            assert time.monotonic() < end, what
            time.sleep(0.02)

    until('the node is inactive', state=VirtualWristStatus.INACTIVE)
    until('switched off', state=VirtualWristStatus.ACTIVE)
    until('left is black', state=VirtualWristStatus.ACTIVE, enabled=True, reason='The image of left is black.')
    until('9.5 frames/s', state=VirtualWristStatus.ACTIVE, enabled=True, frame_rate=9.5)
    with pytest.raises(FrameTimeoutError, match=r'9\.5 frames/s'):
        camera.read(timeout=0.0)


def test_closing_wakes_whoever_waits_and_further_reads_say_that_it_is_closed():
    camera = WristCamera()
    failed = []

    def wait():
        try:
            camera.read(timeout=60.0)
        except CameraClosedError as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    camera.close()
    thread.join(10)
    assert not thread.is_alive() and len(failed) == 1
    with pytest.raises(CameraClosedError, match='closed'):
        camera.read_latest()
    camera.close()


def test_names_that_make_no_topic_are_one_sentence():
    for names in ({'namespace': 'left arm'}, {'node': 'a-b'}, {'ros_args': ('-r', 'nonsense')}):
        with pytest.raises(UserError, match='cannot be opened') as error:
            WristCamera(**names)
        assert '\n' not in str(error.value)


def test_two_cameras_and_a_namespace_do_not_disturb_each_other(view_publisher):
    publisher = view_publisher(namespace='/left_arm')
    with WristCamera(namespace='left_arm') as one, WristCamera(namespace='left_arm') as two, WristCamera() as other:
        publisher.wait_for_reader(count=2)
        stamp_ns = send_and_wait(publisher, one, two)
        assert one.read_latest(100.0).stamp_ns == two.read_latest(100.0).stamp_ns == stamp_ns
        with pytest.raises(FrameTimeoutError):
            other.async_read(timeout=0.0)


def test_with_sim_time_ages_are_of_that_clock(view_publisher):
    publisher = view_publisher()
    with WristCamera(use_sim_time=True) as camera:
        with pytest.raises(FrameTimeoutError, match='/clock'):
            camera.read(timeout=0.0)
        publisher.wait_for_reader()
        end = time.monotonic() + 60
        while camera.now_ns() != 100 * S:
            assert time.monotonic() < end
            publisher.clock.publish(Clock(clock=to_stamp(100 * S)))
            time.sleep(0.01)
        send_and_wait(publisher, camera, stamp_ns=100 * S - S // 4)
        assert camera.read_latest().age_s == pytest.approx(0.25)


def test_the_node_s_own_frames_are_read_and_its_invalid_ones_raise(stage):
    s = stage(publish_invalid=True).camera('left', 'right').activate()
    with WristCamera(max_age=100.0) as camera:
        s.send_until(lambda: camera.latest.get()[0] >= 2)
        image = camera.async_read()
        assert image.image.shape == (*s.node.stream.model.config.wrist_hw, 3) and image.camera.K[0, 0] > 0
        assert image.world == 'anchor_left_optical_frame' and image.geometry is Geometry.RGB
        assert s.node.set_parameters([Parameter('min_coverage', value=1.0)])[0].successful
        s.send_until(lambda: camera.latest.get()[1].verdict.status is FrameStatus.LOW_COVERAGE)
        with pytest.raises(InvalidFrameError, match='min_coverage') as error:
            camera.read_latest()
        assert error.value.status is FrameStatus.LOW_COVERAGE


def test_a_program_that_never_closes_its_camera_loads_no_model_code_and_ends_cleanly():
    code = (
        'import sys\nfrom wristworld_ros.policy import WristCamera\ncamera = WristCamera()\n'
        'print(sorted(m for m in sys.modules if m.startswith(("wristworld_ros.models", "wristworld_ros.pipeline", "diffusers"))))\n'
        'raise KeyboardInterrupt'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT and 'terminate' not in done.stderr  # not SIGABRT
    assert done.stdout.strip() == '[]', done.stderr
