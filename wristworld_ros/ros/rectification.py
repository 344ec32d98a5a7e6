"""Distortion of anchor images by their `camera_info`: how far it moves pixels, and images and depth without it.

Everything after it assumes pinhole cameras. Rectified images keep the optical frame of the camera (`r`, which turns the
cameras of a stereo pair, is left out), so TF and depth along the optical axis stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo

from wristworld_ros.ros.conversions import CalibrationError, to_intrinsics
from wristworld_ros.ros.image_header import quoted

NOTICEABLE = 2.0  # pixels: distortion that moves no pixel farther is not mentioned
_FISHEYE = ('equidistant', 'fisheye')
_POLYNOMIAL = {'plumb_bob': (4, 5), 'rational_polynomial': (4, 5, 8, 12, 14)}  # how many numbers they take
_ZOOM = (0.3, 3.0)  # a rectified focal length outside, over the raw one, is a failure of the search for it


@dataclass(frozen=True)
class Rectification:
    """Where the pixels of a rectified image lie in the raw one, for one camera and one size of image.

    K: float64 [3, 3], of the rectified image, pixels. columns, rows: float32 [H, W], pixels of the raw image.
    """

    K: np.ndarray
    columns: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, info: CameraInfo, width: int, height: int) -> Rectification | None:
        """The rectification of width x height images.

        The rectified camera is that of `p`, where `p` is given and `r` does not turn it; otherwise the one whose image
        shows raw pixels only.

        Returns:
            None where the camera is uncalibrated, or has no distortion.

        Raises:
            CalibrationError: The calibration describes no camera, or its distortion is of an unknown kind.
        """
        raw = to_intrinsics(info, width, height)
        if raw is None or not any(info.d):
            return None
        fisheye, d = _distortion(info)
        plain = np.allclose(info.r, np.eye(3).ravel(), atol=1e-9) or not any(info.r)
        K = to_intrinsics(info, width, height, rectified=True) if info.p[0] and plain else None
        if K is None:
            K = _inner_camera(raw, d, fisheye, (width, height))
        return cls(K, *_maps(raw, d, fisheye, K, (width, height)))

    def image(self, rgb: np.ndarray) -> np.ndarray:
        """A raw image uint8 [H, W, 3], rectified; black where the raw one shows nothing."""
        return cv2.remap(rgb, self.columns, self.rows, cv2.INTER_LINEAR)

    def depth(self, depth: np.ndarray) -> np.ndarray:
        """Depth float32 [H, W] registered to the raw image, metres, 0 where unknown, likewise. Depths are not mixed."""
        return cv2.remap(depth, self.columns, self.rows, cv2.INTER_NEAREST)


@dataclass(frozen=True)
class Lens:
    """What a calibration says of images of one size.

    K: float64 [3, 3], pixels, of the images as they are used; None where they are not calibrated. rectification: what they
    go through before; None for nothing. note: one sentence on distortion that stays in them; '' for none. key: of the
    calibration and size that it was made from.
    """

    K: np.ndarray | None = None
    rectification: Rectification | None = None
    note: str = ''
    key: tuple | None = None


def lens_key(info: CameraInfo, width: int, height: int) -> tuple:
    """What the lens of width x height images depends on. Drivers send a calibration with every image."""
    roi = info.roi
    window = roi.x_offset, roi.y_offset, roi.width, roi.height
    numbers = (info.k.tobytes(), info.r.tobytes(), info.p.tobytes(), tuple(info.d))
    return width, height, info.width, info.height, window, info.distortion_model, numbers


def lens_of(info: CameraInfo, width: int, height: int, rectified: bool, rectify: bool, name: str) -> Lens:
    """The lens of width x height images.

    Args:
        info: Their calibration.
        width: Pixels.
        height: Pixels.
        rectified: Whether the images come rectified.
        rectify: Whether they shall be rectified where they do not.
        name: Of the anchor.
    """
    key = lens_key(info, width, height)
    try:
        K = to_intrinsics(info, width, height, rectified)
    except CalibrationError:
        return Lens(key=key)
    if rectified or K is None:
        return Lens(K, key=key)
    try:
        if rectify and (rectification := Rectification.of(info, width, height)) is not None:
            return Lens(rectification.K, rectification, key=key)
        moved = displacement(info, width, height)
    except CalibrationError as error:
        return Lens(K, None, f'Images of anchor_{name} are distorted and are used as they are: {error}', key)
    if moved <= NOTICEABLE:
        return Lens(K, key=key)
    note = (
        f'Images of anchor_{name} are distorted by up to {moved:.0f} pixels and are used as they are; set rectify to true, or '
        'remap the topic to rectified images (image_rect_color).'
    )
    return Lens(K, None, note, key)


def displacement(info: CameraInfo, width: int, height: int) -> float:
    """How far distortion moves a pixel of width x height images at most, pixels; 0 for none, or without a calibration.

    Raises:
        CalibrationError: As of `Rectification.of`.
    """
    K = to_intrinsics(info, width, height)
    if K is None or not any(info.d):
        return 0.0
    fisheye, d = _distortion(info)
    columns, rows = _maps(K, d, fisheye, K, (width, height))
    moved = np.hypot(columns - np.arange(width), rows - np.arange(height)[:, None])
    return float(np.nan_to_num(moved, nan=np.inf).max())


def _distortion(info: CameraInfo) -> tuple[bool, np.ndarray]:
    """Whether the model is a fisheye's, and its numbers."""
    d, model = np.array(info.d, np.float64), info.distortion_model
    if not np.isfinite(d).all():
        raise CalibrationError('d has numbers that are not finite', 'calibrate the camera again')
    if model in _FISHEYE and len(d) == 4:
        return True, d
    if len(d) in _POLYNOMIAL.get(model, ()):
        return False, d
    raise CalibrationError(
        f'distortion_model {quoted(model)} with {len(d)} numbers is not known',
        'calibrate with plumb_bob (4 or 5 numbers), rational_polynomial (8) or equidistant (4), or use rectified images',
    )


def _inner_camera(K: np.ndarray, d: np.ndarray, fisheye: bool, size: tuple[int, int]) -> np.ndarray:
    """The camera whose rectified image shows no place beyond the raw one; the raw K where that search fails."""
    if fisheye:
        found = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(K, d, size, np.eye(3), balance=0.0)
    else:
        found, _ = cv2.getOptimalNewCameraMatrix(K, d, size, 0.0)
    zoom = np.array([found[0, 0] / K[0, 0], found[1, 1] / K[1, 1]])
    usable = np.isfinite(found).all() and (zoom > _ZOOM[0]).all() and (zoom < _ZOOM[1]).all()
    return found if usable else K


def _maps(
    raw: np.ndarray, d: np.ndarray, fisheye: bool, K: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    init = cv2.fisheye.initUndistortRectifyMap if fisheye else cv2.initUndistortRectifyMap
    return init(raw, d, np.eye(3), K, size, cv2.CV_32FC1)
