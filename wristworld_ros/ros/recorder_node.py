"""The node `recorder`: writes what cameras and virtual wrist publish to a folder, and may show it live in a browser.

`python -m wristworld_ros.ros.recorder_node --out FOLDER --anchors left right` runs until it is told to stop. Once per second
it prints a line of JSON with images per stream, wrist frames per second, and what the last frame said of itself. The files
are described in `data/recording.py`; the demo and the benchmark record with it.
"""

from __future__ import annotations

import argparse
import sys
import time
from array import array
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from wristworld_ros.data.recording import CONDITION, TRUE_OBJECTS, TRUE_WRIST, WRIST, RecordingWriter
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import decode_json, json_text
from wristworld_ros.msg import VirtualWristStatus, WristView
from wristworld_ros.ros import environment
from wristworld_ros.ros.conversions import to_ns, to_rgb
from wristworld_ros.ros.desk_recorder import DeskRecorder
from wristworld_ros.ros.image_header import ImageError, ImageFault, ImageLimits
from wristworld_ros.ros.image_subscription import ImageSubscription
from wristworld_ros.ros.metrics import Metrics
from wristworld_ros.ros.viewer import LOOPBACK, LiveViewer
from wristworld_ros.types import FrameStatus, Geometry

QUEUE = 10  # images per stream: a recorder wants all of them
RATE_WINDOW_S = 5.0


@dataclass(frozen=True)
class RecorderOptions:
    """What is recorded.

    out: folder. anchors: names of the anchor cameras. head: JSON object that goes into the recording. view: whether to serve
    the live viewer, view_bind: on which address. images: whether images are stored; without them only what was said of them is.
    desk: whether to store what a desk knows beside images (`desk_recorder`), and where objects are in the true wrist image.
    """

    out: Path
    anchors: tuple[str, ...]
    head: dict
    view: bool = False
    view_bind: str = LOOPBACK
    images: bool = True
    desk: bool = False


class RecorderNode(Node):
    """Subscribes and hands over; a thread of the writer does the slow part."""

    def __init__(self, options: RecorderOptions):
        super().__init__('recorder')
        self._viewer = LiveViewer(options.anchors, bind=options.view_bind) if options.view else None
        self._writer = RecordingWriter(options.out, options.head, options.anchors)
        if self._viewer:
            self.get_logger().info(f'The live viewer listens on {self._viewer.listens_on}.')
            viewer = {'viewer': self._viewer.address, 'listens_on': self._viewer.listens_on}
            print(json_text(viewer, indent=None), end='', flush=True)
        self._recent: deque[float] = deque(maxlen=1000)
        self._last: dict[str, Any] = {}
        self._images = options.images
        self._metrics, self._limits = Metrics(), ImageLimits()
        self._streams: list[ImageSubscription] = []
        self.create_subscription(WristView, 'wrist/view', self._on_view, QoSProfile(depth=10))
        self.create_subscription(VirtualWristStatus, 'virtual_wrist/status', self._on_status, QoSProfile(depth=10))
        self._desk = DeskRecorder(self, options.anchors) if options.desk else None
        if options.images:
            topics = {f'anchor_{name}': f'anchor_{name}/image_raw' for name in options.anchors}
            topics |= {CONDITION: 'wrist/condition/image_raw', TRUE_WRIST: 'true_wrist/image_raw'}
            topics |= {TRUE_OBJECTS: 'true_wrist/objects/image_raw'} if options.desk else {}
            for stream, topic in topics.items():
                on_image = ImageStream(self, stream).on_image
                self._streams.append(ImageSubscription(self, Image, topic, on_image, depth=QUEUE))
        self.create_timer(1.0, self._print)

    def take_image(self, stream: str, msg: Image) -> None:
        """Store and show an image of a stream."""
        try:
            rgb = to_rgb(msg, self._limits)
        except ImageError as error:
            self._metrics.count(error.fault.counter)
            if self._metrics.should_log(stream, error.fault.counter):
                self.get_logger().warning(f'An image of {stream} was dropped: {error}')
            return
        if self._images:
            self._writer.image(stream, to_ns(msg.header.stamp), rgb)
        if self._viewer and stream != TRUE_OBJECTS:
            self._viewer.show_image(stream, to_ns(msg.header.stamp), rgb)

    def _on_view(self, msg: WristView) -> None:
        stamp_ns = to_ns(msg.header.stamp)
        record = view_record(msg, self.get_clock().now().nanoseconds)
        self._writer.start()
        self._writer.line('views', record)
        if self._desk and (known := self._desk.record(msg)):
            self._writer.line('desk', dict(known))
        self.take_image(WRIST, msg.image)
        if self._viewer:
            self._viewer.plot(stamp_ns, record)
        self._recent.append(time.monotonic())
        self._last = record

    def _on_status(self, msg: VirtualWristStatus) -> None:
        self._writer.line('status', status_record(msg))

    def _print(self) -> None:
        for subscription in self._streams:
            subscription.refresh()
        since = time.monotonic() - RATE_WINDOW_S
        rate = sum(t > since for t in self._recent) / RATE_WINDOW_S
        bad = sum(self._metrics[fault.counter] for fault in ImageFault)
        record = {'counts': dict(self._writer.counts), 'rate': rate, 'dropped': self._writer.dropped, 'bad': bad}
        record |= {'problem': self._writer.problem}
        record |= {key: self._last.get(key) for key in ('age', 'coverage', 'status', 'valid', 'reason')}
        print(json_text(record, indent=None), end='', flush=True)

    def close(self) -> None:
        """Finish the files."""
        self._writer.close()
        if self._viewer:
            self._viewer.close()


