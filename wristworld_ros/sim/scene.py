"""The compiled model: a Panda on its pedestal, a table, and objects that every episode reshapes and recolours.

robosuite supplies the robot, its gripper and the room; from there on it is plain MuJoCo. The model is compiled once per
process (and gripper) and varied in place, so an episode costs no compilation and no new rendering context.
"""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np

from wristworld_ros.data.real_clips import wrist_mount
from wristworld_ros.errors import require_package
from wristworld_ros.sim.grippers import FRANKA, PREFIX, ROBOTIQ_FOLLOWS, Gripper
from wristworld_ros.sim.objects import SHOWN_GROUP, add_shaped_bodies
from wristworld_ros.sim.opengl import gl_variables, mujoco
from wristworld_ros.sim.rigs import add_camera_body, place_camera_body, straighten

SLOTS = 7  # boxes, cylinders and spheres
TABLE_TOP = 0.8  # metres above MuJoCo's floor
TIMESTEP = 0.0025  # seconds, at most; the environment divides its control period evenly
START_Q = np.array([0.0, np.pi / 16, 0.0, -np.pi / 2 - np.pi / 3, 0.0, np.pi - 0.2, np.pi / 4])
STIFFNESS = np.array([1800.0, 1800.0, 1500.0, 1500.0, 900.0, 700.0, 400.0])
DAMPING = np.array([110.0, 110.0, 90.0, 90.0, 40.0, 30.0, 20.0])
FORCE = np.array([87.0, 87.0, 87.0, 87.0, 24.0, 24.0, 24.0])
SURFACE_TEXTURES = {'texplane': '2d', 'tex-ceramic': '2d', 'tex-light-gray-plaster': '2d'}
TEXTURE_SIZE = 256
OBJECT_TEXTURES = 4
MESHES = ('can', 'milk', 'bread', 'cereal')
WIDE_MESHES = (*MESHES, 'bottle', 'lemon')
FURNITURE = 7  # boxes about the room
WALL_HEIGHT = 6.0  # metres, of a room with furniture


def robosuite_parts() -> SimpleNamespace:
    """The robosuite classes that the scene is built of."""
    require_package('robosuite', 'sim', 'The simulator')
    # robosuite writes its own choice of OpenGL into the environment, and warns about parts that are not used here.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with gl_variables(MUJOCO_GL='disabled'):
        from robosuite.models.arenas import TableArena
        from robosuite.models.bases import robot_base_factory
        from robosuite.models.grippers import gripper_factory
        from robosuite.models.objects import (
            BottleObject,
            BreadObject,
            CanObject,
            CerealObject,
            LemonObject,
            MilkObject,
        )
        from robosuite.models.robots import Panda
        from robosuite.models.tasks import ManipulationTask
    logging.disable(before)
    logging.getLogger('robosuite_logs').setLevel(logging.ERROR)
    return SimpleNamespace(
        TableArena=TableArena,
        robot_base_factory=robot_base_factory,
        gripper_factory=gripper_factory,
        objects={
            'can': CanObject,
            'milk': MilkObject,
            'bread': BreadObject,
            'cereal': CerealObject,
            'bottle': BottleObject,
            'lemon': LemonObject,
        },
        Panda=Panda,
        ManipulationTask=ManipulationTask,
    )


