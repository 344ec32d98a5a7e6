"""Pinhole calibrations as CameraInfo messages and back."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo


def to_info(K: np.ndarray, width: int, height: int, header) -> CameraInfo:
    """A camera without distortion: plumb_bob, d = 0, r = I, p = [K | 0]."""
    P = np.zeros((3, 4))
    P[:, :3] = K
    return CameraInfo(
        header=header,
        width=int(width),
        height=int(height),
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=[float(v) for v in np.asarray(K).ravel()],
        r=[float(v) for v in np.eye(3).ravel()],
        p=[float(v) for v in P.ravel()],
    )


def intrinsics(msg: CameraInfo, width: int, height: int) -> np.ndarray | None:
    """float64 [3, 3] in pixels of a width x height image, or None where the camera is uncalibrated (k[0] = 0).

    A calibration made at another size is rescaled; one that does not say its size is taken as it is.
    """
    if not msg.k[0] > 0:
        return None
    K = np.array(msg.k, np.float64).reshape(3, 3)
    return scaled(K, (msg.width or width, msg.height or height), (width, height))


def scaled(K: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """K after an image was resized from old to new (width, height). Pixel i's centre is coordinate i."""
    K = K.copy()
    for row in (0, 1):
        ratio = new[row] / old[row]
        K[row, :2] *= ratio
        K[row, 2] = (K[row, 2] + 0.5) * ratio - 0.5
    return K
