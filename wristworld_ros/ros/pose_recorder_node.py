"""The node `pose_recorder`: saves what a camera sees whenever the arm has moved and rests, for `wristworld calibrate`.

It listens to one anchor as `virtual_wrist` does: colour, depth and camera_info; and to /joint_states, /robot_description and TF. A pose has
whatever is there: depth and joints for a calibration by the arm, the hand's pose in TF for one with a board. Depth is the
median over the images of a moment, in which the arm rests.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from wristworld_ros.errors import UserError
from wristworld_ros.robot.arm_recording import ArmRecordingWriter
from wristworld_ros.robot.board import Intrinsics
from wristworld_ros.ros import environment
from wristworld_ros.ros.conversions import to_intrinsics, to_ns, to_rgb
from wristworld_ros.ros.depth_camera import DepthCamera, DepthError
from wristworld_ros.ros.image_header import ImageError, ImageLimits
from wristworld_ros.ros.image_subscription import ImageSubscription
from wristworld_ros.ros.names import camera_info_topic, image_topic
from wristworld_ros.ros.qos import TF_DEPTH, best_effort, latched
from wristworld_ros.ros.transforms import TransformBuffer, TransformError
from wristworld_ros.settings import NodeSettings

REST_S = 1.0  # without motion before a pose is saved
IMAGES_S = 0.6  # of that, the newest part whose images are used: images are late
REST = 0.003  # radians or metres, of any joint
MOVED = 0.12  # radians of any joint, or metres of a slide, since the last pose
PERIOD_S = 0.2
FRAMES = 8
SAY_EVERY_S = 10.0


class PoseRecorderNode(Node):
    """Saves poses into a folder. done: whether as many as wanted are there."""

    def __init__(self, folder: Path, anchor: str, count: int, settings: NodeSettings, **kwargs: Any):
        super().__init__('pose_recorder', **kwargs)
        self._settings = replace(settings, anchors=[anchor])
        self._writer, self._count, self._limits = ArmRecordingWriter(folder), count, ImageLimits.of(settings)
        self._images: deque[tuple[float, Image]] = deque(maxlen=FRAMES)
        self._joints: dict[str, float] = {}
        self._history: deque[tuple[float, dict[str, float]]] = deque(maxlen=5000)
        self._saved: dict[str, float] | None = None
        self._camera: Intrinsics | None = None
        self._said: dict[str, float] = {}
        self._transforms = TransformBuffer()
        self._depth = DepthCamera(self, anchor, self._settings)
        self._depth.subscribe()
        reliability = self._settings.input_reliability
        self._colors = ImageSubscription(self, Image, image_topic(self, anchor, 'raw'), self.take_image, reliability)
        self.create_subscription(
            CameraInfo, camera_info_topic(self, anchor, 'raw'), self.take_camera_info, best_effort(1)
        )
        self.create_subscription(JointState, '/joint_states', self.take_joints, best_effort(100))
        self.create_subscription(String, '/robot_description', self.take_description, latched())
        self.create_subscription(
            TFMessage, '/tf', lambda msg: self._transforms.add(msg.transforms), best_effort(TF_DEPTH)
        )
        self.create_subscription(
            TFMessage, '/tf_static', lambda msg: self._transforms.add(msg.transforms, static=True), latched(TF_DEPTH)
        )
        self.create_timer(PERIOD_S, self.step)

    @property
    def saved(self) -> int:
        """Poses in the folder."""
        return self._writer.count

    @property
    def done(self) -> bool:
        """Whether there are as many as wanted."""
        return self.saved >= self._count

    def take_image(self, msg: Image) -> None:
        """Called by rclpy with every colour image."""
        self._images.append((time.monotonic(), msg))

    def take_camera_info(self, msg: CameraInfo) -> None:
        """Called by rclpy with every calibration; the first that describes a camera is written."""
        if self._camera is not None or not (msg.width and msg.height):
            return
        try:
            K = to_intrinsics(msg, msg.width, msg.height)
        except UserError as error:
            self._say(f'The calibration of the camera is not used: {error}')
            return
        if K is not None:
            distortion = np.array(msg.d, np.float64) if len(msg.d) in (4, 5, 8) else np.empty(0)
            self._camera = Intrinsics(K, distortion if distortion.any() else np.empty(0), msg.width, msg.height)
            self._writer.write_camera(self._camera)

    def take_description(self, msg: String) -> None:
        """Called by rclpy with every robot description."""
        self._writer.write_robot(msg.data)

    def take_joints(self, msg: JointState) -> None:
        """Called by rclpy with every message; one may hold some of the joints only."""
        self._joints |= {name: float(q) for name, q in zip(msg.name, msg.position, strict=False) if np.isfinite(q)}
        self._history.append((time.monotonic(), dict(self._joints)))

    def step(self) -> None:
        """Save a pose where the arm has come to rest in a new one."""
        self._depth.refresh()
        self._colors.refresh()
        if self.done:
            return
        if missing := self._missing():
            self._say(missing)
        elif self._is_new() and self._at_rest():
            try:
                self._save()
            except (ImageError, UserError) as error:
                self._say(f'No pose was saved: {error}')

    def _missing(self) -> str:
        """What no pose can do without and has not come, one sentence; '' for nothing."""
        if not self._images:
            return f'No images on {self._colors.topic}; start the camera, or remap the topic.'
        if self._camera is None:
            return 'No camera_info that describes a camera beside them; calibrate the camera, or remap the topic.'
        if not self._history:
            return 'No joint states on /joint_states; start joint_state_broadcaster, or remap the topic.'
        return ''

    def _is_new(self) -> bool:
        return self._saved is None or any(
            abs(position - self._saved.get(name, np.inf)) > MOVED for name, position in self._joints.items()
        )

    def _at_rest(self) -> bool:
        now = time.monotonic()
        recent = [joints for when, joints in self._history if when > now - REST_S]
        if not recent or self._history[0][0] > now - REST_S or self._history[-1][0] < now - 0.5 * REST_S:
            return False
        return all(
            max(j[name] for j in recent if name in j) - min(j[name] for j in recent if name in j) < REST
            for name in recent[-1]
        )

    def _save(self) -> None:
        frames = [msg for when, msg in self._images if when > time.monotonic() - IMAGES_S]
        if not frames:
            self._say(f'No images on {self._colors.topic} for {IMAGES_S:g} s.')
            return
        color = to_rgb(frames[-1], self._limits)
        camera = self._camera
        if camera is None or color.shape[:2] != (camera.height, camera.width):
            raise UserError('camera_info is of another size than the images', 'start the recorder after the camera')
        depth, hand = self._depth_of(frames), self._hand_at(frames[-1])
        if depth is None and hand is None:
            raise UserError(
                'there is neither depth nor the pose of the hand', 'start the depth stream or robot_state_publisher'
            )
        joints = dict(sorted(self._joints.items()))
        self._writer.add(color, depth, None if depth is None else joints, hand)
        self._saved = joints
        has = ', '.join(
            name for name, there in (('depth', depth is not None), ('pose of the hand', hand is not None)) if there
        )
        print(f'Pose {self.saved} of {self._count} saved ({has}). Move the arm, and let it rest.', flush=True)

    def _depth_of(self, frames: list[Image]) -> np.ndarray | None:
        """Median of the depth of these images, float32 [H, W], 0 where less than half of them have it; None without depth."""
        found = []
        for msg in frames:
            hw = msg.height, msg.width
            try:
                found.append(self._depth.depth_for(to_ns(msg.header.stamp), msg.header.frame_id, hw, time.monotonic()))
            except DepthError as error:
                fault = error
        if not found:
            self._say(f'A calibration by the arm lacks depth: {fault}')
            return None
        maps = np.stack(found)
        known = maps > 0
        middle = np.nanmedian(np.where(known | ~known.any(0), maps, np.nan), 0)
        return np.where(known.sum(0) * 2 >= len(maps), middle, 0).astype(np.float32)

    def _hand_at(self, msg: Image) -> np.ndarray | None:
        s = self._settings
        try:
            # The arm rests, so the pose of a little ago is the same, and has arrived.
            return self._transforms.lookup(s.base_frame, s.hand_frame, to_ns(msg.header.stamp) - int(2e8))
        except TransformError as error:
            self._say(f'A calibration with a board lacks the pose of the hand: {error}')
            return None

    def _say(self, text: str) -> None:
        """Print a sentence, the same one now and then only."""
        now = time.monotonic()
        if now - self._said.get(text, -SAY_EVERY_S) >= SAY_EVERY_S:
            self._said[text] = now
            print(text, file=sys.stderr, flush=True)


def main(args: list[str] | None = None) -> int:
    """Record until there are enough poses, or until told to stop."""
    given = remove_ros_args(args if args is not None else sys.argv)[1:]
    parser = argparse.ArgumentParser(prog='pose_recorder')
    parser.add_argument('--out', type=Path, required=True, help='Folder of the recording.')
    parser.add_argument('--anchor', default='left', help='Name of the camera: anchor_<name>/image_raw.')
    parser.add_argument('--count', type=int, default=10, help='Poses.')
    parser.add_argument('--base-frame', default=NodeSettings.base_frame)
    parser.add_argument('--hand-frame', default=NodeSettings.hand_frame)
    options = parser.parse_args(given)
    environment.prepare()
    try:
        environment.init(args)
        settings = replace(NodeSettings(), base_frame=options.base_frame, hand_frame=options.hand_frame)
        node = PoseRecorderNode(options.out, options.anchor, options.count, settings)
    except UserError as error:
        print(f'wristworld calibrate: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    print(f'Move the arm into {options.count} poses and let it rest for a moment in each; Ctrl-C ends.', flush=True)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    environment.spin(executor, until=lambda: node.done)
    print(f'{node.saved} poses are in {options.out}.', flush=True)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
