"""Inverse kinematics of the arm, by damped least squares."""

from __future__ import annotations

import numpy as np

from wristworld_ros.sim.opengl import mujoco
from wristworld_ros.sim.scene import START_Q

GRIP_SITE = 'gripper0_right_grip_site'


def solve_arm(
    model, scratch, site: int, q: np.ndarray, position: np.ndarray, rotation: np.ndarray, steps: int = 3
) -> np.ndarray:
    """Joint angles that bring a site nearer to a pose, drawn to START_Q where there is a choice.

    Args:
        model: mujoco.MjModel.
        scratch: A mujoco.MjData, whose joint angles are changed.
        site: Number of the site.
        q: Joint angles to start from, float64 [7], radians.
        position: Of the site in MuJoCo's world [3], metres.
        rotation: Of the site there [3, 3].
        steps: Iterations.

    Returns:
        Float64 [7], radians, within the limits of the joints.
    """
    position_jacobian, rotation_jacobian = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    for _ in range(steps):
        scratch.qpos[:7] = q
        mujoco.mj_kinematics(model, scratch)
        mujoco.mj_comPos(model, scratch)
        mujoco.mj_jacSite(model, scratch, position_jacobian, rotation_jacobian, site)
        J = np.concatenate([position_jacobian[:, :7], rotation_jacobian[:, :7]])
        error = np.concatenate(
            [position - scratch.site_xpos[site], logarithm(rotation @ scratch.site_xmat[site].reshape(3, 3).T)]
        )
        inverse = J.T @ np.linalg.inv(J @ J.T + 1e-4 * np.eye(6))
        step = inverse @ error + (np.eye(7) - inverse @ J) @ (0.1 * (START_Q - q))
        limit = model.jnt_range[:7]
        q = np.clip(q + np.clip(step, -0.2, 0.2), limit[:, 0] + 0.02, limit[:, 1] - 0.02)
    return q


def logarithm(rotation: np.ndarray) -> np.ndarray:
    """Rotation vector of a rotation matrix, radians."""
    quaternion, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).reshape(9))
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector


def exponential(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix of a rotation vector, radians."""
    angle = np.linalg.norm(vector)
    quaternion, matrix = np.array([1.0, 0, 0, 0]), np.zeros(9)
    if angle > 1e-9:
        mujoco.mju_axisAngle2Quat(quaternion, vector / angle, angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)
