"""Listens to the anchors for a moment and prints what it received as one line of JSON, for `wristworld doctor`."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from wristworld_ros.pipeline.frame_sync import FrameSync
from wristworld_ros.ros import environment
from wristworld_ros.ros.conversions import ImageError, to_ns, to_rgb
from wristworld_ros.ros.names import camera_info_topic, image_topic
from wristworld_ros.ros.topic_survey import Anchor, Calibration, Publisher, TopicSurvey

# transport: name of the type, the type, what its topics end in
KINDS = {
    'raw': ('sensor_msgs/msg/Image', Image, ''),
    'compressed': ('sensor_msgs/msg/CompressedImage', CompressedImage, '/compressed'),
}
PATIENCE_S = 3.0  # until every camera should have been found


class TopicSurveyNode(Node):
    """Subscribes as `virtual_wrist` does, but queues a few images, so that a slow moment here does not look like a slow camera."""

    def __init__(self, names: list[str], transport: str, slop: float, jump_back: float, **kwargs: Any):
        super().__init__('wristworld_doctor', **kwargs)
        self.sync = FrameSync(tuple(names), round(slop * 1e9), round(jump_back * 1e9))
        self._anchors = [AnchorListener(self, name, transport) for name in names]
        self.restart()

    def restart(self) -> None:
        """Count from here."""
        self.sync.reset()
        self.sync.counts.matched = 0
        for anchor in self._anchors:
            anchor.restart()

    @property
    def complete(self) -> bool:
        """Whether every anchor was heard, with its calibration where somebody publishes one."""
        return all(anchor.complete for anchor in self._anchors)

    def survey(self, seconds: float) -> TopicSurvey:
        """What came since `restart`, which was so many seconds ago."""
        reference = self._anchors[0].stamps
        anchors = tuple(anchor.result(seconds, reference) for anchor in self._anchors)
        ours = {anchor.topic for anchor in anchors}
        images = {kind for kind, _, _ in KINDS.values()}
        others = sorted(t for t, kinds in self.get_topic_names_and_types() if images & set(kinds) and t not in ours)
        others = [t for t in others if self.count_publishers(t)]
        return TopicSurvey(anchors, seconds, self.sync.counts.matched, tuple(others), environment.profile())


class AnchorListener:
    """One anchor camera: its subscriptions, and what came on them."""

    def __init__(self, node: TopicSurveyNode, name: str, transport: str):
        self._node, self._name = node, name
        self._wanted, kind, _ = KINDS[transport]
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._images = node.create_subscription(kind, image_topic(node, name, transport), self.on_image, qos)
        info_topic = camera_info_topic(node, name, transport)
        self._infos = node.create_subscription(CameraInfo, info_topic, self.on_camera_info, qos)
        self._info: CameraInfo | None = None
        self.restart()

    def restart(self) -> None:
        """Forget the images; the calibration stays."""
        self._last: Image | CompressedImage | None = None
        self._arrived: list[float] = []
        self._ages: list[float] = []
        self.stamps: list[int] = []

    def on_image(self, msg: Image | CompressedImage) -> None:
        """Called by rclpy with every image."""
        stamp_ns = to_ns(msg.header.stamp)
        self._last = msg
        self._arrived.append(time.monotonic())
        self._ages.append((self._node.get_clock().now().nanoseconds - stamp_ns) * 1e-9)
        self.stamps.append(stamp_ns)
        self._node.sync.add(self._name, stamp_ns, None)

    def on_camera_info(self, msg: CameraInfo) -> None:
        """Called by rclpy with every calibration."""
        self._info = msg

    @property
    def complete(self) -> bool:
        """Whether an image came, and a calibration where somebody publishes one."""
        return self._last is not None and (
            self._info is not None or not self._node.count_publishers(self._infos.topic_name)
        )

    def result(self, seconds: float, reference: list[int]) -> Anchor:
        """What came.

        Args:
            seconds: Since `restart`.
            reference: Stamps of the first anchor, nanoseconds.
        """
        topic, last = self._images.topic_name, self._last
        publishers = tuple(self._publisher(info) for info in self._node.get_publishers_info_by_topic(topic))
        if last is None:
            return Anchor(self._name, topic, self._wanted, publishers, self._calibration())
        try:
            (height, width), bad = to_rgb(last).shape[:2], ''
        except ImageError as error:
            height, width, bad = getattr(last, 'height', 0), getattr(last, 'width', 0), error.what
        spread = self._arrived[-1] - self._arrived[0]
        return Anchor(
            self._name, topic, self._wanted, publishers, self._calibration(),
            images=len(self._arrived), rate=(len(self._arrived) - 1) / spread if spread else len(self._arrived) / seconds,
            width=width, height=height, encoding=last.format if isinstance(last, CompressedImage) else last.encoding,
            size=len(last.data), age=float(np.median(self._ages)), bad=bad,
            apart=median_distance(self.stamps, reference),
        )  # fmt: skip

    @staticmethod
    def _publisher(info: Any) -> Publisher:
        name = f'{info.node_namespace.rstrip("/")}/{info.node_name}'
        return Publisher(name, info.topic_type, info.qos_profile.reliability.name.lower().replace('_', ' '))

    def _calibration(self) -> Calibration:
        topic, info = self._infos.topic_name, self._info
        if info is None:
            return Calibration(topic)
        return Calibration(topic, True, bool(info.k[0] > 0), bool(any(info.d)), info.width, info.height)


def median_distance(stamps: list[int], reference: list[int]) -> float:
    """Median of the seconds from each stamp to the nearest one of the reference, both in nanoseconds; 0 without any."""
    if not stamps or not reference:
        return 0.0
    nearest = np.abs(np.subtract.outer(np.array(stamps, np.int64), np.array(reference, np.int64))).min(1)
    return float(np.median(nearest)) * 1e-9


def spin_for(executor: SingleThreadedExecutor, seconds: float, found: TopicSurveyNode | None = None) -> None:
    """Spin for so long, or until the node given has heard every camera."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not (found and found.complete):
        executor.spin_once(timeout_sec=left)


def main(args: list[str] | None = None) -> int:
    """Wait for the cameras, listen, print."""
    environment.prepare()
    rclpy.init(args=args)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--anchors', nargs='+', required=True)
    parser.add_argument('--transport', choices=tuple(KINDS), default='raw')
    parser.add_argument('--slop', type=float, default=0.05)
    parser.add_argument('--jump-back', type=float, default=0.5)
    parser.add_argument('--seconds', type=float, default=2.0)
    given = parser.parse_args(remove_ros_args(sys.argv if args is None else args)[1:])
    node = TopicSurveyNode(given.anchors, given.transport, given.slop, given.jump_back)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spin_for(executor, PATIENCE_S, found=node)
    node.restart()
    spin_for(executor, given.seconds)
    print(node.survey(given.seconds).to_json(), flush=True)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    environment.leave(main())
