"""A recorded episode's joints and a robot description: where its links were, and its surface."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from wristworld_ros.data.episode import Episode
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import read_bytes
from wristworld_ros.robot.description import RobotModel
from wristworld_ros.types import RobotPoints

MAX_URDF = 64 << 20
_FINGER = re.compile(r'finger|gripper|knuckle|jaw', re.IGNORECASE)


class EpisodeKinematics:
    """Kinematics of a robot for recordings, whose joints have no names: they are the arm's, from base to hand.

    Args:
        robot: Its description.
        base: The link that is the base; None for the root.

    Raises:
        UserError: It has no such link.
    """

    def __init__(self, robot: RobotModel, base: str | None = None):
        self.robot, self.base = robot, base or robot.root
        self._check(self.base)
        self.arm = tuple(name for name in robot.joint_names if not _FINGER.search(name))
        self.fingers = tuple(name for name in robot.joint_names if _FINGER.search(name))

    def poses(self, episode: Episode, link: str) -> np.ndarray:
        """T_base_link at each frame, float64 [T, 4, 4], NaN where a joint is not finite.

        Raises:
            UserError: There is no such link, or the episode's joints are not the arm's.
        """
        self._check(link)
        return np.stack([self._pose(joints, link) for joints in self.positions(episode)])

    def between(self, parent: str, child: str) -> np.ndarray:
        """T_parent_child of two links that no joint of the arm or the fingers moves to each other, float64 [4, 4], metres.

        Raises:
            UserError: There is no such link, or a joint is between them.
        """
        self._check(parent)
        self._check(child)
        found = []
        for position in (0.0, 0.3):
            poses = self.robot.link_poses(dict.fromkeys(self.robot.joint_names, position))
            found.append(np.linalg.inv(poses[parent]) @ poses[child])
        if not np.allclose(*found, atol=1e-9):
            raise UserError(f'A joint moves the link {child!r} to {parent!r}', 'give two links of the hand')
        return found[0]

    def surface(self, joints: dict[str, float]) -> RobotPoints | None:
        """The robot's surface in the base; None where the description gives it none, or a joint is not finite."""
        if not np.isfinite(list(joints.values())).all():
            return None
        found = self.robot.surface(joints, self.base)
        return found if len(found.points) else None

    def positions(self, episode: Episode) -> list[dict[str, float]]:
        """Position of every joint of the description at each frame, radians and metres.

        Fingers follow the gripper: each has half of the gap in metres, or its share of its upper limit; where no gripper was
        recorded, they are open.

        Raises:
            UserError: The episode has no joints, or another number of them than the arm.
        """
        if episode.joints is None:
            raise UserError(f'{episode.name} of {episode.path} has no joints', 'leave the robot description out')
        if episode.joints.shape[1] != len(self.arm):
            raise UserError(
                f'{episode.name} of {episode.path} has {episode.joints.shape[1]} joints, and the arm of the robot description '
                f'{len(self.arm)} ({", ".join(self.arm)})', 'give the description of the robot that was recorded',
            )  # fmt: skip
        fingers = np.stack([self._finger(episode, name) for name in self.fingers], axis=1) if self.fingers else None
        found = []
        for frame, joints in enumerate(episode.joints):
            positions = dict(zip(self.arm, map(float, joints)))
            if fingers is not None:
                positions |= dict(zip(self.fingers, map(float, fingers[frame])))
            found.append(positions)
        return found

    def _finger(self, episode: Episode, name: str) -> np.ndarray:
        upper = self.robot.upper.get(name, 0.0)
        if episode.gripper is None or episode.gripper_unit == 'unknown':
            return np.full(len(episode), upper)
        values = episode.gripper / 2 if episode.gripper_unit == 'metres' else upper * (1 - episode.gripper)
        return np.where(np.isfinite(values), values, upper)

    def _pose(self, joints: dict[str, float], link: str) -> np.ndarray:
        if not np.isfinite(list(joints.values())).all():
            return np.full((4, 4), np.nan)
        poses = self.robot.link_poses(joints)
        return np.linalg.inv(poses[self.base]) @ poses[link]

    def _check(self, link: str) -> None:
        if link not in self.robot.link_names:
            known = ', '.join(self.robot.link_names)
            raise UserError(f'The robot description has no link {link!r}', f'give one of {known}')


def read_kinematics(path: str | Path, base: str | None = None) -> EpisodeKinematics:
    """Kinematics of a robot description.

    Raises:
        UserError: It cannot be read, or has no such base.
    """
    text = read_bytes(path, 'give the URDF of the robot', MAX_URDF).decode('utf-8', 'replace')
    try:
        robot = RobotModel.from_urdf(text)
    except UserError as error:
        raise UserError(
            f'{path}: {error.what}', 'give the URDF of the robot; of a xacro file, the text that xacro makes of it'
        ) from None
    return EpisodeKinematics(robot, base)
