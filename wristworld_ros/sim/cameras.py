"""Where cameras are placed: anchors and random cameras in a sector around the table, and the wrist camera on the hand.

MuJoCo cameras look along -z with y up; they become OpenCV cameras here, once, and stay so.
"""

from __future__ import annotations

import numpy as np

from wristworld_ros.data.real_clips import intrinsics_of
from wristworld_ros.geometry.poses import looking_at
from wristworld_ros.sim.rigs import EXTERIOR_FOCAL, FOCAL_SPREAD, sample_wrist
from wristworld_ros.sim.scene import TABLE_TOP
from wristworld_ros.sim.settings import SimulatorSettings
from wristworld_ros.types import Camera

WRIST_CAMERA = 'robot0_eye_in_hand'
# Fields of view across and up, degrees, of colour cameras that stand beside robots.
RIGS = {
    'RealSense D435': (69, 42),
    'ZED 2': (110, 70),
    'ZED mini': (90, 60),
    'webcam': (60, 36),
    'wide webcam': (78, 49),
}
NEAREST, FARTHEST = 0.55, 1.35  # metres, distance of such a camera
LEAST_FRAMING = 0.28  # metres, half height of what it shows
CLEARANCE = 0.25  # metres between a camera and the robot
WRIST_FOVS = (42.0, 55.0, 58.0, 65.0, 75.0, 90.0)  # degrees, up, of wrist cameras; images are square
OPENCV_FROM_GL = np.diag([1.0, -1.0, -1.0])


def intrinsics(width: int, height: int, fov_y_deg: float) -> np.ndarray:
    """K [3, 3], pixels, of a centred pinhole whose pixel i has its centre at coordinate i."""
    focal = height / 2 / np.tan(np.radians(fov_y_deg) / 2)
    return np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1.0]])


def rolled_camera(position: np.ndarray, target: np.ndarray, roll: float) -> np.ndarray:
    """T_camera_world [4, 4] of a camera at `position` that faces `target`, rolled by `roll` radians about its axis."""
    c, s = np.cos(roll), np.sin(roll)
    T = np.eye(4)
    T[:3, :3] = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ looking_at(position, target)[:3, :3].T
    T[:3, 3] = -T[:3, :3] @ position
    return T


def sample_anchor(
    rng: np.random.Generator,
    settings: SimulatorSettings,
    must_see: np.ndarray,
    azimuth=None,
    robot: np.ndarray | None = None,
) -> Camera:
    """A camera of the anchor sector, in MuJoCo's world.

    Args:
        must_see: [N, 3] points, metres, of which at least 80 % fall well inside the image.
        azimuth: Degrees; None samples it.
        robot: [M, 3] points of the robot, metres, that cameras of real rigs keep away from.
    """
    width, height = settings.anchor_width, settings.anchor_height
    for _ in range(30):
        degrees = rng.uniform(-settings.anchor_azimuth, settings.anchor_azimuth) if azimuth is None else azimuth
        around = np.radians(degrees)
        elevation = np.radians(rng.uniform(settings.anchor_elevation_min, settings.anchor_elevation_max))
        fov, radius = _sample_lens(rng, settings)
        target = np.array([-0.03, 0, TABLE_TOP + 0.12]) + rng.uniform(-1, 1, 3) * (0.07, 0.08, 0.06)
        flat = np.cos(elevation)
        away = np.array([np.cos(around) * flat, np.sin(around) * flat, np.sin(elevation)])
        T = rolled_camera(target + radius * away, target, np.radians(rng.uniform(-1, 1) * settings.anchor_roll))
        camera = Camera(intrinsics(width, height, fov), T, width, height)
        local = must_see @ T[:3, :3].T + T[:3, 3]
        pixel = local @ camera.K.T
        pixel = pixel[:, :2] / np.maximum(pixel[:, 2:], 1e-6)
        inside = (np.abs(pixel / (width, height) - 0.5) < 0.44).all(1) & (local[:, 2] > 0.25)
        position = -T[:3, :3].T @ T[:3, 3]
        if robot is not None and np.linalg.norm(robot - position, axis=1).min() < CLEARANCE:
            continue
        if inside.mean() >= 0.8:
            break
    return camera


def _sample_lens(rng: np.random.Generator, settings: SimulatorSettings) -> tuple[float, float]:
    """Vertical field of view, degrees, and distance from what is looked at, metres."""
    if settings.anchor_rigs == 'free':
        fov = rng.uniform(settings.anchor_fov_min, settings.anchor_fov_max)
        framing = rng.uniform(settings.anchor_framing_min, settings.anchor_framing_max)
        return fov, framing / np.tan(np.radians(fov) / 2)
    rigs = list(RIGS.values())
    fov = rigs[rng.integers(len(rigs))][1] * rng.uniform(0.97, 1.03)
    least = LEAST_FRAMING / np.tan(np.radians(fov) / 2)
    return fov, rng.uniform(max(NEAREST, least), FARTHEST)


