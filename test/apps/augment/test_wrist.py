"""`--wrist-mount`: one camera, told in any link of the hand, is at one place in the base and at one on the gripper."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.apps.augment.wrist import episode_wrist
from wristworld_ros.data.formats.videos import VideoEpisode
from wristworld_ros.errors import UserError
from wristworld_ros.models.hand.network import HandConfig, HandNetwork
from wristworld_ros.setting import check

FRAMES = 3
HW = (32, 32)
# 5 cm before Franka's hand, as the hand network's own mount; on the flange the same place is turned by -45 degrees.
IN_HAND = '0.05 0 0 0 0 0.70710678118 0.70710678118'


def turned(degrees):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler('z', degrees, degrees=True).as_matrix()
    return T


def mount_text(T):
    return ' '.join(map(str, [*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat()]))


IN_FLANGE = mount_text(turned(-45) @ np.array([[0.0, -1, 0, 0.05], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))


@pytest.fixture
def recorded():
    """An episode of an arm that reports the pose of its flange."""
    rng = np.random.default_rng(4)
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, :3, :3] = Rotation.random(FRAMES, rng=5).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(FRAMES, 3))
    return VideoEpisode(
        path=Path('set'), name='episode 0', cameras=(), fps=10.0, stamps_ns=np.arange(FRAMES) * 10**8, T_base_hand=poses,
        hand_link='panda_link8', tracks={}, rows=None, stride=1,
    )  # fmt: skip


def wrist(episode, **settings):
    return episode_wrist(episode, AugmentSettings(**settings), HW, None)


def test_a_mount_told_on_the_flange_and_in_the_hand_is_one_camera(recorded):
    one = wrist(recorded, wrist_mount=IN_HAND, wrist_mount_link='panda_hand')
    two = wrist(recorded, wrist_mount=IN_FLANGE, gripper_link='panda_hand')
    np.testing.assert_allclose(one.mounted().T_camera_world, two.mounted().T_camera_world, atol=1e-9)
    for a, b in zip(one.cameras(), two.cameras(), strict=True):
        np.testing.assert_allclose(a.T_camera_world, b.T_camera_world, atol=1e-9)
    T_base_wrist = np.linalg.inv(one.cameras()[1].T_camera_world)
    expected = recorded.T_base_hand[1] @ turned(-45) @ [0.05, 0, 0, 1]
    np.testing.assert_allclose(T_base_wrist[:3, 3], expected[:3], atol=1e-9)


def test_the_hand_network_is_told_its_own_mount_where_that_is_given_on_the_flange(recorded):
    network = HandNetwork(HandConfig(size=32, widths=(8,), dense=8))
    T_hand_wrist = np.linalg.inv(
        wrist(recorded, wrist_mount=IN_FLANGE, gripper_link='panda_hand').mounted().T_camera_world
    )
    np.testing.assert_allclose(network.own_from_mounted(T_hand_wrist), np.eye(4), atol=1e-9)
    wrong = np.linalg.inv(wrist(recorded, wrist_mount=IN_FLANGE, gripper_link='panda_link8').mounted().T_camera_world)
    off = Rotation.from_matrix(network.own_from_mounted(wrong)[:3, :3]).magnitude()
    assert np.degrees(off) == pytest.approx(45)


def test_a_gripper_straight_on_the_flange_as_droid_s_has_the_flange_s_axes(recorded):
    told = wrist(replace(recorded, gripper_link='panda_link8'), wrist_mount=IN_HAND)
    np.testing.assert_allclose(np.linalg.inv(told.mounted().T_camera_world)[:3, 3], [0.05, 0, 0], atol=1e-9)


def test_a_pose_of_a_link_that_nobody_names_is_taken_for_the_mount_s(recorded):
    nameless = replace(recorded, hand_link='')
    told = wrist(nameless, wrist_mount=IN_HAND, wrist_mount_link='panda_hand')
    expected = recorded.T_base_hand[0] @ [0.05, 0, 0, 1]
    np.testing.assert_allclose(np.linalg.inv(told.cameras()[0].T_camera_world)[:3, 3], expected[:3], atol=1e-9)


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        ({}, 'wrist_mount is given in panda_link8, and nothing says how the gripper is turned on it; give --gripper-link'),
        ({'wrist_mount_link': 'wrist_hand'}, "Where the link 'wrist_hand' is to 'panda_link8' is not known; give the robot description"),
        ({'gripper_link': 'gripper_base'}, "Where the link 'panda_link8' is to 'gripper_base' is not known; give the robot description"),
    ],
)  # fmt: skip
def test_what_nobody_says_is_asked_for_in_one_sentence(recorded, settings, said):
    told = wrist(recorded, wrist_mount=IN_HAND, **settings)
    with pytest.raises(UserError) as error:
        told.mounted()
        told.cameras()
    assert str(error.value).startswith(said)


@pytest.mark.parametrize('name', ['wrist_mount_link', 'gripper_link'])
def test_a_link_without_a_mount_is_refused(name):
    with pytest.raises(UserError, match=f'{name} is given, and wrist_mount is not'):
        check(AugmentSettings(**{name: 'panda_hand'}))
