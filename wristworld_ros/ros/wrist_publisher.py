"""What the node publishes about a wrist frame: TF, image, calibration, pose, view, cloud, all with the stamp of the anchors."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TransformStamped
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from wristworld_ros.msg import WristView
from wristworld_ros.ros.calibration import NodeCalibration
from wristworld_ros.ros.conversions import (
    to_camera_info,
    to_cloud,
    to_compressed,
    to_image,
    to_pose_stamped,
    to_stamp,
    to_transform,
)
from wristworld_ros.ros.lifecycle import ResponsiveLifecycleNode
from wristworld_ros.ros.metrics import Metrics, publish_counted
from wristworld_ros.ros.names import WRIST_FRAME, frame_in_namespace, normalized_frame
from wristworld_ros.settings import NodeSettings
from wristworld_ros.types import FrameStatus, Geometry, Verdict, WristFrame


class WristPublisher:
    """The publishers of a configured node. `publish` may be called from the model's thread.

    calibration: that says where the wrist camera is mounted; None where nothing does.
    settings: assignable; live ones count at once. wrist_frame: TF frame of the virtual wrist camera.
    """

    def __init__(
        self,
        node: ResponsiveLifecycleNode,
        settings: NodeSettings,
        metrics: Metrics,
        calibration: NodeCalibration | None = None,
    ):
        self._node, self._metrics, self.settings = node, metrics, settings
        self.wrist_frame = normalized_frame(settings.wrist_frame or frame_in_namespace(node, WRIST_FRAME))
        self._tf = self._create(TFMessage, '/tf', depth=100, reliable=True)
        self._static = self._create(TFMessage, '/tf_static', depth=1, reliable=True, latched=True)
        self._mount: TransformStamped | None = _mount(settings, calibration, self.wrist_frame)
        self._mounted = False
        self._image = self._create(Image, 'wrist/image_raw')
        self._compressed = self._create(CompressedImage, 'wrist/image_raw/compressed')
        self._info = self._create(CameraInfo, 'wrist/camera_info')
        self._pose = self._create(PoseStamped, 'wrist/pose')
        self._view = self._create(WristView, 'wrist/view')
        self._condition = self._create(Image, 'wrist/condition/image_raw')
        self._points = self._create(PointCloud2, 'wrist/points')

    def destroy(self) -> None:
        """Take the publishers off the graph."""
        for publisher in (
            self._tf, self._static, self._image, self._compressed, self._info, self._pose, self._view, self._condition, self._points,
        ):  # fmt: skip
            self._node.destroy_lifecycle_publisher(publisher)

    def publish(self, frame: WristFrame, verdict: Verdict, age_s: float, anchor_frame: str) -> bool:
        """Publish one frame.

        Args:
            frame: The frame.
            verdict: Whether it is valid; a frame that is not may only appear on wrist/view (`publish_invalid`).
            age_s: Seconds from its stamp to now, by the node's clock.
            anchor_frame: TF frame of the first anchor.

        Returns:
            Whether its image went out on wrist/image_raw.
        """
        wrist = Header(stamp=to_stamp(frame.stamp_ns), frame_id=self.wrist_frame)
        in_base = frame.reconstruction.world == 'base'
        world = Header(
            stamp=wrist.stamp, frame_id=normalized_frame(self.settings.base_frame if in_base else anchor_frame)
        )
        T_world_wrist = np.linalg.inv(frame.camera.T_camera_world)
        image = to_image(frame.image, wrist)
        info = to_camera_info(frame.camera.K, frame.camera.width, frame.camera.height, wrist)
        pose = to_pose_stamped(T_world_wrist, world)
        sent = False
        if verdict.status is FrameStatus.VALID:
            # TF goes first: whoever receives the image may look its pose up.
            self._send_tf(T_world_wrist, world, frame.geometry)
            sent = self._send(self._image, image)
            self._send(self._info, info)
            self._send(self._pose, pose)
            if self._is_wanted(self._compressed):
                self._send(self._compressed, to_compressed(frame.image, wrist, self.settings.jpeg_quality))
        if (verdict.status is FrameStatus.VALID or self.settings.publish_invalid) and self._is_wanted(self._view):
            view = WristView(header=wrist, image=image, camera_info=info, pose=pose)
            view.coverage, view.confidence, view.agreement = frame.coverage, frame.confidence, frame.agreement
            view.latency, view.age = frame.latency_s, age_s
            view.geometry, view.residuals = int(frame.geometry), [float(v) for v in frame.residuals]
            view.status, view.reason = int(verdict.status), verdict.reason
            self._send(self._view, view)
        if not frame.verdict.status.is_blank:
            self._send_geometry(frame, wrist, world)
        return sent

    def _send_tf(self, T_world_wrist: np.ndarray, world: Header, geometry: Geometry) -> None:
        """Where the wrist camera is. Where a mount is given it hangs on the hand or nowhere: a frame has one parent."""
        if not self.settings.publish_tf:
            return
        if self._mount is not None:
            if not self._mounted and geometry is not Geometry.RGB:
                self._mount.header.stamp = world.stamp
                self._mounted = self._send(self._static, TFMessage(transforms=[self._mount]))
            return
        if world.frame_id == self.wrist_frame:  # tf2 refuses a frame that is its own parent
            if self._metrics.should_log('own parent', every=3600.0):
                self._node.get_logger().error(
                    f'No TF is published: images of anchor_{self.settings.anchors[0]} carry the frame '
                    f'{world.frame_id}, which is that of the virtual wrist camera; set wrist_frame or anchor_frame to '
                    'another name.'
                )
            return
        self._send(self._tf, TFMessage(transforms=[to_transform(T_world_wrist, world, self.wrist_frame)]))

    def _send_geometry(self, frame: WristFrame, wrist: Header, world: Header) -> None:
        """Condition map and cloud, which a blank frame has not."""
        if self._is_wanted(self._condition):
            self._send(self._condition, to_image(frame.condition, wrist))
        if self.settings.points_stride and self._is_wanted(self._points):
            cloud = frame.reconstruction
            self._send(self._points, to_cloud(cloud.points, cloud.colors, world, self.settings.points_stride))

    def _create(
        self, kind: type, topic: str, depth: int | None = None, reliable: bool | None = None, latched: bool = False
    ) -> Any:
        reliable = self.settings.reliable if reliable is None else reliable
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        # One profile each: rclpy writes the user's overrides into the object it is given.
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=depth or self.settings.output_depth, reliability=reliability,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )  # fmt: skip
        options = QoSOverridingOptions.with_default_policies()
        return self._node.create_lifecycle_publisher(kind, topic, profile, qos_overriding_options=options)

    @staticmethod
    def _is_wanted(publisher: Any) -> bool:
        """Whether anybody subscribes; not where a signal shut the context down while the model's thread asks."""
        try:
            return publisher.get_subscription_count() > 0
        except RuntimeError:
            return False

    def _send(self, publisher: Any, message: Any) -> bool:
        return publish_counted(publisher, message, self._metrics, self._node.get_logger())


