"""The robot's outline over a picture: whether a camera is right is to be seen there."""

from __future__ import annotations

import cv2
import numpy as np

from wristworld_ros.robot.arm_motion import NEAREST
from wristworld_ros.types import RobotPoints

ZOOM = 2
GREEN = (40, 230, 60)


def outline_over(
    image: np.ndarray,
    surface: RobotPoints,
    K: np.ndarray,
    T_base_camera: np.ndarray,
    color: tuple[int, int, int] = GREEN,
) -> np.ndarray:
    """Draw the outline of the robot's surface over a picture, which becomes twice as large.

    Args:
        image: uint8 [H, W, 3], RGB.
        surface: In the base frame, at that time.
        K: Intrinsics [3, 3], pixels.
        T_base_camera: float64 [4, 4].
        color: RGB.
    """
    height, width = image.shape[0] * ZOOM, image.shape[1] * ZOOM
    local = (surface.points - T_base_camera[:3, 3]) @ T_base_camera[:3, :3]
    local = local[local[:, 2] > NEAREST]
    pixels = local[:, :2] / local[:, 2:] * np.diag(K)[:2] + K[:2, 2]
    x, y = np.rint(pixels * ZOOM + (ZOOM - 1) / 2).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    mask = np.zeros((height, width), np.uint8)
    mask[y[inside], x[inside]] = 1
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    picture = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.drawContours(picture, contours, -1, color, 1, cv2.LINE_AA)
    return picture
