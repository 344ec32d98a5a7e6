"""The depth images of one anchor: received, matched with its colour images by stamp, and judged before they are used."""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from enum import Enum

import cv2
import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from wristworld_ros.errors import UserError
from wristworld_ros.ros.conversions import to_ns
from wristworld_ros.ros.image_header import quoted
from wristworld_ros.ros.image_subscription import ImageSubscription
from wristworld_ros.ros.names import depth_topic, normalized_frame
from wristworld_ros.settings import NodeSettings

KEPT = 8  # depth images that wait for their colour images
CLOCK_GAP_S = 5.0  # depth that far from its colour has stamps of another clock
ALIVE_S = 1.0  # a camera heard in so many seconds may be waited for
NEAREST_M, FARTHEST_M = 0.05, 20.0  # the median of a desk's depth lies between
_PARAMETERS = struct.Struct('<iff')  # before the PNG of compressedDepth: format, and A, B of depth = A / (value - B)
_PNG = b'\x89PNG\r\n\x1a\n'
ALIGN = 'register depth to colour (RealSense: align_depth.enable:=true, and take aligned_depth_to_color/image_raw)'


class DepthFault(Enum):
    """Why a depth image is not used."""

    SILENT = 'silent'
    STAMP = 'stamp'
    ENCODING = 'encoding'
    DATA = 'data'
    SIZE = 'size'
    UNREGISTERED = 'unregistered'
    EMPTY = 'empty'
    UNITS = 'units'


class DepthError(UserError):
    """A depth image that is not used. kind: why."""

    def __init__(self, kind: DepthFault, what: str, fix: str):
        super().__init__(what, fix)
        self.kind = kind


class DepthCamera:
    """The depth topic of one anchor. `take` is called by the executor's thread, `depth_for` by the worker's.

    topic: of its images, resolved.
    """

    def __init__(self, node: Node, name: str, settings: NodeSettings):
        self._node, self._settings = node, settings
        self._compressed = settings.transport == 'compressed'
        self._relative = depth_topic(node, name, settings.transport)
        self._subscription: ImageSubscription | None = None
        self._arrived = threading.Condition()
        self._images: deque[Image | CompressedImage] = deque(maxlen=KEPT)
        self._heard = float('-inf')
        self.topic = node.resolve_topic_name(self._relative)

    def subscribe(self) -> None:
        """Receive depth images."""
        self.unsubscribe()
        s = self._settings
        kind = CompressedImage if self._compressed else Image
        self._subscription = ImageSubscription(
            self._node, kind, self._relative, self.take, s.input_reliability, s.input_depth
        )

    def unsubscribe(self) -> None:
        """Receive nothing more."""
        if self._subscription:
            self._subscription.destroy()
        self._subscription = None

    def refresh(self) -> None:
        """Follow publishers that came or went."""
        if self._subscription:
            self._subscription.refresh()

    def restart(self) -> None:
        """Forget all images."""
        with self._arrived:
            self._images.clear()

    def take(self, msg: Image | CompressedImage) -> None:
        """Called by rclpy with every depth image."""
        with self._arrived:
            self._images.append(msg)
            self._heard = time.monotonic()
            self._arrived.notify_all()

    def depth_for(self, stamp_ns: int, frame_id: str, hw: tuple[int, int], deadline: float) -> np.ndarray:
        """Depth of a colour image.

        Args:
            stamp_ns: Stamp of the colour image.
            frame_id: TF frame that the colour image itself names; '' where it names none.
            hw: Its rows and columns.
            deadline: By time.monotonic(), until when to wait for a depth image that a living camera may still send.

        Returns:
            float32 [H, W], metres, 0 where unknown.

        Raises:
            DepthError: There is none that can be used; `kind` says why.
        """
        msg = self._matching(stamp_ns, deadline)
        own = normalized_frame(msg.header.frame_id)
        if own != normalized_frame(frame_id):
            what = f"Depth on {self.topic} is not registered to colour (its frame is {quoted(own)}, colour's {quoted(frame_id)})"
            raise DepthError(DepthFault.UNREGISTERED, what, ALIGN)
        depth = metric_depth(msg, self.topic, self._settings.max_image_pixels)
        _judge(depth, msg, self.topic)
        return fitted(depth, hw, self.topic)

    def _matching(self, stamp_ns: int, deadline: float) -> Image | CompressedImage:
        slop_ns = round(self._settings.slop * 1e9)
        with self._arrived:
            while True:
                near = min(self._images, key=lambda msg: abs(to_ns(msg.header.stamp) - stamp_ns), default=None)
                if near is not None and abs(to_ns(near.header.stamp) - stamp_ns) <= slop_ns:
                    return near
                now = time.monotonic()
                alive = now - self._heard <= ALIVE_S
                if not alive or now >= deadline:
                    break
                self._arrived.wait(deadline - now)
        if near is None or not alive:
            why = self._subscription.why_silent() if self._subscription else ''
            fix = why.replace('; ', ', so ', 1) if why else 'start the depth stream, or remap the topic'
            raise DepthError(DepthFault.SILENT, f'No depth images on {self.topic}', fix)
        off = (stamp_ns - to_ns(near.header.stamp)) * 1e-9
        if abs(off) > CLOCK_GAP_S:
            what = f'Depth images on {self.topic} are stamped {abs(off):.1f} s {"before" if off > 0 else "after"} their colour images'
            raise DepthError(DepthFault.STAMP, what, 'have the driver stamp both by one clock')
        what = f'The nearest depth image on {self.topic} is {1e3 * abs(off):.0f} ms {"older" if off > 0 else "newer"} than its colour image'
        raise DepthError(
            DepthFault.STAMP, f'{what}, and slop allows {1e3 * self._settings.slop:.0f} ms',
            'have the driver synchronise depth and colour (RealSense: enable_sync:=true), or raise slop',
        )  # fmt: skip


