"""Given places of anchors without depth, corrected by where the hand is seen in them.

Kinematics say where the hand is; a calibration says where an anchor should see it. What the hand network finds instead, over many
poses of the hand, is the calibration's error: mostly a small rotation, for half a degree moves what is seen more than 5 mm do.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from wristworld_ros.models.hand import HandNetwork, refine_pose
from wristworld_ros.models.hand.crop import MIDDLE
from wristworld_ros.robot.known_cameras import PlacedCameras

_PRIOR = np.radians(0.6)  # standard deviation of a calibration's rotation, 5 mm of its position included
_NOISE = 0.006  # radians, standard deviation of where one image shows the hand
_SHARED = 0.002  # radians, what such errors have in common in all images of one camera
# Turns up to the first are the network's own errors and not made; from the second on they are made whole.
_SURE = np.radians((0.15, 0.25))
_MOVED = 0.02  # metres that the hand must have moved for another look at it
_KEPT = 40  # looks at the hand


class HandRegistration:
    """Corrections of one stream's anchors.

    Args:
        network: Finds the hand.
        device: Where it runs.
    """

    def __init__(self, network: HandNetwork, device: torch.device):
        self._network, self._device = network, device
        self.reset()

    def reset(self) -> None:
        """Forget what has been seen."""
        self._expected: list[np.ndarray] = []  # [V, 3] each: directions to the hand by the given places
        self._found: list[np.ndarray] = []
        self._last: np.ndarray | None = None

    def corrected(self, placed: PlacedCameras, images: np.ndarray, T_hand_wrist: np.ndarray | None) -> PlacedCameras:
        """The cameras with the anchors turned as all looks at the hand so far ask for.

        Args:
            placed: Given places of the wrist and all V anchors.
            images: uint8 [V, H, W, 3].
            T_hand_wrist: Where the wrist camera is mounted, [4, 4]; None where the network's own mount is to be assumed.
        """
        T_own = self._network.own_from_mounted(T_hand_wrist) @ placed.T[0]
        place = np.linalg.inv(T_own)[:3] @ (*MIDDLE, 1.0)
        if self._last is None or np.linalg.norm(place - self._last) > _MOVED:
            self._last = place
            self._look(placed, T_own, images)
        T = placed.T.copy()
        for view in range(len(images)):
            turn = np.eye(4)
            turn[:3, :3] = self.rotation(view)
            T[1 + view] = turn @ T[1 + view]
        return replace(placed, T=T)

    def rotation(self, view: int) -> np.ndarray:
        """Of an anchor's camera about its centre, [3, 3]: the most probable one, by Gaussian errors."""
        count = len(self._expected)
        if not count:
            return np.eye(3)
        variance = _NOISE**2 + count * _SHARED**2  # of one look, so that the mean of all keeps what they share
        normal, right = np.eye(3) / _PRIOR**2, np.zeros(3)
        for expected, found in zip(self._expected, self._found, strict=True):
            cross = _cross(expected[view])
            normal += cross.T @ cross / variance
            right += -cross.T @ (found[view] - expected[view]) / variance
        turn = np.linalg.solve(normal, right)
        return Rotation.from_rotvec(np.interp(np.linalg.norm(turn), _SURE, (0.0, 1.0)) * turn).as_matrix()

    def _look(self, placed: PlacedCameras, T_own: np.ndarray, images: np.ndarray) -> None:
        guess = placed.T[1:] @ np.linalg.inv(T_own)
        views = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float() / 255
        K, T = (torch.from_numpy(x).float().to(self._device) for x in (placed.K[1:], guess))
        poses, _ = refine_pose(self._network, views, K, T, 1)
        for kept, pose in ((self._expected, guess), (self._found, poses.double().cpu().numpy())):
            middle = pose[:, :3] @ (*MIDDLE, 1.0)
            kept.append(middle / np.linalg.norm(middle, axis=1, keepdims=True))
            del kept[:-_KEPT]


def _cross(v: np.ndarray) -> np.ndarray:
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