def _world_xml(gripper: Gripper, shaped: bool, furnished: bool) -> str:
    """The room with the robot, as robosuite writes it, with our objects, lights and drives. Lengths in metres."""
    parts = robosuite_parts()
    robot = parts.Panda(idn=0)
    robot.add_base(parts.robot_base_factory('RethinkMount', idn=0))
    robot.add_gripper(parts.gripper_factory(gripper.part, idn='0_right'), robot.eef_name['right'])
    robot.set_base_xpos(robot.base_xpos_offset['table'](0.8))
    arena = parts.TableArena(table_full_size=(0.8, 0.8, 0.05), table_offset=(0, 0, TABLE_TOP))
    arena.set_origin([0, 0, 0])
    meshes = [parts.objects[name](name) for name in (WIDE_MESHES if shaped else MESHES)]
    root = ET.fromstring(parts.ManipulationTask(arena, [robot], meshes).get_xml())
    _own_textures(root.find('asset'))
    world = root.find('worldbody')
    for body in list(world):
        if body.tag == 'light' or body.get('name', '').endswith('_eef_target'):
            world.remove(body)
    for body in root.iter('body'):
        if body.get('name', '').startswith(('robot0', 'gripper0')):
            body.set('gravcomp', '1')
    for index in range(3):
        ET.SubElement(world, 'light', name=f'light{index}', pos='0 0 3', dir='0 0 -1', castshadow='true', cutoff='60')
    for index in range(SLOTS):
        body = ET.SubElement(world, 'body', name=f'slot{index}', pos=f'{index} 5 1')
        ET.SubElement(body, 'freejoint', name=f'slot{index}_joint')
        ET.SubElement(body, 'inertial', pos='0 0 0', mass='0.1', diaginertia='1e-4 1e-4 1e-4')
        ET.SubElement(
            body,
            'geom',
            name=f'slot{index}',
            type='box',
            size='.05 .05 .05',
            friction='1.2 .01 .0005',
            condim='4',
            solref='.008 1',
            material=f'slot{index}',
            group=str(SHOWN_GROUP),
        )
    if shaped:
        add_shaped_bodies(world, root.find('asset'), OBJECT_TEXTURES)
    if furnished:
        _add_furniture(world, root.find('asset'))
    if gripper is not FRANKA:
        _couple_fingers(root)
    if gripper.straight:
        add_camera_body(root, SHOWN_GROUP)
    return ET.tostring(root, encoding='unicode')


def _add_furniture(world: ET.Element, asset: ET.Element) -> None:
    """Boxes that stand about the room, whose walls become higher, and a mat on the table; an episode places and sizes them."""
    shown = {'type': 'box', 'size': '.1 .1 .1', 'contype': '0', 'conaffinity': '0', 'group': str(SHOWN_GROUP)}
    for wall in world.findall('geom'):
        if wall.get('name', '').startswith('wall_'):  # higher, for wide cameras see far up
            (across, _, thick), (x, y, _) = wall.get('size', '').split(), wall.get('pos', '').split()
            wall.attrib.update(size=f'{across} {WALL_HEIGHT / 2} {thick}', pos=f'{x} {y} {WALL_HEIGHT / 2}')
    names = [f'furniture{index}' for index in range(FURNITURE)] + ['mat']
    for index, name in enumerate(names):
        ET.SubElement(asset, 'material', name=name, texture=f'object{index % OBJECT_TEXTURES}', specular='.1')
        ET.SubElement(world, 'geom', name=name, material=name, pos=f'{index} 7 1', **shown)


def _couple_fingers(root: ET.Element) -> None:
    """Make the joints of the Robotiq gripper follow its finger joint exactly, and its links not touch each other.

    robosuite's tendons let them swing, and its collision shapes overlap, which keeps the fingers from opening.
    """
    for geom in root.iter('geom'):
        if geom.get('name', '').startswith(PREFIX):
            geom.set('contype', '0')
    tendons = root.find('tendon')
    if tendons is not None:
        root.remove(tendons)
    equality = root.find('equality')
    if equality is None:
        equality = ET.SubElement(root, 'equality')
    for joint, factor in ROBOTIQ_FOLLOWS.items():
        root.find(f".//joint[@name='{PREFIX}{joint}']").attrib.update(armature='0.01', damping='0.3')
        if joint != 'finger_joint':
            ET.SubElement(
                equality, 'joint', joint1=PREFIX + joint, joint2=PREFIX + 'finger_joint', polycoef=f'0 {factor} 0 0 0',
                solref='.005 1', solimp='.95 .99 .001',
            )  # fmt: skip


