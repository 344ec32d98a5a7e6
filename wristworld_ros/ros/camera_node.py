"""The node `camera`: plays the simulator or videos as anchor cameras, and the true wrist camera for comparison."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from wristworld_ros.data.anchor_sources import SynchronizedVideos
from wristworld_ros.errors import UserError
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.ros import environment
from wristworld_ros.ros.conversions import to_camera_info, to_compressed, to_image, to_transform
from wristworld_ros.ros.lifecycle import CLOCK_PATIENCE_S, STEADY, clock_missing
from wristworld_ros.ros.names import frame_in_namespace
from wristworld_ros.ros.parameters import Parameters
from wristworld_ros.settings import CameraSettings
from wristworld_ros.types import Camera

BASE = 'panda_link0'  # the simulator's world: the base of its arm
WRIST = 'wrist'  # name of the true wrist camera among the images of a moment
CONTROL_HZ = 20  # of the simulated arm, at least


class CameraNode(Node):
    """Publishes the images of one moment per tick, all with one stamp."""

    def __init__(self, **kwargs: Any):
        super().__init__('camera', **kwargs)
        self.settings: CameraSettings = Parameters(self, self, CameraSettings()).settings
        self.source = open_source(self.settings)
        self._rate = self.settings.rate or self.source.rate
        self._moments = self.source.moments(self._rate)
        self._outputs: dict[str, CameraOutput] = {}
        self._tf = self.create_publisher(TFMessage, '/tf', 100)
        self._tf_static = self.create_publisher(
            TFMessage, '/tf_static', QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        )
        self._static_poses: dict[str, bytes] = {}
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
        stamp = self.get_clock().now().to_msg()
        for name, image in moment.images.items():
            if name not in self._outputs:
                self._outputs[name] = CameraOutput(self, name, self.settings.transport)
            self._outputs[name].publish(image, moment.cameras.get(name), stamp)
        self._publish_poses(moment.cameras, stamp)

    def _log_damage(self) -> None:
        """What a pass could not decode, once for all passes."""
        for sentence in self.source.damage:
            if sentence not in self._logged:
                self._logged.add(sentence)
                self.get_logger().warning(sentence)

    def _publish_poses(self, cameras: dict[str, Camera], stamp: Any) -> None:
        """Where the source knows its cameras: anchors on /tf_static whenever they have moved, the true wrist on /tf."""
        header = Header(stamp=stamp, frame_id=frame_in_namespace(self, BASE))
        edges = {
            name: to_transform(np.linalg.inv(c.T_camera_world), header, optical_frame(self, name))
            for name, c in cameras.items()
        }
        if WRIST in edges:
            self._tf.publish(TFMessage(transforms=[edges.pop(WRIST)]))
        poses = {name: cameras[name].T_camera_world.tobytes() for name in edges}
        if edges and poses != self._static_poses:
            self._static_poses = poses
            self._tf_static.publish(TFMessage(transforms=list(edges.values())))


class CameraOutput:
    """The publishers of one camera: images, raw or JPEG, and their calibration."""

    def __init__(self, node: Node, name: str, transport: str):
        self._node, self._frame, self._compressed = node, optical_frame(node, name), transport == 'compressed'
        topic = 'true_wrist' if name == WRIST else f'anchor_{name}'
        kind, suffix = (CompressedImage, '/compressed') if self._compressed else (Image, '')
        self._images = self._create(kind, f'{topic}/image_raw{suffix}')
        self._infos = self._create(CameraInfo, f'{topic}/camera_info')

    def publish(self, image: np.ndarray, camera: Camera | None, stamp: Any) -> None:
        """Publish uint8 [H, W, 3] with its calibration, or with k[0] = 0 where that is not known."""
        header = Header(stamp=stamp, frame_id=self._frame)
        height, width = image.shape[:2]
        info = CameraInfo(header=header, width=width, height=height)
        if camera:
            info = to_camera_info(camera.K, width, height, header)
        self._images.publish(to_compressed(image, header) if self._compressed else to_image(image, header))
        self._infos.publish(info)

    def _create(self, kind: type, topic: str) -> Publisher:
        options = QoSOverridingOptions.with_default_policies()
        return self._node.create_publisher(kind, topic, 2, qos_overriding_options=options)


def optical_frame(node: Node, name: str) -> str:
    """Optical frame of a camera, below the node's namespace."""
    return frame_in_namespace(node, 'true_wrist_optical_frame' if name == WRIST else f'anchor_{name}_optical_frame')


