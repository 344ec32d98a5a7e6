"""The tree of TF frames: edges from /tf and /tf_static, each with a bounded past, interpolated and never extrapolated.

A buffer of our own, for tf2_ros is not to be had from pip. It is stricter: a frame with two parents and stamps of another
clock are errors with a name, where tf2 takes whichever message came last.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from geometry_msgs.msg import TransformStamped
from scipy.spatial.transform import Rotation, Slerp

from wristworld_ros.errors import UserError
from wristworld_ros.ros.conversions import to_ns
from wristworld_ros.ros.names import normalized_frame

KEEP_S = 10.0  # of each edge
RECENT_S = 1.0  # an edge heard in so many seconds is alive
CLOCK_GAP_S = 5.0  # stamps that far from what is asked for, on an edge that is alive, are of another clock
FUTURE_S = 1.0  # so are stamps that far ahead of the node's clock
MAX_FRAMES = 10_000  # a publisher of ever new names must not fill the memory


class TransformFault(Enum):
    """Why a transform is not known. TOO_NEW is the one that waiting may cure."""

    MISSING = 'missing'
    TOO_NEW = 'too new'
    TOO_OLD = 'too old'
    TWO_PARENTS = 'two parents'
    NOT_CONNECTED = 'not connected'
    CLOCK = 'clock'


class TransformError(UserError):
    """A transform that is not known. kind: why."""

    def __init__(self, kind: TransformFault, what: str, fix: str):
        super().__init__(what, fix)
        self.kind = kind


@dataclass
class _Edge:
    """The poses of one child in one parent. stamps_ns: ascending; a static edge has one sample for all times."""

    parent: str
    static: bool
    stamps_ns: list[int] = field(default_factory=list)
    poses: list[np.ndarray] = field(default_factory=list)  # T_parent_child, float64 [4, 4]
    heard: float = 0.0  # time.monotonic()
    ahead_s: float = 0.0  # of the newest stamp before the node's clock, when it came

    def add(self, stamp_ns: int, T_parent_child: np.ndarray, keep_ns: int) -> None:
        if self.static:
            self.stamps_ns, self.poses = [stamp_ns], [T_parent_child]
            return
        if self.stamps_ns and stamp_ns < self.stamps_ns[-1] - keep_ns:  # the clock was set back
            self.stamps_ns, self.poses = [], []
        at = bisect_left(self.stamps_ns, stamp_ns)
        if at < len(self.stamps_ns) and self.stamps_ns[at] == stamp_ns:
            self.poses[at] = T_parent_child
            return
        self.stamps_ns.insert(at, stamp_ns)
        self.poses.insert(at, T_parent_child)
        old = bisect_left(self.stamps_ns, self.stamps_ns[-1] - keep_ns)
        del self.stamps_ns[:old], self.poses[:old]


class TransformBuffer:
    """All edges that were heard. Safe to use from any thread."""

    def __init__(self, keep_s: float = KEEP_S):
        self._keep_s = keep_s
        self._edges: dict[str, dict[str, _Edge]] = {}  # by child, by parent
        self._changed = threading.Condition()

    def add(self, transforms: Iterable[TransformStamped], static: bool = False, now_ns: int | None = None) -> None:
        """Take the edges of a message in. Edges that are no rigid transforms are ignored, as in tf2.

        Args:
            transforms: The edges.
            static: Whether they come from /tf_static.
            now_ns: The node's clock, by which stamps of the future are noticed; None for no such check.
        """
        with self._changed:
            for edge in transforms:
                T = _matrix(edge)
                if T is not None:
                    self._add(edge, T, static, now_ns)
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget all edges but the static ones, as after a jump of the clock."""
        with self._changed:
            for parents in self._edges.values():
                for name in [name for name, edge in parents.items() if not edge.static]:
                    del parents[name]
            self._edges = {child: parents for child, parents in self._edges.items() if parents}

    def lookup(self, target: str, source: str, stamp_ns: int, deadline: float | None = None) -> np.ndarray:
        """The pose of one frame in another.

        Args:
            target: Frame that coordinates are taken to.
            source: Frame that they are taken from.
            stamp_ns: Time of the pose.
            deadline: By time.monotonic(), until when to wait for edges that are alive and not there yet; None not to wait.

        Returns:
            T_target_source, float64 [4, 4], metres.

        Raises:
            TransformError: It is not known; `kind` says why.
        """
        target, source = normalized_frame(target), normalized_frame(source)
        with self._changed:
            while True:
                try:
                    return self._lookup(target, source, stamp_ns)
                except TransformError as error:
                    left = deadline - time.monotonic() if deadline is not None else 0.0
                    if error.kind is not TransformFault.TOO_NEW or left <= 0:
                        raise
                    self._changed.wait(left)

    def has(self, frame: str) -> bool:
        """Whether a frame was ever heard of."""
        name = normalized_frame(frame)
        with self._changed:
            return name in self._edges or any(name in parents for parents in self._edges.values())

    def _add(self, edge: TransformStamped, T: np.ndarray, static: bool, now_ns: int | None) -> None:
        parent, child = normalized_frame(edge.header.frame_id), normalized_frame(edge.child_frame_id)
        if not parent or not child or parent == child:
            return
        if child not in self._edges and len(self._edges) >= MAX_FRAMES:
            return
        parents = self._edges.setdefault(child, {})
        if parent not in parents or parents[parent].static != static:
            parents[parent] = _Edge(parent, static)
        stamp_ns, known = to_ns(edge.header.stamp), parents[parent]
        known.heard = time.monotonic()
        known.ahead_s = (stamp_ns - now_ns) * 1e-9 if now_ns is not None and not static else 0.0
        known.add(stamp_ns, T, round(self._keep_s * 1e9))

    def _lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        if target == source:
            return np.eye(4)
        above_target, above_source = self._chain(target), self._chain(source)
        common = next((name for name in above_source if name in above_target), None)
        if common is None:
            raise self._unconnected(target, source, above_target, above_source)
        T_common_target = self._down(target, common, stamp_ns)
        T_common_source = self._down(source, common, stamp_ns)
        return np.linalg.inv(T_common_target) @ T_common_source

    def _chain(self, frame: str) -> list[str]:
        """A frame and all above it, up to the root or to the first that has two parents."""
        chain = [frame]
        while edge := self._only_edge(chain[-1]):
            if edge.parent in chain:
                what = f'TF has a loop: {" < ".join([*chain, edge.parent])}'
                raise TransformError(
                    TransformFault.NOT_CONNECTED, what, 'stop the node that publishes the edge which closes it'
                )
            chain.append(edge.parent)
        return chain

    def _only_edge(self, child: str) -> _Edge | None:
        """The edge above a frame; None for a root. A parent of which nothing was heard for long is none any more."""
        parents = list(self._edges.get(child, {}).values())
        if len(parents) > 1:
            limit = time.monotonic() - self._keep_s
            parents = [edge for edge in parents if edge.static or edge.heard >= limit]
        if len(parents) > 1:
            names = ' and '.join(sorted(edge.parent for edge in parents))
            what = f'TF frame {child} has two parents, {names}, so that its place is not known'
            raise TransformError(TransformFault.TWO_PARENTS, what, f'stop one of the nodes that publish {child}')
        return parents[0] if parents else None

    def _down(self, frame: str, ancestor: str, stamp_ns: int) -> np.ndarray:
        """T_ancestor_frame at a time."""
        T = np.eye(4)
        while frame != ancestor:
            edge = self._only_edge(frame)
            assert edge is not None  # `_chain` went this way
            T = _at(edge, frame, stamp_ns, self._keep_s) @ T
            frame = edge.parent
        return T

    def _unconnected(
        self, target: str, source: str, above_target: list[str], above_source: list[str]
    ) -> TransformError:
        parents = {parent for edges in self._edges.values() for parent in edges}
        for name in (target, source):
            if name not in self._edges and name not in parents:
                return TransformError(
                    TransformFault.MISSING, f'TF has no frame {name}',
                    f'publish it on /tf or /tf_static, or name another frame (known: {_few(set(self._edges) | parents)})',
                )  # fmt: skip
        what = f'TF does not connect {source} (root {above_source[-1]}) with {target} (root {above_target[-1]})'
        fix = 'publish the transform between the two roots, for example with static_transform_publisher'
        return TransformError(TransformFault.NOT_CONNECTED, what, fix)


