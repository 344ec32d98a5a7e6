"""Where a depth camera sees the robot's surface, against where joints and calibration put it, and the small correction of the
camera's pose that brings the two together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

_FACING = 0.4  # cosine of the angle to the camera's ray: more oblique surfaces tell more of pixels than of places
# A point that far behind the nearest surface at its pixel is hidden; footprints bring that one forward.
_VISIBLE_M = 0.015
_LIMIT_M = 0.2  # distances count as this at most
_LEAST_POINTS = 100  # for a residual
_MOST_POINTS = 20_000


@dataclass(frozen=True)
class SurfaceMatches:
    """Points of the robot's surface and what a camera measures at their pixels.

    points, normals: float64 [N, 3], base frame, metres. measured: float64 [N, 3], the camera's frame, metres.
    """

    points: np.ndarray
    normals: np.ndarray
    measured: np.ndarray

    def distances(self, T_camera_base: np.ndarray) -> np.ndarray:
        """Of the measured points from the surface, along its normals, with a camera at that pose [4, 4]; float64 [N], metres."""
        R, t = T_camera_base[:3, :3], T_camera_base[:3, 3]
        return ((self.measured - self.points @ R.T - t) * (self.normals @ R.T)).sum(1)

    def residual(self, T_camera_base: np.ndarray) -> float:
        """Median size of the distances, metres; NaN where too few points are seen."""
        if len(self.points) < _LEAST_POINTS:
            return float('nan')
        return float(np.median(np.minimum(np.abs(self.distances(T_camera_base)), _LIMIT_M)))


def surface_matches(
    surface: Tensor,
    normals: Tensor | None,
    robot: Tensor,
    measured: Tensor,
    K: Tensor,
    T_camera_base: Tensor,
    stride: int,
) -> SurfaceMatches:
    """The visible points of the robot's surface, each with the measured point at its pixel.

    Distances are to be taken along the normals: that of neither a pixel's width nor of the footprints that points are drawn
    with.

    Args:
        surface: Float32 [M, 3], the robot's, base frame, metres.
        normals: Float32 [M, 3], outward, of unit length, or None: then distances are along the camera's axis.
        robot: Float32 [h, w], its depth as `robot_depth` draws it, 0 where it is not.
        measured: Float32 [h, w], depth of the same pixels, 0 where unknown; metres both.
        K: [3, 3], pixels of the image.
        T_camera_base: [4, 4], where the camera is thought to be.
        stride: Of the pixels of `robot` in the image.
    """
    thin = slice(None, None, max(1, len(surface) // _MOST_POINTS))
    R, t = T_camera_base[:3, :3].to(surface), T_camera_base[:3, 3].to(surface)
    points = surface[thin] @ R.T + t
    if normals is None:
        outward, turned = points.new_tensor([0.0, 0.0, -1.0]).expand_as(points), points[:, 2] > 0
    else:
        outward = normals[thin] @ R.T
        turned = -(points * outward).sum(1) > _FACING * points.norm(dim=1)
    pixels = points @ K.to(surface).T
    column, row = ((pixels[:, i] / pixels[:, 2].clamp(min=1e-6) / stride).round().long() for i in (0, 1))
    height, width = robot.shape
    seen = turned & (points[:, 2] > 0.05) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    drawn, depth = robot[row, column], measured[row, column]
    seen &= (drawn > 0) & (points[:, 2] < drawn + _VISIBLE_M) & (depth > 0)
    column, row, depth = column[seen], row[seen], depth[seen]
    image = torch.stack([column * stride, row * stride, torch.ones_like(row)], 1).to(surface)
    found = image @ torch.linalg.inv(K.double()).to(surface).T * depth[:, None]
    at, along, found = (a.double().cpu().numpy() for a in (surface[thin][seen], outward[seen] @ R, found))
    return SurfaceMatches(at, along, found)


class CameraCorrection:
    """Learns how far the given pose of one camera is off, from how it sees the robot over time.

    Hand-eye calibrations are off by some millimetres and tenths of a degree, which is many pixels for a wrist camera a hand's
    breadth from an object. The robot's surface, which joints place exactly, tells it: the correction is the most probable one,
    given what was measured in the last distinct poses of the arm (point-to-plane, Tukey's weights) and the calibration's own
    uncertainty.
    """

    POSES = 24  # of the arm, kept
    MATCHES = 400  # of a pose, kept
    EVERY_S = 0.25  # between kept poses
    MOST_DEG, MOST_M = 2.0, 0.03  # larger corrections are not made: such a calibration is wrong
    PRIOR_DEG, PRIOR_M = 1.0, 0.01  # standard deviations of a calibration
    NOISE_M = 0.005  # of one match
    SKEW_S = 0.03  # by which joints and images are of different times
    TOGETHER = 20  # matches that err alike: neighbours share the errors of sensor, mesh and pixel grid
    # Matches farther apart than four times the usual do not count; that limit stays within these bounds.
    REACH_M, LEAST_REACH_M = 0.03, 0.006

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._kept: deque[tuple[SurfaceMatches, np.ndarray]] = deque(maxlen=self.POSES)
        self._stamp: int | None = None
        self._given = np.eye(4)
        self.T = np.eye(4)  # corrected camera from given camera

    def update(self, stamp_ns: int, matches: SurfaceMatches, T_camera_base: np.ndarray, speed: float = 0.0) -> None:
        """Take in what a camera sees at a time.

        Args:
            stamp_ns: Of the set.
            matches: What it sees of the robot.
            T_camera_base: The given pose [4, 4]; another one starts over.
            speed: Of the robot's surface, metres per second: joints and images are never quite of one time.
        """
        if not np.allclose(T_camera_base, self._given, atol=1e-6) or (self._stamp or 0) > stamp_ns:
            self.reset()
            self._given = T_camera_base.copy()
        if len(matches.points) < _LEAST_POINTS or (
            self._stamp is not None and stamp_ns - self._stamp < self.EVERY_S * 1e9
        ):
            return
        self._stamp = stamp_ns
        chosen = np.linspace(0, len(matches.points) - 1, min(self.MATCHES, len(matches.points))).astype(int)
        noise = np.full(len(chosen), np.hypot(self.NOISE_M, speed * self.SKEW_S))
        kept = SurfaceMatches(matches.points[chosen], matches.normals[chosen], matches.measured[chosen])
        self._kept.append((kept, noise))
        T = self._solved()
        small = np.linalg.norm(T[:3, 3]) <= self.MOST_M
        self.T = T if small and np.degrees(Rotation.from_matrix(T[:3, :3]).magnitude()) <= self.MOST_DEG else np.eye(4)

    def _solved(self) -> np.ndarray:
        """The most probable correction: Gauss-Newton from the present one."""
        points, normals, measured = (
            np.concatenate([getattr(kept, name) for kept, _ in self._kept])
            for name in ('points', 'normals', 'measured')
        )
        noise = np.concatenate([noise for _, noise in self._kept])
        at = points @ self._given[:3, :3].T + self._given[:3, 3]
        along = normals @ self._given[:3, :3].T
        sigma = np.array([np.radians(self.PRIOR_DEG)] * 3 + [self.PRIOR_M] * 3)
        T = self.T.copy()
        for _ in range(4):
            R, t = T[:3, :3], T[:3, 3]
            moved, turned = at @ R.T + t, along @ R.T
            distance = ((measured - moved) * turned).sum(1)
            reach = np.clip(4 * np.median(np.abs(distance)), self.LEAST_REACH_M, self.REACH_M)
            weight = np.clip(1 - (distance / reach) ** 2, 0, None) ** 2 / (noise**2 * self.TOGETHER)
            J = np.concatenate([np.cross(moved, turned), turned], 1)
            so_far = np.concatenate([Rotation.from_matrix(R).as_rotvec(), t])
            H = (J * weight[:, None]).T @ J + np.diag(sigma**-2)
            step = np.linalg.solve(H, J.T @ (weight * distance) - so_far / sigma**2)
            turn = Rotation.from_rotvec(step[:3]).as_matrix()
            T[:3, :3], T[:3, 3] = turn @ R, turn @ t + step[3:]
        return T
