"""The robot as its topics tell it: joint positions at any time of the last seconds, and the surface that its description gives."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from wristworld_ros.errors import UserError
from wristworld_ros.ros.conversions import first_line, to_ns
from wristworld_ros.ros.qos import best_effort, latched
from wristworld_ros.settings import NodeSettings
from wristworld_ros.types import RobotPoints

KEEP_NS = 10_000_000_000  # of joint positions
MAX_JOINTS = 1000  # a publisher of ever new names must not fill the memory
CLOCK_GAP_S = 5.0  # joint states that far from an image have stamps of another clock
ONE_CLOCK = 'let all computers share one clock (chrony or PTP), and set use_sim_time on all nodes or on none'
INSTALL = 'install the package that holds them (franka_description) on this machine, and wristworld-ros[robot], which reads them'


class RobotFault(Enum):
    """Why the robot's surface is not known."""

    NO_DESCRIPTION = 'no description'
    LOADING = 'loading'
    DESCRIPTION = 'description'
    NO_SURFACE = 'no surface'
    NO_JOINTS = 'no joints'
    SILENT = 'silent'
    TIME = 'time'


class RobotError(UserError):
    """A surface that is not known. kind: why."""

    def __init__(self, kind: RobotFault, what: str, fix: str):
        super().__init__(what, fix)
        self.kind = kind


class SurfaceModel(Protocol):
    """What is used of a `robot.description.RobotModel`."""

    joint_names: tuple[str, ...]
    link_names: tuple[str, ...]
    root: str
    missing_meshes: tuple[str, ...]

    def surface(self, joints: Mapping[str, float], base: str | None = None) -> RobotPoints:
        """Points in the frame of link `base`."""


def load_model(text: str) -> SurfaceModel:
    """The model of a URDF; it samples meshes, which takes seconds."""
    from wristworld_ros.robot.description import RobotModel  # loads mesh libraries

    return RobotModel.from_urdf(text)


