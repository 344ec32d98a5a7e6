"""Frames of a hand by their names: what is told in one of them is where it should be in the others."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wristworld_ros.errors import UserError
from wristworld_ros.robot.description import RobotModel
from wristworld_ros.robot.episode_kinematics import EpisodeKinematics
from wristworld_ros.robot.hand_frames import between_links, gripper_link

FLANGE_TO_HAND = """<robot name="panda"><link name="panda_link7"/><link name="panda_link8"/><link name="panda_hand"/><link name="panda_hand_tcp"/>
<link name="panda_leftfinger"/>
<joint name="j8" type="fixed"><parent link="panda_link7"/><child link="panda_link8"/><origin xyz="0 0 0.107"/></joint>
<joint name="h" type="fixed"><parent link="panda_link8"/><child link="panda_hand"/><origin rpy="0 0 -0.785398163397"/></joint>
<joint name="t" type="fixed"><parent link="panda_hand"/><child link="panda_hand_tcp"/><origin xyz="0 0 0.1034"/></joint>
<joint name="f" type="prismatic"><parent link="panda_hand"/><child link="panda_leftfinger"/><axis xyz="0 1 0"/>
<limit lower="0" upper="0.04" effort="1" velocity="1"/></joint></robot>"""
LINKS = ('panda_link7', 'panda_link8', 'panda_hand', 'panda_hand_tcp')


@pytest.fixture(scope='module')
def kinematics():
    return EpisodeKinematics(RobotModel.from_urdf(FLANGE_TO_HAND))


@pytest.mark.parametrize('parent', LINKS)
@pytest.mark.parametrize('child', LINKS)
def test_names_say_what_franka_s_description_says(kinematics, parent, child):
    np.testing.assert_allclose(between_links(parent, child), kinematics.between(parent, child), atol=1e-9)


def test_the_hand_is_turned_by_minus_45_degrees_on_the_flange():
    T = between_links('fr3_link8', 'fr3_hand')
    np.testing.assert_allclose(Rotation.from_matrix(T[:3, :3]).as_euler('xyz', degrees=True), [0, 0, -45], atol=1e-9)
    np.testing.assert_allclose(T[:3, 3], 0)


@pytest.mark.parametrize(
    'pair',
    [('panda_link8', 'fr3_hand'), ('tool0', 'panda_hand'), ('left_fr3_link8', 'right_fr3_hand'), ('', 'fr3_hand')],
)
def test_links_of_two_arms_or_of_others_are_not_known_to_each_other(pair):
    assert between_links(*pair) is None


def test_a_link_that_a_finger_moves_is_refused(kinematics):
    with pytest.raises(UserError, match="moves the link 'panda_leftfinger' to 'panda_hand'"):
        kinematics.between('panda_hand', 'panda_leftfinger')


def test_the_gripper_s_link_is_what_is_told_then_a_hand_then_the_one_hand_of_the_description():
    assert gripper_link('panda_link8', 'panda_link8', LINKS) == 'panda_link8'
    assert gripper_link('fr3_hand') == 'fr3_hand' and gripper_link('hand') == 'hand'
    assert gripper_link('panda_link8', links=LINKS) == 'panda_hand'
    for link, links in (('panda_link8', ()), ('tool0', ('left_hand', 'right_hand')), ('', ())):
        with pytest.raises(UserError, match='how the gripper is turned'):
            gripper_link(link, links=links)
