"""The anchor cameras of the node: what arrives is decoded, matched by stamp and handed on as whole sets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from wristworld_ros.pipeline.frame_sync import FrameSync, Stamped, SyncCounts
from wristworld_ros.ros.camera_info import intrinsics, scaled
from wristworld_ros.ros.image_conversion import ImageError, compressed_to_rgb, to_rgb
from wristworld_ros.ros.wrist_publisher import to_ns
from wristworld_ros.types import AnchorSet

if TYPE_CHECKING:
    from wristworld_ros.ros.virtual_wrist_node import VirtualWristNode


class ImageInputs:
    """Listens to the cameras that the node's settings name.

    submit: called with every anchor set. forget: called with why, where what came before does not go with what comes.
    silent: names of the cameras that nothing was heard of for longer than `freshness`. frame: TF frame of the first one.
    """

    def __init__(self, node: VirtualWristNode, submit: Callable[[AnchorSet], None], forget: Callable[..., None]):
        self._node, self._submit, self._forget = node, submit, forget
        settings = node.settings
        slop, jump = (round(s * 1e9) for s in (settings.slop, settings.jump_back))
        self._sync = FrameSync(tuple(settings.anchors), slop, jump)
        self._subscriptions: list = []
        self._infos: dict[str, CameraInfo] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._heard: dict[str, int] = {}
        self._last_used: int | None = None
        self.silent: list[str] = []
        self.frame = ''

    @property
    def counts(self) -> SyncCounts:
        """Of images that found no partner."""
        return self._sync.counts

    @property
    def calibrated(self) -> set[str]:
        """Names of the cameras whose calibration was received."""
        return set(self._infos)

    def listen(self) -> None:
        """Subscribe."""
        settings = self._node.settings
        kind, suffix = (CompressedImage, '/compressed') if settings.transport == 'compressed' else (Image, '')
        for name in settings.anchors:
            self._listen(kind, f'anchor_{name}/image_raw{suffix}', partial(self._on_image, name))
            self._listen(CameraInfo, f'anchor_{name}/camera_info', partial(self._on_info, name))
        self._heard = dict.fromkeys(settings.anchors, self._node.now())

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def reset(self, keep_sync: bool = False) -> None:
        """Forget images and sizes. keep_sync: not those that wait for their partners."""
        if not keep_sync:
            self._sync.reset()
        self._sizes.clear()
        self._last_used = None

    def restart_clock(self) -> None:
        """The clock was set back: silence counts from now."""
        self._heard = dict.fromkeys(self._heard, self._node.now())

    def watch(self, listening: bool) -> None:
        """Notice cameras that fall silent or come back, and say so once."""
        limit = self._node.now() - self._node.settings.freshness * 1e9
        silent = [n for n in self._heard if self._heard[n] < limit] if listening else []
        for name in set(silent) - set(self.silent):
            self._node.get_logger().warning(f'No images on {self._topic(name)}.')
        for name in set(self.silent) - set(silent):
            self._node.get_logger().info(f'Images on {self._topic(name)} again.')
        self.silent = silent

    def _topic(self, name: str) -> str:
        return self._node.resolve_topic_name(f'anchor_{name}/image_raw')

    def _listen(self, kind: type, topic: str, callback: Callable) -> None:
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        options = QoSOverridingOptions.with_default_policies()
        self._subscriptions.append(
            self._node.create_subscription(kind, topic, callback, qos, qos_overriding_options=options)
        )

    def _on_info(self, name: str, msg: CameraInfo) -> None:
        self._infos[name] = msg

    def _on_image(self, name: str, msg: Image | CompressedImage) -> None:
        metrics = self._node.metrics
        metrics.add('images_received')
        self._heard[name] = self._node.now()
        if not self._node.enabled:
            return
        try:
            rgb = compressed_to_rgb(msg) if isinstance(msg, CompressedImage) else to_rgb(msg)
        except ImageError as error:
            metrics.add(f'images_bad_{error.cause}')
            topic = self._topic(name)
            metrics.reason = f'An image on {topic} was dropped: {error}.'
            if metrics.should_log('bad image', topic):
                self._node.get_logger().warning(metrics.reason)
            return
        if self._sizes.setdefault(name, rgb.shape[:2]) != rgb.shape[:2]:
            self._forget(f'anchor_{name} now sends {rgb.shape[1]}x{rgb.shape[0]} images')
            self._sizes[name] = rgb.shape[:2]
        if name == self._node.settings.anchors[0]:
            self.frame = self._node.settings.anchor_frame or msg.header.frame_id or f'anchor_{name}_optical_frame'
        matched, jumped = self._sync.add(name, to_ns(msg.header.stamp), rgb)
        if jumped:
            self._forget(f'stamps on anchor_{name} jumped back', keep_sync=True)
        if matched:
            self._use(matched)

    def _use(self, matched: list[Stamped]) -> None:
        metrics = self._node.metrics
        metrics.tick('sets_matched')
        stamp, rate = matched[0].stamp_ns, self._node.settings.max_rate
        if rate and self._last_used is not None and stamp - self._last_used < 0.95e9 / rate:
            metrics.add('sets_over_rate')
            return
        self._last_used = stamp
        self._submit(self._anchor_set(matched))

    def _anchor_set(self, matched: list[Stamped]) -> AnchorSet:
        """All images at the size of the first, with calibrations where every camera has one."""
        height, width = matched[0].item.shape[:2]
        images, calibrations = [], []
        for name, (_, rgb) in zip(self._node.settings.anchors, matched, strict=True):
            size = rgb.shape[1], rgb.shape[0]
            K = intrinsics(self._infos[name], *size) if name in self._infos else None
            if size != (width, height):
                rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
                K = None if K is None else scaled(K, size, (width, height))
            images.append(rgb)
            calibrations.append(K)
        known = [K for K in calibrations if K is not None]
        calibration = np.stack(known) if len(known) == len(images) else None
        return AnchorSet(matched[0].stamp_ns, tuple(self._node.settings.anchors), np.stack(images), calibration)