# Sources


@dataclass(frozen=True)
class Moment:
    """Images taken at one time, uint8 [H, W, 3] RGB by camera name, and cameras where they are known (world: the base)."""

    images: dict[str, np.ndarray]
    cameras: dict[str, Camera]


class Source(Protocol):
    """Something to play.

    rate: its own frames per second. damage: sentences about what the last pass could not decode.
    """

    rate: float

    @property
    def damage(self) -> list[str]: ...

    def moments(self, rate: float) -> Iterator[Moment]:
        """One pass from the beginning, at `rate` frames per second of its own time."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Videos:
    """Video files that were started together and run side by side; the shortest one ends a pass."""

    def __init__(self, files: dict[str, Path], width: int | None, height: int | None):
        self._names, self._videos = tuple(files), SynchronizedVideos(list(files.values()))
        self._hw = (height, width) if width and height else None
        self.rate = self._videos.rate

    def moments(self, rate: float) -> Iterator[Moment]:
        """Each moment shows every video's newest frame: frames are skipped or repeated where the rates differ."""
        for _, images in self._videos.resampled(rate):
            shown = (image if self._hw is None else resize_images(image[None], self._hw)[0] for image in images)
            yield Moment(dict(zip(self._names, shown, strict=True)), {})

    @property
    def damage(self) -> list[str]:
        """What the last pass could not decode."""
        return self._videos.damage

    def close(self) -> None:
        """Files are closed at the end of a pass."""


def whole_rate(rate: float) -> int:
    """Frames per second of the simulator, each a whole number of control periods, so that the arm moves at its own speed.

    Raises:
        UserError: It is not a whole number.
    """
    if rate < 1 or rate != int(rate):
        raise UserError(f'Setting rate is {rate:g}, and the simulator gives whole frames per second', 'give rate as 1 to 240')
    return int(rate)


class Simulator:
    """The simulated robot at work, without end. Its cameras are calibrated; its base is the world."""

    def __init__(self, settings: CameraSettings):
        from wristworld_ros.sim.stream import LIVE_SETTINGS, SimulatorStream

        self.rate = 10.0
        fps = whole_rate(settings.rate or self.rate)
        live = replace(LIVE_SETTINGS, anchors=len(settings.anchors), fps=fps, control_hz=-(-CONTROL_HZ // fps) * fps)
        if settings.width and settings.height:
            live = replace(live, anchor_width=settings.width, anchor_height=settings.height)
        self._names = {f'anchor{i}': name for i, name in enumerate(settings.anchors)} | {'wrist': WRIST}
        self._seed = settings.seed
        self._stream = SimulatorStream(live, settings.seed)
        self.damage: list[str] = []

    def moments(self, rate: float) -> Iterator[Moment]:
        """One moment per simulated frame."""
        self._stream.reset(self._seed)
        while True:
            images, cameras = self._stream.step(), self._stream.cameras()
            yield Moment(
                {self._names[k]: v for k, v in images.items()}, {self._names[k]: v for k, v in cameras.items()}
            )

    def close(self) -> None:
        """Free the renderer."""
        self._stream.close()


def open_source(settings: CameraSettings) -> Source:
    """The source that the settings name.

    Raises:
        UserError: It is not there, or not everything it needs was given.
    """
    if settings.source == 'simulator':
        return Simulator(settings)
    if len(settings.videos) != len(settings.anchors):
        raise UserError(
            f'{len(settings.videos)} videos for {len(settings.anchors)} anchors',
            'give one per camera (videos, anchors)',
        )
    files = {name: Path(path) for name, path in zip(settings.anchors, settings.videos, strict=True)}
    if settings.wrist_video:
        files[WRIST] = Path(settings.wrist_video)
    return Videos(files, settings.width, settings.height)


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
    node.source.close()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    environment.leave(main())
