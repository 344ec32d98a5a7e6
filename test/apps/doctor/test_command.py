"""The whole doctor, over real topics and without any ROS."""

import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from wristworld_ros import cli
from wristworld_ros.apps.doctor.finding import exit_status
from wristworld_ros.apps.doctor.topics import calibration_findings, survey_topics, topic_findings
from wristworld_ros.errors import UserError
from wristworld_ros.pipeline import save_model, tiny_random_model
from wristworld_ros.ros.conversions import to_compressed, to_image, to_stamp
from wristworld_ros.settings import NodeSettings

RATE = 15.0
SETTINGS = NodeSettings(anchors=['left', 'right'], freshness=2.0)


class Cameras:
    """Cameras that publish from a thread of their own. later: seconds that the second one's stamps lie after the first's.
    lose: of as many images one never arrives, 0 for none."""

    def __init__(self, *topics, later=0.0, calibrated=True, reliability=ReliabilityPolicy.RELIABLE, jpeg=False, lose=0):
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self.node = rclpy.create_node('cameras', context=self.context)
        qos = QoSProfile(depth=2, reliability=reliability)
        kind, suffix = (CompressedImage, '/compressed') if jpeg else (Image, '')
        self.jpeg = jpeg
        self.images = [self.node.create_publisher(kind, f'{topic}/image_raw{suffix}', qos) for topic in topics]
        self.infos = [self.node.create_publisher(CameraInfo, f'{topic}/camera_info', 2) for topic in topics]
        self.later, self.k = later, [50.0 * calibrated, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0]
        self.lose, self.sent = lose, 0
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.node.create_timer(1 / RATE, self._tick)
        self.thread = threading.Thread(target=self._spin)
        self.ended = False
        self.thread.start()

    def _spin(self):
        while not self.ended:
            self.executor.spin_once(timeout_sec=0.05)

    def _tick(self):
        now = self.node.get_clock().now().nanoseconds
        for i, (images, infos) in enumerate(zip(self.images, self.infos)):
            header = Header(stamp=to_stamp(now + round(i * self.later * 1e9)))
            image = np.zeros((48, 64, 3), np.uint8)
            self.sent += 1
            if not self.lose or self.sent % self.lose:
                images.publish((to_compressed if self.jpeg else to_image)(image, header))
            infos.publish(CameraInfo(header=header, width=64, height=48, k=self.k))

    def close(self):
        self.ended = True
        self.thread.join()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def cameras():
    made = []

    def make(*args, **kwargs):
        made.append(Cameras(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_cameras_that_run_are_seen_with_rate_size_encoding_and_quality_of_service(cameras):
    cameras('anchor_left', 'anchor_right', reliability=ReliabilityPolicy.BEST_EFFORT)
    seen = survey_topics(SETTINGS, [], 2.0)
    for a in seen.anchors:
        assert (a.width, a.height, a.encoding, a.size, a.bad) == (64, 48, 'rgb8', 64 * 48 * 3, '')
        assert [(p.node, p.reliability) for p in a.publishers] == [('/cameras', 'best effort')]
        assert a.rate == pytest.approx(RATE, rel=0.3) and abs(a.age) < 1
    assert seen.sets >= 0.8 * min(a.images for a in seen.anchors) > 10
    assert seen.profile and seen.others == ()
    assert exit_status([*topic_findings(seen, SETTINGS, 5.0), *calibration_findings(seen)]) == 0


def test_images_that_never_arrive_are_counted_against_those_that_were_sent(cameras):
    cameras('anchor_left', lose=3)
    one = NodeSettings(anchors=['left'], freshness=2.0)
    seen = survey_topics(one, [], 3.0)
    (anchor,) = seen.anchors
    assert anchor.images == pytest.approx(2 / 3 * anchor.sent, abs=3)
    (finding,) = topic_findings(seen, one, 5.0)
    assert finding.state == 'warning' and 'did not arrive' in finding.what and 'start the driver' in finding.fix


def test_stamps_that_do_not_fit_and_calibrations_of_zero_are_seen(cameras):
    cameras('anchor_left', 'anchor_right', later=-0.033, calibrated=False)
    seen = survey_topics(NodeSettings(anchors=['left', 'right'], slop=0.005), [], 1.0)
    assert seen.sets == 0 and seen.anchors[1].apart == pytest.approx(0.033, abs=0.004)
    assert seen.anchors[0].calibration.received and not seen.anchors[0].calibration.calibrated
    assert exit_status(topic_findings(seen, SETTINGS, 5.0)) == 2


def test_compressed_images_are_seen_and_offered_to_who_asked_for_raw_ones(cameras):
    cameras('anchor_left', jpeg=True)
    one = NodeSettings(anchors=['left'], transport='compressed')
    (anchor,) = survey_topics(one, [], 0.5).anchors
    assert (anchor.width, anchor.height, anchor.bad) == (64, 48, '') and 'jpeg' in anchor.encoding and anchor.images
    raw = NodeSettings(anchors=['left'])
    (finding,) = topic_findings(survey_topics(raw, [], 0.1), raw, 5.0)
    assert (
        'but /anchor_left/image_raw/compressed exists' in finding.what and finding.fix == 'set transport to compressed'
    )


def test_a_camera_that_nobody_named_so_is_offered_and_may_be_remapped(cameras):
    cameras('anchor_left', 'front/color')
    assert '/front/color/image_raw' in survey_topics(SETTINGS, [], 0.3).others
    remaps = [f'anchor_right/{t}:=/front/color/{t}' for t in ('image_raw', 'camera_info')]
    seen = survey_topics(SETTINGS, remaps, 1.0)
    assert seen.anchors[1].topic == '/front/color/image_raw' and seen.anchors[1].images
    assert seen.anchors[1].calibration.calibrated and seen.others == ()


def test_a_listener_that_fails_is_reported_in_its_own_words():
    with pytest.raises(UserError, match='not a remap'):
        survey_topics(SETTINGS, ['not a remap'], 0.1)


def test_the_command_says_the_same_in_words_and_in_json(cameras, tmp_path, capsys):
    cameras('anchor_left', 'anchor_right')
    save_model(tiny_random_model(), tmp_path)
    arguments = ['doctor', '--model', str(tmp_path), '--device', 'cpu', '--seconds', '1', '--freshness', '2']
    status = cli.main(arguments)
    text = capsys.readouterr().out
    for section in (
        'GPU and driver',
        'Memory',
        'Weights',
        'Versions',
        'ROS',
        'Big images',
        'Topics',
        'Calibration',
        'Frames',
        'Depth',
        'Robot',
    ):
        assert f'{section}\n' in text
    assert (
        status in (0, 1) and 'error ' not in text and ', 0 errors.' in text
    )  # a warning, e.g. about how much memory is free
    cli.main([*arguments, '--seconds', 'never'])
    assert 'Topics\n' not in capsys.readouterr().out
    assert cli.main([*arguments, '--json', '--anchors', 'left', 'none']) == 2
    said = json.loads(capsys.readouterr().out)
    assert said['status'] == 'error' and all(set(f) == {'section', 'state', 'what', 'fix'} for f in said['findings'])
    (missing,) = (f for f in said['findings'] if f['state'] == 'error')
    assert (
        missing['section'] == 'Topics'
        and 'Nothing publishes /anchor_none/image_raw' in missing['what']
        and missing['fix']
    )


def doctor_without(package, *arguments):
    """The doctor in a Python that cannot import a package."""
    program = (
        'import sys\n'
        'class Missing:\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        f'        if name.split(".")[0] == {package!r}: raise ModuleNotFoundError(name)\n'
        'sys.meta_path.insert(0, Missing())\n'
        'from wristworld_ros import cli\n'
        f'sys.exit(cli.main(["doctor", "--device", "cpu", "--json", *{arguments!r}]))'
    )
    return subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)


def test_without_torch_it_says_so_and_goes_on():
    done = doctor_without('torch', '--seconds', 'never')
    assert done.returncode == 2, done.stderr
    findings = json.loads(done.stdout)['findings']
    errors = [f for f in findings if f['state'] == 'error']
    assert [f['section'] for f in errors] == ['GPU and driver', 'Weights'] and 'torch>=2.4' in errors[0]['fix']
    assert {f['section'] for f in findings} == {'GPU and driver', 'Versions', 'Weights', 'ROS'}


def test_without_ros_it_says_so_and_goes_on(tmp_path):
    save_model(tiny_random_model(), tmp_path)
    start = time.monotonic()
    done = doctor_without('rclpy', '--model', str(tmp_path))
    assert done.returncode == 2, done.stderr
    findings = json.loads(done.stdout)['findings']
    (missing,) = (f for f in findings if f['state'] == 'error')
    assert missing['section'] == 'ROS' and 'rclpy' in missing['fix']
    assert {f['section'] for f in findings} == {'GPU and driver', 'Versions', 'Weights', 'ROS', 'Memory'}
    assert time.monotonic() - start < 60