def _mount(settings: NodeSettings, calibration: NodeCalibration | None, wrist_frame: str) -> TransformStamped | None:
    """The edge to the virtual camera from what carries it: the hand, or the wrist camera that TF has already."""
    if settings.use_tf == 'never':
        return None
    if calibration is not None and calibration.mount is not None:
        return to_transform(calibration.mount, Header(frame_id=calibration.mount_frame), wrist_frame)
    if settings.wrist_camera_frame is not None and normalized_frame(settings.wrist_camera_frame) != wrist_frame:
        return to_transform(np.eye(4), Header(frame_id=normalized_frame(settings.wrist_camera_frame)), wrist_frame)
    return None


class ValidityLog:
    """Says in the log, once, that every frame is invalid and why, and once that frames are valid again."""

    PATIENCE_S = 2.0  # of invalid frames only
    AGAIN_S = 60.0  # between warnings where valid frames come and go

    def __init__(self, logger: Any):
        self._logger = logger
        self._said_at = float('-inf')
        self.reset()

    def reset(self) -> None:
        """A new stream begins."""
        self._since: float | None = None
        self._count, self._said = 0, False

    def add(self, verdict: Verdict) -> None:
        """One more frame."""
        if verdict.status is FrameStatus.VALID:
            if self._said:
                self._logger.info(f'Wrist frames are valid again, after {self._count} that were not.')
            self.reset()
            return
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        self._count += 1
        if not self._said and now - self._since >= self.PATIENCE_S and now - self._said_at >= self.AGAIN_S:
            self._said, self._said_at = True, now
            self._logger.warning(
                f'Every wrist frame is invalid ({self._count} in {now - self._since:.0f} s), so none is published: '
                f'{verdict.reason}'
            )
