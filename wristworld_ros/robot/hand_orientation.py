"""One orientation of the hand from all cameras that see it.

How still cameras are turned to each other does not change, so the mean of all looks at the hand tells it better than any, and what
one camera says of the hand's orientation then counts for the others too.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

_MOVED = 0.02  # metres that the hand must have moved for another look to be kept
_KEPT = 40  # looks


class SharedOrientation:
    """Orientations of a hand in V still cameras.

    Args:
        middle: Point of the hand whose place is found best, in its own frame [3], metres.
    """

    def __init__(self, middle: tuple[float, float, float]):
        self._middle = np.array(middle)
        self.reset()

    def reset(self) -> None:
        """Forget the cameras."""
        self._last = np.zeros(3)  # where the hand was at the last look
        self._looks: list[np.ndarray] = []  # [V, 3, 3] each: from the first camera's axes to each camera's
        self._turns: np.ndarray | None = None  # their mean

    def update(self, T_camera_hand: np.ndarray) -> np.ndarray:
        """Take in where each camera sees the hand; returns that with the orientations that all of them agree upon.

        Args:
            T_camera_hand: [V, 4, 4], metres.
        """
        R, places = T_camera_hand[:, :3, :3], T_camera_hand[:, :3, :3] @ self._middle + T_camera_hand[:, :3, 3]
        if self._turns is not None and len(self._turns) != len(R):
            self.reset()
        if self._turns is None or np.linalg.norm(places[0] - self._last) > _MOVED:
            self._last = places[0]
            self._looks = [*self._looks[-_KEPT + 1 :], R @ R[0].T]
            self._turns = np.stack([_mean(looks) for looks in np.stack(self._looks, 1)])
        shared = T_camera_hand.copy()
        shared[:, :3, :3] = self._turns @ _mean(np.swapaxes(self._turns, 1, 2) @ R)
        shared[:, :3, 3] = places - shared[:, :3, :3] @ self._middle
        return shared


def _mean(rotations: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(rotations).mean().as_matrix()
