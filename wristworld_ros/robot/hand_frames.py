"""Where links of one hand are to each other: the one whose pose is known, the one that carries the camera, and the gripper's own.

A Franka arm ends in a flange (panda_link8) to which its hand (panda_hand) is turned by -45 degrees about their common z axis. What is
told in one of them is 45 degrees wrong in the other.
"""

from __future__ import annotations

import re

import numpy as np
from scipy.spatial.transform import Rotation

from wristworld_ros.errors import UserError

_FRANKA = re.compile(r'(.*(?:panda|fr3|fer|fp3))_(link7|link8|hand|hand_tcp)')
_HAND = re.compile(r'(.*[_/])?hand')


def _along_z(metres: float, degrees: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler('z', degrees, degrees=True).as_matrix()
    T[2, 3] = metres
    return T


# T_flange_link of Franka's descriptions of the Panda and the FR3, metres.
_ON_FLANGE = {
    'link7': _along_z(-0.107), 'link8': _along_z(0.0), 'hand': _along_z(0.0, -45), 'hand_tcp': _along_z(0.1034, -45),
}  # fmt: skip


def between_links(parent: str, child: str) -> np.ndarray | None:
    """T_parent_child of two links of a hand by their names alone, float64 [4, 4], metres.

    Known are a link and itself, and links 7 and 8, hand and hand_tcp of one Franka arm (panda_, fr3_, fer_ or fp3_); None for others.
    """
    if parent == child:
        return np.eye(4)
    one, two = _FRANKA.fullmatch(parent), _FRANKA.fullmatch(child)
    if one is None or two is None or one[1] != two[1]:
        return None
    return np.linalg.inv(_ON_FLANGE[one[2]]) @ _ON_FLANGE[two[2]]


def gripper_link(mount_link: str, told: str = '', links: tuple[str, ...] = ()) -> str:
    """The link that is the gripper's own: its z axis points to the fingertips, and along its y axis the fingers open.

    Args:
        mount_link: That a wrist camera is given in.
        told: What a recording says; '' where it says nothing.
        links: Of the robot description; empty where there is none.

    Raises:
        UserError: Nothing says which it is.
    """
    if told:
        return told
    if _HAND.fullmatch(mount_link):
        return mount_link
    hands = [link for link in links if _HAND.fullmatch(link)]
    if len(hands) == 1:
        return hands[0]
    raise UserError(
        f'wrist_mount is given in {mount_link or "a link that nobody names"}, and nothing says how the gripper is turned on it',
        "give --gripper-link: panda_hand for Franka's own hand, panda_link8 for a gripper straight on the flange, as DROID's; or in general "
        'the link whose z axis points to the fingertips and along whose y axis the fingers open',
    )  # fmt: skip
