"""What calibration a recording claims, checked against the recording: the arm in the images, and the kinematics of its joints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from wristworld_ros.data.episode import Episode
from wristworld_ros.data.poses import inverse
from wristworld_ros.errors import UserError
from wristworld_ros.geometry import resize_intrinsics
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.robot.episode_kinematics import EpisodeKinematics
from wristworld_ros.robot.outline import judge_camera

_FRAMES = 40  # that are looked at
_STEP = 0.4  # seconds between two of them at most: features are followed from one to the next
_WIDTH = 320  # pixels to which images are brought
_HAND = 0.005  # metres between the pose of the hand that is told and that of the joints


@dataclass(frozen=True)
class ClaimCheck:
    """A claim and how it fits. what: a camera's name, or 'hand'. residual: pixels between the arm's outline and what changes in the camera's
    images (of `_WIDTH`); for the hand, metres between its told place and that of the joints, at most; NaN where it cannot be told.
    explained: share of the motion in the images that the arm explains; NaN for the hand. doubt: why it is not to be believed, a clause, ''
    where it is."""

    what: str
    residual: float
    explained: float
    doubt: str

    @property
    def sentence(self) -> str:
        """One line for a terminal."""
        if self.what == 'hand':
            told = f'the hand is {1000 * self.residual:.2f} mm from where the joints put it, at most'
        else:
            told = f'{self.explained:.0%} of the motion is the arm, its outline {self.residual:.1f} px off'
        return f'{self.what}: {self.doubt or "fits"}' + (f' ({told})' if np.isfinite(self.residual) else '')


def claimed_cameras(episode: Episode) -> dict[str, np.ndarray]:
    """T_base_camera, float64 [4, 4], of the anchors that stand still, as the recording says or claims it, by name."""
    claims = dict(episode.meta.get('claimed_T_base_camera') or {})
    found = {}
    for name in episode.names('anchor'):
        poses = episode.T_camera_world(name)
        if poses is not None and np.isfinite(poses).all() and np.allclose(poses, poses[0], atol=1e-6):
            found[name] = inverse(poses[0])
        elif name in claims and np.shape(claims[name]) == (4, 4) and np.isfinite(claims[name]).all():
            found[name] = np.asarray(claims[name], np.float64)
    return found


def check_claims(episode: Episode, kinematics: EpisodeKinematics) -> list[ClaimCheck]:
    """Check the places of the cameras beside the robot, and the pose of its hand.

    Raises:
        UserError: The episode's joints are not the robot's, or its images cannot be read.
    """
    found = [_hand(episode, kinematics)] if episode.T_base_hand is not None else []
    claims = claimed_cameras(episode)
    if not claims:
        return found
    frames = _chosen(episode)
    positions = kinematics.positions(episode)
    for name, T_base_camera in claims.items():
        try:
            found.append(_camera(episode, kinematics, name, T_base_camera, frames, positions))
        except UserError as error:
            found.append(ClaimCheck(name, np.nan, np.nan, error.what))
    return found


def _camera(
    episode: Episode, kinematics: EpisodeKinematics, name: str, T_base_camera, frames: np.ndarray, positions: list
) -> ClaimCheck:
    surfaces = [kinematics.surface(positions[frame]) for frame in frames]
    if any(surface is None for surface in surfaces):
        raise UserError('the robot description has no surface, or a joint is unknown', 'give its meshes')
    camera, K = episode.camera(name), episode.K(name)
    hw = (round(_WIDTH * camera.height / camera.width), _WIDTH)
    images = resize_images(episode.read(name, frames), hw)
    if K is not None:
        K = resize_intrinsics(torch.from_numpy(K[frames[0]]), (camera.height, camera.width), hw).numpy()
    judged = judge_camera(images, [surface for surface in surfaces if surface is not None], T_base_camera, K)
    return ClaimCheck(name, judged.residual, judged.explained, judged.doubt)


def _hand(episode: Episode, kinematics: EpisodeKinematics) -> ClaimCheck:
    assert episode.T_base_hand is not None
    if episode.hand_link not in kinematics.robot.link_names:
        link = (
            f'its link {episode.hand_link!r} is none of the robot description'
            if episode.hand_link
            else 'nobody says of which link'
        )
        return ClaimCheck('hand', np.nan, np.nan, f'its pose cannot be checked, for {link}')
    known = kinematics.poses(episode, episode.hand_link)
    apart = np.linalg.norm(known[:, :3, 3] - episode.T_base_hand[:, :3, 3], axis=1)
    most = float(np.nanmax(apart)) if np.isfinite(apart).any() else np.nan
    doubt = f'it is more than {1000 * _HAND:g} mm from where the joints put it' if most > _HAND else ''
    return ClaimCheck('hand', most, np.nan, doubt)


def _chosen(episode: Episode) -> np.ndarray:
    """Frames in order, evenly spread, near enough to each other that features can be followed."""
    step = max(1, min(-(-len(episode) // _FRAMES), int(_STEP * episode.fps)))
    return np.arange(0, len(episode), step)[:_FRAMES]
