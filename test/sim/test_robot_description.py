"""The simulated arm's description moves as MuJoCo does."""

import numpy as np
import pytest

pytest.importorskip('mujoco')
pytest.importorskip('yourdfpy')

from wristworld_ros.robot.description import RobotModel
from wristworld_ros.sim.opengl import mujoco
from wristworld_ros.sim.robot_description import BASE_FRAME, LINKS, joint_positions, robot_description
from wristworld_ros.sim.scene import compile_scene


def test_links_and_surface_are_where_mujoco_has_them(tmp_path):
    model = compile_scene(0.01)
    data = mujoco.MjData(model)
    robot = RobotModel.from_urdf(robot_description(model, tmp_path))
    assert robot.root == BASE_FRAME and not robot.missing_meshes
    rng = np.random.default_rng(0)
    for _ in range(3):
        data.qpos[:9] = [*rng.uniform(-2, 2, 7), rng.uniform(0, 0.04), -rng.uniform(0, 0.04)]
        mujoco.mj_kinematics(model, data)
        T_world_base = np.eye(4)
        T_world_base[:3, :3] = data.body('robot0_link0').xmat.reshape(3, 3)
        T_world_base[:3, 3] = data.body('robot0_link0').xpos
        poses = robot.link_poses(joint_positions(model, data))
        for body, link in LINKS.items():
            found = T_world_base @ poses[link]
            np.testing.assert_allclose(found[:3, 3], data.body(body).xpos, atol=1e-6)
            np.testing.assert_allclose(found[:3, :3], data.body(body).xmat.reshape(3, 3), atol=1e-6)
    assert set(robot.surface(joint_positions(model, data)).links) >= {'fr3_leftfinger', 'fr3_rightfinger', 'fr3_link7'}
