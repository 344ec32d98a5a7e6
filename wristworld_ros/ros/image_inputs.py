"""The anchor cameras of the node: their images are converted, matched by stamp and handed to the model as anchor sets."""

from __future__ import annotations

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from wristworld_ros.geometry.images import resize_images
from wristworld_ros.pipeline.frame_sync import FrameSync, Stamped, SyncCounts
from wristworld_ros.pipeline.worker import ModelWorker
from wristworld_ros.ros.conversions import ImageError, scale_intrinsics, to_intrinsics, to_ns, to_rgb
from wristworld_ros.ros.metrics import Metrics
from wristworld_ros.ros.names import camera_info_topic, image_topic
from wristworld_ros.settings import NodeSettings
from wristworld_ros.types import AnchorSet


class ImageInputs:
    """Subscribes to the cameras that the settings name and submits anchor sets to the worker.

    settings: assignable; live ones count at once. enabled: whether images are used. silent: names of the cameras that
    sent nothing for longer than `freshness`. anchor_frame: TF frame of the first camera, '' before its first image.
    """

    def __init__(self, node: LifecycleNode, settings: NodeSettings, worker: ModelWorker, metrics: Metrics):
        self._node, self._worker, self._metrics = node, worker, metrics
        self.settings = settings
        slop_ns, jump_ns = (round(s * 1e9) for s in (settings.slop, settings.jump_back))
        self._sync = FrameSync(tuple(settings.anchors), slop_ns, jump_ns)
        self._anchors = [AnchorSubscription(self, node, name, settings.transport) for name in settings.anchors]
        self._last_used_ns: int | None = None
        self.enabled = True
        self.silent: list[str] = []
        self.anchor_frame = ''

    @property
    def counts(self) -> SyncCounts:
        """Of images that found no partner."""
        return self._sync.counts

    @property
    def calibrated(self) -> set[str]:
        """Names of the cameras whose camera_info was received."""
        return {anchor.name for anchor in self._anchors if anchor.calibration}

    def subscribe(self) -> None:
        """Start to receive images."""
        for anchor in self._anchors:
            anchor.subscribe()
        self.restart_clock()

    def unsubscribe(self) -> None:
        """Receive nothing more."""
        for anchor in self._anchors:
            anchor.unsubscribe()

    def restart(self, why: str = '', keep_waiting: bool = False) -> None:
        """Clear every buffer and cache, here and in the model.

        Args:
            why: Counted as a reset, and logged; '' for neither.
            keep_waiting: Whether images that wait for their partners stay.
        """
        if not keep_waiting:
            self._sync.reset()
        for anchor in self._anchors:
            anchor.image_hw = None
        self._last_used_ns = None
        self._worker.reset()
        if why:
            self._metrics.count('resets')
            if self._metrics.should_log('restart', why):
                self._node.get_logger().info(f'Starting over: {why}.')

    def restart_clock(self) -> None:
        """Silence counts from now: at the start, and after the clock was set back."""
        for anchor in self._anchors:
            anchor.heard_ns = self._now()

    def update_silent(self, active: bool) -> None:
        """Notice cameras that fell silent or came back, and log either once. active: whether images are expected at all."""
        limit = self._now() - self.settings.freshness * 1e9
        silent = [anchor for anchor in self._anchors if active and anchor.heard_ns < limit]
        for anchor in self._anchors:
            if anchor in silent and anchor.name not in self.silent:
                self._node.get_logger().warning(f'No images on {anchor.topic}.')
            elif anchor not in silent and anchor.name in self.silent:
                self._node.get_logger().info(f'Images on {anchor.topic} again.')
        self.silent = [anchor.name for anchor in silent]

    def take_image(self, anchor: AnchorSubscription, msg: Image | CompressedImage) -> None:
        """Take one image in; submit the anchor set that it completes, if any."""
        self._metrics.count('images_received')
        anchor.heard_ns = self._now()
        if not self.enabled:
            return
        try:
            rgb = to_rgb(msg)
        except ImageError as error:
            self._drop(anchor, error)
            return
        hw = rgb.shape[:2]
        if anchor.image_hw not in (None, hw):
            self.restart(f'anchor_{anchor.name} now sends {hw[1]}x{hw[0]} images')
        anchor.image_hw = hw
        if anchor is self._anchors[0]:
            frame = msg.header.frame_id or f'anchor_{anchor.name}_optical_frame'
            self.anchor_frame = self.settings.anchor_frame or frame
        matched, jumped = self._sync.add(anchor.name, to_ns(msg.header.stamp), rgb)
        if jumped:
            self.restart(f'stamps on anchor_{anchor.name} jumped back', keep_waiting=True)
        if matched:
            self._submit(matched)

    def _drop(self, anchor: AnchorSubscription, error: ImageError) -> None:
        self._metrics.count(error.fault.counter)
        self._metrics.reason = f'An image on {anchor.topic} was dropped: {error}'
        if self._metrics.should_log('bad image', anchor.topic):
            self._node.get_logger().warning(self._metrics.reason)

    def _submit(self, matched: list[Stamped]) -> None:
        """Hand a matched set to the model, unless that would exceed `max_rate`."""
        self._metrics.count('sets_matched')
        stamp_ns, rate = matched[0].stamp_ns, self.settings.max_rate
        if rate and self._last_used_ns is not None and stamp_ns - self._last_used_ns < 0.95e9 / rate:
            self._metrics.count('sets_over_rate')
            return
        self._last_used_ns = stamp_ns
        self._worker.submit(self._anchor_set(matched))

    def _anchor_set(self, matched: list[Stamped]) -> AnchorSet:
        """All images at the size of the first, with calibrations where every camera has one."""
        height, width = matched[0].item.shape[:2]
        images, calibrations = [], []
        for anchor, (_, rgb) in zip(self._anchors, matched, strict=True):
            size = rgb.shape[1], rgb.shape[0]
            K = to_intrinsics(anchor.calibration, *size) if anchor.calibration else None
            if size != (width, height):
                rgb = resize_images(rgb[None], (height, width))[0]
                K = None if K is None else scale_intrinsics(K, size, (width, height))
            images.append(rgb)
            calibrations.append(K)
        known = [K for K in calibrations if K is not None]
        intrinsics = np.stack(known) if len(known) == len(images) else None
        return AnchorSet(matched[0].stamp_ns, tuple(self.settings.anchors), np.stack(images), intrinsics)

    def _now(self) -> int:
        return self._node.get_clock().now().nanoseconds


