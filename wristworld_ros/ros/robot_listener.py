"""Listens to what the robot says beside the anchors' images (TF, depth, joint states, description, a running node) for the doctor.

What the node makes of it is judged by the node's own code, so that the doctor says what the node would.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, JointState
from tf2_msgs.msg import TFMessage

from wristworld_ros.errors import UserError
from wristworld_ros.msg import VirtualWristStatus
from wristworld_ros.robot.hand_frames import between_links
from wristworld_ros.ros.conversions import to_ns
from wristworld_ros.ros.depth_camera import DepthCamera, DepthError, metric_depth
from wristworld_ros.ros.lifecycle import STEADY
from wristworld_ros.ros.names import normalized_frame
from wristworld_ros.ros.qos import TF_DEPTH, best_effort, latched
from wristworld_ros.ros.robot_state import RobotError, RobotState, SurfaceModel
from wristworld_ros.ros.robot_survey import Depth, Description, Frame, Joints, RobotSurvey, RunningWrist
from wristworld_ros.ros.transforms import TransformBuffer, TransformError
from wristworld_ros.settings import NodeSettings
from wristworld_ros.types import Geometry

STATUS_TYPE = 'wristworld_ros/msg/VirtualWristStatus'
LOADING_S = 20.0  # until a robot description should have been read
COARSE = 0.05  # metres between its surface points; the doctor only wants to know whether there are any
_NEWEST = 2000  # arrivals that ages are taken from


@dataclass(frozen=True)
class SeenAnchor:
    """What came of one anchor's colour images. frame: of TF. frame_id: as headers have it. arrived: by time.monotonic()."""

    name: str
    frame: str
    frame_id: str
    hw: tuple[int, int]
    stamps: list[int]
    arrived: list[float]


