"""What the node knows of an anchor set beside its pictures: places of cameras, depth, the wrist camera, the robot's surface.

Nothing known is no error: what is missing for a better view is one sentence each, with how to get it.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tf2_msgs.msg import TFMessage

from wristworld_ros.errors import UserError
from wristworld_ros.ros.calibration import NodeCalibration
from wristworld_ros.ros.depth_camera import DepthCamera, DepthError, fitted
from wristworld_ros.ros.known_wrist import DEFAULT_FOV, KnownWrist
from wristworld_ros.ros.lifecycle import ResponsiveLifecycleNode
from wristworld_ros.ros.metrics import Metrics
from wristworld_ros.ros.missing import Notes, sentences
from wristworld_ros.ros.qos import TF_DEPTH, best_effort, latched
from wristworld_ros.ros.rectification import Rectification
from wristworld_ros.ros.robot_state import RobotError, RobotFault, RobotState
from wristworld_ros.ros.transforms import TransformBuffer, TransformError
from wristworld_ros.settings import NodeSettings
from wristworld_ros.types import Camera, RobotPoints

REMEMBERED = 256  # sets whose unmet requirements are remembered until their frames are ready


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
        self._node, self._metrics, self._settings = node, metrics, settings
        self.transforms = TransformBuffer()
        self.robot = RobotState(node, settings)
        self.depth = {name: DepthCamera(node, name, settings) for name in settings.anchors}
        self.missing: tuple[str, ...] = ()
        self.calibration = NodeCalibration(settings)
        self.wrist = KnownWrist(node, settings, metrics, self.calibration, self.transforms, wrist_hw)
        self._subscriptions: list[Any] = []
        self._unmet: OrderedDict[int, str] = OrderedDict()

    @property
    def settings(self) -> NodeSettings:
        """The present settings."""
        return self._settings

    @settings.setter
    def settings(self, settings: NodeSettings) -> None:
        self._settings = self.robot.settings = settings

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
            self._subscriptions = [
                self._node.create_subscription(TFMessage, '/tf', self._on_tf, best_effort(TF_DEPTH)),
                self._node.create_subscription(TFMessage, '/tf_static', self._on_tf_static, latched(TF_DEPTH)),
            ]
        self.wrist.subscribe()

    def unsubscribe(self) -> None:
        """Receive nothing more."""
        for camera in self.depth.values():
            camera.unsubscribe()
        self.robot.unsubscribe()
        self.wrist.unsubscribe()
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
        places, wrist, depth, robot = Notes(), Notes(), Notes(), Notes()
        T = self._placed(views, places, deadline)
        camera = self.wrist.in_base(views[0].stamp_ns, wrist, deadline) if s.use_tf != 'never' else None
        mounted = self.wrist.on_hand(views[0].stamp_ns, wrist)
        maps = self._depth(views, depth, deadline) if s.use_depth != 'never' else None
        points = self._robot(views[0].stamp_ns, robot, deadline) if s.use_robot_model != 'never' else None
        self._note_missing(views, places, wrist, depth, robot)
        wants = (
            (s.use_tf, [*places.texts, *wrist.texts]),
            (s.use_depth, depth.texts),
            (s.use_robot_model, robot.texts),
        )
        unmet = next((texts[0] for use, texts in wants if use == 'require' and texts), '')
        self._remember_unmet(views[0].stamp_ns, unmet)
        return Known(maps, T, camera, points, mounted)

    def unmet(self, stamp_ns: int) -> str:
        """What the settings require and the set of that stamp had not, one sentence; '' where nothing."""
        return self._unmet.get(stamp_ns, '')

    def _placed(self, views: Sequence[ViewSource], notes: Notes, deadline: float) -> np.ndarray | None:
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

    def _depth(self, views: Sequence[ViewSource], notes: Notes, deadline: float) -> np.ndarray | None:
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

    def _robot(self, stamp_ns: int, notes: Notes, deadline: float) -> RobotPoints | None:
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

    def _note_missing(
        self, views: Sequence[ViewSource], places: Notes, wrist: Notes, depth: Notes, robot: Notes
    ) -> None:
        """Say in `missing` what the next better view lacks, and log what is wrong."""
        texts = sentences(self._uncalibrated(views), places, wrist, depth, robot)
        if not texts and self.robot.hint and self.settings.use_robot_model != 'never':
            texts.append(self.robot.hint)
        if not texts and self.wrist.fov_is_guessed and self.settings.use_tf != 'never':
            texts.append(
                f'The wrist camera is taken to see {DEFAULT_FOV:g} degrees; give wrist_camera_info (of the camera to be '
                'imitated) or wrist_fov.'
            )
        self.missing = (*texts, *(view.note for view in views if view.note))
        for view in views:
            if view.note and self._metrics.should_log('distortion', view.topic, every=math.inf):
                self._node.get_logger().warning(view.note)
        for text, kind in [*places.faults, *wrist.faults, *depth.faults, *robot.faults]:
            if self._metrics.should_log('knowledge', type(kind).__name__, kind.value, every=30.0):
                self._node.get_logger().warning(text)

    def _uncalibrated(self, views: Sequence[ViewSource]) -> list[str]:
        """A sentence for every anchor without intrinsics, where places are wanted at all."""
        if self.settings.use_tf == 'never':
            return []
        return [
            f'The calibration of anchor_{view.name} is not known; publish camera_info beside {view.topic}.'
            for view in views
            if view.K is None
        ]

    def _remember_unmet(self, stamp_ns: int, text: str) -> None:
        """Until the frames of that stamp are ready. A looping bag brings a stamp again, whose set may then have everything."""
        self._unmet.pop(stamp_ns, None)
        if text:
            self._unmet[stamp_ns] = text
        while len(self._unmet) > REMEMBERED:
            self._unmet.popitem(last=False)

    def _on_tf(self, msg: TFMessage) -> None:
        self.transforms.add(msg.transforms, now_ns=self._now())

    def _on_tf_static(self, msg: TFMessage) -> None:
        self.transforms.add(msg.transforms, static=True)

    def _now(self) -> int:
        return self._node.get_clock().now().nanoseconds