def _own_textures(asset: ET.Element) -> None:
    """Make room, table and object textures plain buffers that an episode fills."""
    size = str(TEXTURE_SIZE)
    for texture in asset.findall('texture'):
        kind = SURFACE_TEXTURES.get(texture.get('name'))
        if kind:
            texture.attrib.pop('file', None)
            texture.attrib.update(builtin='flat', type=kind, width=size, height=size, rgb1='.5 .5 .5')
    for index in range(OBJECT_TEXTURES):
        ET.SubElement(asset, 'texture', name=f'object{index}', type='cube', builtin='flat', width='64', height='64')
    for index in range(SLOTS):
        ET.SubElement(asset, 'material', name=f'slot{index}', texture=f'object{index % OBJECT_TEXTURES}', specular='.3')


def compile_scene(mesh_cell: float | None, gripper: Gripper = FRANKA, shaped: bool = False, furnished: bool = False):
    """Compile the scene.

    Args:
        mesh_cell: Edge of the cubes that robot meshes are thinned by, metres; None leaves them whole.
        gripper: On the arm.
        shaped: Whether there are objects of any shape (`objects.ShapedObjects`) too.
        furnished: Whether there is furniture and a mat on the table.

    Returns:
        mujoco.MjModel with position drives on the arm (control = joint angles, radians, and the gripper's, `Gripper.control`).
    """
    model = mujoco.MjModel.from_xml_string(_world_xml(gripper, shaped, furnished))
    if gripper.straight:
        straighten(model)
        place_camera_body(model, wrist_mount())
    model.opt.timestep = TIMESTEP
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    model.opt.impratio = 10.0
    for joint in range(7):
        model.actuator_biastype[joint] = mujoco.mjtBias.mjBIAS_AFFINE
        model.actuator_gainprm[joint, 0] = STIFFNESS[joint]
        model.actuator_biasprm[joint, :3] = (0.0, -STIFFNESS[joint], -DAMPING[joint])
        model.actuator_ctrlrange[joint] = model.jnt_range[joint]
        model.actuator_forcelimited[joint] = 1
        model.actuator_forcerange[joint] = (-FORCE[joint], FORCE[joint])
    model.stat.extent = 1.0
    model.stat.center[:] = (0.0, 0.0, TABLE_TOP)
    model.vis.map.znear, model.vis.map.zfar = 0.01, 20.0
    if mesh_cell is not None:
        for geom in range(model.ngeom):
            name = model.geom(geom).name
            if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH and model.geom_group[geom] == SHOWN_GROUP:
                if name.startswith('robot0'):
                    _thin_mesh(model, int(model.geom_dataid[geom]), mesh_cell)
                elif name.startswith('fixed_mount0'):
                    _thin_mesh(model, int(model.geom_dataid[geom]), 2 * mesh_cell)
    return model


def _thin_mesh(model, mesh: int, cell: float) -> None:
    """Rewrite a mesh's faces so that one vertex per cube of edge `cell` is left. Corner normals stay as they were."""
    start, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    vertices = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]]
    faces = model.mesh_face[start : start + count].copy()
    _, group = np.unique(np.floor(vertices / cell).astype(np.int64), axis=0, return_inverse=True)
    group = group.reshape(-1)
    size = np.bincount(group)
    mean = np.stack([np.bincount(group, vertices[:, axis]) / size for axis in range(3)], axis=1)
    distance = ((vertices - mean[group]) ** 2).sum(1)
    order = np.lexsort((distance, group))
    chosen = order[np.searchsorted(group[order], np.arange(len(size)))]
    thin = chosen[group[faces]]
    whole = (thin[:, 0] != thin[:, 1]) & (thin[:, 1] != thin[:, 2]) & (thin[:, 0] != thin[:, 2])
    _, first = np.unique(np.sort(thin, axis=1)[whole], axis=0, return_index=True)
    keep = np.flatnonzero(whole)[first]
    for array in (model.mesh_facenormal, model.mesh_facetexcoord):
        array[start : start + len(keep)] = array[start + keep]
    model.mesh_face[start : start + len(keep)] = thin[keep]
    model.mesh_facenum[mesh] = len(keep)
