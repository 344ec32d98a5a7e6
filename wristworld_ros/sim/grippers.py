"""The two grippers: Franka's hand and a Robotiq 2F-85. Their joints follow the arm's seven in every state of the scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

PREFIX = 'gripper0_right_'
ARM = 7  # joints before those of the gripper


@dataclass(frozen=True)
class Gripper:
    """A gripper with parallel fingers that one number drives.

    name: of the setting. part: robosuite's class. links: bodies (without PREFIX), parents first, and the links of the description that
    they are. joints: in the order of the state, and the joints that they are in the description. opened: their positions when it is
    open, radians or metres. moves: how far each goes from there until it is closed. driven, drives: the same of what the drives
    are told. width: metres between the open fingers. straight: whether it sits on the flange as DROID's does, not turned by -45
    degrees as Franka's hand.
    """

    name: str
    part: str
    links: Mapping[str, str]
    joints: Mapping[str, str]
    opened: tuple[float, ...]
    moves: tuple[float, ...]
    driven: tuple[float, ...]
    drives: tuple[float, ...]
    width: float
    straight: bool = False

    def state(self, opening: float) -> np.ndarray:
        """Positions of the joints at a distance between the fingers, metres."""
        return np.array(self.opened) + np.array(self.moves) * self._closed(opening)

    def control(self, opening: float) -> np.ndarray:
        """What the drives are told for that distance."""
        return np.array(self.driven) + np.array(self.drives) * self._closed(opening)

    def opening(self, states: np.ndarray) -> np.ndarray:
        """Distance between the fingers, metres [...], of states [..., n]."""
        if self.width == -2 * self.moves[0]:  # two fingers that slide, each by its own joint
            return states[..., ARM] - states[..., ARM + 1]
        return self.width * (1 - (states[..., ARM] - self.opened[0]) / self.moves[0])

    def _closed(self, opening: float) -> float:
        return float(np.clip(1 - opening / self.width, 0.0, 1.0))


FRANKA = Gripper(
    'franka', 'PandaGripper',
    links={'right_gripper': 'fr3_gripper', 'leftfinger': 'fr3_leftfinger', 'rightfinger': 'fr3_rightfinger'},
    joints={'finger_joint1': 'fr3_finger_joint1', 'finger_joint2': 'fr3_finger_joint2'},
    opened=(0.04, -0.04), moves=(-0.04, 0.04), driven=(0.04, -0.04), drives=(-0.04, 0.04), width=0.08,
)  # fmt: skip
ROBOTIQ_CLOSED = 0.8  # radians of finger_joint
# How the joints follow finger_joint, in the order of the state: the fingers stay parallel.
ROBOTIQ_FOLLOWS = {
    'finger_joint': 1, 'left_inner_finger_joint': -1, 'left_inner_knuckle_joint': 1, 'right_outer_knuckle_joint': 1,
    'right_inner_finger_joint': -1, 'right_inner_knuckle_joint': 1,
}  # fmt: skip
ROBOTIQ_PARTS = (
    'robotiq_85_adapter_link', 'left_outer_knuckle', 'left_inner_finger', 'left_inner_knuckle', 'right_outer_knuckle',
    'right_inner_finger', 'right_inner_knuckle',
)  # fmt: skip
ROBOTIQ = Gripper(
    'robotiq', 'Robotiq85Gripper',
    links={part: part for part in ROBOTIQ_PARTS},
    joints={joint: joint for joint in ROBOTIQ_FOLLOWS},
    opened=(0.0,) * len(ROBOTIQ_FOLLOWS),
    moves=tuple(ROBOTIQ_CLOSED * factor for factor in ROBOTIQ_FOLLOWS.values()),
    driven=(0.0, 0.0), drives=(ROBOTIQ_CLOSED, ROBOTIQ_CLOSED), width=0.085,
)  # fmt: skip
DROID = replace(ROBOTIQ, name='droid', straight=True)
GRIPPERS = {gripper.name: gripper for gripper in (FRANKA, ROBOTIQ, DROID)}
CHOSEN = (FRANKA.name, ROBOTIQ.name)  # by the setting `gripper`; DROID's belongs to its rig