def _at(edge: _Edge, child: str, stamp_ns: int, keep_s: float) -> np.ndarray:
    """T_parent_child at a time, between the two samples round it.

    Raises:
        TransformError: The time is not between samples.
    """
    if edge.static:
        return edge.poses[0]
    oldest, newest = edge.stamps_ns[0], edge.stamps_ns[-1]
    name, alive = f'{edge.parent} -> {child}', time.monotonic() - edge.heard <= RECENT_S
    early, late = (oldest - stamp_ns) * 1e-9, (stamp_ns - newest) * 1e-9
    if edge.ahead_s > FUTURE_S or (alive and max(early - keep_s, late) > CLOCK_GAP_S):
        gap = (
            f'{edge.ahead_s:.1f} s ahead of the node'
            if edge.ahead_s > FUTURE_S
            else f'{abs(max(early, late)):.1f} s from the images'
        )
        fix = 'let all computers share one clock (chrony or PTP), and set use_sim_time on all nodes or on none'
        raise TransformError(TransformFault.CLOCK, f'Stamps of TF {name} are {gap}', fix)
    if late > 0 and alive:
        what = f'TF {name} is {1e3 * late:.0f} ms behind the image'
        raise TransformError(TransformFault.TOO_NEW, what, 'raise tf_timeout, or publish TF at a higher rate')
    if late > 0:
        what = f'TF {name} has been silent for {time.monotonic() - edge.heard:.1f} s'
        raise TransformError(
            TransformFault.TOO_OLD, what, 'start the node that publishes it (robot_state_publisher for an arm)'
        )
    if early > 0:
        what = f'TF {name} begins {early:.2f} s after the image'
        raise TransformError(
            TransformFault.TOO_OLD, what, 'nothing need be done where it has just started; otherwise compare clocks'
        )
    at = bisect_left(edge.stamps_ns, stamp_ns)
    if edge.stamps_ns[at] == stamp_ns:
        return edge.poses[at]
    share = (stamp_ns - edge.stamps_ns[at - 1]) / (edge.stamps_ns[at] - edge.stamps_ns[at - 1])
    return interpolate(edge.poses[at - 1], edge.poses[at], share)


