"""The wrist camera as settings, calibration file and TF tell it: where it is in the base and on the gripper, and its intrinsics."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import check_file
from wristworld_ros.ros.calibration import NodeCalibration
from wristworld_ros.ros.conversions import to_intrinsics
from wristworld_ros.ros.metrics import Metrics
from wristworld_ros.ros.missing import Notes
from wristworld_ros.ros.qos import best_effort
from wristworld_ros.ros.transforms import TransformBuffer, TransformError, TransformFault
from wristworld_ros.settings import NodeSettings
from wristworld_ros.types import Camera

DEFAULT_FOV = 75.0  # degrees, vertical, of a wrist camera whose calibration is not given


class KnownWrist:
    """What is known of the wrist camera. The executor's thread takes its camera_info in; the worker's asks for cameras.

    Args:
        node: Whose topics are listened to.
        settings: Of the node.
        metrics: By which a bad camera_info is logged only now and then.
        calibration: Of the calibration file.
        transforms: What TF says.
        hw: Rows and columns of the wrist image where no camera is to be imitated, pixels.

    Raises:
        UserError: wrist_camera_info names a file that is no calibration.
    """

    def __init__(
        self,
        node: Node,
        settings: NodeSettings,
        metrics: Metrics,
        calibration: NodeCalibration,
        transforms: TransformBuffer,
        hw: tuple[int, int],
    ):
        self._node, self._settings, self._metrics = node, settings, metrics
        self._calibration, self._transforms, self._hw = calibration, transforms, hw
        source = settings.wrist_camera_info
        self._topic = None if source is None or _is_file(source) else source
        self._info = None if source is None or self._topic else read_camera_info(source)
        self._subscription: Any = None

    def subscribe(self) -> None:
        """Listen to the camera_info of the camera that is to be imitated, where that is a topic."""
        self.unsubscribe()
        if self._topic:
            self._subscription = self._node.create_subscription(CameraInfo, self._topic, self._on_info, best_effort(1))

    def unsubscribe(self) -> None:
        """Receive nothing more."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = None

    @property
    def fov_is_guessed(self) -> bool:
        """Whether nothing says how wide the wrist camera sees, so that `DEFAULT_FOV` is taken."""
        return (self._info or self._calibration.wrist_camera) is None and self._settings.wrist_fov is None

    def in_base(self, stamp_ns: int, notes: Notes, deadline: float) -> Camera | None:
        """The wrist camera in the robot's base at a time.

        Args:
            stamp_ns: The time.
            notes: Where to say what is missing.
            deadline: By time.monotonic(), until when to wait for TF of that time.

        Returns:
            None where its place is not known.
        """
        s, mount, frame = self._settings, self._calibration.mount, self._calibration.mount_frame
        if mount is None and s.wrist_camera_frame is None:
            text = (
                f'The place of the wrist camera is not known; set wrist_mount (its pose in {frame}: x y z qx qy qz qw), '
                'or wrist_camera_frame where TF has it, or calibration_file.'
            )
            notes.add(text, TransformFault.MISSING)
            return None
        try:
            T_base_frame = self._transforms.lookup(s.base_frame, s.wrist_camera_frame or frame, stamp_ns, deadline)
        except TransformError as error:
            notes.add(f'The pose of the wrist camera is not known: {error}', error.kind)
            return None
        return self._camera(T_base_frame, mount)

    def on_hand(self, stamp_ns: int, notes: Notes) -> Camera | None:
        """The wrist camera on the gripper, whose frame takes the base's part; None where its mount is not known.

        Args:
            stamp_ns: The time.
            notes: Where to say what is missing.
        """
        s, mount, named = self._settings, self._calibration.mount, self._calibration.T_hand_mount
        frame = s.wrist_camera_frame if mount is None else self._calibration.mount_frame
        if frame is None:
            return None
        T_hand_frame = None if mount is None else named  # TF wins where it says something else
        if s.use_tf != 'never':
            try:
                T_hand_frame = self._transforms.lookup(s.hand_frame, frame, stamp_ns, time.monotonic())
            except TransformError as error:
                if mount is not None and named is None:
                    notes.add(f'How the wrist camera is mounted to the gripper is not known: {error}', error.kind)
        return None if T_hand_frame is None else self._camera(T_hand_frame, mount)

    def _camera(self, T_world_frame: np.ndarray, mount: np.ndarray | None) -> Camera:
        """The camera at a mount [4, 4] in a frame (None: in that frame itself) whose pose in the world is given, [4, 4]."""
        T_world_wrist = T_world_frame if mount is None else T_world_frame @ mount
        K, height, width = self._intrinsics()
        return Camera(K, np.linalg.inv(T_world_wrist), width, height)

    def _intrinsics(self) -> tuple[np.ndarray, int, int]:
        """K [3, 3], pixels, with rows and columns: of a real camera's calibration, else of a field of view."""
        info, (height, width) = self._info, self._hw
        if info is not None:
            K = to_intrinsics(info, info.width, info.height)
            if K is not None:
                return K, info.height, info.width
        real = self._calibration.wrist_camera
        if real is not None and self._settings.wrist_fov is None:
            return real.K, real.height, real.width
        f = height / 2 / math.tan(math.radians(self._settings.wrist_fov or DEFAULT_FOV) / 2)
        return np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1.0]]), height, width

    def _on_info(self, msg: CameraInfo) -> None:
        try:
            usable = bool(msg.width and msg.height) and to_intrinsics(msg, msg.width, msg.height) is not None
        except UserError as error:
            usable = False
            if self._metrics.should_log('wrist info', every=60.0):
                self._node.get_logger().warning(f'The calibration on {self._topic} is not used: {error}')
        if usable:
            self._info = msg


def _is_file(source: str) -> bool:
    return source.endswith(('.yaml', '.yml'))


def read_camera_info(path: str | Path) -> CameraInfo:
    """A calibration file as camera_calibration writes it.

    Raises:
        UserError: It is no such file, or describes no camera.
    """
    fix = 'give a YAML file with image_width, image_height and camera_matrix, as camera_calibration writes it'
    text = check_file(Path(path).expanduser(), fix, 1 << 20).read_bytes()
    try:
        fields = yaml.safe_load(text)
        width, height = int(fields['image_width']), int(fields['image_height'])
        k = [float(v) for v in fields['camera_matrix']['data']]
        info = CameraInfo(width=width, height=height, k=k)
    except Exception as error:  # yaml.YAMLError, KeyError, TypeError, ValueError, AssertionError, RecursionError
        raise UserError(f'{path} is no calibration of a camera ({type(error).__name__})', fix) from error
    if to_intrinsics(info, width, height) is None:
        raise UserError(f'{path} has a camera_matrix of zeros', fix)
    return info
