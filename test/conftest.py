"""Every test process is alone (a ROS domain of its own, loopback only, few threads), and repeats what it did before.

Property tests draw the same examples in every run. `make fuzz` draws others (`--hypothesis-profile=fuzz`).
"""

import fcntl
import os
import random
import tempfile
import threading
import time
from pathlib import Path

from hypothesis import settings

from wristworld_ros.runtime.children import die_with

os.environ.update(
    ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
    # Test processes share the cores where pytest runs with `-n 3`: much of what they do is wait for DDS.
    OMP_NUM_THREADS='1' if 'PYTEST_XDIST_WORKER' in os.environ else '2',
    OMP_WAIT_POLICY='PASSIVE',
    PYTHONDONTWRITEBYTECODE='1',
)


def claim_domain():
    """A domain id that no other test process on this machine holds; the lock lives as long as this process."""
    for domain in random.Random(os.getpid()).sample(range(1, 101), 100):
        path = Path(tempfile.gettempdir(), f'wristworld_ros_domain_{domain}.lock')
        lock = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        os.environ['ROS_DOMAIN_ID'] = str(domain)
        return lock
    raise RuntimeError('All 100 ROS domains are taken by other test processes.')


DOMAIN_LOCK = claim_domain()


FORKS = {'main': True}


def end_with_parent():
    """A forked child that outlived a test process would hold its pipe to pytest-xdist, which would wait for it for ever."""
    if FORKS['main']:  # the kernel's parent is a thread, and others end before the process does
        die_with(os.getppid())


os.register_at_fork(
    before=lambda: FORKS.update(main=threading.current_thread() is threading.main_thread()),
    after_in_child=end_with_parent,
)

settings.register_profile('repeatable', derandomize=True, deadline=None, database=None)
settings.register_profile('fuzz', max_examples=1000, deadline=None, print_blob=True)
settings.load_profile('repeatable')

from wristworld_ros.ros import environment  # noqa: E402

environment.prepare()

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import rclpy  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import ReliabilityPolicy  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from wristworld_ros.msg import VirtualWristStatus, WristView  # noqa: E402
from wristworld_ros.ros.conversions import to_image, to_pose, to_stamp  # noqa: E402
from wristworld_ros.types import FrameStatus, Geometry  # noqa: E402