def interpolate(T_0: np.ndarray, T_1: np.ndarray, share: float) -> np.ndarray:
    """The rigid transform, float64 [4, 4], at a share of the way from one to the other: slerp and a straight line."""
    T = np.eye(4)
    T[:3, :3] = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([T_0[:3, :3], T_1[:3, :3]])))(share).as_matrix()
    T[:3, 3] = (1 - share) * T_0[:3, 3] + share * T_1[:3, 3]
    return T


def pose_matrix(numbers: Iterable[float]) -> np.ndarray | None:
    """x y z qx qy qz qw as T, float64 [4, 4]; None where they are not finite or the quaternion is none (its norm is not 1)."""
    values = np.array(list(numbers), np.float64)
    if values.shape != (7,) or not np.isfinite(values).all() or abs(np.linalg.norm(values[3:]) - 1) > 0.01:
        return None
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(values[3:]).as_matrix()
    T[:3, 3] = values[:3]
    return T


def pose_text(T: np.ndarray) -> str:
    """T, float64 [4, 4], as x y z qx qy qz qw: what the setting wrist_mount takes."""
    return ' '.join(f'{value:.9g}' for value in (*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat()))


def _matrix(edge: TransformStamped) -> np.ndarray | None:
    t, q = edge.transform.translation, edge.transform.rotation
    return pose_matrix((t.x, t.y, t.z, q.x, q.y, q.z, q.w))


def _few(names: set[str]) -> str:
    shown = sorted(names)[:8]
    return ', '.join(shown) + (', ...' if len(names) > 8 else '') if shown else 'none'
