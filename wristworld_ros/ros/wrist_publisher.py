"""What the node says of a wrist frame: images, calibration, pose, view, cloud, TF, all with the stamp of the anchors."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from wristworld_ros.msg import WristView
from wristworld_ros.ros.camera_info import to_info
from wristworld_ros.ros.image_conversion import to_image
from wristworld_ros.ros.metrics import Metrics
from wristworld_ros.ros.point_cloud import to_cloud
from wristworld_ros.ros.transforms import to_pose_stamped, to_transform
from wristworld_ros.settings import NodeSettings
from wristworld_ros.types import WristFrame


def to_stamp(ns: int) -> Time:
    """Nanoseconds as a message stamp."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def to_ns(stamp: Time) -> int:
    """A message stamp as nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


class WristPublisher:
    """The publishers of a configured node. `send` may be called from the model's thread."""

    def __init__(self, node: LifecycleNode, settings: NodeSettings, metrics: Metrics):
        self._node, self._health = node, metrics
        self._wrist_frame, self._publish_tf = settings.wrist_frame, settings.publish_tf
        reliability = ReliabilityPolicy.RELIABLE if settings.reliable else ReliabilityPolicy.BEST_EFFORT

        def publisher(kind, topic, depth=2, reliability=reliability):
            # One profile each: rclpy writes the user's overrides into the object it is given.
            profile = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability)
            options = QoSOverridingOptions.with_default_policies()
            return node.create_lifecycle_publisher(kind, topic, profile, qos_overriding_options=options)

        self._image = publisher(Image, 'wrist/image_raw')
        self._info = publisher(CameraInfo, 'wrist/camera_info')
        self._pose = publisher(PoseStamped, 'wrist/pose')
        self._view = publisher(WristView, 'wrist/view')
        self._condition = publisher(Image, 'wrist/condition/image_raw')
        self._points = publisher(PointCloud2, 'points')
        self._tf = publisher(TFMessage, '/tf', 100, ReliabilityPolicy.RELIABLE)

    def destroy(self) -> None:
        for publisher in (self._image, self._info, self._pose, self._view, self._condition, self._points, self._tf):
            self._node.destroy_lifecycle_publisher(publisher)

    def send(self, frame: WristFrame, reason: str, age: float, anchor_frame: str, settings: NodeSettings) -> None:
        """Publish one frame. reason: why it is not fit, empty when it is; then only wrist/view may tell of it."""
        fit = not reason
        wrist = Header(stamp=to_stamp(frame.stamp_ns), frame_id=self._wrist_frame)
        anchor = Header(stamp=wrist.stamp, frame_id=anchor_frame)
        T_anchor_wrist = np.linalg.inv(frame.camera.T_camera_world)
        image = to_image(frame.image, wrist)
        info = to_info(frame.camera.K, frame.camera.width, frame.camera.height, wrist)
        pose = to_pose_stamped(T_anchor_wrist, anchor)
        if fit:
            self._publish(self._image, image)
            self._publish(self._info, info)
            self._publish(self._pose, pose)
            if self._publish_tf:
                self._publish(self._tf, TFMessage(transforms=[to_transform(T_anchor_wrist, anchor, self._wrist_frame)]))
        if (fit or settings.publish_invalid) and self._wanted(self._view):
            view = WristView(header=wrist, image=image, camera_info=info, pose=pose, fit=fit, reason=reason)
            view.coverage, view.confidence, view.latency, view.age = (
                frame.coverage,
                frame.confidence,
                frame.latency_s,
                age,
            )
            self._publish(self._view, view)
        if not frame.finite:  # its condition map and cloud are blank
            return
        if self._wanted(self._condition):
            self._publish(self._condition, to_image(frame.condition, wrist))
        if settings.points_stride and self._wanted(self._points):
            r = frame.reconstruction
            self._publish(self._points, to_cloud(r.points, r.colors, anchor, settings.points_stride))

    @staticmethod
    def _wanted(publisher) -> bool:
        """Whether somebody listens. A signal may shut the context down while the model's thread asks: then nobody does."""
        try:
            return publisher.get_subscription_count() > 0
        except RuntimeError:
            return False

    def _publish(self, publisher, message) -> None:
        """publish() may raise (a full transport, a context that shuts down): count it and go on."""
        try:
            publisher.publish(message)
        except Exception as error:
            self._health.add('publish_errors')
            self._health.reason = f'Publishing on {publisher.topic_name} failed: {error}'
            if self._health.should_log('publish', publisher.topic_name):
                self._node.get_logger().warning(self._health.reason)
