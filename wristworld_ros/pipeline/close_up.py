"""Wrist views from images alone: stage 1's cameras, corrected by how the hand looks in each anchor, and a plane sweep.

Stage 1 places the wrist among the anchors to a few centimetres, which is many pixels from a hand's breadth away. The hand itself
is seen by every anchor, and where it is seen the wrist camera must be.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from wristworld_ros.geometry.alignment import nearest_rotation
from wristworld_ros.geometry.cameras import resize_intrinsics
from wristworld_ros.geometry.support import support_height
from wristworld_ros.models.hand import HandNetwork, refine_pose
from wristworld_ros.models.hand.crop import MIDDLE
from wristworld_ros.pipeline.swept import PlaneSweep, SweptView
from wristworld_ros.robot.hand_orientation import SharedOrientation
from wristworld_ros.robot.known_cameras import resized_camera
from wristworld_ros.types import AnchorSet, Camera

ROUNDS, TRACKED_ROUNDS = 3, 1  # corrections of stage 1's guess, and of where the hand was a moment ago
_ORDINARY = 0.015  # metres: expected errors up to this say nothing
_UNSURE = 0.03  # metres above that at which certainty has fallen to 1 / e
_KEPT = 10  # predictions of what does not change in a stream, whose mean is taken


@dataclass(frozen=True)
class PredictedScene:
    """What stage 1 says of a set. K: float64 [1 + V, 3, 3], wrist first, pixels of the wrist image and of stage 1's images. T: float64
    [1 + V, 4, 4], camera from the first anchor. T_base_anchor: float64 [4, 4], the first anchor's pose in the robot's base.
    points: float32 [V, H, W, 3], in the first anchor's frame."""

    K: np.ndarray
    T: np.ndarray
    T_base_anchor: np.ndarray
    points: Tensor


@dataclass(frozen=True)
class CloseUpView:
    """The wrist's view. T: float64 [1 + V, 4, 4], the corrected cameras, from the first anchor; the wrist's at the network's own mount.
    wrist: the wrist camera as it is mounted, in the same frame. points: float32 [V, H, W, 3], moved with their cameras. swept: what the wrist sees."""

    T: np.ndarray
    wrist: Camera
    points: Tensor
    swept: SweptView