class RobotListener:
    """Subscribes as `ros.knowledge.Knowledge` does with the same settings."""

    def __init__(self, node: Node, settings: NodeSettings):
        self._node, self._settings = node, settings
        self._transforms = TransformBuffer()
        self._edges = _Edges()
        self._depth = {name: _DepthListener(node, name, settings) for name in settings.anchors}
        self._robot = _RobotListener(node, settings)
        self._statuses: dict[str, VirtualWristStatus] = {}
        self._status_topics: set[str] = set()
        node.create_subscription(TFMessage, '/tf', lambda msg: self._on_tf(msg, False), best_effort(TF_DEPTH))
        node.create_subscription(TFMessage, '/tf_static', lambda msg: self._on_tf(msg, True), latched(TF_DEPTH))
        for camera in self._depth.values():
            camera.subscribe()
        self._robot.subscribe()
        node.create_timer(0.3, self.refresh, clock=STEADY)

    @property
    def topics(self) -> set[str]:
        """Image topics that are listened to."""
        return {camera.topic for camera in self._depth.values()}

    @property
    def complete(self) -> bool:
        """Whether everything that comes seldom was heard where somebody publishes it: description, depth, status of nodes."""
        seldom = [camera.heard or not camera.publishers for camera in self._depth.values()]
        seldom.append(self._robot.described or not self._robot.describers)
        return all(seldom) and self._status_topics <= set(self._statuses)

    def restart(self) -> None:
        """Count from here; what is latched stays."""
        self._edges.restart()
        self._robot.restart_count()
        for camera in self._depth.values():
            camera.restart_count()

    def refresh(self) -> None:
        """Follow publishers that came: of depth, and virtual wrists that run."""
        for camera in self._depth.values():
            camera.refresh()
        for topic, kinds in self._node.get_topic_names_and_types():
            if STATUS_TYPE in kinds and topic not in self._status_topics:
                self._status_topics.add(topic)
                self._node.create_subscription(
                    VirtualWristStatus,
                    topic,
                    lambda msg, topic=topic: self._statuses.update({topic: msg}),
                    best_effort(1),
                )

    def survey(self, seconds: float, anchors: Sequence[SeenAnchor], others: Sequence[str]) -> RobotSurvey:
        """What came since `restart`.

        Args:
            seconds: How long ago that was.
            anchors: What came of their colour images.
            others: Image topics that belong to no anchor.
        """
        now_ns = self._node.get_clock().now().nanoseconds
        seen = next((a for a in anchors if a.stamps), None)
        # The middle of what came: transforms and joint states of that time have arrived too, if they do at all.
        stamp_ns = sorted(seen.stamps)[len(seen.stamps) // 2] if seen else now_ns - round(0.5e9 * seconds)
        description, base = self._robot.description(stamp_ns), normalized_frame(self._settings.base_frame)
        wanted = self._wanted(anchors)
        if description.root and base not in description.links:
            wanted.append((description.root, 'the robot description'))
        return RobotSurvey(
            tf=self._edges.count,
            base=self._transforms.has(base),
            roots=self._edges.roots(),
            frames=tuple(self._frame(name, use, stamp_ns, seen) for name, use in wanted),
            depth=tuple(self._depth[a.name].result(a) for a in anchors),
            depth_topics=tuple(topic for topic in others if 'depth' in topic.lower()),
            joints=self._robot.joints(seconds),
            description=description,
            wrists=tuple(_wrist(topic, status) for topic, status in sorted(self._statuses.items())),
        )

    def _wanted(self, anchors: Sequence[SeenAnchor]) -> list[tuple[str, str]]:
        """Frames that the node looks up, with what for."""
        s = self._settings
        frames = [(a.frame, f'anchor_{a.name}') for a in anchors]
        if s.wrist_camera_frame:
            return [*frames, (normalized_frame(s.wrist_camera_frame), 'the wrist camera')]
        hand, mount = normalized_frame(s.hand_frame), normalized_frame(s.wrist_mount_frame or s.hand_frame)
        frames.append((mount, 'the hand' if mount == hand else "the wrist camera's mount"))
        if between_links(hand, mount) is None:
            frames.append((hand, 'the hand'))
        return frames

    def _frame(self, name: str, use: str, stamp_ns: int, seen: SeenAnchor | None) -> Frame:
        base, parents = normalized_frame(self._settings.base_frame), self._edges.parents(name)
        try:
            self._transforms.lookup(base, name, stamp_ns)
        except TransformError as error:
            return Frame(name, use, parents, bad=error.what, fix=error.fix)
        age = self._edges.lateness(name)
        if age is None:
            return Frame(name, use, parents, static=True)
        return Frame(name, use, parents, False, age, self._edges.wait(name, seen) if seen else 0.0)

    def _on_tf(self, msg: TFMessage, static: bool) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        self._transforms.add(msg.transforms, static, now_ns)
        for edge in msg.transforms:
            child, parent = normalized_frame(edge.child_frame_id), normalized_frame(edge.header.frame_id)
            self._edges.add(child, parent, static, to_ns(edge.header.stamp), now_ns)


class _Edges:
    """The edges of TF as they came. count: of all transforms."""

    def __init__(self) -> None:
        self.count = 0
        self._parents: dict[str, dict[str, bool]] = defaultdict(dict)  # by child: parent, and whether it is static
        self.restart()

    def restart(self) -> None:
        """Forget ages; edges stay."""
        self._ages: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_NEWEST))
        self._stamps: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=_NEWEST))
        self._arrived: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_NEWEST))

    def add(self, child: str, parent: str, static: bool, stamp_ns: int, now_ns: int) -> None:
        """One transform came."""
        self.count += 1
        self._parents[child][parent] = static
        if not static:
            self._ages[child].append((now_ns - stamp_ns) * 1e-9)
            self._stamps[child].append(stamp_ns)
            self._arrived[child].append(time.monotonic())

    def parents(self, child: str) -> tuple[str, ...]:
        """All that were heard, static ones first."""
        known = self._parents.get(child, {})
        return tuple(sorted(known, key=lambda parent: (not known[parent], parent)))

    def roots(self) -> tuple[str, ...]:
        """Frames that have no parent."""
        return tuple(sorted({p for parents in self._parents.values() for p in parents} - set(self._parents)))

    def lateness(self, frame: str) -> float | None:
        """Seconds from stamp to arrival of the edge above a frame that is the latest; None where all are static."""
        ages = [float(np.median(self._ages[child])) for child in self._above(frame) if self._ages.get(child)]
        return max(ages, key=abs) if ages else None

    def wait(self, frame: str, seen: SeenAnchor) -> float:
        """Seconds, median over images, from the arrival of one to that of the transforms which reach its time; 0 for no wait."""
        waits = []
        for child in self._above(frame):
            if stamps := self._stamps.get(child):
                arrived = np.array(self._arrived[child])
                newest = np.maximum.accumulate(np.array(stamps, np.int64))
                at = np.searchsorted(newest, np.array(seen.stamps, np.int64))
                gaps = [arrived[k] - when for k, when in zip(at, seen.arrived, strict=False) if 0 < k < len(arrived)]
                waits += [float(np.median(gaps))] if gaps else []
        return max(0.0, *waits) if waits else 0.0

    def _above(self, frame: str) -> list[str]:
        chain: list[str] = []
        while frame not in chain and self._parents.get(frame):
            chain.append(frame)
            frame = self.parents(frame)[0]
        return chain


