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
        self._places: list[np.ndarray] = []
        self._turns: list[np.ndarray] = []  # [V, 3, 3] each: from the first camera's axes to each camera's

    def update(self, T_camera_hand: np.ndarray) -> np.ndarray:
        """Take in where each camera sees the hand; returns that with the orientations that all of them agree upon.

        Args:
            T_camera_hand: [V, 4, 4], metres.
        """
        R, places = T_camera_hand[:, :3, :3], T_camera_hand[:, :3, :3] @ self._middle + T_camera_hand[:, :3, 3]
        if self._turns and len(self._turns[-1]) != len(R):
            self.reset()
        if not self._places or np.linalg.norm(places[0] - self._places[-1]) > _MOVED:
            self._places = [*self._places[-_KEPT + 1 :], places[0]]
            self._turns = [*self._turns[-_KEPT + 1 :], R @ R[0].T]
        turns = np.stack([_mean(np.stack([turn[v] for turn in self._turns])) for v in range(len(R))])
        first = _mean(np.swapaxes(turns, 1, 2) @ R)
        shared = T_camera_hand.copy()
        shared[:, :3, :3] = turns @ first
        shared[:, :3, 3] = places - shared[:, :3, :3] @ self._middle
        return shared


def _mean(rotations: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(rotations).mean().as_matrix()