@dataclass(frozen=True)
class ImageStream:
    """One subscription to images, which says whose they are."""

    recorder: RecorderNode
    name: str

    def on_image(self, msg: Image) -> None:
        """Called by rclpy with every image."""
        self.recorder.take_image(self.name, msg)


def view_record(msg: WristView, received_ns: int) -> dict[str, Any]:
    """A line of views.jsonl. received_ns: when the message came, by the recorder's clock."""
    return {
        'stamp_ns': to_ns(msg.header.stamp), 'received_ns': received_ns, 'coverage': msg.coverage,
        'confidence': msg.confidence, 'agreement': msg.agreement, 'latency': msg.latency, 'age': msg.age, 'status': FrameStatus(msg.status).name,
        'geometry': Geometry(msg.geometry).name, 'valid': msg.status == WristView.VALID, 'reason': msg.reason,
    }  # fmt: skip


def status_record(msg: VirtualWristStatus) -> dict[str, Any]:
    """A line of status.jsonl: every field by its name, the stamp in nanoseconds."""
    record = {name: getattr(msg, name) for name in msg.get_fields_and_field_types()}
    record |= {name: list(value) for name, value in record.items() if isinstance(value, list | tuple | array)}
    return record | {'stamp': to_ns(msg.stamp)}


def _head(text: str) -> dict[str, Any]:
    return decode_json(text, dict[str, Any], '--head', 'give a JSON object')


def main(args: list[str] | None = None) -> int:
    """Record until told to stop."""
    parser = argparse.ArgumentParser(prog='recorder')
    parser.add_argument('--out', type=Path, required=True, help='Folder of the recording.')
    parser.add_argument('--anchors', nargs='+', default=['left', 'right'], help='Names of the anchor cameras.')
    parser.add_argument('--head', type=_head, default={}, help='JSON object that goes into the recording.')
    parser.add_argument('--view', action='store_true', help='Serve the live viewer.')
    parser.add_argument('--view-bind', default=LOOPBACK, help='IP address that the live viewer is served on.')
    parser.add_argument('--desk', action='store_true', help='Store what the desk knows of every wrist frame too.')
    parser.add_argument('--no-images', action='store_true', help='Store what is said of images, not the images.')
    given = parser.parse_args(args)
    environment.prepare()
    rclpy.init(args=[])
    options = RecorderOptions(
        given.out, tuple(given.anchors), given.head, given.view, given.view_bind, not given.no_images, given.desk
    )
    try:
        node = RecorderNode(options)
    except UserError as error:
        print(f'recorder: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    environment.spin(executor)
    executor.shutdown()
    node.close()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
