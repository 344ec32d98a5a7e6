"""Listens to the anchors for a moment and prints what it received as one line of JSON, for `wristworld doctor`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from wristworld_ros.pipeline.frame_sync import FrameSync
from wristworld_ros.ros import environment
from wristworld_ros.ros.conversions import CalibrationError, to_intrinsics, to_ns, to_rgb
from wristworld_ros.ros.image_header import ImageError, ImageLimits, read_header
from wristworld_ros.ros.image_subscription import ImageSubscription
from wristworld_ros.ros.names import camera_info_topic, image_topic, is_rectified, normalized_frame
from wristworld_ros.ros.rectification import displacement
from wristworld_ros.ros.robot_listener import RobotListener, SeenAnchor
from wristworld_ros.ros.topic_survey import Anchor, Calibration, Publisher, TopicSurvey
from wristworld_ros.settings import NodeSettings

# transport: name of the type, the type, what its topics end in
KINDS = {
    'raw': ('sensor_msgs/msg/Image', Image, ''),
    'compressed': ('sensor_msgs/msg/CompressedImage', CompressedImage, '/compressed'),
}
PATIENCE_S = 3.0  # until every camera should have been found
QUEUE = 10  # images, so that a slow moment here does not look like a slow camera


class TopicSurveyNode(Node):
    """Subscribes as `virtual_wrist` does with the same settings."""

    def __init__(self, settings: NodeSettings, **kwargs: Any):
        super().__init__('wristworld_doctor', **kwargs)
        slop, jump, window = (round(s * 1e9) for s in (settings.slop, settings.jump_back, settings.sync_window))
        self.sync = FrameSync(tuple(settings.anchors), slop, jump, window)
        self._anchors = [AnchorListener(self, name, settings) for name in settings.anchors]
        self._robot = RobotListener(self, settings)
        self.restart()

    def restart(self) -> None:
        """Count from here."""
        self.sync.reset()
        self.sync.counts.matched = 0
        self._robot.restart()
        for anchor in self._anchors:
            anchor.restart()

    def is_complete(self) -> bool:
        """Whether every anchor was heard, with its calibration where somebody publishes one, by the best means."""
        for anchor in self._anchors:
            anchor.refresh()
        return self._robot.complete and all(anchor.complete for anchor in self._anchors)

    def survey(self, seconds: float) -> TopicSurvey:
        """What came since `restart`, which was so many seconds ago."""
        reference = self._anchors[0]
        anchors = tuple(anchor.result(seconds, reference) for anchor in self._anchors)
        ours = {anchor.topic for anchor in anchors} | self._robot.topics
        images = {kind for kind, _, _ in KINDS.values()}
        others = sorted(t for t, kinds in self.get_topic_names_and_types() if images & set(kinds) and t not in ours)
        others = [t for t in others if self.count_publishers(t)]
        robot = self._robot.survey(seconds, [anchor.seen() for anchor in self._anchors], others)
        others = [t for t in others if t not in robot.depth_topics]
        return TopicSurvey(anchors, seconds, self.sync.counts.matched, tuple(others), environment.profile(), robot)


class AnchorListener:
    """One anchor camera: its subscriptions, and what came on them."""

    def __init__(self, node: TopicSurveyNode, name: str, settings: NodeSettings):
        self._node, self._name, self._limits = node, name, ImageLimits.of(settings)
        self._frame = settings.anchor_frame if name == settings.anchors[0] else None
        self._wanted, kind, _ = KINDS[settings.transport]
        depth = max(QUEUE, settings.input_depth)
        topic, info = image_topic(node, name, settings.transport), camera_info_topic(node, name, settings.transport)
        self._images = ImageSubscription(node, kind, topic, self.on_image, settings.input_reliability, depth)
        self._infos = ImageSubscription(node, CameraInfo, info, self.on_camera_info, 'best_effort', depth)
        self._info: CameraInfo | None = None
        self.restart()

    def restart(self) -> None:
        """Forget the images; the calibration stays."""
        self._last: Image | CompressedImage | None = None
        self._arrived: list[float] = []
        self._sizes: set[str] = set()
        self._info_stamps: list[int] = []
        self.ages: list[float] = []
        self.stamps: list[int] = []

    def refresh(self) -> None:
        """Follow the reliability that publishers offer."""
        self._images.refresh()

    def on_image(self, msg: Image | CompressedImage) -> None:
        """Called by rclpy with every image."""
        stamp_ns = to_ns(msg.header.stamp)
        self._last = msg
        self._arrived.append(time.monotonic())
        self.ages.append((self._node.get_clock().now().nanoseconds - stamp_ns) * 1e-9)
        self.stamps.append(stamp_ns)
        self._node.sync.add(self._name, stamp_ns, None)
        try:
            header = read_header(msg, self._limits)
            self._sizes.add(f'{header.width}x{header.height}')
        except ImageError:
            pass  # said of the last one

    def on_camera_info(self, msg: CameraInfo) -> None:
        """Called by rclpy with every calibration."""
        self._info = msg
        self._info_stamps.append(to_ns(msg.header.stamp))

    @property
    def complete(self) -> bool:
        """Whether an image came, and a calibration where somebody publishes one."""
        return self._last is not None and (self._info is not None or not self._node.count_publishers(self._infos.topic))

    def seen(self) -> SeenAnchor:
        """What came, for those who match other topics with it."""
        last = self._last
        frame_id = last.header.frame_id if last else ''
        frame = normalized_frame(self._frame or frame_id) or f'anchor_{self._name}_optical_frame'
        try:
            header = read_header(last, self._limits) if last else None
        except ImageError:
            header = None
        hw = (header.height, header.width) if header else (0, 0)
        return SeenAnchor(self._name, frame, frame_id, hw, self.stamps if header else [], self._arrived)

    def result(self, seconds: float, reference: AnchorListener) -> Anchor:
        """What came.

        Args:
            seconds: Since `restart`.
            reference: The first anchor.
        """
        topic, last = self._images.topic, self._last
        publishers = tuple(self._publisher(info) for info in self._node.get_publishers_info_by_topic(topic))
        if last is None:
            return Anchor(self._name, topic, self._wanted, publishers, self._calibration(0, 0))
        try:
            (height, width), bad, fix = to_rgb(last, self._limits).shape[:2], '', ''
        except ImageError as error:
            height, width, bad, fix = getattr(last, 'height', 0), getattr(last, 'width', 0), error.what, error.fix
        age = float(np.median(self.ages))
        return Anchor(
            self._name, topic, self._wanted, publishers, self._calibration(width, height), images=len(self.stamps),
            sent=images_sent(self.stamps, self._info_stamps), stamps=len(set(self.stamps)), sizes=tuple(sorted(self._sizes)),
            rate=rate(self._arrived, seconds), width=width, height=height,
            encoding=last.format if isinstance(last, CompressedImage) else last.encoding, size=len(last.data), age=age,
            apart=median_distance(self.stamps, reference.stamps),
            lag=age - float(np.median(reference.ages)) if reference.ages else 0.0, bad=bad, fix=fix,
        )  # fmt: skip

    @staticmethod
    def _publisher(info: Any) -> Publisher:
        name = f'{info.node_namespace.rstrip("/")}/{info.node_name}'
        return Publisher(name, info.topic_type, info.qos_profile.reliability.name.lower().replace('_', ' '))

    def _calibration(self, width: int, height: int) -> Calibration:
        """Of images of that size; 0 where none came."""
        topic, info = self._infos.topic, self._info
        if info is None:
            return Calibration(topic)
        size, bad, lens, displaced = (width or info.width, height or info.height), '', '', 0.0
        try:
            if size[0]:
                to_intrinsics(info, *size)
        except CalibrationError as error:
            bad = error.what
        try:
            if size[0] and not bad and not is_rectified(self._images.topic):
                displaced = min(displacement(info, *size), float(max(size)))
        except CalibrationError as error:
            lens = error.what
        return Calibration(topic, True, bool(info.k[0] != 0), displaced, info.width, info.height, bad, lens)


def rate(arrived: Sequence[float], seconds: float) -> float:
    """Images per second, from when they arrived; a camera that stopped before the end has a lower one."""
    if len(arrived) < 2:
        return len(arrived) / seconds
    spread = arrived[-1] - arrived[0]
    period = spread / (len(arrived) - 1)
    return (len(arrived) - 1) / max(spread, seconds - 1.5 * period, 1e-3)


def images_sent(stamps: Sequence[int], infos: Sequence[int] = ()) -> int:
    """How many images a camera sent between the first and the last that came.

    By the gaps between stamps, in multiples of the usual period, and by the calibrations, which are small and seldom lost.

    Args:
        stamps: Of the images that came, nanoseconds.
        infos: Of the calibrations that came, nanoseconds.
    """
    times = np.unique(np.array(stamps, np.int64))
    if len(times) < 3:
        return len(stamps)
    gaps = np.diff(times)
    # With losses the median gap may be two periods; the lower quartile is one, or less where stamps jitter.
    multiples = np.maximum(1, np.rint(gaps / np.percentile(gaps, 25)))
    period = np.median(gaps / multiples)
    by_gaps = 1 + int(np.maximum(1, np.rint(gaps / period)).sum())
    by_infos = sum(int(times[0]) <= stamp <= int(times[-1]) for stamp in set(infos))
    return max(by_gaps, by_infos, len(stamps))


def median_distance(stamps: list[int], reference: list[int]) -> float:
    """Median of the seconds from each stamp to the nearest one of the reference, both in nanoseconds; 0 without any."""
    if not stamps or not reference:
        return 0.0
    nearest = np.abs(np.subtract.outer(np.array(stamps, np.int64), np.array(reference, np.int64))).min(1)
    return float(np.median(nearest)) * 1e-9


def spin_for(executor: SingleThreadedExecutor, seconds: float, found: TopicSurveyNode | None = None) -> None:
    """Spin for so long, or until the node given has heard every camera."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not (found and found.is_complete()):
        executor.spin_once(timeout_sec=min(left, 0.1))


def main(args: list[str] | None = None) -> int:
    """Wait for the cameras, listen, print."""
    environment.prepare()
    rclpy.init(args=args)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--settings', type=json.loads, required=True, help='Those of the node, a JSON object.')
    parser.add_argument('--seconds', type=float, default=2.0)
    given = parser.parse_args(remove_ros_args(sys.argv if args is None else args)[1:])
    node = TopicSurveyNode(NodeSettings(**given.settings))
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
