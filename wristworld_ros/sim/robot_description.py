"""The simulated arm as a robot description (URDF), with the names that a Franka Research 3 has on a ROS desk."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wristworld_ros.sim.grippers import FRANKA, GRIPPERS, PREFIX, Gripper
from wristworld_ros.sim.opengl import mujoco
from wristworld_ros.sim.scene import SHOWN_GROUP

HAND_FRAME, BASE_FRAME = 'fr3_hand', 'fr3_link0'
# MuJoCo's bodies, and the links and joints that they are.
ARM_LINKS = {f'robot0_link{i}': f'fr3_link{i}' for i in range(8)} | {'robot0_right_hand': HAND_FRAME}
ARM_JOINTS = {f'robot0_joint{i}': f'fr3_joint{i}' for i in range(1, 8)}


def links_of(gripper: Gripper) -> dict[str, str]:
    """MuJoCo's bodies of an arm with this gripper, parents first, and the links that they are."""
    return ARM_LINKS | {PREFIX + body: link for body, link in gripper.links.items()}


def joints_of(gripper: Gripper) -> dict[str, str]:
    """MuJoCo's joints of it likewise."""
    return ARM_JOINTS | {PREFIX + joint: name for joint, name in gripper.joints.items()}


LINKS, JOINTS = links_of(FRANKA), joints_of(FRANKA)


def gripper_of(model) -> Gripper:
    """The gripper of a compiled scene."""
    names = {model.body(body).name for body in range(model.nbody)}
    return next(gripper for gripper in GRIPPERS.values() if PREFIX + next(iter(gripper.links)) in names)


def joint_positions(model, data) -> dict[str, float]:
    """Positions of all joints of the robot by their names in the description, radians and metres."""
    joints = joints_of(gripper_of(model))
    return {name: float(data.qpos[model.joint(joint).qposadr[0]]) for joint, name in joints.items()}


def recorded_positions(joints: np.ndarray, gripper: float, hand: Gripper = FRANKA) -> dict[str, float]:
    """The same from what an episode stores: joint angles [7], radians, and the distance between the fingers of `hand`, metres."""
    fingers = (gripper / 2, -gripper / 2) if hand is FRANKA else hand.state(gripper)
    return dict(zip(joints_of(hand).values(), map(float, (*joints, *fingers)), strict=True))


@dataclass(frozen=True)
class LinkPose:
    """Where a link is: T_parent_link, float64 [4, 4], metres; fixed where no joint moves it."""

    parent: str
    T_parent_link: np.ndarray
    fixed: bool


def link_poses(model, data) -> dict[str, LinkPose]:
    """Where every link but the base is, parents before children, as robot_state_publisher would say it of the joints.

    Args:
        model: mujoco.MjModel of `scene.compile_scene`.
        data: Its mujoco.MjData, whose kinematics are up to date.
    """
    poses = {}
    links = links_of(gripper_of(model))
    for body, link in list(links.items())[1:]:
        parent = model.body(int(model.body_parentid[model.body(body).id])).name
        T = np.linalg.inv(_body_pose(data, parent)) @ _body_pose(data, body)
        poses[link] = LinkPose(links[parent], T, not model.body_jntnum[model.body(body).id])
    return poses


def pose_in_base(data, link: str) -> np.ndarray:
    """T_base_link, float64 [4, 4], metres, of a link in the state `data`."""
    bodies = {name: body for body, name in ARM_LINKS.items()}
    return np.linalg.inv(_body_pose(data, bodies[BASE_FRAME])) @ _body_pose(data, bodies[link])


def robot_description(
    model, folder: Path, links: dict[str, str] | None = None, joints: dict[str, str] | None = None, name: str = 'fr3'
) -> str:
    """URDF of the arm.

    Args:
        model: mujoco.MjModel of `scene.compile_scene`, or of another robot with `links` and `joints`.
        folder: Where the visual meshes are written as STL; made where missing.
        links: MuJoCo's bodies, parents before children, and the links that they are; None: of the scene.
        joints: MuJoCo's joints likewise.
        name: Of the robot.

    Returns:
        The text; it names the meshes by file:// URIs.
    """
    links, joints = links or links_of(gripper_of(model)), joints or joints_of(gripper_of(model))
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    robot = ET.Element('robot', name=name)
    for body, link in links.items():
        element = ET.SubElement(robot, 'link', name=link)
        for geom in _shown_geoms(model, model.body(body).id):
            visual, name = ET.SubElement(element, 'visual'), f'{link}_{geom}'
            _origin(visual, model.geom_pos[geom], model.geom_quat[geom])
            geometry = ET.SubElement(visual, 'geometry')
            if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX:
                ET.SubElement(geometry, 'box', size=_numbers(2 * model.geom_size[geom]))
            else:
                path = folder / f'{name}.stl'
                _write_stl(path, *_mesh(model, int(model.geom_dataid[geom])))
                ET.SubElement(geometry, 'mesh', filename=path.as_uri())
            material = ET.SubElement(visual, 'material', name=name)
            ET.SubElement(material, 'color', rgba=' '.join(f'{value:.4f}' for value in _rgba(model, geom)))
    for body, link in list(links.items())[1:]:
        _add_joint(robot, model, model.body(body).id, link, links, joints)
    return ET.tostring(robot, encoding='unicode')