class RobotState:
    """Topics are taken in by the executor's thread, `surface` is asked by the worker's, and models load in a thread of their own.

    settings: assignable; live ones count at once. model: of the last description that could be loaded, or None. fault: why the last description cannot be used.
    """

    def __init__(self, node: Node, settings: NodeSettings, load: Callable[[str], SurfaceModel] = load_model):
        self._node, self.settings, self._load = node, settings, load
        self._changed = threading.Condition()
        self._joints: dict[str, tuple[list[int], list[float]]] = {}  # stamps, positions
        self._heard = float('-inf')
        self._text = ''
        self._loading = False
        self._subscriptions: list[Any] = []
        self.model: SurfaceModel | None = None
        self.fault: UserError | None = None

    def subscribe(self) -> None:
        """Listen to /joint_states and /robot_description, both with the node's remappings."""
        self.unsubscribe()
        self._subscriptions = [
            self._node.create_subscription(JointState, '/joint_states', self.take_joints, best_effort(50)),
            self._node.create_subscription(String, '/robot_description', self.take_description, latched()),
        ]

    def unsubscribe(self) -> None:
        """Receive nothing more."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def clear(self) -> None:
        """Forget all positions, as after a jump of the clock."""
        with self._changed:
            self._joints.clear()

    def take_joints(self, msg: JointState) -> None:
        """Called by rclpy with every message; one may hold some of the joints only."""
        stamp_ns = to_ns(msg.header.stamp)
        with self._changed:
            self._heard = time.monotonic()
            for name, position in zip(msg.name, msg.position, strict=False):
                if np.isfinite(position) and (name in self._joints or len(self._joints) < MAX_JOINTS):
                    self._insert(name, stamp_ns, position)
            self._changed.notify_all()

    def take_description(self, msg: String) -> None:
        """Called by rclpy with every description; the same one again is not loaded again."""
        with self._changed:
            if msg.data == self._text:
                return
            self._text, self._loading = msg.data, True
        threading.Thread(target=self._load_description, args=(msg.data,), name='robot model', daemon=True).start()

    def surface(self, stamp_ns: int, base: str, deadline: float) -> tuple[RobotPoints, str]:
        """The robot's surface at a time.

        Args:
            stamp_ns: The time.
            base: Link whose frame is wanted.
            deadline: By time.monotonic(), until when to wait for joint states of that time.

        Returns:
            The points, and the frame they are in: base where the description has that link, its root otherwise.

        Raises:
            RobotError: It is not known; `kind` says why.
        """
        model = self._ready_model()
        joints = self._positions(model.joint_names, stamp_ns, deadline)
        frame = base if base in model.link_names else model.root
        points = model.surface(joints, frame)
        if not len(points.points):
            what = f'/robot_description gives no surface{self._lacking(model)}'
            raise RobotError(RobotFault.NO_SURFACE, what, INSTALL)
        return points, frame

    @property
    def hint(self) -> str:
        """One sentence on what the description in use lacks; '' for nothing."""
        if not self.model or not self.model.missing_meshes:
            return ''
        return f'Some links of /robot_description have no surface{self._lacking(self.model)}; {INSTALL}.'

    @staticmethod
    def _lacking(model: SurfaceModel) -> str:
        meshes = model.missing_meshes
        names = ', '.join(meshes[:3]) + (', ...' if len(meshes) > 3 else '')
        return f', for meshes are missing ({names})' if meshes else ''

    def _ready_model(self) -> SurfaceModel:
        with self._changed:
            text, loading, model, fault = self._text, self._loading, self.model, self.fault
        if not text:
            fix = 'start robot_state_publisher, or remap the topic'
            raise RobotError(RobotFault.NO_DESCRIPTION, 'No robot description on /robot_description', fix)
        if loading:
            raise RobotError(RobotFault.LOADING, 'The robot description is being loaded', 'wait some seconds')
        if fault:
            raise RobotError(RobotFault.DESCRIPTION, f'/robot_description cannot be used: {fault.what}', fault.fix)
        assert model is not None  # else it would load, or have a fault
        return model

    def _positions(self, names: tuple[str, ...], stamp_ns: int, deadline: float) -> dict[str, float]:
        """Of all joints at a time, radians or metres."""
        with self._changed:
            while True:
                if not self._joints:
                    fix = 'start joint_state_broadcaster, or remap the topic'
                    raise RobotError(RobotFault.SILENT, 'No joint states on /joint_states', fix)
                absent = [name for name in names if name not in self._joints]
                if absent:
                    what = f'/joint_states lacks {", ".join(absent[:4])}, which /robot_description has'
                    raise RobotError(
                        RobotFault.NO_JOINTS, what, 'let all joints be published, those of the gripper too'
                    )
                now = time.monotonic()
                if now - self._heard > self.settings.freshness:
                    what = f'/joint_states has been silent for {now - self._heard:.1f} s'
                    raise RobotError(RobotFault.SILENT, what, 'see whether the robot and joint_state_broadcaster run')
                behind = max((stamp_ns - self._joints[name][0][-1] for name in names), default=0)
                if behind <= 0 or now >= deadline:
                    return {name: self._at(name, stamp_ns) for name in names}
                self._changed.wait(deadline - now)

    def _at(self, name: str, stamp_ns: int) -> float:
        stamps, positions = self._joints[name]
        if not stamps[0] <= stamp_ns <= stamps[-1]:
            off_s = max(stamps[0] - stamp_ns, stamp_ns - stamps[-1]) * 1e-9
            side = 'behind' if stamp_ns > stamps[-1] else 'after'
            if off_s > CLOCK_GAP_S:
                raise RobotError(
                    RobotFault.TIME, f'Joint states of {name} are {off_s:.1f} s {side} the image', ONE_CLOCK
                )
            fix = f'raise tf_timeout, publish them at a higher rate, or {ONE_CLOCK}'
            raise RobotError(RobotFault.TIME, f'Joint states of {name} are {1e3 * off_s:.0f} ms {side} the image', fix)
        at = bisect_left(stamps, stamp_ns)
        if stamps[at] == stamp_ns:
            return positions[at]
        share = (stamp_ns - stamps[at - 1]) / (stamps[at] - stamps[at - 1])
        return (1 - share) * positions[at - 1] + share * positions[at]

    def _insert(self, name: str, stamp_ns: int, position: float) -> None:
        stamps, positions = self._joints.setdefault(name, ([], []))
        if stamps and stamp_ns < stamps[-1] - KEEP_NS:  # the clock was set back
            stamps.clear()
            positions.clear()
        at = bisect_left(stamps, stamp_ns)
        if at < len(stamps) and stamps[at] == stamp_ns:
            positions[at] = position
            return
        stamps.insert(at, stamp_ns)
        positions.insert(at, position)
        old = bisect_left(stamps, stamps[-1] - KEEP_NS)
        del stamps[:old], positions[:old]

    def _load_description(self, text: str) -> None:
        """In a thread of its own."""
        model, fault = None, None
        try:
            model = self._load(text)
        except UserError as error:
            fault = error
        except Exception as error:  # libraries of URDF and meshes raise anything
            fault = UserError(f'{type(error).__name__}: {first_line(error)}', 'repair the description (check_urdf)')
        with self._changed:
            if text == self._text:  # no newer one came meanwhile
                self.model, self.fault, self._loading = model, fault, False
                self._changed.notify_all()