def sample_anchors(
    rng: np.random.Generator, settings: SimulatorSettings, must_see: np.ndarray, robot: np.ndarray | None = None
) -> list[Camera]:
    """The episode's fixed anchors, at azimuths that differ by at least anchor_separation degrees."""
    taken: list[float] = []
    for _ in range(settings.anchors):
        for _ in range(100):
            azimuth = rng.uniform(-settings.anchor_azimuth, settings.anchor_azimuth)
            if all(abs(azimuth - other) >= settings.anchor_separation for other in taken):
                break
        taken.append(azimuth)
    return [sample_anchor(rng, settings, must_see, azimuth, robot) for azimuth in taken]


def sample_exterior(
    rng: np.random.Generator,
    settings: SimulatorSettings,
    must_see: np.ndarray,
    robot: np.ndarray,
    base: np.ndarray,
    side: float,
) -> Camera:
    """A camera as DROID's exterior ones, in MuJoCo's world.

    Args:
        must_see: [N, 3] points, metres, of which at least 70 % fall inside the image.
        robot: [M, 3] points of the robot, metres, that it keeps away from.
        base: [3], the robot's base, metres.
        side: 1 for left of the robot, -1 for right.
    """
    height, width = settings.anchor_height, settings.anchor_width
    for _ in range(60):
        away = rng.uniform((-0.1, 0.4, 0.0), (0.7, 0.95, 0.6)) * (1, side, 1)
        position = np.array([*(base + away)[:2], max(base[2], TABLE_TOP) + 0.15 + away[2]])
        target = must_see.mean(0) + rng.normal(0, (0.08, 0.08, 0.05))
        T = rolled_camera(position, target, np.radians(rng.normal(0, 3)))
        K = intrinsics_of(EXTERIOR_FOCAL * (1 + FOCAL_SPREAD * rng.standard_normal()), (height, width))
        camera = Camera(K, T, width, height)
        if np.linalg.norm(robot - position, axis=1).min() < CLEARANCE:
            continue
        local = must_see @ T[:3, :3].T + T[:3, 3]
        pixel = (local @ K.T)[:, :2] / np.maximum(local[:, 2:], 1e-6)
        if ((np.abs(pixel / (width, height) - 0.5) < 0.48).all(1) & (local[:, 2] > 0.2)).mean() >= 0.7:
            break
    return camera


class WristExtrinsics:
    """The wrist camera on the hand, slightly different in every episode."""

    def __init__(self, model, rng: np.random.Generator, settings: SimulatorSettings):
        camera = model.camera(WRIST_CAMERA).id
        self._body = int(model.cam_bodyid[camera])
        w, x, y, z = model.cam_quat[camera]
        gl = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        a, b, c = np.radians(rng.uniform(-1, 1, 3) * settings.wrist_jitter_deg)
        wobble = np.array([[1, -c, b], [c, 1, -a], [-b, a, 1]])
        u, _, v = np.linalg.svd(gl @ OPENCV_FROM_GL @ wobble)
        self.T_hand_wrist = np.eye(4)
        self.T_hand_wrist[:3, :3] = u @ v
        self.T_hand_wrist[:3, 3] = model.cam_pos[camera] + rng.uniform(-1, 1, 3) * settings.wrist_jitter_m
        size = settings.wrist_size
        self.size = size
        fov = settings.wrist_fov + rng.uniform(-1, 1) * settings.wrist_fov_jitter
        self.K = intrinsics(size, size, fov)
        if settings.rig == 'droid':
            self.T_hand_wrist, self.K = sample_wrist(rng, size)
        elif settings.wrist_mounts == 'any':
            self.T_hand_wrist, fov = _sample_mount(rng)
            self.K = intrinsics(size, size, fov)

    def camera(self, data) -> Camera:
        """The wrist camera in the state `data`, in MuJoCo's world."""
        T_world_hand = np.eye(4)
        T_world_hand[:3, :3] = data.xmat[self._body].reshape(3, 3)
        T_world_hand[:3, 3] = data.xpos[self._body]
        return Camera(self.K, np.linalg.inv(T_world_hand @ self.T_hand_wrist), self.size, self.size)


def _sample_mount(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """T_hand_wrist [4, 4], metres, of a camera somewhere around the hand that looks at the fingers, and its vertical field of view, degrees."""
    if rng.random() < 0.7:  # before or behind the hand, which is flat
        around = rng.choice([0.0, np.pi]) + rng.uniform(-0.5, 0.5)
    else:
        around = rng.uniform(-np.pi, np.pi)
    away = rng.uniform(0.065, 0.095) + 0.05 * np.sin(around) ** 2
    position = np.array([away * np.cos(around), away * np.sin(around), rng.uniform(-0.01, 0.05)])
    target = np.array([0.0, 0.0, rng.uniform(0.13, 0.3)]) + rng.normal(0, 0.01, 3)
    forward = (target - position) / np.linalg.norm(target - position)
    # Half of the cameras have the hand's own axis at the image's upper edge, the others are turned by any right angle.
    turn = np.radians(rng.choice([0, 0, 0, 90, 180, 270]) + rng.normal(0, 4))
    right = np.cross(forward, [np.cos(around), np.sin(around), 0.0])
    right /= np.linalg.norm(right)
    level = np.stack([right, np.cross(forward, right), forward], 1)
    c, s = np.cos(turn), np.sin(turn)
    T = np.eye(4)
    T[:3, :3] = level @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    T[:3, 3] = position
    return T, float(rng.choice(WRIST_FOVS) * rng.uniform(0.97, 1.03))
