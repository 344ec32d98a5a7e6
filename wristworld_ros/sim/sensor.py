"""What a real depth camera makes of true depth, and a real calibration of a true pose."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wristworld_ros.setting import setting


@dataclass(frozen=True)
class SensorSettings:
    """Errors of depth cameras and of their calibration. All of them 0: exact knowledge, apart from whole millimetres."""

    depth_noise: float = setting(
        0.005, 'Standard deviation of depth as a share of it, independent at every pixel.', low=0.0, high=0.2
    )
    edge_holes: int = setting(1, 'Pixels without depth on the far side of every edge.', low=0, high=16)
    rotation_deg: float = setting(0.5, 'Error of the rotation of each anchor, degrees.', low=0.0, high=180.0)
    translation_m: float = setting(0.005, 'Error of the position of each anchor, metres.', low=0.0, high=1.0)


EXACT = SensorSettings(depth_noise=0.0, edge_holes=0, rotation_deg=0.0, translation_m=0.0)
_EDGE = 0.05  # relative step of depth from which on the farther side is in the sensor's shadow
_UNIT = 0.001  # metres: what 16-bit depth images count


def measured_depth(depth: np.ndarray, settings: SensorSettings, rng: np.random.Generator) -> np.ndarray:
    """What a depth camera reports.

    Args:
        depth: float32 [H, W], metres, true; 0 where unknown.
        settings: SensorSettings.
        rng: Of the noise.

    Returns:
        float32 [H, W], metres, whole millimetres; 0 where unknown or lost.
    """
    known = depth > 0
    noisy = depth * (1 + settings.depth_noise * rng.standard_normal(depth.shape))
    measured = np.round(noisy / _UNIT) * _UNIT
    if settings.edge_holes:
        window = np.ones((2 * settings.edge_holes + 1,) * 2, np.uint8)
        behind = np.where(known, depth, np.finfo(np.float32).max / 2).astype(np.float32)
        nearest = cv2.erode(behind, window, borderType=cv2.BORDER_REPLICATE)
        known = known & (depth <= (1 + _EDGE) * nearest)
    return np.where(known, measured, 0.0).astype(np.float32)


def displaced_pose(T_camera_base: np.ndarray, settings: SensorSettings, rng: np.random.Generator) -> np.ndarray:
    """A pose as an imperfect calibration has it: turned about a random axis and moved in a random direction.

    Args:
        T_camera_base: float64 [4, 4], the true pose, camera from base.
        settings: SensorSettings; the errors have exactly the sizes given there.
        rng: Of axis and direction.

    Returns:
        float64 [4, 4], camera from base.
    """
    axis, direction = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 3)))
    error = np.eye(4)
    error[:3, :3] = cv2.Rodrigues(np.radians(settings.rotation_deg) * axis)[0]
    error[:3, 3] = settings.translation_m * direction
    return error @ T_camera_base