class AnchorSubscription:
    """One anchor camera: its two subscriptions, and what its messages told.

    topic: of its images, resolved. calibration: its last camera_info. image_hw: of its last image since a restart.
    heard_ns: when its last image came, by the node's clock.
    """

    def __init__(self, inputs: ImageInputs, node: LifecycleNode, name: str, transport: str):
        self._inputs, self._node, self._compressed = inputs, node, transport == 'compressed'
        self._subscriptions: list = []
        self.name = name
        self.topic = node.resolve_topic_name(f'anchor_{name}/image_raw')
        self.calibration: CameraInfo | None = None
        self.image_hw: tuple[int, int] | None = None
        self.heard_ns = 0

    def subscribe(self) -> None:
        """Receive images and calibration."""
        transport = 'compressed' if self._compressed else 'raw'
        kind = CompressedImage if self._compressed else Image
        self._subscribe(kind, image_topic(self._node, self.name, transport), self.on_image)
        self._subscribe(CameraInfo, camera_info_topic(self._node, self.name, transport), self.on_camera_info)

    def unsubscribe(self) -> None:
        """Receive nothing more."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def on_image(self, msg: Image | CompressedImage) -> None:
        """Called by rclpy with every image."""
        self._inputs.take_image(self, msg)

    def on_camera_info(self, msg: CameraInfo) -> None:
        """Called by rclpy with every calibration."""
        self.calibration = msg

    def _subscribe(self, kind: type, topic: str, callback) -> None:
        # Depth 1, best effort: when the node is slow, old images are lost and not new ones.
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        options = QoSOverridingOptions.with_default_policies()
        self._subscriptions.append(
            self._node.create_subscription(kind, topic, callback, qos, qos_overriding_options=options)
        )
