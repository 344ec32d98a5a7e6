"""The node `recorder`: writes what cameras and virtual wrist publish to a folder, and may show it live in a browser.

`python -m wristworld_ros.ros.recorder_node --out FOLDER --anchors left right` runs until it is told to stop. It prints one
line of JSON a second: pictures by stream, wrist frames a second, and the last latency. It is what the demo records with.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from wristworld_ros.data.recording import CONDITION, TRUE_WRIST, WRIST, RecordingWriter
from wristworld_ros.msg import VirtualWristStatus, WristView
from wristworld_ros.ros import environment
from wristworld_ros.ros.image_conversion import ImageError, to_rgb

# Images come best effort, as cameras send them; a recorder wants all of them, hence the depth.
IMAGES = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


@dataclass(frozen=True)
class RecorderOptions:
    """out: folder. anchors: names of the anchor cameras. head: JSON text that goes into the recording. view: live viewer.
    pictures: whether pictures are stored; without them only what was said of them is."""

    out: Path
    anchors: tuple[str, ...]
    head: dict
    view: bool = False
    pictures: bool = True


class RecorderNode(Node):
    """Subscribes and hands over; a thread of the writer does the slow part."""

    def __init__(self, options: RecorderOptions):
        super().__init__('recorder')
        self._writer = RecordingWriter(options.out, options.head, options.anchors)
        self._viewer = None
        if options.view:
            from wristworld_ros.ros.viewer import LiveViewer

            self._viewer = LiveViewer(options.anchors)
            print(json.dumps({'viewer': self._viewer.address}), flush=True)
        self._recent: deque[float] = deque(maxlen=100)
        self._last: dict = {}
        self.create_subscription(WristView, 'wrist/view', self._on_view, QoSProfile(depth=10))
        self.create_subscription(VirtualWristStatus, 'virtual_wrist/status', self._on_status, QoSProfile(depth=10))
        if options.pictures:
            topics = {f'anchor_{name}': f'anchor_{name}/image_raw' for name in options.anchors}
            topics |= {CONDITION: 'wrist/condition/image_raw', TRUE_WRIST: 'true_wrist/image_raw'}
            for stream, topic in topics.items():
                self.create_subscription(Image, topic, partial(self._on_image, stream), IMAGES)
        self._pictures = options.pictures
        self.create_timer(1.0, self._tell)

    def _on_image(self, stream: str, msg: Image) -> None:
        try:
            rgb = to_rgb(msg)
        except ImageError as error:
            self.get_logger().warning(f'{stream}: {error}')
            return
        self._writer.picture(stream, _ns(msg.header.stamp), rgb)
        if self._viewer:
            self._viewer.picture(stream, _ns(msg.header.stamp), rgb)

    def _on_view(self, msg: WristView) -> None:
        stamp = _ns(msg.header.stamp)
        record = {
            'stamp_ns': stamp, 'received_ns': self.get_clock().now().nanoseconds, 'coverage': msg.coverage,
            'confidence': msg.confidence, 'latency': msg.latency, 'age': msg.age, 'fit': msg.fit, 'reason': msg.reason,
        }  # fmt: skip
        self._writer.start()
        self._writer.line('views', record)
        rgb = to_rgb(msg.image)
        if self._pictures:
            self._writer.picture(WRIST, stamp, rgb)
        if self._viewer:
            self._viewer.picture(WRIST, stamp, rgb)
            self._viewer.numbers(stamp, record)
        self._recent.append(time.monotonic())
        self._last = record

    def _on_status(self, msg: VirtualWristStatus) -> None:
        record = {}
        for field in msg.get_fields_and_field_types():
            value = getattr(msg, field)
            record[field] = (
                _ns(value) if field == 'stamp' else list(value) if isinstance(value, list | tuple) else value
            )
        self._writer.line('status', record)

    def _tell(self) -> None:
        since = time.monotonic() - 5
        rate = sum(t > since for t in self._recent) / 5
        told = {'counts': dict(self._writer.counts), 'rate': rate, 'dropped': self._writer.dropped}
        told |= {k: self._last.get(k) for k in ('age', 'coverage', 'fit', 'reason')}
        print(json.dumps(told), flush=True)

    def close(self) -> None:
        """Finish the files."""
        self._writer.close()
        if self._viewer:
            self._viewer.close()


def _ns(stamp) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def main(args: list[str] | None = None) -> int:
    """Record until told to stop."""
    parser = argparse.ArgumentParser(prog='recorder')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--anchors', nargs='+', default=['left', 'right'])
    parser.add_argument('--head', type=json.loads, default={})
    parser.add_argument('--view', action='store_true')
    parser.add_argument('--no-pictures', action='store_true')
    given = parser.parse_args(args)
    environment.prepare()
    rclpy.init(args=[])
    options = RecorderOptions(given.out, tuple(given.anchors), given.head, given.view, not given.no_pictures)
    try:
        node = RecorderNode(options)
    except ModuleNotFoundError as error:
        print(f'recorder: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.spin()
    executor.shutdown()
    node.close()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
