"""The node `camera`: plays the simulated desk or videos as anchor cameras, and the true wrist camera for comparison."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from wristworld_ros.errors import UserError
from wristworld_ros.ros import environment
from wristworld_ros.ros.camera_sources import WRIST, Moment, open_source
from wristworld_ros.ros.conversions import (
    to_camera_info,
    to_compressed,
    to_compressed_depth,
    to_depth_image,
    to_image,
    to_label_image,
    to_transform,
)
from wristworld_ros.ros.lifecycle import CLOCK_PATIENCE_S, STEADY, clock_missing
from wristworld_ros.ros.names import COMPRESSED, COMPRESSED_DEPTH, frame_in_namespace
from wristworld_ros.ros.parameters import Parameters
from wristworld_ros.ros.qos import latched
from wristworld_ros.ros.simulated_robot import RobotOutput, link_edges
from wristworld_ros.settings import CameraSettings
from wristworld_ros.types import Camera


class CameraNode(Node):
    """Publishes one moment per tick, all with one stamp: what robot and cameras know of it first, then their images."""

    def __init__(self, **kwargs: Any):
        super().__init__('camera', **kwargs)
        self.settings: CameraSettings = Parameters(self, self, CameraSettings()).settings
        self.source = open_source(self.settings)
        self._rate = self.settings.rate or self.source.rate
        self._moments = self.source.moments(self._rate)
        self._outputs: dict[str, CameraOutput] = {}
        self._tf = self.create_publisher(TFMessage, '/tf', 100)
        self._tf_static = self.create_publisher(TFMessage, '/tf_static', latched())
        self._static_poses: dict[str, bytes] = {}
        self._objects = (
            self.create_publisher(Image, 'true_wrist/objects/image_raw', 2) if self.settings.objects else None
        )
        self._robot = RobotOutput(self, self.source) if self.settings.robot and self.source.base else None
        self._logged: set[str] = set()
        self._timer = self.create_timer(1 / self._rate, self._tick)
        self._clock_timer = self.create_timer(CLOCK_PATIENCE_S, self._check_clock, clock=STEADY)
        names = ', '.join(self.settings.anchors)
        self.get_logger().info(f'playing {self.settings.source} as {names} at {self._rate:g} Hz')

    @property
    def is_configured(self) -> bool:
        """Settings are read once, at the start."""
        return True

    def apply_settings(self, settings: CameraSettings) -> None:
        """Nothing to pass on: no setting is live."""

    def _check_clock(self) -> None:
        """Say once where nothing can be played for want of a /clock."""
        self._clock_timer.cancel()
        if missing := clock_missing(self):
            self.get_logger().warning(missing)

    def _tick(self) -> None:
        moment = next(self._moments, None)
        if moment is None:
            self._log_damage()
        if moment is None and self.settings.loop:
            self._moments = self.source.moments(self._rate)
            moment = next(self._moments, None)
        if moment is None:
            self.get_logger().info('The videos have ended; nothing more is played.')
            self._timer.cancel()
            return
        self._publish(moment, self.get_clock().now().to_msg())

    def _publish(self, moment: Moment, stamp: Any) -> None:
        self._publish_poses(moment, stamp)
        if self._robot and moment.arm:
            self._robot.publish(moment.arm, stamp)
        if self._objects and moment.objects is not None:
            self._objects.publish(
                to_label_image(moment.objects, Header(stamp=stamp, frame_id=optical_frame(self, WRIST)))
            )
        for name, image in moment.images.items():
            if name not in self._outputs:
                self._outputs[name] = CameraOutput(self, name, self.settings.transport, name in moment.depth)
            self._outputs[name].publish(image, moment.depth.get(name), moment.cameras.get(name), stamp)

    def close(self) -> None:
        """Free the source and what was written for subscribers."""
        self.source.close()
        if self._robot:
            self._robot.close()

    def _log_damage(self) -> None:
        """What a pass could not decode, once for all passes."""
        for sentence in self.source.damage:
            if sentence not in self._logged:
                self._logged.add(sentence)
                self.get_logger().warning(sentence)

    def _publish_poses(self, moment: Moment, stamp: Any) -> None:
        """Where the source knows its cameras: anchors and fixed links on /tf_static whenever the anchors have moved, the true
        wrist and moving links on /tf."""
        header = Header(stamp=stamp, frame_id=self.source.base)
        edges = {
            name: to_transform(np.linalg.inv(c.T_camera_world), header, optical_frame(self, name))
            for name, c in moment.cameras.items()
        }
        arm = moment.arm if self._robot else None
        moving = [edges.pop(WRIST)] if WRIST in edges else []
        moving += link_edges(arm, stamp, fixed=False) if arm else []
        if moving:
            self._tf.publish(TFMessage(transforms=moving))
        poses = {name: moment.cameras[name].T_camera_world.tobytes() for name in edges}
        if edges and poses != self._static_poses:
            self._static_poses = poses
            fixed = link_edges(arm, stamp, fixed=True) if arm else []
            self._tf_static.publish(TFMessage(transforms=[*edges.values(), *fixed]))


class CameraOutput:
    """The publishers of one camera: images, raw or JPEG, their calibration, and depth where it measures that."""

    def __init__(self, node: Node, name: str, transport: str, has_depth: bool):
        self._node, self._frame, self._compressed = node, optical_frame(node, name), transport == 'compressed'
        topic = 'true_wrist' if name == WRIST else f'anchor_{name}'
        kind = CompressedImage if self._compressed else Image
        suffix, depth_suffix = (COMPRESSED, COMPRESSED_DEPTH) if self._compressed else ('', '')
        self._images = self._create(kind, f'{topic}/image_raw{suffix}')
        self._infos = self._create(CameraInfo, f'{topic}/camera_info')
        self._depth = self._create(kind, f'{topic}/depth/image_raw{depth_suffix}') if has_depth else None

    def publish(self, image: np.ndarray, depth: np.ndarray | None, camera: Camera | None, stamp: Any) -> None:
        """Publish one moment.

        Args:
            image: uint8 [H, W, 3].
            depth: float32 [H, W], metres, 0 where unknown, or None.
            camera: Its calibration; where that is not known, k[0] = 0 says so.
            stamp: Of all messages.
        """
        header = Header(stamp=stamp, frame_id=self._frame)
        height, width = image.shape[:2]
        info = CameraInfo(header=header, width=width, height=height)
        if camera:
            info = to_camera_info(camera.K, width, height, header)
        self._infos.publish(info)
        if self._depth and depth is not None:
            to_depth = to_compressed_depth if self._compressed else to_depth_image
            self._depth.publish(to_depth(depth, header))
        self._images.publish(to_compressed(image, header) if self._compressed else to_image(image, header))

    def _create(self, kind: type, topic: str) -> Publisher:
        options = QoSOverridingOptions.with_default_policies()
        return self._node.create_publisher(kind, topic, 2, qos_overriding_options=options)


def optical_frame(node: Node, name: str) -> str:
    """Optical frame of a camera, below the node's namespace."""
    return frame_in_namespace(node, 'true_wrist_optical_frame' if name == WRIST else f'anchor_{name}_optical_frame')


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop."""
    environment.prepare()
    try:
        environment.init(args)
        node = environment.make(CameraNode)
    except UserError as error:
        print(f'camera: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    if node is None:
        return 0
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    environment.spin(executor)
    node.close()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    environment.leave(main())
