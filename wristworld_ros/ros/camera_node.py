"""The node `camera`: plays the simulator or videos as anchor cameras, and the true wrist camera for comparison."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from wristworld_ros.ros import environment
from wristworld_ros.ros.camera_info import to_info
from wristworld_ros.ros.camera_sources import WRIST, Played, Source, open_source
from wristworld_ros.ros.image_conversion import to_compressed, to_image
from wristworld_ros.ros.parameters import Parameters
from wristworld_ros.ros.transforms import to_transform
from wristworld_ros.settings import CameraSettings
from wristworld_ros.types import Camera

BASE = 'panda_link0'  # the simulator's world: the base of its arm


class CameraNode(Node):
    """Publishes one set of images a tick, all with one stamp."""

    def __init__(self, **kwargs):
        super().__init__('camera', **kwargs)
        self.settings = settings = Parameters(self, CameraSettings(), fixed=lambda: True).settings
        self.source: Source = open_source(settings)
        self._rate = settings.rate or self.source.rate
        self._pass: Iterator[Played] = self.source.frames(self._rate)
        self._senders: dict[str, tuple] = {}
        self._tf = self.create_publisher(TFMessage, '/tf', 100)
        self._tf_static = self.create_publisher(
            TFMessage, '/tf_static', QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        )
        self._told: dict[str, bytes] = {}
        self._ticks = self.create_timer(1 / self._rate, self._tick)
        self.get_logger().info(f'playing {settings.source} as {", ".join(settings.anchors)} at {self._rate:g} Hz')

    def _tick(self) -> None:
        played = next(self._pass, None)
        if played is None and self.settings.loop:
            self._pass = self.source.frames(self._rate)
            played = next(self._pass, None)
        if played is None:
            self.get_logger().info('The end; nothing more is played.')
            self._ticks.cancel()
            return
        stamp = self.get_clock().now().to_msg()
        for name, image in played.images.items():
            self._publish(name, image, played.cameras.get(name), stamp)
        self._publish_poses(played.cameras, stamp)

    def _publish(self, name: str, image: np.ndarray, camera: Camera | None, stamp) -> None:
        if name not in self._senders:
            self._senders[name] = self._make_publishers('true_wrist' if name == WRIST else f'anchor_{name}')
        images, infos, encode = self._senders[name]
        header = Header(stamp=stamp, frame_id=frame_id(name))
        height, width = image.shape[:2]
        info = (
            to_info(camera.K, width, height, header)
            if camera
            else CameraInfo(header=header, width=width, height=height)
        )
        images.publish(encode(image, header))
        infos.publish(info)

    def _make_publishers(self, topic: str) -> tuple:
        compressed = self.settings.transport == 'compressed'
        options = QoSOverridingOptions.with_default_policies()
        kind, suffix, encode = (CompressedImage, '/compressed', to_compressed) if compressed else (Image, '', to_image)
        images = self.create_publisher(kind, f'{topic}/image_raw{suffix}', 2, qos_overriding_options=options)
        infos = self.create_publisher(CameraInfo, f'{topic}/camera_info', 2, qos_overriding_options=options)
        return images, infos, encode

    def _publish_poses(self, cameras: dict[str, Camera], stamp) -> None:
        """Where the source knows its cameras: anchors on /tf_static whenever they have moved, the true wrist on /tf."""
        header = Header(stamp=stamp, frame_id=BASE)
        edges = {
            name: to_transform(np.linalg.inv(c.T_camera_world), header, frame_id(name)) for name, c in cameras.items()
        }
        if WRIST in edges:
            self._tf.publish(TFMessage(transforms=[edges.pop(WRIST)]))
        poses = {name: cameras[name].T_camera_world.tobytes() for name in edges}
        if edges and poses != self._told:
            self._told = poses
            self._tf_static.publish(TFMessage(transforms=list(edges.values())))


def frame_id(name: str) -> str:
    """Optical frame of a camera."""
    return 'true_wrist_optical_frame' if name == WRIST else f'anchor_{name}_optical_frame'


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop."""
    environment.prepare()
    rclpy.init(args=args)
    try:
        node = CameraNode()
    except (ValueError, ImportError) as error:
        print(f'camera: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    environment.spin(executor)
    node.source.close()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    environment.leave(main())
