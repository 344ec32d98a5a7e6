"""Robot descriptions: kinematics against known poses, surfaces against what they describe, and what is wrong with bad ones."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wristworld_ros.errors import UserError
from wristworld_ros.robot.description import RobotModel

pytest.importorskip('yourdfpy')

# Panda: origins of the joints in their parents (metres, degrees about x).
PANDA = (
    ('0 0 0.333', 0), ('0 0 0', -90), ('0 -0.316 0', 90), ('0.0825 0 0', 90), ('-0.0825 0.384 0', -90), ('0 0 0', 90),
    ('0.088 0 0', 90),
)  # fmt: skip


def panda() -> str:
    links = ''.join(f'<link name="panda_link{i}"/>' for i in range(9))
    joints = ''.join(
        f'<joint name="panda_joint{i}" type="revolute"><origin xyz="{xyz}" rpy="{np.radians(x):.17g} 0 0"/><axis xyz="0 0 1"/>'
        f'<parent link="panda_link{i - 1}"/><child link="panda_link{i}"/>'
        '<limit lower="-3" upper="3" effort="1" velocity="1"/></joint>'
        for i, (xyz, x) in enumerate(PANDA, 1)
    )
    flange = '<joint name="f" type="fixed"><origin xyz="0 0 0.107"/><parent link="panda_link7"/><child link="panda_link8"/></joint>'
    return f'<robot name="panda">{links}{joints}{flange}</robot>'


def test_panda_stretched_up():
    poses = RobotModel.from_urdf(panda()).link_poses({f'panda_joint{i}': 0.0 for i in range(1, 8)})
    np.testing.assert_allclose(poses['panda_link8'][:3, 3], [0.088, 0, 0.333 + 0.316 + 0.384 - 0.107], atol=1e-12)
    np.testing.assert_allclose(poses['panda_link8'][:3, :3], np.diag([1, -1, -1]), atol=1e-12)


# Joints and cartesian pose (xyz, roll pitch yaw of panda_link8) that a real arm recorded (DROID).
RECORDED = [
    ([0.0419786, 0.0819491, 0.0283929, -1.7099565, -0.1870638, 1.9820057, -0.0569482],
     [0.6070583, 0.0304988, 0.5500807, 2.9482787, -0.1727225, 0.2023622]),
    ([0.1511582, 0.2313281, -0.0369884, -2.7488708, 0.0392709, 2.8617253, 0.7539540],
     [0.3685924, 0.0388060, 0.1393392, 3.0589666, 0.0845279, -0.6811830]),
    ([-0.2520410, 0.1022974, -0.2117416, -2.2827952, -0.3246573, 2.4326501, 0.7921355],
     [0.4746224, -0.2382089, 0.3149243, 2.9821835, -0.1838747, -0.9971898]),
]  # fmt: skip


def check_recorded(joints, pose) -> None:
    found = RobotModel.from_urdf(panda()).link_poses({f'panda_joint{i}': q for i, q in enumerate(joints, 1)})[
        'panda_link8'
    ]
    np.testing.assert_allclose(found[:3, 3], pose[:3], atol=1e-4)
    np.testing.assert_allclose(found[:3, :3], Rotation.from_euler('xyz', pose[3:6]).as_matrix(), atol=1e-4)


@pytest.mark.parametrize('joints, pose', RECORDED)
def test_kinematics_are_those_of_a_real_arm(joints, pose):
    check_recorded(joints, pose)


def test_kinematics_are_those_of_whole_recordings():
    folder = os.environ.get('WRISTWORLD_DATA')
    if not folder:
        pytest.skip('WRISTWORLD_DATA names no folder of recordings')
    files = sorted(Path(folder).glob('droid_real/annotation/*/*.json'))
    assert files
    for file in files:
        record = json.loads(file.read_text())
        for row in range(0, len(record['observation.state.joint_position']), 20):
            check_recorded(
                record['observation.state.joint_position'][row], record['observation.state.cartesian_position'][row]
            )


ONE_LINK = """<robot name="r"><material name="red"><color rgba="1 0 0 1"/></material><link name="base"/>
<link name="arm"><visual><origin xyz="0 0 0.1"/><geometry><box size="0.1 0.2 0.2"/></geometry><material name="red"/></visual></link>
<joint name="j" type="prismatic"><parent link="base"/><child link="arm"/><axis xyz="1 0 0"/>
<limit lower="0" upper="1" effort="1" velocity="1"/></joint></robot>"""


def test_the_surface_lies_on_the_box_and_moves_with_its_joint():
    robot = RobotModel.from_urdf(ONE_LINK)
    points = robot.surface({'j': 0.5})
    local = np.abs(points.points - [0.5, 0, 0.1]) / [0.05, 0.1, 0.1]
    np.testing.assert_allclose(local.max(1), 1, atol=1e-5)
    assert (points.colors == [255, 0, 0]).all() and set(points.links) == {'arm'}
    outward = ((points.points - [0.5, 0, 0.1]) * points.normals).sum(1)
    assert (outward > 0).all()
    moved = robot.surface({'j': 0.5}, base='arm')
    np.testing.assert_allclose(moved.points, points.points - [0.5, 0, 0], atol=1e-6)


def test_the_same_description_gives_the_same_points():
    one, two = (RobotModel.from_urdf(ONE_LINK).surface({'j': 0.0}).points for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_a_missing_mesh_is_listed_and_the_rest_is_there(tmp_path):
    text = ONE_LINK.replace(
        '</link>\n<joint', f'<visual><geometry><mesh filename="{tmp_path}/no.stl"/></geometry></visual></link>\n<joint'
    )
    robot = RobotModel.from_urdf(text)
    assert robot.missing_meshes == (f'{tmp_path}/no.stl',)
    assert len(robot.surface({'j': 0.0}).points) > 100


@pytest.mark.parametrize('text', ['', 'no xml', '<robot name="r"><link name="a"/><link name="b"/></robot>'])
def test_what_is_no_robot_is_refused(text):
    with pytest.raises(UserError, match='robot description'):
        RobotModel.from_urdf(text)


def test_a_missing_joint_is_named():
    with pytest.raises(UserError, match='lack j of'):
        RobotModel.from_urdf(ONE_LINK).surface({})


def followed(
    multiplier: str, source: str = 'j', kind: str = 'prismatic', shape: str = '<sphere radius="0.05"/>'
) -> str:
    """ONE_LINK with a second link whose joint follows the first one's."""
    return ONE_LINK.replace(
        '</robot>',
        f'<link name="tip"><visual><geometry>{shape}</geometry></visual></link>'
        f'<joint name="k" type="{kind}"><parent link="base"/><child link="tip"/><axis xyz="0 1 0"/>'
        f'<limit lower="0" upper="1" effort="1" velocity="1"/><mimic joint="{source}" multiplier="{multiplier}" offset="0.1"/></joint></robot>',
    )


@pytest.mark.parametrize('multiplier, place', [('-2', -0.9), ('0', 0.1)])
def test_a_joint_that_follows_another_moves_with_it(multiplier, place):
    robot = RobotModel.from_urdf(followed(multiplier))
    assert robot.joint_names == ('j',)
    np.testing.assert_allclose(robot.link_poses({'j': 0.5})['tip'][:3, 3], [0, place, 0], atol=1e-12)
    surface = robot.surface({'j': 0.5})
    tip = surface.points[surface.links == 'tip'] - [0, place, 0]
    np.testing.assert_allclose(np.linalg.norm(tip, axis=1), 0.05, rtol=0.02)


@pytest.mark.parametrize('text, words', [
    (followed('1', source='nowhere'), 'follows nowhere'), (followed('1', kind='floating'), 'is floating'),
])  # fmt: skip
def test_joints_that_cannot_be_placed_are_named(text, words):
    with pytest.raises(UserError, match=words):
        RobotModel.from_urdf(text)