def _body_pose(data, body: str) -> np.ndarray:
    """T_world_body, float64 [4, 4], metres, world of MuJoCo."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = data.body(body).xmat.reshape(3, 3), data.body(body).xpos
    return T


def _add_joint(robot: ET.Element, model, body: int, link: str, links: dict[str, str], joints: dict[str, str]) -> None:
    parent = links[model.body(int(model.body_parentid[body])).name]
    moved = model.body_jntnum[body] > 0
    joint = int(model.body_jntadr[body])
    slides = moved and model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE
    kind = ('prismatic' if slides else 'revolute') if moved else 'fixed'
    name = joints[model.joint(joint).name] if moved else f'{link}_joint'
    element = ET.SubElement(robot, 'joint', name=name, type=kind)
    _origin(element, model.body_pos[body], model.body_quat[body])
    ET.SubElement(element, 'parent', link=parent)
    ET.SubElement(element, 'child', link=link)
    if moved:
        ET.SubElement(element, 'axis', xyz=_numbers(model.jnt_axis[joint]))
        low, high = model.jnt_range[joint]
        ET.SubElement(element, 'limit', lower=f'{low:.9g}', upper=f'{high:.9g}', effort='100', velocity='3')


def _origin(element: ET.Element, position: np.ndarray, quaternion: np.ndarray) -> None:
    ET.SubElement(element, 'origin', xyz=_numbers(position), rpy=_numbers(_roll_pitch_yaw(quaternion)))


def _numbers(values: np.ndarray) -> str:
    return ' '.join(f'{value:.12g}' for value in values)


def _roll_pitch_yaw(quaternion: np.ndarray) -> np.ndarray:
    """URDF's angles (about fixed x, y, z) of a quaternion w x y z."""
    flat = np.zeros(9)
    mujoco.mju_quat2Mat(flat, quaternion)
    m = flat.reshape(3, 3)
    pitch = np.arctan2(-m[2, 0], np.hypot(m[0, 0], m[1, 0]))
    if np.hypot(m[0, 0], m[1, 0]) < 1e-9:
        return np.array([np.arctan2(-m[1, 2], m[1, 1]), pitch, 0.0])
    return np.array([np.arctan2(m[2, 1], m[2, 2]), pitch, np.arctan2(m[1, 0], m[0, 0])])


def _shown_geoms(model, body: int) -> list[int]:
    """Meshes and boxes that a body shows; thinning leaves nothing of a logo, which is left out."""
    geoms = range(int(model.body_geomadr[body]), int(model.body_geomadr[body] + model.body_geomnum[body]))
    kinds = model.geom_type
    return [
        g
        for g in geoms
        if model.geom_group[g] == SHOWN_GROUP
        and (
            kinds[g] == mujoco.mjtGeom.mjGEOM_BOX
            or (kinds[g] == mujoco.mjtGeom.mjGEOM_MESH and model.mesh_facenum[model.geom_dataid[g]] > 0)
        )
    ]


def _mesh(model, mesh: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [N, 3], metres, and faces [M, 3]."""
    start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    faces = model.mesh_face[model.mesh_faceadr[mesh] :][: model.mesh_facenum[mesh]]
    return model.mesh_vert[start : start + count], faces


def _rgba(model, geom: int) -> np.ndarray:
    material = int(model.geom_matid[geom])
    return model.mat_rgba[material] if material >= 0 else model.geom_rgba[geom]


def _write_stl(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Binary STL."""
    corners = vertices[faces].astype('<f4')
    record = np.zeros(len(faces), np.dtype([('normal', '<f4', 3), ('corners', '<f4', (3, 3)), ('attribute', '<u2')]))
    record['normal'] = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    record['corners'] = corners
    path.write_bytes(b'\0' * 80 + np.uint32(len(faces)).tobytes() + record.tobytes())
