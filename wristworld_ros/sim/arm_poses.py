"""The simulated arm in poses for a calibration: what a depth camera beside it measures, with the faults of a sensor."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter, maximum_filter, minimum_filter
from scipy.spatial.transform import Rotation

from wristworld_ros.sim.opengl import mujoco
from wristworld_ros.sim.robot_description import joint_positions
from wristworld_ros.sim.scene import START_Q, TABLE_TOP
from wristworld_ros.sim.stream import LIVE_SETTINGS, SimulatorStream
from wristworld_ros.types import Camera

SETTINGS = replace(LIVE_SETTINGS, anchors=1, mesh_cell=0.005)
REACH = np.array([0.6, 0.4, 0.5, 0.5, 0.8, 0.6, 0.8])  # radians to either side of the start, of each joint
DEPTH_NOISE = 0.005  # of the depth
CLEARANCE = 0.06  # metres of the gripper above the table
FARTHEST = 3.0  # metres, of the sensor


@dataclass(frozen=True)
class ArmPoses:
    """What was recorded. depth: float32 [P, H, W], metres, 0 unknown. color: uint8 [P, H, W, 3]. joints: positions by name, of
    each pose. camera: the truth, world = robot base."""

    depth: np.ndarray
    color: np.ndarray
    joints: tuple[dict[str, float], ...]
    camera: Camera


def record_arm_poses(stream: SimulatorStream, seed: int, poses: int = 5, noise: float = DEPTH_NOISE) -> ArmPoses:
    """Images of the arm in random poses within view of one anchor.

    Args:
        stream: Of `SETTINGS`, or like them; it is reset.
        seed: Of scene, camera, poses and noise.
        poses: How many.
        noise: Standard deviation of depth, as a share of it; 0 leaves exact depth, without holes.
    """
    stream.reset(seed)
    rng = np.random.default_rng([seed, 1])
    env = stream.env
    camera = stream.cameras()['anchor0']
    T_world = camera.T_camera_world @ env.T_base_world
    local = Camera(camera.K, T_world, camera.width, camera.height)
    depths, colors, joints = [], [], []
    while len(depths) < poses:
        env.data.qpos[:7] = np.clip(
            START_Q + rng.uniform(-1, 1, 7) * REACH,
            env.model.jnt_range[:7, 0] + 0.05,
            env.model.jnt_range[:7, 1] - 0.05,
        )
        mujoco.mj_kinematics(env.model, env.data)
        if not _usable(env, local):
            continue
        env.show()
        color, depth = env.renderer.render(local)
        depths.append(sensed(depth, rng, noise))
        colors.append(color)
        joints.append(joint_positions(env.model, env.data))
    return ArmPoses(np.stack(depths), np.stack(colors), tuple(joints), camera)


def wrong_guess(T: np.ndarray, seed: int, metres: float = 0.1, degrees: float = 10.0) -> np.ndarray:
    """A pose [4, 4] moved and turned by so much, in directions that the seed chooses."""
    move, turn = np.random.default_rng([seed, 2]).normal(size=(2, 3))
    wrong = T.copy()
    wrong[:3, 3] += metres * move / np.linalg.norm(move)
    wrong[:3, :3] = T[:3, :3] @ Rotation.from_rotvec(np.radians(degrees) * turn / np.linalg.norm(turn)).as_matrix()
    return wrong


def sensed(depth: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Depth as a sensor has it: noise, no values at steps, in spots and far away, whole millimetres.

    Args:
        depth: Float32 [H, W], exact, metres.
        rng: For noise.
        noise: Standard deviation, as a share of the depth; 0 gives the depth as it is.
    """
    if noise == 0:
        return depth
    measured = depth * (1 + noise * rng.standard_normal(depth.shape))
    steps = maximum_filter(depth, 3) - minimum_filter(depth, 3) > 0.05
    spots = gaussian_filter(rng.standard_normal(depth.shape), 4)
    holes = (binary_dilation(steps) & (rng.random(depth.shape) < 0.5)) | (spots > 2 * spots.std()) | (depth > FARTHEST)
    return np.where(holes, 0, np.round(measured, 3)).astype(np.float32)


def _usable(env, camera: Camera) -> bool:
    """Whether gripper and hand are above the table and in view."""
    bodies = ('robot0_right_hand', 'gripper0_right_leftfinger', 'gripper0_right_rightfinger')
    points = np.stack([env.grip, *(env.data.body(name).xpos for name in bodies)])
    local = points @ camera.T_camera_world[:3, :3].T + camera.T_camera_world[:3, 3]
    pixels = (local @ camera.K.T)[:, :2] / local[:, 2:]
    inside = ((pixels > 0) & (pixels < (camera.width - 1, camera.height - 1))).all()
    return bool(inside and points[:, 2].min() > TABLE_TOP + CLEARANCE)
