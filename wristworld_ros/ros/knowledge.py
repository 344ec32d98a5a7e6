"""What the node knows of an anchor set beside its pictures: places of cameras, depth, the wrist camera, the robot's surface.

Nothing known is no error: what is missing for a better view is one sentence each, with how to get it.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import check_file
from wristworld_ros.ros.calibration import NodeCalibration
from wristworld_ros.ros.conversions import to_intrinsics
from wristworld_ros.ros.depth_camera import DepthCamera, DepthError, DepthFault, fitted
from wristworld_ros.ros.lifecycle import ResponsiveLifecycleNode
from wristworld_ros.ros.metrics import Metrics
from wristworld_ros.ros.rectification import Rectification
from wristworld_ros.ros.robot_state import RobotError, RobotFault, RobotState
from wristworld_ros.ros.transforms import TransformBuffer, TransformError, TransformFault
from wristworld_ros.settings import NodeSettings
from wristworld_ros.types import Camera, RobotPoints

DEFAULT_FOV = 75.0  # degrees, vertical, of a wrist camera whose calibration is not given
REMEMBERED = 256  # sets whose unmet requirements are remembered until their frames are ready
ABSENT = (
    TransformFault.MISSING,
    DepthFault.SILENT,
    RobotFault.NO_DESCRIPTION,
    RobotFault.LOADING,
)  # is no fault: not logged


@dataclass(frozen=True)
class ViewSource:
    """One image of a set. frame: TF frame of its camera. frame_id: as its header has it. hw: its own rows and columns.

    K: float64 [3, 3] at that size, of the image as it is used, or None. topic: of its images. rectification: what its image, and
    depth registered to it, go through first. note: one sentence on distortion that stays; see `anchor_camera.Lens`.
    """

    name: str
    topic: str
    stamp_ns: int
    frame: str
    frame_id: str
    hw: tuple[int, int]
    K: np.ndarray | None
    rectification: Rectification | None = None
    note: str = ''


@dataclass(frozen=True)
class Known:
    """What is known of a set of V images; see `types.AnchorSet`. Depth is at the size of the first image."""

    depth: np.ndarray | None = None
    T_base_anchor: np.ndarray | None = None
    wrist: Camera | None = None
    robot_points: RobotPoints | None = None
    mounted: Camera | None = None


class Knowledge:
    """Listens to depth, TF, joint states and robot description, and gathers what they say of one set.

    The executor's thread takes messages in; `gather` is called in the worker's thread, which may wait there.

    settings: assignable; live ones count at once. missing: what the next better view lacks, sentences, as of the last set.
    calibration: of the calibration file; read once, here.
    """

    def __init__(
        self, node: ResponsiveLifecycleNode, settings: NodeSettings, metrics: Metrics, wrist_hw: tuple[int, int]
    ):
        self._node, self._metrics, self._wrist_hw = node, metrics, wrist_hw
        self.settings = settings
        self.transforms = TransformBuffer()
        self.robot = RobotState(node, settings)
        self.depth = {name: DepthCamera(node, name, settings) for name in settings.anchors}
        self.missing: tuple[str, ...] = ()
        self.calibration = NodeCalibration(settings)
        self._wrist_info = (
            read_camera_info(settings.wrist_camera_info) if _is_file(settings.wrist_camera_info) else None
        )
        self._subscriptions: list[Any] = []
        self._unmet: OrderedDict[int, str] = OrderedDict()

    # In the executor's thread

    def subscribe(self) -> None:
        """Listen to whatever the settings do not forbid."""
        self.unsubscribe()
        s = self.settings
        if s.use_depth != 'never':
            for camera in self.depth.values():
                camera.subscribe()
        if s.use_robot_model != 'never':
            self.robot.subscribe()
        if s.use_tf != 'never':
            self._listen(TFMessage, '/tf', lambda msg: self.transforms.add(msg.transforms, now_ns=self._now()))
            self._listen(
                TFMessage, '/tf_static', lambda msg: self.transforms.add(msg.transforms, static=True), latched=True
            )
        if s.wrist_camera_info and not _is_file(s.wrist_camera_info):
            self._listen(CameraInfo, s.wrist_camera_info, self._on_wrist_info)

    def unsubscribe(self) -> None:
        """Receive nothing more."""
        for camera in self.depth.values():
            camera.unsubscribe()
        self.robot.unsubscribe()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def refresh(self) -> None:
        """Follow publishers of depth that came or went."""
        for camera in self.depth.values():
            camera.refresh()

    def restart(self) -> None:
        """A new stream begins."""
        for camera in self.depth.values():
            camera.restart()
        self.missing = ()

    def restart_clock(self) -> None:
        """The clock was set: whatever has a stamp is forgotten."""
        self.restart()
        self.transforms.clear()
        self.robot.clear()

    # In the worker's threads

    def gather(self, views: Sequence[ViewSource]) -> Known:
        """What is known of a set; it waits up to `tf_timeout` for what may still come."""
        s, deadline = self.settings, time.monotonic() + self.settings.tf_timeout
        places, wrist, depth, robot = _Notes(), _Notes(), _Notes(), _Notes()
        T = self._placed(views, places, deadline)
        camera = self._wrist(views[0].stamp_ns, wrist, deadline) if s.use_tf != 'never' else None
        mounted = self._mounted(views[0].stamp_ns, wrist)
        maps = self._depth(views, depth, deadline) if s.use_depth != 'never' else None
        points = self._robot(views[0].stamp_ns, robot, deadline) if s.use_robot_model != 'never' else None
        self._note_missing(views, places, wrist, depth, robot)
        for use, notes in (
            (s.use_tf, [*places.texts, *wrist.texts]),
            (s.use_depth, depth.texts),
            (s.use_robot_model, robot.texts),
        ):
            if use == 'require' and notes:
                self._remember_unmet(views[0].stamp_ns, notes[0])
                break
        return Known(maps, T, camera, points, mounted)

    def unmet(self, stamp_ns: int) -> str:
        """What the settings require and the set of that stamp had not, one sentence; '' where nothing."""
        return self._unmet.get(stamp_ns, '')

    def _placed(self, views: Sequence[ViewSource], notes: _Notes, deadline: float) -> np.ndarray | None:
        """T_base_anchor, float64 [V, 4, 4], NaN where unknown; None where all are. The calibration file wins over TF."""
        T = np.full((len(views), 4, 4), np.nan)
        for i, view in enumerate(views):
            if view.name in self.calibration.places:
                T[i] = self.calibration.places[view.name]
                continue
            if self.settings.use_tf == 'never':
                continue
            try:
                T[i] = self.transforms.lookup(self.settings.base_frame, view.frame, view.stamp_ns, deadline)
            except TransformError as error:
                notes.add(f'The place of anchor_{view.name} is not known: {error}', error.kind)
        return T if np.isfinite(T).any() else None

    def _wrist(self, stamp_ns: int, notes: _Notes, deadline: float) -> Camera | None:
        s = self.settings
        if self.calibration.mount is None and s.wrist_camera_frame is None:
            text = (
                f'The place of the wrist camera is not known; set wrist_mount (its pose in {self.calibration.mount_frame}: x y z qx qy qz qw), or '
                'wrist_camera_frame where TF has it, or calibration_file.'
            )
            notes.add(text, TransformFault.MISSING)
            return None
        mount = np.eye(4) if self.calibration.mount is None else self.calibration.mount
        frame = s.wrist_camera_frame or self.calibration.mount_frame
        try:
            T_base_wrist = self.transforms.lookup(s.base_frame, frame, stamp_ns, deadline) @ mount
        except TransformError as error:
            notes.add(f'The pose of the wrist camera is not known: {error}', error.kind)
            return None
        K, height, width = self._wrist_intrinsics()
        return Camera(K, np.linalg.inv(T_base_wrist), width, height)

    def _mounted(self, stamp_ns: int, notes: _Notes) -> Camera | None:
        """The wrist camera on the gripper; None where its mount is not known."""
        s, mount, named = self.settings, self.calibration.mount, self.calibration.T_hand_mount
        frame = s.wrist_camera_frame if mount is None else self.calibration.mount_frame
        if frame is None:
            return None
        T_hand_frame = None if mount is None else named  # TF wins where it says something else
        if s.use_tf != 'never':
            try:
                T_hand_frame = self.transforms.lookup(s.hand_frame, frame, stamp_ns, time.monotonic())
            except TransformError as error:
                if mount is not None and named is None:
                    notes.add(f'How the wrist camera is mounted to the gripper is not known: {error}', error.kind)
        if T_hand_frame is None:
            return None
        T_hand_wrist = T_hand_frame if mount is None else T_hand_frame @ mount
        K, height, width = self._wrist_intrinsics()
        return Camera(K, np.linalg.inv(T_hand_wrist), width, height)

    def _wrist_intrinsics(self) -> tuple[np.ndarray, int, int]:
        """K [3, 3] of the wrist camera, with rows and columns: of a real one's calibration, else of a field of view."""
        info, (height, width) = self._wrist_info, self._wrist_hw
        if info is not None:
            K = to_intrinsics(info, info.width, info.height)
            if K is not None:
                return K, info.height, info.width
        real = self.calibration.wrist_camera
        if real is not None and self.settings.wrist_fov is None:
            return real.K, real.height, real.width
        f = height / 2 / math.tan(math.radians(self.settings.wrist_fov or DEFAULT_FOV) / 2)
        return np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1.0]]), height, width

    def _depth(self, views: Sequence[ViewSource], notes: _Notes, deadline: float) -> np.ndarray | None:
        """float32 [V, H, W] at the size of the first image; None where no view has any."""
        maps = np.zeros((len(views), *views[0].hw), np.float32)
        found = False
        for i, view in enumerate(views):
            try:
                depth = self.depth[view.name].depth_for(view.stamp_ns, view.frame_id, view.hw, deadline)
                if view.rectification is not None:
                    depth = view.rectification.depth(depth)
                maps[i] = fitted(depth, views[0].hw, self.depth[view.name].topic)
                found = True
            except DepthError as error:
                notes.add(str(error), error.kind)
        return maps if found else None

    def _robot(self, stamp_ns: int, notes: _Notes, deadline: float) -> RobotPoints | None:
        base = self.settings.base_frame
        try:
            points, frame = self.robot.surface(stamp_ns, base, deadline)
            if frame != base:
                T = self.transforms.lookup(base, frame, stamp_ns, deadline)
                moved = points.points @ T[:3, :3].T + T[:3, 3]
                points = RobotPoints(moved.astype(np.float32), points.colors, points.links)
        except (RobotError, TransformError) as error:
            notes.add(f"The robot's surface is not known: {error}", error.kind)
            return None
        except UserError as error:
            notes.add(f"The robot's surface is not known: {error}", RobotFault.DESCRIPTION)
            return None
        return points

    def _note_missing(self, views: Sequence[ViewSource], *all_notes: _Notes) -> None:
        """What the next better view lacks. Inputs that are merely absent are named when all before them is there."""
        texts, logged = [], []
        if self.settings.use_tf != 'never':
            texts = [
                f'The calibration of anchor_{view.name} is not known; publish camera_info beside {view.topic}.'
                for view in views
                if view.K is None
            ]
        for notes in all_notes:
            before = bool(texts)
            for text, kind in zip(notes.texts, notes.kinds, strict=True):
                if kind not in ABSENT:
                    logged.append((text, kind))
                if kind not in ABSENT or not before or notes is all_notes[1]:
                    texts.append(text)
        if not texts and self.robot.hint and self.settings.use_robot_model != 'never':
            texts.append(self.robot.hint)
        real = self._wrist_info or self.calibration.wrist_camera
        guessed = real is None and self.settings.wrist_fov is None
        if not texts and guessed and self.settings.use_tf != 'never':
            texts.append(
                f'The wrist camera is taken to see {DEFAULT_FOV:g} degrees; give wrist_camera_info (of the camera to be '
                'imitated) or wrist_fov.'
            )
        notes_on_lenses = [view.note for view in views if view.note]
        self.missing = (*texts, *notes_on_lenses)
        for view in views:
            if view.note and self._metrics.should_log('distortion', view.topic, every=math.inf):
                self._node.get_logger().warning(view.note)
        for text, kind in logged:
            if self._metrics.should_log('knowledge', type(kind).__name__, kind.value, every=30.0):
                self._node.get_logger().warning(text)

    def _remember_unmet(self, stamp_ns: int, text: str) -> None:
        self._unmet[stamp_ns] = text
        while len(self._unmet) > REMEMBERED:
            self._unmet.popitem(last=False)

    def _on_wrist_info(self, msg: CameraInfo) -> None:
        try:
            usable = bool(msg.width and msg.height) and to_intrinsics(msg, msg.width, msg.height) is not None
        except UserError as error:
            usable = False
            if self._metrics.should_log('wrist info', every=60.0):
                self._node.get_logger().warning(
                    f'The calibration on {self.settings.wrist_camera_info} is not used: {error}'
                )
        if usable:
            self._wrist_info = msg

    def _listen(self, kind: type, topic: str, callback: Any, latched: bool = False) -> None:
        """Best effort receives from every publisher; latched topics are reliable by nature."""
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=100,
            reliability=ReliabilityPolicy.RELIABLE if latched else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )  # fmt: skip
        self._subscriptions.append(self._node.create_subscription(kind, topic, callback, qos))

    def _now(self) -> int:
        return self._node.get_clock().now().nanoseconds


class _Notes:
    """Sentences on what is missing of one kind, with the kind of fault."""

    def __init__(self):
        self.texts: list[str] = []
        self.kinds: list[Any] = []

    def add(self, text: str, kind: Any) -> None:
        self.texts.append(text)
        self.kinds.append(kind)


def _is_file(source: str | None) -> bool:
    return bool(source) and str(source).endswith(('.yaml', '.yml'))


def read_camera_info(path: str | Path | None) -> CameraInfo:
    """A calibration file as camera_calibration writes it.

    Raises:
        UserError: It is no such file, or describes no camera.
    """
    fix = 'give a YAML file with image_width, image_height and camera_matrix, as camera_calibration writes it'
    text = check_file(Path(str(path)).expanduser(), fix, 1 << 20).read_bytes()
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
