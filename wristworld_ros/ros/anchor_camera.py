"""One anchor camera as the node knows it: its subscriptions, its calibration, and what its images say of its health."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from wristworld_ros.ros.conversions import CalibrationError, to_intrinsics
from wristworld_ros.ros.image_subscription import ImageSubscription
from wristworld_ros.ros.lifecycle import ResponsiveLifecycleNode
from wristworld_ros.ros.names import camera_info_topic, image_topic, is_rectified
from wristworld_ros.ros.rectification import Lens, lens_key, lens_of
from wristworld_ros.settings import NodeSettings

SIZE_CHANGES, SIZE_WINDOW_S = 3, 10.0  # so many changes of size within so many seconds are a fault of the camera
REPEATS = 3  # so are so many repetitions of one stamp


class ImageTaker(Protocol):
    """Where the images of all cameras go."""

    def take_image(self, anchor: AnchorCamera, msg: Image | CompressedImage) -> None:
        """Called with every image."""


class AnchorCamera:
    """One anchor camera.

    topic: of its images, resolved. calibration: its last camera_info. image_hw: of its last image since a restart.
    heard_ns: when its last image came, by the node's clock. fault: why its last image was dropped, '' where it was not.
    repeats: how often its last stamp came again.
    """

    def __init__(self, inputs: ImageTaker, node: ResponsiveLifecycleNode, name: str, settings: NodeSettings):
        self._inputs, self._node, self._settings = inputs, node, settings
        self._kind = CompressedImage if settings.transport == 'compressed' else Image
        self._relative = image_topic(node, name, settings.transport)
        self._images: ImageSubscription | None = None
        self._infos: ImageSubscription | None = None
        self._stamp_ns: int | None = None
        self._sizes: deque[tuple[float, tuple[int, int]]] = deque(maxlen=20)
        self.name = name
        self.topic = node.resolve_topic_name(self._relative)
        self.calibration: CameraInfo | None = None
        self.image_hw: tuple[int, int] | None = None
        self.heard_ns = 0
        self.fault = ''
        self.repeats = 0
        self._lens = Lens()

    def subscribe(self) -> None:
        """Receive images and calibration."""
        self.unsubscribe()
        s = self._settings
        self._images = ImageSubscription(
            self._node, self._kind, self._relative, self.on_image, s.input_reliability, s.input_depth
        )
        info = camera_info_topic(self._node, self.name, s.transport)
        self._infos = ImageSubscription(self._node, CameraInfo, info, self.on_camera_info, 'best_effort', 1)

    def unsubscribe(self) -> None:
        """Receive nothing more."""
        for subscription in (self._images, self._infos):
            if subscription:
                subscription.destroy()
        self._images = self._infos = None

    def refresh(self) -> None:
        """Follow publishers that came or went."""
        if self._images:
            self._images.refresh()

    def on_image(self, msg: Image | CompressedImage) -> None:
        """Called by rclpy with every image."""
        self._inputs.take_image(self, msg)

    def on_camera_info(self, msg: CameraInfo) -> None:
        """Called by rclpy with every calibration."""
        self.calibration = msg

    def why_silent(self) -> str:
        """What explains that no images come, without a full stop; '' where nothing does."""
        return self._images.why_silent() if self._images else ''

    def lens(self, width: int, height: int) -> Lens:
        """What the last calibration says of images of that size. For the worker's thread."""
        info = self.calibration
        if info is not None and lens_key(info, width, height) != self._lens.key:
            self._lens = lens_of(info, width, height, self.rectified, self._settings.rectify, self.name)
        return self._lens

    @property
    def rectified(self) -> bool:
        """Whether its images come rectified."""
        return is_rectified(self.topic)

    @property
    def calibration_fault(self) -> str:
        """Why the calibration cannot be used, one sentence; '' where it can, or where there is none."""
        info = self.calibration
        if info is None or not (self.image_hw or (info.width and info.height)):
            return ''
        height, width = self.image_hw or (info.height, info.width)
        try:
            to_intrinsics(info, width, height, self.rectified)
        except CalibrationError as error:
            return str(error)
        return ''

    def note_stamp(self, stamp_ns: int) -> None:
        """An image with that stamp came."""
        self.repeats = self.repeats + 1 if stamp_ns == self._stamp_ns else 0
        self._stamp_ns = stamp_ns

    def note_size(self, hw: tuple[int, int]) -> bool:
        """An image of that size, rows and columns, came. Returns whether the one before had another."""
        changed = self.image_hw not in (None, hw)
        if changed:
            self._sizes.append((time.monotonic(), hw))
        self.image_hw = hw
        return changed

    @property
    def stamp_fault(self) -> str:
        """What is wrong with its stamps, without a full stop; '' for nothing."""
        if self.repeats < REPEATS or self._stamp_ns is None:
            return ''
        fix = 'have the driver stamp each image with the time of its acquisition'
        if self._stamp_ns == 0:
            return f'Images on {self.topic} are stamped 0, so that each but the first is dropped; {fix}'
        return f'Images on {self.topic} repeat the stamp {self._stamp_ns / 1e9:.3f} s, so that each but the first is dropped; {fix}'

    @property
    def size_fault(self) -> str:
        """Whether its images change size again and again, without a full stop; '' where they do not."""
        recent = [hw for when, hw in self._sizes if time.monotonic() - when < SIZE_WINDOW_S]
        if len(recent) < SIZE_CHANGES:
            return ''
        sizes = ' and '.join(sorted({f'{hw[1]}x{hw[0]}' for hw in recent}))
        return (
            f'Images on {self.topic} changed size {len(recent)} times in {SIZE_WINDOW_S:.0f} s ({sizes}), and every change '
            'clears the stream; set the camera to one size, and let one camera publish on the topic'
        )