class _DepthListener(DepthCamera):
    """Depth of one anchor, with what came of it."""

    def __init__(self, node: Node, name: str, settings: NodeSettings):
        super().__init__(node, name, settings)
        self._name = name
        self.heard = False
        self.restart_count()

    @property
    def publishers(self) -> int:
        """How many there are."""
        return self._node.count_publishers(self.topic)

    def restart_count(self) -> None:
        """Count from here."""
        self._last: Image | CompressedImage | None = None
        self._stamps: list[int] = []

    def take(self, msg: Image | CompressedImage) -> None:
        """Called by rclpy with every depth image."""
        super().take(msg)
        self._last, self.heard = msg, True
        self._stamps.append(to_ns(msg.header.stamp))

    def result(self, anchor: SeenAnchor) -> Depth:
        """What came, and whether the node would use it beside these colour images."""
        publishers, last = self.publishers, self._last
        if last is None:
            bad = f'No depth images on {self.topic}' if publishers else ''
            fix = 'check that the camera runs, and that both sides use the same RMW_IMPLEMENTATION'
            return Depth(self._name, self.topic, publishers, bad=bad, fix=fix if bad else '')
        bad, fix = self._fault(anchor, self._stamps[-1])
        try:
            depth = metric_depth(last, self.topic, self._settings.max_image_pixels)
        except DepthError:
            depth = np.zeros((getattr(last, 'height', 0), getattr(last, 'width', 0)), np.float32)
        known = depth[depth > 0]
        near, far = np.quantile(known, [0.1, 0.9]) if known.size else (0.0, 0.0)
        return Depth(
            self._name,
            self.topic,
            publishers,
            len(self._stamps),
            depth.shape[1],
            depth.shape[0],
            last.format if isinstance(last, CompressedImage) else last.encoding,
            normalized_frame(last.header.frame_id),
            _median_lag(self._stamps, anchor.stamps),
            known.size / max(1, depth.size),
            float(near),
            float(far),
            bad,
            fix,
        )

    def _fault(self, anchor: SeenAnchor, newest_ns: int) -> tuple[str, str]:
        """Why the node would not use it beside the colour image that is nearest to the newest depth image."""
        if not anchor.stamps:
            return '', ''
        stamp_ns = min(anchor.stamps, key=lambda stamp: abs(stamp - newest_ns))
        try:
            self.depth_for(stamp_ns, anchor.frame_id, anchor.hw, 0.0)
        except DepthError as error:
            return error.what, error.fix
        return '', ''


class _RobotListener(RobotState):
    """Joint states and description, with what came of them."""

    def __init__(self, node: Node, settings: NodeSettings):
        super().__init__(node, settings, load_coarse)
        self.restart_count()

    @property
    def described(self) -> bool:
        """Whether a description came."""
        return bool(self._text)

    @property
    def describers(self) -> int:
        """How many publish one."""
        return self._node.count_publishers(self._node.resolve_topic_name('/robot_description'))

    def restart_count(self) -> None:
        """Count from here."""
        self._arrived: list[float] = []
        self._ages: list[float] = []

    def take_joints(self, msg: JointState) -> None:
        """Called by rclpy with every message."""
        super().take_joints(msg)
        self._arrived.append(time.monotonic())
        self._ages.append((self._node.get_clock().now().nanoseconds - to_ns(msg.header.stamp)) * 1e-9)

    def joints(self, seconds: float) -> Joints:
        """What came of /joint_states in so many seconds."""
        publishers = self._node.count_publishers(self._node.resolve_topic_name('/joint_states'))
        if not self._arrived:
            return Joints(publishers)
        return Joints(
            publishers, len(self._arrived) / seconds, tuple(sorted(self._joints)), float(np.median(self._ages))
        )

    def description(self, stamp_ns: int) -> Description:
        """What came of /robot_description, and whether the surface is known at a time; it waits until that has been read."""
        publishers = self.describers
        end = time.monotonic() + LOADING_S
        while self._loading and time.monotonic() < end:
            time.sleep(0.05)
        bad = fix = ''
        try:
            self.surface(stamp_ns, self.settings.base_frame, 0.0)
        except (RobotError, UserError) as error:
            bad, fix = error.what, error.fix
        model = self.model
        if model is None:
            return Description(publishers, self.described, bad=bad, fix=fix)
        return Description(
            publishers, True, model.root, model.joint_names, model.link_names, model.missing_meshes, bad, fix
        )


def load_coarse(text: str) -> SurfaceModel:
    """The model of a URDF with few surface points."""
    from wristworld_ros.robot.description import RobotModel  # loads mesh libraries

    return RobotModel.from_urdf(text, COARSE)


def _median_lag(stamps: Sequence[int], reference: Sequence[int]) -> float:
    """Median of the seconds that stamps are behind the nearest ones of the reference, both nanoseconds; 0 without any."""
    if not stamps or not reference:
        return 0.0
    gaps = np.subtract.outer(np.array(reference, np.int64), np.array(stamps, np.int64))
    nearest = gaps[np.abs(gaps).argmin(0), np.arange(len(stamps))]
    return float(np.median(nearest)) * 1e-9


def _wrist(topic: str, status: VirtualWristStatus) -> RunningWrist:
    residuals = tuple(float(value) if np.isfinite(value) else None for value in status.residuals)
    return RunningWrist(
        topic,
        status.state == VirtualWristStatus.ACTIVE,
        Geometry(status.geometry).name,
        tuple(status.anchors),
        residuals,
        tuple(status.missing),
        status.reason,
    )
