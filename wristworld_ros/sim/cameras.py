"""Where cameras are placed: anchors and random cameras in a sector around the table, and the wrist camera on the hand.

MuJoCo cameras look along -z with y up; they become OpenCV cameras here, once, and stay so.
"""

from __future__ import annotations

import numpy as np

from wristworld_ros.geometry.poses import looking_at
from wristworld_ros.sim.scene import TABLE_TOP
from wristworld_ros.sim.settings import SimulatorSettings
from wristworld_ros.types import Camera

WRIST_CAMERA = 'robot0_eye_in_hand'
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


def sample_anchor(rng: np.random.Generator, settings: SimulatorSettings, must_see: np.ndarray, azimuth=None) -> Camera:
    """A camera of the anchor sector, in MuJoCo's world.

    Args:
        must_see: [N, 3] points, metres, of which at least 80 % fall well inside the image.
        azimuth: Degrees; None samples it.
    """
    width, height = settings.anchor_width, settings.anchor_height
    for _ in range(30):
        degrees = rng.uniform(-settings.anchor_azimuth, settings.anchor_azimuth) if azimuth is None else azimuth
        around = np.radians(degrees)
        elevation = np.radians(rng.uniform(settings.anchor_elevation_min, settings.anchor_elevation_max))
        fov = rng.uniform(settings.anchor_fov_min, settings.anchor_fov_max)
        framing = rng.uniform(settings.anchor_framing_min, settings.anchor_framing_max)
        radius = framing / np.tan(np.radians(fov) / 2)
        target = np.array([-0.03, 0, TABLE_TOP + 0.12]) + rng.uniform(-1, 1, 3) * (0.07, 0.08, 0.06)
        flat = np.cos(elevation)
        away = np.array([np.cos(around) * flat, np.sin(around) * flat, np.sin(elevation)])
        T = rolled_camera(target + radius * away, target, np.radians(rng.uniform(-1, 1) * settings.anchor_roll))
        camera = Camera(intrinsics(width, height, fov), T, width, height)
        local = must_see @ T[:3, :3].T + T[:3, 3]
        pixel = local @ camera.K.T
        pixel = pixel[:, :2] / np.maximum(pixel[:, 2:], 1e-6)
        inside = (np.abs(pixel / (width, height) - 0.5) < 0.44).all(1) & (local[:, 2] > 0.25)
        if inside.mean() >= 0.8:
            break
    return camera


def sample_anchors(rng: np.random.Generator, settings: SimulatorSettings, must_see: np.ndarray) -> list[Camera]:
    """The episode's fixed anchors, at azimuths that differ by at least anchor_separation degrees."""
    taken: list[float] = []
    for _ in range(settings.anchors):
        for _ in range(100):
            azimuth = rng.uniform(-settings.anchor_azimuth, settings.anchor_azimuth)
            if all(abs(azimuth - other) >= settings.anchor_separation for other in taken):
                break
        taken.append(azimuth)
    return [sample_anchor(rng, settings, must_see, azimuth) for azimuth in taken]


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

    def camera(self, data) -> Camera:
        """The wrist camera in the state `data`, in MuJoCo's world."""
        T_world_hand = np.eye(4)
        T_world_hand[:3, :3] = data.xmat[self._body].reshape(3, 3)
        T_world_hand[:3, 3] = data.xpos[self._body]
        return Camera(self.K, np.linalg.inv(T_world_hand @ self.T_hand_wrist), self.size, self.size)
