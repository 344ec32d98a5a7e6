"""Where frames are at a time, by the transforms of a bag."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from wristworld_ros.data.poses import inverse

_REACH = 500_000_000  # nanoseconds before the first and behind the last transform for which it still stands


@dataclass
class _Edge:
    parent: str
    stamps: list[int] = field(default_factory=list)
    poses: list[np.ndarray] = field(default_factory=list)
    is_static: bool = False


class TransformTree:
    """Frames, each with a parent, as /tf and /tf_static say."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}

    @property
    def frames(self) -> list[str]:
        """Names of all frames."""
        parents = {edge.parent for edge in self._edges.values()}
        return sorted(parents | set(self._edges))

    def add(self, parent: str, child: str, stamp_ns: int, T_parent_child: np.ndarray, is_static: bool) -> None:
        """Take note of a transform, float64 [4, 4]; one from another parent replaces what was there."""
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or is_static:
            edge = self._edges[child] = _Edge(parent, is_static=is_static)
        if not edge.stamps or stamp_ns > edge.stamps[-1]:
            edge.stamps.append(stamp_ns)
            edge.poses.append(T_parent_child)

    def lookup(self, target: str, frame: str, stamps_ns: np.ndarray) -> np.ndarray | None:
        """T_target_frame at some times, float64 [N, 4, 4]; NaN where a transform is too old or too new; None where they are not connected."""
        root_frame, T_root_frame = self._to_root(frame, stamps_ns)
        root_target, T_root_target = self._to_root(target, stamps_ns)
        return inverse(T_root_target) @ T_root_frame if root_frame == root_target else None

    def _to_root(self, frame: str, stamps_ns: np.ndarray) -> tuple[str, np.ndarray]:
        T, seen = np.tile(np.eye(4), (len(stamps_ns), 1, 1)), {frame}
        while frame in self._edges:
            edge = self._edges[frame]
            if edge.parent in seen:  # a circle, which no tree has
                break
            T, frame = _at(edge, stamps_ns) @ T, edge.parent
            seen.add(frame)
        return frame, T


def _at(edge: _Edge, stamps_ns: np.ndarray) -> np.ndarray:
    if edge.is_static or len(edge.stamps) == 1:
        out = np.tile(edge.poses[-1], (len(stamps_ns), 1, 1))
    else:
        stamps, poses = np.asarray(edge.stamps), np.stack(edge.poses)
        inside = stamps_ns.clip(stamps[0], stamps[-1])
        since, times = (stamps - stamps[0]) / 1e9, (inside - stamps[0]) / 1e9
        out = np.tile(np.eye(4), (len(stamps_ns), 1, 1))
        out[:, :3, :3] = Slerp(since, Rotation.from_matrix(poses[:, :3, :3]))(times).as_matrix()
        out[:, :3, 3] = np.stack([np.interp(times, since, poses[:, i, 3]) for i in range(3)], axis=1)
    if not edge.is_static:
        off = (stamps_ns < edge.stamps[0] - _REACH) | (stamps_ns > edge.stamps[-1] + _REACH)
        out[off] = np.nan
    return out