@pytest.fixture(autouse=True)
def torch_threads():
    """Tests that choose a number of threads leave the process's own: other threads would compute with another one."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


SCHEDULING = os.sched_getscheduler(0), os.sched_getparam(0)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup():
    """SVT-AV1, where a test or a fixture opens it itself and as root, gives its thread real-time priority. Threads that are started
    then, as those of DDS, would inherit it and starve all other processes."""
    try:
        return (yield)
    finally:
        restore_scheduling()


@pytest.fixture(autouse=True)
def scheduling():
    """The same for what a test itself opens."""
    yield
    restore_scheduling()


def restore_scheduling():
    if os.sched_getscheduler(0) != SCHEDULING[0]:
        os.sched_setscheduler(0, *SCHEDULING)


@pytest.fixture
def depth_model_folder(tmp_path):
    """A folder with a small random depth-estimation model, as transformers saves one."""
    import json

    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(0)
    backbone = Dinov2Config(
        image_size=56, patch_size=14, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        out_features=['stage1', 'stage2', 'stage3', 'stage4'], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, neck_hidden_sizes=[4, 8, 16, 16],
        fusion_hidden_size=8, head_hidden_size=8,
    )  # fmt: skip
    folder = tmp_path / 'depth_model'
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    processor = {
        'image_processor_type': 'DPTImageProcessor', 'do_resize': True, 'size': {'height': 56, 'width': 56}, 'keep_aspect_ratio': True,
        'ensure_multiple_of': 14, 'resample': 3, 'do_rescale': True, 'rescale_factor': 1 / 255, 'do_normalize': True,
        'image_mean': [0.485, 0.456, 0.406], 'image_std': [0.229, 0.224, 0.225], 'do_pad': False,
    }  # fmt: skip
    (folder / 'preprocessor_config.json').write_text(json.dumps(processor))
    return folder


class ViewPublisher:
    """A node that publishes views and statuses as `virtual_wrist` does, spinning in a thread of its own.

    K, T_base_wrist: of the wrist camera that it says.
    """

    K = np.array([[90.0, 0, 31.5], [0, 90, 23.5], [0, 0, 1]])
    T_base_wrist = np.array([[0.0, -1, 0, 0.4], [1, 0, 0, 0.1], [0, 0, 1, 0.5], [0, 0, 0, 1]])

    def __init__(self, namespace='', name='virtual_wrist'):
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self.node = rclpy.create_node(name, context=self.context, namespace=namespace or None)
        self.views = self.node.create_publisher(WristView, 'wrist/view', 2)
        self.statuses = self.node.create_publisher(VirtualWristStatus, '~/status', 10)
        self.clock = self.node.create_publisher(Clock, '/clock', 10)
        self._closing, self._sender = threading.Event(), None
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self):
        while self.context.ok():
            try:
                self._executor.spin_once(timeout_sec=0.1)
            except Exception:
                return

    def wait_for_reader(self, publisher=None, count=1):
        """Until so many subscribe to the topic, reliably: then nothing is lost."""
        publisher = publisher or self.views
        end = time.monotonic() + 60
        while publisher.get_subscription_count() < count or not self._all_reliable(publisher.topic_name):
            assert time.monotonic() < end, 'nobody subscribes'
            time.sleep(0.01)
        time.sleep(0.1)  # the other side matches a moment later

    def _all_reliable(self, topic):
        infos = self.node.get_subscriptions_info_by_topic(topic)
        return all(info.qos_profile.reliability is ReliabilityPolicy.RELIABLE for info in infos)

    def send(self, value=7, stamp_ns=None, status=FrameStatus.VALID, **changes):
        """A 48x64 image whose pixels all have that value; black where the status is another."""
        stamp_ns = self.now_ns() if stamp_ns is None else stamp_ns
        wrist = Header(stamp=to_stamp(stamp_ns), frame_id='virtual_wrist_optical_frame')
        pixels = np.full((48, 64, 3), value if status is FrameStatus.VALID else 0, np.uint8)
        view = WristView(header=wrist, image=to_image(pixels, wrist), camera_info=CameraInfo(k=self.K.ravel()))
        view.pose = PoseStamped(header=Header(stamp=wrist.stamp, frame_id='fr3_link0'), pose=to_pose(self.T_base_wrist))
        view.coverage, view.confidence, view.agreement, view.residuals = 0.75, 0.5, 0.25, [0.001, 0.002]
        view.geometry, view.status = int(Geometry.RGBD), int(status)
        view.reason = '' if status is FrameStatus.VALID else 'Too little of the wrist view is covered, 3 %.'
        for name, new in changes.items():
            setattr(view, name, new)
        self.views.publish(view)
        return stamp_ns

    def now_ns(self):
        return self.node.get_clock().now().nanoseconds

    def keep_sending(self, **kwargs):
        """Every 20 ms from now on until it is closed, in another thread."""

        def run():
            while not self._closing.wait(0.02):
                self.send(**kwargs)

        self._sender = threading.Thread(target=run, daemon=True)
        self._sender.start()

    def close(self):
        self._closing.set()
        if self._sender:
            self._sender.join(5)
        rclpy.try_shutdown(context=self.context)
        self._thread.join(5)
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()


@pytest.fixture
def view_publisher():
    """Makes publishers and closes them."""
    made = []

    def make(**kwargs):
        made.append(ViewPublisher(**kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope='session')
def write_clip():
    """A function that writes a clip of DROID's kind: three videos whose brightness tells camera and frame, and states whose first
    joint counts the rows. It returns the annotation."""
    import json

    import numpy as np

    from wristworld_ros.data.video import write_video

    def write(folder: Path, name: str = 'val/7', frames: int = 4, seed: int = 0) -> dict:
        for view in range(3):
            images = [np.full((36, 64, 3), 20 + 60 * view + 8 * t + seed, np.uint8) for t in range(frames)]
            write_video(folder / 'videos' / name / f'{view}.mp4', images, 5)
        rows = 3 * frames - 1
        record = {
            'texts': ['put it there'],
            'observation.state.joint_position': [[float(row), 0, 0, -2, 0, 2, 0] for row in range(rows)],
            'observation.state.cartesian_position': [[0.4, 0, 0.01 * row, 3.1, 0.1, 0.2] for row in range(rows)],
            'observation.state.gripper_position': [row / rows for row in range(rows)],
        }
        path = folder / 'annotation' / f'{name}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
        return record

    return write
