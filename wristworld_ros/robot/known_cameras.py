"""Known and predicted cameras in one world: whatever is known stands, and the rest of a prediction is moved to fit it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from wristworld_ros.geometry.alignment import Similarity, align_cameras
from wristworld_ros.types import AnchorSet, Camera


@dataclass(frozen=True)
class KnownCameras:
    """What an anchor set knows of V anchors and of the wrist camera.

    K: float64 [V, 3, 3], pixels of the set's images, NaN where unknown. T_camera_base: float64 [V, 4, 4], NaN where unknown.
    wrist: at the size of the wrist image, or None.
    """

    K: np.ndarray
    T_camera_base: np.ndarray
    wrist: Camera | None

    @classmethod
    def of(cls, anchors: AnchorSet, wrist_hw: tuple[int, int]) -> KnownCameras:
        """The cameras of a set; a wrist camera of another size is brought to `wrist_hw`, as its image would be resized."""
        views = len(anchors.names)
        K = np.full((views, 3, 3), np.nan) if anchors.intrinsics is None else np.asarray(anchors.intrinsics, np.float64)
        T = np.full((views, 4, 4), np.nan)
        if anchors.T_base_anchor is not None:
            for view, pose in enumerate(np.asarray(anchors.T_base_anchor, np.float64)):
                T[view] = np.linalg.inv(pose) if np.isfinite(pose).all() else np.nan
        return cls(K, T, anchors.wrist and resized_camera(anchors.wrist, wrist_hw))

    @property
    def has_K(self) -> np.ndarray:
        """Bool [V]."""
        return np.isfinite(self.K).all((1, 2))

    @property
    def placed(self) -> np.ndarray:
        """Bool [V]: the anchors whose place in the base frame is known."""
        return np.isfinite(self.T_camera_base).all((1, 2))


@dataclass(frozen=True)
class PlacedCameras:
    """Cameras in one world. K: float64 [1 + V, 3, 3], wrist first, pixels; T: float64 [1 + V, 4, 4], camera-from-world.

    scale: metres of this world to one of the prediction's. world, metric: as of `types.Reconstruction`.
    """

    K: np.ndarray
    T: np.ndarray
    scale: float
    world: Literal['base', 'anchor']
    metric: bool


def resized_camera(camera: Camera, hw: tuple[int, int]) -> Camera:
    """The camera of the image after it was resized to hw, pixels."""
    x, y = hw[1] / camera.width, hw[0] / camera.height
    resize = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    return Camera(resize @ camera.K, camera.T_camera_world, hw[1], hw[0])


def place_cameras(K: np.ndarray, T: np.ndarray, known: KnownCameras, scale: float | None) -> PlacedCameras:
    """Predicted cameras, corrected by what is known.

    Where anchors are placed, the world is the robot's base, and whatever is not known itself moves there by the similarity
    that fits the predicted cameras of those anchors to their true ones.

    Args:
        K: Predicted, float64 [1 + V, 3, 3], wrist first, pixels of the sets' images.
        T: Predicted, float64 [1 + V, 4, 4], camera from the first anchor's camera, in the model's metres.
        known: What is known.
        scale: Metres to one of the model's, from measured depth; None where that has not been measured.
    """
    K, T = K.copy(), T.copy()
    views = np.flatnonzero(known.placed)
    K[1:][known.has_K] = known.K[known.has_K]
    if known.wrist is not None:
        K[0] = known.wrist.K
    if not len(views):
        T[:, :3, 3] *= scale or 1.0
        return PlacedCameras(K, T, scale or 1.0, 'anchor', scale is not None)
    fit = align_cameras(torch.from_numpy(T[1:][views]), torch.from_numpy(known.T_camera_base[views]))
    if scale is not None:
        fit = _with_scale(fit, scale, T[1:][views], known.T_camera_base[views])
    T = fit.cameras(torch.from_numpy(T)).numpy()
    T[1:][views] = known.T_camera_base[views]
    if known.wrist is not None:
        T[0] = known.wrist.T_camera_world
    return PlacedCameras(K, T, float(fit.scale), 'base', scale is not None or len(views) > 1)


def _with_scale(fit: Similarity, scale: float, source: np.ndarray, target: np.ndarray) -> Similarity:
    """The same rotation with another scale, and the translation that then fits the camera centres best."""
    centres = torch.from_numpy(np.stack([np.linalg.inv(T)[:3, 3] for T in source]))
    wanted = torch.from_numpy(np.stack([np.linalg.inv(T)[:3, 3] for T in target]))
    size = torch.tensor(scale, dtype=torch.float64)
    return Similarity(size, fit.rotation, wanted.mean(0) - size * (centres @ fit.rotation.T).mean(0))
