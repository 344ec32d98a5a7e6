"""Listens to the anchors for a moment and prints what it saw as one line of JSON, for `wristworld doctor`."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from wristworld_ros.pipeline.frame_sync import FrameSync
from wristworld_ros.ros import environment
from wristworld_ros.ros.image_conversion import ImageError, compressed_to_rgb, to_rgb
from wristworld_ros.ros.topic_survey import Anchor, Calibration, Publisher, TopicSurvey
from wristworld_ros.ros.wrist_publisher import to_ns

KINDS = {
    'raw': ('sensor_msgs/msg/Image', Image, ''),
    'compressed': ('sensor_msgs/msg/CompressedImage', CompressedImage, '/compressed'),
}
PATIENCE = 3.0  # seconds until every camera should have been found


class Probe(Node):
    """Subscribes as `virtual_wrist` does, but queues a few images, so that a slow moment here is not taken for a slow camera."""

    def __init__(self, names: list[str], transport: str, slop: float, jump_back: float, **kwargs):
        super().__init__('wristworld_doctor', **kwargs)
        self.names, self._kind = names, KINDS[transport]
        self._sync = FrameSync(tuple(names), round(slop * 1e9), round(jump_back * 1e9))
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._images, self._infos = {}, {}
        for name in names:
            images, infos = f'anchor_{name}/image_raw{self._kind[2]}', f'anchor_{name}/camera_info'
            self._images[name] = self.create_subscription(self._kind[1], images, partial(self._on_image, name), qos)
            self._infos[name] = self.create_subscription(CameraInfo, infos, partial(self._on_info, name), qos)
        self._info: dict[str, CameraInfo] = {}
        self.restart()

    def restart(self) -> None:
        """Count from here."""
        self._sync.reset()
        self._sync.counts.matched = 0
        self._last: dict[str, Image | CompressedImage] = {}
        self._arrived: dict[str, list[float]] = {name: [] for name in self.names}
        self._stamps: dict[str, list[int]] = {name: [] for name in self.names}
        self._ages: dict[str, list[float]] = {name: [] for name in self.names}

    @property
    def complete(self) -> bool:
        """Whether every anchor has been heard, with what is known of its calibration."""
        return len(self._last) == len(self.names) and all(
            name in self._info or not self.count_publishers(s.topic_name) for name, s in self._infos.items()
        )

    def _on_image(self, name: str, msg: Image | CompressedImage) -> None:
        stamp = to_ns(msg.header.stamp)
        self._last[name] = msg
        self._arrived[name].append(time.monotonic())
        self._stamps[name].append(stamp)
        self._ages[name].append((self.get_clock().now().nanoseconds - stamp) * 1e-9)
        self._sync.add(name, stamp, None)

    def _on_info(self, name: str, msg: CameraInfo) -> None:
        self._info[name] = msg

    def seen(self, seconds: float) -> TopicSurvey:
        """What came in the last `seconds`, since `restart`."""
        anchors = tuple(self._anchor(name, seconds) for name in self.names)
        ours = {a.topic for a in anchors}
        images = {kind for kind, _, _ in KINDS.values()}
        others = sorted(t for t, kinds in self.get_topic_names_and_types() if images & set(kinds) and t not in ours)
        others = [t for t in others if self.count_publishers(t)]
        return TopicSurvey(anchors, seconds, self._sync.counts.matched, tuple(others), environment.profile())

    def _anchor(self, name: str, seconds: float) -> Anchor:
        topic = self._images[name].topic_name
        publishers = tuple(
            Publisher(
                f'{p.node_namespace.rstrip("/")}/{p.node_name}',
                p.topic_type,
                p.qos_profile.reliability.name.lower().replace('_', ' '),
            )
            for p in self.get_publishers_info_by_topic(topic)
        )
        last, arrived, stamps = self._last.get(name), self._arrived[name], self._stamps[name]
        anchor = Anchor(name, topic, self._kind[0], publishers, self._calibration(name))
        if last is None:
            return anchor
        try:
            rgb, bad = compressed_to_rgb(last) if isinstance(last, CompressedImage) else to_rgb(last), ''
            height, width = rgb.shape[:2]
        except ImageError as error:
            height, width, bad = getattr(last, 'height', 0), getattr(last, 'width', 0), str(error)
        spread = arrived[-1] - arrived[0]
        return replace(
            anchor, images=len(arrived), rate=(len(arrived) - 1) / spread if spread else len(arrived) / seconds,
            width=width, height=height, encoding=last.format if isinstance(last, CompressedImage) else last.encoding,
            size=len(last.data), age=float(np.median(self._ages[name])), bad=bad,
            apart=apart(stamps, self._stamps[self.names[0]]),
        )  # fmt: skip

    def _calibration(self, name: str) -> Calibration:
        topic, info = self._infos[name].topic_name, self._info.get(name)
        if info is None:
            return Calibration(topic)
        return Calibration(topic, True, bool(info.k[0] > 0), bool(any(info.d)), info.width, info.height)


def apart(stamps: list[int], reference: list[int]) -> float:
    """Median of the seconds from each stamp to the nearest one of the reference, both in nanoseconds; 0 without any."""
    if not stamps or not reference:
        return 0.0
    nearest = np.abs(np.subtract.outer(np.array(stamps, np.int64), np.array(reference, np.int64))).min(1)
    return float(np.median(nearest)) * 1e-9


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
    node = Probe(given.anchors, given.transport, given.slop, given.jump_back)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin(seconds: float, until=lambda: False) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not until():
            executor.spin_once(timeout_sec=left)

    spin(PATIENCE, lambda: node.complete)
    node.restart()
    spin(given.seconds)
    print(node.seen(given.seconds).to_json(), flush=True)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    environment.leave(main())
