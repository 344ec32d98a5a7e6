"""DROID's robot as a description (URDF): a Panda with a Robotiq 2F-85 straight on its flange, and the wrist camera's body beside it.

Links and joints have the names of franka_description (panda_link0 to panda_link8, panda_joint1 to panda_joint7); `finger_joint`
moves the whole gripper. robosuite supplies the meshes.
"""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from wristworld_ros.data.real_clips import wrist_mount
from wristworld_ros.sim.grippers import PREFIX, ROBOTIQ, ROBOTIQ_CLOSED, ROBOTIQ_FOLLOWS, ROBOTIQ_PARTS
from wristworld_ros.sim.opengl import mujoco
from wristworld_ros.sim.rigs import ZED_MINI, camera_body_center, straighten
from wristworld_ros.sim.robot_description import robot_description
from wristworld_ros.sim.scene import robosuite_parts


def droid_positions(joints: np.ndarray, gripper: float) -> dict[str, float]:
    """Joint positions by name of what a clip stores: joint angles [7], radians, and the gripper, 0 open to 1 closed."""
    arm = {f'panda_joint{i}': float(q) for i, q in enumerate(joints, 1)}
    return arm | {'finger_joint': ROBOTIQ_CLOSED * float(gripper)}


def droid_description(folder: Path, turned: bool = False) -> str:
    """URDF of the robot.

    Args:
        folder: Where the visual meshes are written as STL; made where missing.
        turned: Whether the wrist camera is mounted upside down.
    """
    links = {f'robot0_link{i}': f'panda_link{i}' for i in range(8)} | {'robot0_right_hand': 'panda_link8'}
    links |= {PREFIX + part: part for part in ROBOTIQ_PARTS}
    joints = {f'robot0_joint{i}': f'panda_joint{i}' for i in range(1, 8)}
    joints |= {PREFIX + joint: joint for joint in ROBOTIQ_FOLLOWS}
    root = ET.fromstring(robot_description(_model(), folder, links, joints, 'panda'))
    for name, factor in list(ROBOTIQ_FOLLOWS.items())[1:]:
        joint = root.find(f"joint[@name='{name}']")
        assert joint is not None
        ET.SubElement(joint, 'mimic', joint='finger_joint', multiplier=str(factor))
    hand = root.find("link[@name='panda_link8']")
    assert hand is not None
    _add_camera(hand, wrist_mount(turned))
    return ET.tostring(root, encoding='unicode')


def _model():
    parts = robosuite_parts()
    robot = parts.Panda(idn=0)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    robot.add_gripper(parts.gripper_factory(ROBOTIQ.part, idn='0_right'), robot.eef_name['right'])
    logging.disable(before)
    arena = parts.TableArena(table_full_size=(0.8, 0.8, 0.05), table_offset=(0, 0, 0.8))
    model = mujoco.MjModel.from_xml_string(parts.ManipulationTask(arena, [robot], []).get_xml())
    straighten(model)
    return model


def _add_camera(link: ET.Element, mount: np.ndarray) -> None:
    """The body of the stereo camera, whose left eye is at the mount."""
    visual = ET.SubElement(link, 'visual')
    angles = Rotation.from_matrix(mount[:3, :3]).as_euler('xyz')
    ET.SubElement(visual, 'origin', xyz=_text(camera_body_center(mount)), rpy=_text(angles))
    ET.SubElement(ET.SubElement(visual, 'geometry'), 'box', size=_text(ZED_MINI))


def _text(values) -> str:
    return ' '.join(f'{value:.6g}' for value in values)
