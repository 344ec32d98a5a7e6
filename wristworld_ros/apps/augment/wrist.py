"""Where the wrist camera of an episode is: mounted in a link that settings name, whose pose the set or kinematics tell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.data.episode import Episode
from wristworld_ros.data.poses import inverse, pose_from_xyz_quaternion
from wristworld_ros.errors import UserError
from wristworld_ros.robot.episode_kinematics import EpisodeKinematics
from wristworld_ros.robot.hand_frames import between_links, gripper_link
from wristworld_ros.types import Camera

_FOV = 75.0  # degrees, of a camera whose field of view nobody gives


@dataclass(frozen=True)
class EpisodeWrist:
    """The wrist camera of one episode.

    K: float64 [3, 3], pixels of images of `hw`. T_link_wrist: float64 [4, 4], metres, where it is mounted in `link`, '' where nobody
    names it. gripper: the link that is the gripper's own (see `AnchorSet.mounted`), where settings name it. kinematics: of the robot,
    where its description is given; then its links count, and not the pose that the set has.
    """

    episode: Episode
    K: np.ndarray
    hw: tuple[int, int]
    T_link_wrist: np.ndarray
    link: str
    gripper: str | None = None
    kinematics: EpisodeKinematics | None = None

    def mounted(self) -> Camera:
        """The wrist camera on the gripper, in whose own axes it is.

        Raises:
            UserError: Nothing says which link the gripper's is, or where it is to the camera's.
        """
        height, width = self.hw
        links = self.kinematics.robot.link_names if self.kinematics else ()
        gripper = self.gripper or gripper_link(self.link, self.episode.gripper_link, links)
        return Camera(self.K, inverse(self._between(gripper, self.link or gripper) @ self.T_link_wrist), width, height)

    def cameras(self) -> list[Camera | None]:
        """The wrist camera at every frame, its world the robot's base; None where the hand's pose is not finite.

        Raises:
            UserError: Where its link is at a frame is not known.
        """
        height, width = self.hw
        poses = inverse(self._link_poses() @ self.T_link_wrist)
        return [Camera(self.K, pose, width, height) if np.isfinite(pose).all() else None for pose in poses]

    def _link_poses(self) -> np.ndarray:
        """T_base_link [T, 4, 4]."""
        episode = self.episode
        if self.kinematics is not None:
            if not self.link:
                raise UserError(
                    f'{episode.path} does not say which link carries the wrist camera',
                    'name it with --wrist-mount-link',
                )
            return self.kinematics.poses(episode, self.link)
        if episode.T_base_hand is None:
            raise UserError(
                f'wrist_mount is given, and {episode.name} of {episode.path} does not say where the hand is',
                'leave wrist_mount unknown, or give the robot description with --urdf',
            )
        return episode.T_base_hand @ self._between(episode.hand_link or self.link, self.link)

    def _between(self, parent: str, child: str) -> np.ndarray:
        """T_parent_child of two links of the hand, [4, 4]."""
        known = self.kinematics.robot.link_names if self.kinematics else ()
        if self.kinematics is not None and {parent, child} <= set(known):
            return self.kinematics.between(parent, child)
        T = between_links(parent, child)
        if T is None:
            lacks = ' or '.join(repr(link) for link in (parent, child) if link not in known)
            raise UserError(
                f'Where the link {child!r} is to {parent!r} is not known'
                + (f': the robot description has no {lacks}' if self.kinematics else ''),
                'give the robot description that has both with --urdf, or wrist_mount in the link whose pose the set has',
            )
        return T


def episode_wrist(
    episode: Episode,
    settings: AugmentSettings,
    hw: tuple[int, int],
    fov: float | None,
    kinematics: EpisodeKinematics | None = None,
) -> EpisodeWrist | None:
    """The wrist camera of an episode as settings mount it; None where they do not.

    Args:
        episode: The episode.
        settings: Of the command.
        hw: Size of the model's wrist images.
        fov: Vertical field of view, degrees; None for 75.
        kinematics: Of the robot description that settings name.

    Raises:
        UserError: The mount is no pose.
    """
    mount = settings.wrist_mount
    if mount is None:
        return None
    T_link_wrist = pose_from_xyz_quaternion(np.array(mount.split(), np.float64))
    if not np.isfinite(T_link_wrist).all():
        raise UserError(f'Setting wrist_mount is {mount!r}, whose quaternion is zero', 'give a unit quaternion x y z w')
    height, width = hw
    focal = height / 2 / math.tan(math.radians(fov or _FOV) / 2)
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    link = settings.wrist_mount_link or episode.hand_link
    return EpisodeWrist(episode, K, hw, T_link_wrist, link, settings.gripper_link, kinematics)
