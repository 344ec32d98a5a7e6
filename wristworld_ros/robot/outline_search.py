"""Where a camera may be about an arm: the cameras from which the arm's motion best explains that of tracked features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from wristworld_ros.robot.arm_motion import FeatureMotion

SAMPLES, KEPT, ROUNDS, CHILDREN = 1800, 16, 6, 24  # of the search by feature motion
TRIED = 5  # of what it finds, by outline
DISTANCE, ELEVATION = (0.35, 2.2), (-15.0, 75.0)  # metres and degrees, of a camera about the arm
ROLL = 6.0  # degrees, standard deviation
SAME = 6.0  # degrees, or centimetres / 1.7, within which two cameras are one


@dataclass(frozen=True)
class ArmCamera:
    """A camera that stands still before the arm.

    T: camera from base [4, 4], metres. K: [3, 3], pixels of the images. score: the higher, the better.
    """

    T: np.ndarray
    K: np.ndarray
    score: float = -np.inf


@dataclass(frozen=True)
class FocalSpread:
    """How far the focal length may be from that of K. share: standard deviation."""

    share: float
    K: np.ndarray

    def scaled(self, log: float) -> np.ndarray:
        """K with another focal length."""
        K = self.K.copy()
        K[[0, 1], [0, 1]] *= np.exp(log)
        return K

    def log(self, K: np.ndarray) -> float:
        """Of its focal length over that of `self.K`."""
        return float(np.log(K[0, 0] / self.K[0, 0]))


def search_cameras(
    motion: FeatureMotion, K: np.ndarray, hw: tuple[int, int], spread: FocalSpread, guess: np.ndarray | None, rng: np.random.Generator
) -> list[ArmCamera]:  # fmt: skip
    """The best cameras by feature motion, all different, the best first.

    Args:
        motion: Of the features, and of the arm's surface.
        K: Intrinsics, float64 [3, 3], pixels.
        hw: Of the images, pixels.
        spread: Of the focal length.
        guess: T_base_camera, float64 [4, 4]; None searches all round the arm.
        rng: Of the search.
    """
    # A camera is azimuth, elevation, log distance, pan, tilt, roll and log focal length.
    sigma = np.array([0.15, 0.12, 0.15, 0.12, 0.12, 0.06, 0.5 * spread.share])

    def camera(x: np.ndarray) -> ArmCamera:
        return ArmCamera(_placed(x, motion.moving), spread.scaled(x[6]))

    def value(x: np.ndarray) -> float:
        c = camera(x)
        roll, elevation = np.degrees(x[5]) / ROLL, np.degrees(x[1])
        high = max(ELEVATION[0] + 10 - elevation, elevation - ELEVATION[1] + 15, 0) / 8
        far = max(np.log(DISTANCE[0]) - x[2], x[2] - np.log(DISTANCE[1]), 0) / 0.2
        zoom = x[6] / spread.share if spread.share else 0.0
        return motion.explained(c.T, c.K) - 0.5 * (roll**2 + high**2 + far**2 + zoom**2) / 400

    if guess is not None:
        start = _described(np.linalg.inv(guess), motion.moving)
        samples = start + rng.normal(size=(SAMPLES // 4, 7)) * sigma * 1.5
        samples[0] = start
    else:
        samples = _all_round(motion, K, hw, spread, rng)
    values = np.array([value(x) for x in samples])
    kept: list[int] = []
    for i in np.argsort(-values):
        if len(kept) == KEPT:
            break
        if all(_different(samples[i], samples[j]) for j in kept):
            kept.append(int(i))
    found = [_evolved(samples[i], values[i], sigma, value, rng) for i in kept]
    found.sort(key=lambda pair: -pair[1])
    return distinct([ArmCamera(c.T, c.K, v) for x, v in found for c in [camera(x)]])[:TRIED]


def _all_round(motion: FeatureMotion, K, hw, spread: FocalSpread, rng) -> np.ndarray:
    """Cameras in whose image the moving part of the arm is about where features move, [SAMPLES, 7]."""
    x = np.zeros((SAMPLES, 7))
    x[:, 0] = rng.uniform(-np.pi, np.pi, SAMPLES)
    x[:, 1] = np.radians(rng.uniform(*ELEVATION, SAMPLES))
    x[:, 2] = rng.uniform(*np.log(DISTANCE), SAMPLES)
    x[:, 5] = np.radians(ROLL) * rng.normal(size=SAMPLES)
    x[:, 6] = spread.share * rng.normal(size=SAMPLES)
    aim = motion.middle + 0.08 * hw[1] * rng.normal(size=(SAMPLES, 2))
    x[:, 3] = -np.arctan((aim[:, 0] - K[0, 2]) / K[0, 0])
    x[:, 4] = np.arctan((aim[:, 1] - K[1, 2]) / K[1, 1])
    return x


def _evolved(x, value_of_x, sigma, value, rng) -> tuple[np.ndarray, float]:
    """A better place near x: the best of normally distributed children, whose spread follows the better third of them."""
    best, top, mean, cov = x, value_of_x, x, np.diag(sigma**2)
    for turn in range(ROUNDS):
        children = rng.multivariate_normal(mean, cov, CHILDREN)
        values = np.array([value(child) for child in children])
        better = np.argsort(-values)[: CHILDREN // 3]
        if values[better[0]] > top:
            best, top = children[better[0]], values[better[0]]
        mean = (children[better].mean(0) + best) / 2
        cov = 0.9 * np.cov(children[better].T) + np.diag(sigma**2) * 0.05 / (turn + 1)
    return best, float(top)


def _placed(x: np.ndarray, pivot: np.ndarray) -> np.ndarray:
    """Camera from base [4, 4] of a camera that looks at the pivot before it pans, tilts and rolls."""
    azimuth, elevation, distance = x[0], x[1], np.exp(x[2])
    away = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    right = np.array([-away[1], away[0], 0.0]) / max(np.hypot(away[0], away[1]), 1e-9)
    R = np.stack([right, np.cross(-away, right), -away], 1) @ Rotation.from_euler('yxz', x[3:6]).as_matrix()
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R.T, -R.T @ (pivot + distance * away)
    return T


def _described(T: np.ndarray, pivot: np.ndarray) -> np.ndarray:
    """The numbers [7] that `_placed` makes a camera of; the focal length unchanged."""
    away = -T[:3, :3].T @ T[:3, 3] - pivot
    distance = np.linalg.norm(away)
    x = np.array([np.arctan2(away[1], away[0]), np.arcsin(away[2] / distance), np.log(distance), 0, 0, 0, 0])
    x[3:6] = Rotation.from_matrix(_placed(x, pivot)[:3, :3] @ T[:3, :3].T).as_euler('yxz')
    return x


def _different(a: np.ndarray, b: np.ndarray) -> bool:
    turn = (a[0] - b[0] + np.pi) % (2 * np.pi) - np.pi
    return bool(np.hypot(turn, a[1] - b[1]) + abs(a[2] - b[2]) > 0.25)


def distinct(cameras: list[ArmCamera]) -> list[ArmCamera]:
    """The cameras from the best on, without those that are nearly another one."""
    kept: list[ArmCamera] = []
    for camera in sorted(cameras, key=lambda c: -c.score):
        if all(_apart_cameras(camera.T, other.T) > SAME for other in kept):
            kept.append(camera)
    return kept


def _apart_cameras(a: np.ndarray, b: np.ndarray) -> float:
    degrees = np.degrees(Rotation.from_matrix(a[:3, :3] @ b[:3, :3].T).magnitude())
    return float(degrees + 60 * np.linalg.norm(a[:3, :3].T @ a[:3, 3] - b[:3, :3].T @ b[:3, 3]))
