"""What every episode can do, whatever its format."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from wristworld_ros.data.check import check_episode_at
from wristworld_ros.data.episode import DataSet, Episode, EpisodeCamera
from wristworld_ros.data.ground_truth import read_ground_truth
from wristworld_ros.data.matching import nearest
from wristworld_ros.data.poses import inverse, pose_from_xyz_quaternion, pose_from_xyz_rpy, xyz_quaternion_from_pose
from wristworld_ros.errors import UserError

FRAMES = 70


@dataclass(frozen=True, kw_only=True)
class Numbered(Episode):
    """Images whose grey level is their number; some cannot be read. asked: how many were asked for at once."""

    broken: tuple[int, ...] = ()
    asked: list

    def read(self, camera, indices):
        self.asked.append(len(indices))
        if set(self.broken) & set(indices):
            raise UserError(f'Frame {min(set(self.broken) & set(indices))} is torn', 'glue it')
        return np.broadcast_to(np.asarray(indices, np.uint8)[:, None, None, None], (len(indices), 4, 6, 3))


def episode(**fields):
    cameras = (EpisodeCamera('left', 'anchor', 6, 4, False), EpisodeCamera('wrist', 'wrist', 6, 4, False))
    return Numbered(**{
        'path': Path('here'), 'name': 'episode 3', 'cameras': cameras, 'fps': 10, 'stamps_ns': np.arange(FRAMES) * 10**8, 'asked': [],
    } | fields)  # fmt: skip


class One(DataSet):
    """A set of one episode."""

    def __init__(self, one):
        self.one = one

    def __len__(self):
        return 1

    def episode(self, index):
        return self.one


def problems(**fields):
    return [problem.what for problem in check_episode_at(One(episode(**fields)), 0)]


def test_images_one_by_one_are_never_all_in_memory():
    numbered = episode()
    assert [int(image[0, 0, 0]) for image in numbered.rgb_frames('left')] == list(range(FRAMES))
    assert max(numbered.asked) < FRAMES / 2 and sum(numbered.asked) == FRAMES


def test_what_is_not_known_is_none_and_asking_for_it_says_what_to_do():
    numbered = episode()
    assert numbered.K('left') is None and numbered.T_camera_world('left') is None and numbered.task == ''
    with pytest.raises(UserError, match="Camera 'left' of episode here has no intrinsics; calibrate it"):
        numbered.camera_at('left', 0)
    with pytest.raises(UserError, match='stored without depth'):
        numbered.depth('left')
    with pytest.raises(UserError, match='stored without object masks'):
        numbered.objects('left')
    with pytest.raises(UserError, match="Camera 'left' of episode here has no intrinsics"):
        read_ground_truth(numbered, (4, 6))


def test_a_check_names_frames_and_numbers_and_goes_on():
    stamps = np.arange(FRAMES) * 10**8
    stamps[20] = stamps[19]
    joints, hand = np.zeros((FRAMES, 7)), np.tile(np.eye(4), (FRAMES, 1, 1))
    joints[[4, 6], 2] = np.nan
    hand[9, 0, 0], hand[12] = 1.1, np.inf
    assert problems(stamps_ns=stamps, joints=joints, T_base_hand=hand, broken=(7, 8, 30)) == [
        'Episode 3: joints of frame 4 is not finite, and of 1 more.',
        'Episode 3: the pose of the hand of frame 12 is not finite.',
        'Episode 3: the time of frame 20 is not after that of frame 19.',
        'Episode 3: the pose of the hand of frame 9 is no rigid motion.',
        "Episode 3: frames 7 to 8 have no image of camera 'left' (Frame 7 is torn).",
        "Episode 3: frame 30 has no image of camera 'left' (Frame 30 is torn).",
        "Episode 3: frames 7 to 8 have no image of camera 'wrist' (Frame 7 is torn).",
        "Episode 3: frame 30 has no image of camera 'wrist' (Frame 30 is torn).",
    ]
    assert problems() == []


def test_the_nearest_of_two_is_taken_and_of_two_alike_the_earlier():
    times = np.array([0, 10, 20, 100])
    assert nearest(times, np.array([-5, 4, 5, 6, 59, 61, 300])).tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert nearest(np.array([7]), np.array([0, 9])).tolist() == [0, 0]


def test_poses_come_from_angles_and_quaternions_and_go_back():
    turned = pose_from_xyz_rpy(np.array([1, 2, 3, 0, 0, np.pi / 2]))
    np.testing.assert_allclose(turned @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-12)
    # About the fixed axes, x first: roll turns y to z, then yaw turns x to y.
    both = pose_from_xyz_rpy(np.array([0, 0, 0, np.pi / 2, 0, np.pi / 2]))
    np.testing.assert_allclose(both[:3, :3] @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    poses = pose_from_xyz_rpy(np.random.default_rng(0).uniform(-1, 1, (5, 6)))
    np.testing.assert_allclose(pose_from_xyz_quaternion(xyz_quaternion_from_pose(poses)), poses, atol=1e-12)
    np.testing.assert_allclose(inverse(poses) @ poses, np.tile(np.eye(4), (5, 1, 1)), atol=1e-12)
    torn = pose_from_xyz_rpy(np.array([[0, 0, 0, 0, np.nan, 0], [0, 0, 0, 0, 0, 0]]))
    assert np.isnan(torn[0]).all() and np.array_equal(torn[1], np.eye(4))
    assert np.isnan(pose_from_xyz_quaternion(np.zeros(7))).all()