def metric_depth(msg: Image | CompressedImage, topic: str, max_pixels: int) -> np.ndarray:
    """The depth of a message in metres, float32 [H, W], 0 where unknown.

    Raises:
        DepthError: It holds no depth.
    """
    values = _unpacked(msg, topic, max_pixels) if isinstance(msg, CompressedImage) else _samples(msg, topic)
    if values.dtype == np.uint16:
        return values.astype(np.float32) * np.float32(1e-3)
    return np.where(np.isfinite(values) & (values > 0), values, 0).astype(np.float32)


def fitted(depth: np.ndarray, hw: tuple[int, int], topic: str = 'the depth topic') -> np.ndarray:
    """Depth [h, w] at the size [H, W] of the colour image, by nearest pixels.

    Raises:
        DepthError: The sizes have different aspects, so that depth shows another part than colour.
    """
    if depth.shape == tuple(hw):
        return depth
    (h, w), (H, W) = depth.shape, hw
    if abs(w * H - h * W) > max(H, W):  # a rounded row or column
        what = f'Depth on {topic} is {w}x{h} and colour {W}x{H}, which have different aspects'
        raise DepthError(DepthFault.SIZE, what, ALIGN)
    rows = ((np.arange(H) + 0.5) * h / H).astype(int)
    columns = ((np.arange(W) + 0.5) * w / W).astype(int)
    return depth[rows[:, None], columns]


def _judge(depth: np.ndarray, msg: Image | CompressedImage, topic: str) -> None:
    """Raise DepthError where depth [h, w] is empty or in the wrong unit."""
    known = depth[depth > 0]
    if not known.size:
        fix = 'check that the emitter is on and the scene not nearer than the camera can measure'
        raise DepthError(DepthFault.EMPTY, f'Depth on {topic} is zero everywhere', fix)
    median = float(np.median(known))
    if not NEAREST_M <= median <= FARTHEST_M:
        integers = isinstance(msg, Image) and msg.encoding in ('16UC1', 'mono16')
        looks = 'metres' if median < NEAREST_M else 'millimetres'
        what = f'Depth on {topic} has a median of {median:g} m'
        rule = 'publish 16UC1 in millimetres' if integers else 'publish 32FC1 in metres (16UC1 is in millimetres)'
        raise DepthError(DepthFault.UNITS, f'{what}, as if its numbers were {looks}', rule)


def _samples(msg: Image, topic: str) -> np.ndarray:
    kinds = {'16UC1': 'u2', 'mono16': 'u2', '32FC1': 'f4'}
    if msg.encoding not in kinds:
        what = f'Depth on {topic} has encoding {quoted(msg.encoding)}'
        raise DepthError(DepthFault.ENCODING, what, 'publish 16UC1 (millimetres) or 32FC1 (metres)')
    kind = np.dtype(('>' if msg.is_bigendian else '<') + kinds[msg.encoding])
    row = msg.width * kind.itemsize
    if not msg.width or not msg.height or msg.step < row or len(msg.data) < msg.step * (msg.height - 1) + row:
        what = f'Depth on {topic} says {msg.width}x{msg.height} with step {msg.step} and has {len(msg.data)} bytes'
        raise DepthError(DepthFault.DATA, what, 'repair its driver, whose step and height must fit its data')
    flat = np.frombuffer(msg.data, np.uint8)
    rows = np.lib.stride_tricks.as_strided(flat, (msg.height, row), (msg.step, 1), writeable=False)
    return np.ascontiguousarray(rows).view(kind).astype(kind.newbyteorder('='))


def _unpacked(msg: CompressedImage, topic: str, max_pixels: int) -> np.ndarray:
    """Samples of compressedDepth: 12 bytes of parameters and a PNG."""
    data = bytes(msg.data)
    png = data[_PARAMETERS.size :]
    if not png.startswith(_PNG) or len(png) < 33:
        what = f'Depth on {topic} (format {quoted(msg.format)}) is no PNG behind 12 bytes of parameters'
        raise DepthError(
            DepthFault.ENCODING, what, 'set format png of compressedDepth (rvl is not read), or transport raw'
        )
    width, height = struct.unpack('>II', png[16:24])
    if not 0 < width * height <= max_pixels:
        what = f'Depth on {topic} is {width}x{height}, and max_image_pixels allows {max_pixels}'
        raise DepthError(DepthFault.DATA, what, 'lower the resolution of the camera, or raise max_image_pixels')
    values = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 2:
        what = f'Depth on {topic} ({len(data)} bytes) does not decode to one channel of 16 bits'
        raise DepthError(DepthFault.DATA, what, 'check the connection to the camera')
    if not msg.format.startswith('32FC1'):
        return values
    _, a, b = _PARAMETERS.unpack(data[: _PARAMETERS.size])
    depth = np.zeros(values.shape, np.float32)
    return np.divide(np.float32(a), values - np.float32(b), out=depth, where=values > 0)
