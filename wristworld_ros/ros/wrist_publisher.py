"""What the node publishes about a wrist frame: image, calibration, pose, view, cloud, TF, all with the stamp of the anchors."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from wristworld_ros.msg import WristView
from wristworld_ros.ros.conversions import to_camera_info, to_cloud, to_image, to_pose_stamped, to_stamp, to_transform
from wristworld_ros.ros.metrics import Metrics, publish_counted
from wristworld_ros.settings import NodeSettings
from wristworld_ros.types import FrameStatus, Verdict, WristFrame


class WristPublisher:
    """The publishers of a configured node. `publish` may be called from the model's thread.

    settings: assignable; live ones count at once.
    """

    def __init__(self, node: LifecycleNode, settings: NodeSettings, metrics: Metrics):
        self._node, self._metrics, self.settings = node, metrics, settings
        self._image = self._create(Image, 'wrist/image_raw')
        self._info = self._create(CameraInfo, 'wrist/camera_info')
        self._pose = self._create(PoseStamped, 'wrist/pose')
        self._view = self._create(WristView, 'wrist/view')
        self._condition = self._create(Image, 'wrist/condition/image_raw')
        self._points = self._create(PointCloud2, 'points')
        self._tf = self._create(TFMessage, '/tf', depth=100, reliable=True)

    def destroy(self) -> None:
        """Take the publishers off the graph."""
        for publisher in (self._image, self._info, self._pose, self._view, self._condition, self._points, self._tf):
            self._node.destroy_lifecycle_publisher(publisher)

    def publish(self, frame: WristFrame, verdict: Verdict, age_s: float, anchor_frame: str) -> None:
        """Publish one frame.

        Args:
            frame: The frame.
            verdict: Whether it is valid; a frame that is not may only appear on wrist/view (`publish_invalid`).
            age_s: Seconds from its stamp to now, by the node's clock.
            anchor_frame: TF frame of the first anchor.
        """
        valid = verdict.status is FrameStatus.VALID
        wrist = Header(stamp=to_stamp(frame.stamp_ns), frame_id=self.settings.wrist_frame)
        anchor = Header(stamp=wrist.stamp, frame_id=anchor_frame)
        T_anchor_wrist = np.linalg.inv(frame.camera.T_camera_world)
        image = to_image(frame.image, wrist)
        info = to_camera_info(frame.camera.K, frame.camera.width, frame.camera.height, wrist)
        pose = to_pose_stamped(T_anchor_wrist, anchor)
        if valid:
            self._send(self._image, image)
            self._send(self._info, info)
            self._send(self._pose, pose)
            if self.settings.publish_tf:
                edge = to_transform(T_anchor_wrist, anchor, self.settings.wrist_frame)
                self._send(self._tf, TFMessage(transforms=[edge]))
        if (valid or self.settings.publish_invalid) and self._is_wanted(self._view):
            view = WristView(header=wrist, image=image, camera_info=info, pose=pose)
            view.coverage, view.confidence, view.agreement = frame.coverage, frame.confidence, frame.agreement
            view.latency, view.age = frame.latency_s, age_s
            view.status, view.reason = int(verdict.status), verdict.reason
            self._send(self._view, view)
        if frame.verdict.status.is_blank:  # it has neither a condition map nor a cloud
            return
        if self._is_wanted(self._condition):
            self._send(self._condition, to_image(frame.condition, wrist))
        if self.settings.points_stride and self._is_wanted(self._points):
            cloud = frame.reconstruction
            self._send(self._points, to_cloud(cloud.points, cloud.colors, anchor, self.settings.points_stride))

    def _create(self, kind: type, topic: str, depth: int = 2, reliable: bool | None = None) -> Any:
        reliable = self.settings.reliable if reliable is None else reliable
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        # One profile each: rclpy writes the user's overrides into the object it is given.
        profile = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability)
        options = QoSOverridingOptions.with_default_policies()
        return self._node.create_lifecycle_publisher(kind, topic, profile, qos_overriding_options=options)

    @staticmethod
    def _is_wanted(publisher: Any) -> bool:
        """Whether anybody subscribes; not where a signal shut the context down while the model's thread asks."""
        try:
            return publisher.get_subscription_count() > 0
        except RuntimeError:
            return False

    def _send(self, publisher: Any, message: Any) -> None:
        publish_counted(publisher, message, self._metrics, self._node.get_logger())
