"""DROID's rig: a Robotiq 2F-85 straight on the flange, a ZED mini beside it, and two ZED 2 that stand left and right of the robot."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
from scipy.spatial.transform import Rotation

from wristworld_ros.data.real_clips import BASELINE, FOCAL, intrinsics_of, wrist_mount
from wristworld_ros.sim.grippers import PREFIX, ROBOTIQ_PARTS
from wristworld_ros.sim.opengl import mujoco

FLANGE = 0.107  # metres from panda_link7
COUPLING = 0.01  # metres between flange and gripper
ZED_MINI = (0.1245, 0.0305, 0.0265)  # metres: width, height, depth
CAMERA_BODY = 'robot0_wrist_camera_body'
HAND = 'robot0_right_hand'
# A ZED 2 at 1280x720: focal length in widths, and what it varies by.
EXTERIOR_FOCAL, FOCAL_SPREAD = 0.4125, 0.015
# The wrist camera is mounted by hand: variation of its angles, degrees, and place, metres; some cameras are upside down.
MOUNT_DEG, MOUNT_M, TURNED = 2.0, 0.006, 0.1


def straighten(model) -> None:
    """Put hand and gripper straight on the flange; robosuite turns them by -45 degrees, as Franka's own hand is."""
    hand, gripper = model.body(HAND).id, model.body(PREFIX + ROBOTIQ_PARTS[0]).id
    model.body_pos[hand], model.body_quat[hand] = (0, 0, FLANGE), (1, 0, 0, 0)
    model.body_pos[gripper] = (0, 0, COUPLING)


def add_camera_body(root: ET.Element, group: int) -> None:
    """Write the body of the wrist camera into a model's XML; `place_camera_body` puts it where the camera is."""
    hand = root.find(f".//body[@name='{HAND}']")
    assert hand is not None
    ET.SubElement(
        hand, 'geom', name=CAMERA_BODY, type='box', size=' '.join(f'{edge / 2}' for edge in ZED_MINI), rgba='.09 .09 .1 1',
        contype='0', conaffinity='0', group=str(group), mass='0.06',
    )  # fmt: skip


def place_camera_body(model, T_hand_wrist: np.ndarray) -> None:
    """Move the body of the wrist camera in a compiled model. T_hand_wrist: its left eye (optical) in the hand, [4, 4], metres."""
    geom = model.geom(CAMERA_BODY).id
    model.geom_sameframe[geom] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE
    model.geom_pos[geom] = camera_body_center(T_hand_wrist)
    model.geom_quat[geom] = Rotation.from_matrix(T_hand_wrist[:3, :3]).as_quat(scalar_first=True)


def camera_body_center(T_hand_wrist: np.ndarray) -> np.ndarray:
    """Middle of the stereo camera's body in the hand, [3], metres, of the pose of its left eye."""
    return T_hand_wrist[:3, :3] @ [BASELINE / 2, 0, -ZED_MINI[2] / 2] + T_hand_wrist[:3, 3]


def sample_wrist(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """T_hand_wrist [4, 4], metres, and K [3, 3], pixels, of a wrist camera whose 16:9 image is stretched to a square of `size`."""
    T = wrist_mount(turned=bool(rng.random() < TURNED))
    T[:3, :3] = T[:3, :3] @ Rotation.from_rotvec(np.radians(MOUNT_DEG) * rng.standard_normal(3)).as_matrix()
    T[:3, 3] += MOUNT_M * rng.standard_normal(3)
    return T, intrinsics_of(FOCAL * (1 + FOCAL_SPREAD * rng.standard_normal()), (size, size))