class CloseUp:
    """Wrist views of one stream of images alone.

    Args:
        hand: Corrects the wrist's pose in each anchor.
        sweep: Of the same stream.
        wrist_hw: Size of the wrist image, pixels.
        device: Where the networks run.
    """

    def __init__(self, hand: HandNetwork, sweep: PlaneSweep, wrist_hw: tuple[int, int], device: torch.device):
        self._hand, self._sweep, self._wrist_hw, self._device = hand, sweep, wrist_hw, device
        self._orientation = SharedOrientation(MIDDLE)
        self._bases: deque[np.ndarray] = deque(maxlen=_KEPT)
        self._focals: deque[np.ndarray] = deque(maxlen=_KEPT)
        self.certainty = 1.0  # of the hand's place in the last set, see `hand_certainty`

    def reset(self) -> None:
        """Forget the scene."""
        self.certainty = 1.0
        self._sweep.reset()
        self._orientation.reset()
        self._bases.clear()
        self._focals.clear()

    def steady(self, scene: PredictedScene) -> PredictedScene:
        """A new prediction with the means of a stream in place of what stays: the anchors' focal lengths and the first one's place."""
        self._bases.append(scene.T_base_anchor)
        self._focals.append(scene.K[1:, [0, 1], [0, 1]])
        K, T_base_anchor = scene.K.copy(), np.mean(self._bases, axis=0)
        K[1:, [0, 1], [0, 1]] = np.exp(np.mean(np.log(self._focals), axis=0))
        T_base_anchor[:3, :3] = nearest_rotation(torch.from_numpy(T_base_anchor[:3, :3]))[0].numpy()
        return replace(scene, K=K, T_base_anchor=T_base_anchor)

    def __call__(
        self, anchors: AnchorSet, scene: PredictedScene, stage1_hw: tuple[int, int], tracked: bool = False
    ) -> CloseUpView | None:
        """The view; None where the table cannot be found.

        Args:
            anchors: The images, and how the wrist camera is mounted; as the network's own where that is not known.
            scene: Of the same images; with the wrist where it was a moment ago where it is tracked.
            stage1_hw: Size of the images that stage 1 took.
            tracked: Whether the wrist's pose was corrected before, so that little is wrong with it.
        """
        small = self._sweep.resized(anchors.images)
        hw = small.shape[1:3]
        K = resize_intrinsics(torch.from_numpy(scene.K[1:]), stage1_hw, hw)
        T_anchor_wrist, errors = self._corrected(small, K, scene.T, TRACKED_ROUNDS if tracked else ROUNDS)
        self.certainty = hand_certainty(errors)
        T_anchor_wrist = self._orientation.update(T_anchor_wrist)
        T_wrist = np.linalg.inv(T_anchor_wrist[0])
        T = np.concatenate([T_wrist[None], T_anchor_wrist @ T_wrist])
        points = self._moved(scene.points, T[1:], scene.T[1:])
        wrist = self._mounted(anchors, scene.K[0], T[0])
        swept = self._swept(small, K.numpy(), scene, wrist, T, points)
        return None if swept is None else CloseUpView(T, wrist, points, swept)

    def _mounted(self, anchors: AnchorSet, K: np.ndarray, T_camera_world: np.ndarray) -> Camera:
        """The wrist camera as it is mounted, from the one at the network's own mount."""
        if anchors.mounted is not None:
            K = resized_camera(anchors.mounted, self._wrist_hw).K
        T = np.linalg.inv(self._hand.own_from_mounted(anchors.T_hand_wrist)) @ T_camera_world
        return Camera(K, T, self._wrist_hw[1], self._wrist_hw[0])

    def _corrected(self, images: np.ndarray, K: Tensor, T: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
        guess = T[1:] @ np.linalg.inv(T[0])
        views = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float() / 255
        poses, errors = refine_pose(
            self._hand, views, K.float().to(self._device), torch.from_numpy(guess).float().to(self._device), rounds
        )
        return poses.double().cpu().numpy(), errors.double().cpu().numpy()

    def _moved(self, points: Tensor, T: np.ndarray, T_before: np.ndarray) -> Tensor:
        """Points of every anchor, moved as its camera was."""
        move = torch.from_numpy(np.linalg.inv(T) @ T_before).to(points)
        return points @ move[:, None, :3, :3].mT + move[:, None, None, :3, 3]

    def _swept(
        self, images: np.ndarray, K: np.ndarray, scene: PredictedScene, wrist: Camera, T: np.ndarray, points: Tensor
    ) -> SweptView | None:
        T_world_base = np.linalg.inv(scene.T_base_anchor)
        hw = images.shape[1:3]
        anchors = tuple(Camera(k, t @ T_world_base, hw[1], hw[0]) for k, t in zip(K, T[1:], strict=True))
        wrist = replace(wrist, T_camera_world=wrist.T_camera_world @ T_world_base)
        guess = _table_height(points, scene.T_base_anchor) if self._sweep.searches else None
        return self._sweep(images, anchors, wrist, guess)


def hand_certainty(errors: np.ndarray) -> float:
    """How far the hand's place can be believed, 0 to 1. errors: [V], metres, that the network expects of it in each anchor: large
    where no hand is found that looks like those it has learnt."""
    expected = float(np.exp(np.mean(np.log(errors))))
    return float(min(1.0, np.exp(-(expected - _ORDINARY) / _UNSURE)))


def _table_height(points: Tensor, T_base_anchor: np.ndarray) -> float | None:
    """Height of the level that most of the points near the robot lie at, metres in its base frame."""
    cloud = points[:, ::2, ::2].reshape(-1, 3).double().cpu().numpy()
    cloud = cloud @ T_base_anchor[:3, :3].T + T_base_anchor[:3, 3]
    return support_height(cloud)
