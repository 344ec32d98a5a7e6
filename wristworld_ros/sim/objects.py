"""Objects of any shape: bodies of the compiled model that take another shape, size and surface in every episode."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

import numpy as np

from wristworld_ros.sim.opengl import mujoco
from wristworld_ros.sim.revolution import faces, revolve
from wristworld_ros.sim.shapes import PARTS, Part, Shape

BODIES = 8
SHOWN_GROUP, HIDDEN_GROUP = 1, 5
DENSITY = 250.0  # kg / m^3 of what touches
_KINDS = {
    'box': mujoco.mjtGeom.mjGEOM_BOX, 'cylinder': mujoco.mjtGeom.mjGEOM_CYLINDER, 'capsule': mujoco.mjtGeom.mjGEOM_CAPSULE,
    'ellipsoid': mujoco.mjtGeom.mjGEOM_ELLIPSOID,
}  # fmt: skip


@dataclass(frozen=True)
class SceneObject:
    """An object on the table. Metres; half_height above and below its body's origin, radius around it."""

    name: str
    body: int
    qpos: int
    half_height: float
    radius: float
    square: bool


def add_shaped_bodies(world: ET.Element, asset: ET.Element, textures: int) -> None:
    """Write the bodies, their meshes and materials into a model's XML; `textures` are named object0, object1, ..."""
    start = revolve([(0, -0.05), (0.05, -0.05), (0.05, 0.05), (0, 0.05)]).vertices
    corners, triangles = (' '.join(map(str, array.reshape(-1))) for array in (np.round(start, 6), faces()))
    for index in range(BODIES):
        name = f'shaped{index}'
        ET.SubElement(asset, 'mesh', name=name, inertia='shell', vertex=corners, face=triangles)
        for material in (name, f'{name}_parts'):
            ET.SubElement(asset, 'material', name=material, texture=f'object{index % textures}', specular='.3')
        body = ET.SubElement(world, 'body', name=name, pos=f'{index} 6 1')
        ET.SubElement(body, 'freejoint', name=f'{name}_joint')
        ET.SubElement(body, 'inertial', pos='0 0 0', mass='0.1', diaginertia='1e-4 1e-4 1e-4')
        ET.SubElement(
            body, 'geom', name=f'{name}_contact', type='box', size='.05 .05 .05', friction='1.2 .01 .0005', condim='4',
            solref='.008 1', group=str(HIDDEN_GROUP),
        )  # fmt: skip
        shown = {'contype': '0', 'conaffinity': '0', 'group': str(SHOWN_GROUP)}
        ET.SubElement(body, 'geom', name=f'{name}_surface', type='mesh', mesh=name, material=name, **shown)
        for part in range(PARTS):
            ET.SubElement(
                body, 'geom', name=f'{name}_part{part}', type='box', size='.01 .01 .01', material=name, **shown
            )


class ShapedObjects:
    """The bodies of `add_shaped_bodies` in a compiled model.

    Args:
        model: mujoco.MjModel.
    """

    def __init__(self, model):
        self.model = model
        self._bodies = [model.body(f'shaped{i}').id for i in range(BODIES)]
        self._contacts = [model.geom(f'shaped{i}_contact').id for i in range(BODIES)]
        self._surfaces = [model.geom(f'shaped{i}_surface').id for i in range(BODIES)]
        self._parts = [[model.geom(f'shaped{i}_part{p}').id for p in range(PARTS)] for i in range(BODIES)]
        for index in range(BODIES):  # places that are given later, so none may be taken for the body's own
            for geom in (self._contacts[index], self._surfaces[index], *self._parts[index]):
                model.geom_sameframe[geom] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE
            model.geom_pos[self._surfaces[index]], model.geom_quat[self._surfaces[index]] = (0, 0, 0), (1, 0, 0, 0)

    def hide(self, data) -> None:
        """Put all of them out of sight and reach."""
        model = self.model
        for index, body in enumerate(self._bodies):
            contact = self._contacts[index]
            model.geom_contype[contact] = model.geom_conaffinity[contact] = 0
            for geom in (self._surfaces[index], *self._parts[index]):
                model.geom_group[geom] = HIDDEN_GROUP
            model.body_gravcomp[body] = 1.0
            data.qpos[self._qpos(index) :][:7] = (index, 10, -3, 1, 0, 0, 0)

    def hide_one(self, item: SceneObject, data) -> None:
        """The same of one."""
        index = self._bodies.index(item.body)
        contact = self._contacts[index]
        self.model.geom_contype[contact] = self.model.geom_conaffinity[contact] = 0
        for geom in (self._surfaces[index], *self._parts[index]):
            self.model.geom_group[geom] = HIDDEN_GROUP
        self.model.body_gravcomp[item.body] = 1.0
        data.qpos[item.qpos :][:7] = (index, 10, -3, 1, 0, 0, 0)

    def show(self, index: int, shape: Shape, renderer=None) -> SceneObject:
        """Give a body its shape. renderer: what shows it; None where nothing does."""
        model, body, contact = self.model, self._bodies[index], self._contacts[index]
        extent = self._place(contact, shape.contact)
        model.geom_contype[contact] = model.geom_conaffinity[contact] = 1
        mass = float(np.clip(DENSITY * 8 * extent.prod(), 0.02, 0.4))
        model.body_mass[body] = mass
        model.body_inertia[body] = mass / 3 * (extent @ extent - extent**2)
        model.body_gravcomp[body] = 0.0
        if shape.surface is not None:
            self._set_surface(index, shape, renderer)
        for geom, part in zip(self._parts[index], shape.parts, strict=False):
            self._place(geom, part)
            model.geom_matid[geom] = model.material(f'shaped{index}' + ('' if part.body else '_parts')).id
            model.geom_group[geom] = SHOWN_GROUP
        return SceneObject(shape.name, body, self._qpos(index), shape.half_height, shape.radius, shape.square)

    def materials(self, index: int) -> tuple[int, int]:
        """Materials of a body and of its other parts."""
        return self.model.material(f'shaped{index}').id, self.model.material(f'shaped{index}_parts').id

    def _qpos(self, index: int) -> int:
        return int(self.model.jnt_qposadr[self.model.body_jntadr[self._bodies[index]]])

    def _place(self, geom: int, part: Part) -> np.ndarray:
        """Make a geom this primitive. Returns half of its extent along its own axes, metres [3]."""
        model, size = self.model, np.array(part.size)
        radius, half = size[:2]
        extent = {
            'cylinder': np.array([radius, radius, half]), 'capsule': np.array([radius, radius, half + radius]),
        }.get(part.kind, size)  # fmt: skip
        model.geom_type[geom], model.geom_size[geom] = _KINDS[part.kind], size
        model.geom_pos[geom], model.geom_quat[geom] = part.position, part.quaternion
        model.geom_rbound[geom] = np.linalg.norm(extent)
        model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:] = 0, extent
        return extent

    def _set_surface(self, index: int, shape: Shape, renderer) -> None:
        model, geom = self.model, self._surfaces[index]
        assert shape.surface is not None
        mesh = int(model.geom_dataid[geom])
        start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        model.mesh_vert[start : start + count] = shape.surface.vertices
        start = model.mesh_normaladr[mesh]
        model.mesh_normal[start : start + count] = shape.surface.normals
        extent = np.abs(shape.surface.vertices).max(0)
        model.geom_rbound[geom] = np.linalg.norm(extent)
        model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:] = 0, extent
        model.geom_group[geom] = SHOWN_GROUP
        if renderer is not None:
            renderer.upload_mesh(mesh)
