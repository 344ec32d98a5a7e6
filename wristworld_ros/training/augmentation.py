"""Exact augmentation of anchor images: what a camera would have seen with another zoom and roll."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from wristworld_ros.geometry import resize_intrinsics


def zoom_and_roll(rgb, depth, K, T_camera_world, zoom: float, roll: float, size: tuple[int, int]):
    """Zoom by a factor, rotate the camera about its optical axis, resize.

    Both are a homography of the image that leaves z-depth as it is, so nothing is approximated but the resampling.

    Args:
        rgb: uint8 [H, W, 3].
        depth: [H, W], any unit, 0 unknown.
        K: [3, 3], pixels.
        T_camera_world: [4, 4].
        zoom: Factor of the focal lengths.
        roll: Radians.
        size: Width and height of the result, pixels.

    Returns:
        The first four of the new camera; pixels from outside the old image are black with depth 0.
    """
    R = np.eye(4)
    R[:2, :2] = [[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]]
    K_new = resize_intrinsics(torch.from_numpy(K), depth.shape, size[::-1]).numpy()
    K_new[0, 0] *= zoom
    K_new[1, 1] *= zoom
    H = (K_new @ R[:3, :3] @ np.linalg.inv(K))[:2]  # the last row is 0 0 1: roll and zoom keep z
    warped = cv2.warpAffine(rgb, H, size, flags=cv2.INTER_LINEAR)
    warped_depth = cv2.warpAffine(depth, H, size, flags=cv2.INTER_NEAREST)
    return warped, warped_depth, K_new, R @ T_camera_world


def color_table(rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Random gain for each channel, brightness and gamma as a look-up table, uint8 [256, 3]."""
    gain = np.exp(rng.normal(0, 0.06 * strength, 3) + rng.normal(0, 0.12 * strength))
    gamma = np.exp(rng.normal(0, 0.12 * strength))
    ramp = np.linspace(0, 1, 256)[:, None] ** gamma * gain[None]
    return np.clip(ramp * 255, 0, 255).astype(np.uint8)


def recolor(rgb: np.ndarray, table: np.ndarray) -> np.ndarray:
    """A look-up table [256, 3] applied to uint8 [..., 3]."""
    return np.stack([table[:, c][rgb[..., c]] for c in range(3)], axis=-1)
