"""What differs from episode to episode: objects, surfaces, textures, lights. The compiled model is changed in place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wristworld_ros.sim.grippers import FRANKA, Gripper
from wristworld_ros.sim.kinematics import GRIP_SITE, solve_arm
from wristworld_ros.sim.objects import BODIES, HIDDEN_GROUP, SceneObject, ShapedObjects
from wristworld_ros.sim.opengl import mujoco
from wristworld_ros.sim.scene import (
    MESHES,
    OBJECT_TEXTURES,
    SLOTS,
    START_Q,
    TABLE_TOP,
    TEXTURE_SIZE,
    WIDE_MESHES,
)
from wristworld_ros.sim.settings import SimulatorSettings
from wristworld_ros.sim.shapes import sample_shape
from wristworld_ros.sim.surroundings import WideSurroundings
from wristworld_ros.sim.textures import sample_color, sample_texture

DENSITY = 500.0  # kg / m^3


@dataclass(frozen=True)
class Layout:
    """An episode's task: what is picked, onto what, and where it is put.

    goal: MuJoCo world [3], where the picked object's origin shall end (place and stack); None for lift.
    """

    task: str
    items: tuple[SceneObject, ...]
    picked: SceneObject
    goal: np.ndarray | None
    onto: SceneObject | None


class Randomiser:
    """Varies one compiled scene.

    Args:
        model: From compile_scene.
        settings: SimulatorSettings.
        gripper: On the arm.
    """

    def __init__(self, model, settings: SimulatorSettings, gripper: Gripper = FRANKA):
        self.model, self.settings, self._gripper = model, settings, gripper
        self._shaped = ShapedObjects(model) if settings.objects == 'wide' else None
        self._surroundings = WideSurroundings(model) if settings.surroundings == 'wide' else None
        self._meshes = MESHES if self._shaped is None else WIDE_MESHES
        self._materials = model.mat_rgba.copy()
        self._geoms = {
            name: [g for g in range(model.ngeom) if model.geom_bodyid[g] == model.body(name).id]
            for name in [f'slot{i}' for i in range(SLOTS)] + [f'{m}_main' for m in self._meshes]
        }
        self._collides = model.geom_contype.copy(), model.geom_conaffinity.copy()
        self._groups = model.geom_group.copy()

    def apply(self, data, rng: np.random.Generator, task: str, renderer=None) -> Layout:
        """Sample an episode: change the model, set data.qpos, send textures to the renderer. Returns its Layout."""
        self._surfaces(rng, renderer)
        self._lights(rng, renderer)
        if self._surroundings is not None:
            self._surroundings.apply(rng)
        mujoco.mj_resetData(self.model, data)
        self._hide_objects(data)
        if self._shaped is None:
            layout = self._objects(data, rng, task)
        else:
            layout = self._any_objects(data, rng, task, renderer)
        q = START_Q + rng.normal(0, 0.06, 7)
        data.qpos[:7] = np.clip(q, self.model.jnt_range[:7, 0] + 0.05, self.model.jnt_range[:7, 1] - 0.05)
        fingers = self._gripper.state(self._gripper.width)
        data.qpos[7 : 7 + len(fingers)] = fingers
        if self._surroundings is not None:
            data.qpos[:7] = self._start_above_table(data.qpos, rng)
        mujoco.mj_setConst(self.model, mujoco.MjData(self.model))
        mujoco.mj_forward(self.model, data)
        return layout

    def _start_above_table(self, qpos, rng) -> np.ndarray:
        """Joint angles [7] with the gripper, pointing down, somewhere above the table: the arm may stand lower or higher than usual."""
        model, scratch = self.model, mujoco.MjData(self.model)
        site = model.site(GRIP_SITE).id
        scratch.qpos[:] = qpos
        mujoco.mj_kinematics(model, scratch)
        rotation = scratch.site_xmat[site].reshape(3, 3).copy()
        where = rng.uniform((-0.18, -0.18, TABLE_TOP + 0.17), (0.08, 0.18, TABLE_TOP + 0.35))
        return solve_arm(model, scratch, site, qpos[:7].copy(), where, rotation, steps=30)

    def _hide_objects(self, data) -> None:
        model = self.model
        if self._shaped is not None:
            self._shaped.hide(data)
        for name, geoms in self._geoms.items():
            model.geom_contype[geoms] = model.geom_conaffinity[geoms] = 0
            model.geom_group[geoms] = HIDDEN_GROUP
            model.body_gravcomp[model.body(name).id] = 1.0
            adr = model.jnt_qposadr[model.body(name).jntadr[0]]
            data.qpos[adr : adr + 7] = (list(self._geoms).index(name), 8, -3, 1, 0, 0, 0)

    def _objects(self, data, rng, task) -> Layout:
        slots = [int(i) for i in rng.permutation(SLOTS)]
        needed = 2 if task == 'stack' else 1
        items = []
        for index in range(needed):
            if index == 0 and task != 'stack' and rng.random() < 0.2:
                items.append(self._mesh_item('can', rng))
            else:
                items.append(self._slot_item(slots.pop(), rng, 'target' if index == 0 else 'base', task))
        left = [m for m in self._meshes if all(item.name != m for item in items)]
        for _ in range(int(rng.integers(0, self.settings.distractors + 1))):
            if left and rng.random() < 0.25:
                items.append(self._mesh_item(left.pop(int(rng.integers(len(left)))), rng))
            elif slots:
                items.append(self._slot_item(slots.pop(), rng, 'any', task))
        spots: list[np.ndarray] = []
        radii = [item.radius for item in items]
        goal = None
        if task == 'place':
            radii.insert(1, items[0].radius)
        for index, radius in enumerate(radii):
            for _ in range(200):
                wide = index >= needed + (task == 'place')
                limit = (0.22, 0.33) if wide else (0.16, 0.22)
                spot = rng.uniform((-limit[0], -limit[1]), limit)
                gap = 0.01 if wide and index > 2 else 0.045
                tall = wide and items[index - (task == 'place')].half_height > 0.045
                if all(
                    np.linalg.norm(spot - s) > radius + r + (0.1 if tall and i < 2 else gap)
                    for i, (s, r) in enumerate(zip(spots, radii))
                ):
                    break
            spots.append(spot)
        if task == 'place':
            goal = np.array([*spots.pop(1), TABLE_TOP + items[0].half_height])
        for item, spot in zip(items, spots):
            yaw = rng.uniform(-np.pi, np.pi)
            data.qpos[item.qpos : item.qpos + 7] = (
                *spot,
                TABLE_TOP + item.half_height + 0.002,
                np.cos(yaw / 2),
                0,
                0,
                np.sin(yaw / 2),
            )
        if task == 'stack':
            goal = np.array([*spots[1], TABLE_TOP + 2 * items[1].half_height + items[0].half_height])
        return Layout(task, tuple(items), items[0], goal, items[1] if task == 'stack' else None)

    def _any_objects(self, data, rng, task, renderer) -> Layout:
        """Objects of any shape, as many as find room on the table."""
        assert self._shaped is not None
        slots, bodies = ([int(i) for i in rng.permutation(count)] for count in (SLOTS, BODIES))
        left = list(self._meshes)
        needed = 2 if task == 'stack' else 1
        kind = rng.random()
        if task == 'stack' or kind < 0.4:
            items = [self._slot_item(slots.pop(), rng, 'target', task)]
        elif kind < 0.5:
            items = [self._mesh_item(left.pop(left.index(str(rng.choice(['can', 'lemon'])))), rng)]
        else:
            items = [self._shaped_item(bodies.pop(), rng, True, renderer)]
        if task == 'stack':
            items.append(self._slot_item(slots.pop(), rng, 'base', task))
        spots = [rng.uniform((-0.16, -0.22), (0.16, 0.22))]
        goal, taken = None, [(spots[0], items[0].radius)]
        if task != 'lift':
            radius = items[1 if task == 'stack' else 0].radius
            spot = self._free_spot(rng, radius, taken, (0.16, 0.22), 0.045)
            spot = spots[0] * -1 if spot is None else spot
            taken.append((spot, radius))
            if task == 'stack':
                spots.append(spot)
                height = 2 * items[1].half_height + items[0].half_height
            else:
                height = items[0].half_height
            goal = np.array([*spot, TABLE_TOP + height])
        for _ in range(int(rng.integers(0, self.settings.distractors + 1))):
            kind = rng.random()
            if kind < 0.15 and left:
                item = self._mesh_item(left.pop(int(rng.integers(len(left)))), rng)
            elif (kind < 0.35 or not bodies) and slots:
                item = self._slot_item(slots.pop(), rng, 'any', task)
            elif bodies:
                item = self._shaped_item(bodies.pop(), rng, False, renderer)
            else:
                break
            # What the hand comes down on keeps a distance from what it could hit.
            gap = 0.1 if item.half_height > 0.045 else 0.05
            spot = self._free_spot(rng, item.radius, taken, (0.24, 0.38), gap)
            if spot is None:
                self._hide_one(item, data)
                continue
            items.append(item)
            spots.append(spot)
            taken.append((spot, item.radius))
        for item, spot in zip(items, spots):
            yaw = rng.uniform(-np.pi, np.pi)
            data.qpos[item.qpos : item.qpos + 7] = (
                *spot, TABLE_TOP + item.half_height + 0.002, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2),
            )  # fmt: skip
        return Layout(task, tuple(items), items[0], goal, items[1] if needed == 2 else None)

    @staticmethod
    def _free_spot(rng, radius, taken, limit, gap) -> np.ndarray | None:
        """A place [2] on the table, metres, for what has this radius; None where there is no room. The first two places keep `gap`."""
        for _ in range(60):
            spot = rng.uniform((-limit[0], -limit[1]), limit)
            if all(
                np.linalg.norm(spot - other) > radius + r + (gap if i < 2 else 0.01)
                for i, (other, r) in enumerate(taken)
            ):
                return spot
        return None

    def _hide_one(self, item: SceneObject, data) -> None:
        name = self.model.body(item.body).name
        if name not in self._geoms:
            self._shaped.hide_one(item, data)
            return
        geoms = self._geoms[name]
        self.model.geom_contype[geoms] = self.model.geom_conaffinity[geoms] = 0
        self.model.geom_group[geoms] = HIDDEN_GROUP
        self.model.body_gravcomp[item.body] = 1.0

    def _shaped_item(self, index: int, rng, grasped: bool, renderer) -> SceneObject:
        model = self.model
        item = self._shaped.show(index, sample_shape(rng, grasped), renderer)
        for material in self._shaped.materials(index):
            textured = rng.random() < 0.35
            texture = model.texture(f'object{int(rng.integers(OBJECT_TEXTURES))}').id if textured else -1
            model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture
            color = sample_color(rng, 1.0, 0.25)
            model.mat_rgba[material, :3] = np.clip(color * (1.3 if textured else 1.0), 0, 1)
            model.mat_specular[material], model.mat_shininess[material] = rng.uniform(0, 0.6), rng.uniform(0, 0.8)
        return item

    def _show(self, name: str) -> int:
        model, geoms = self.model, self._geoms[name]
        model.geom_contype[geoms], model.geom_conaffinity[geoms] = self._collides[0][geoms], self._collides[1][geoms]
        model.geom_group[geoms] = self._groups[geoms]
        model.body_gravcomp[model.body(name).id] = 0.0
        return int(model.jnt_qposadr[model.body(name).jntadr[0]])

    def _mesh_item(self, mesh: str, rng) -> SceneObject:
        name = f'{mesh}_main'
        geom = self._geoms[name][0]
        qpos = self._show(name)
        half = self.model.geom_aabb[geom, 3:]
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, self.model.geom_quat[geom])
        box = np.abs(rotation.reshape(3, 3)) @ half
        return SceneObject(mesh, self.model.body(name).id, qpos, float(box[2]), float(max(box[0], box[1])), False)

    def _slot_item(self, slot: int, rng, role: str, task: str) -> SceneObject:
        model, name = self.model, f'slot{slot}'
        qpos, geom, body = self._show(name), self._geoms[name][0], model.body(name).id
        kinds = mujoco.mjtGeom
        if role == 'target':
            kind = rng.choice([kinds.mjGEOM_BOX, kinds.mjGEOM_CYLINDER, kinds.mjGEOM_SPHERE], p=[0.7, 0.2, 0.1])
            kind = kinds.mjGEOM_BOX if task == 'stack' else kind
            size = np.array([rng.uniform(0.017, 0.026), rng.uniform(0.017, 0.026), rng.uniform(0.016, 0.035)])
            if rng.random() < 0.6:
                size[:] = size[0]
        elif role == 'base':
            kind = kinds.mjGEOM_BOX
            size = np.array([rng.uniform(0.024, 0.04), rng.uniform(0.024, 0.04), rng.uniform(0.015, 0.035)])
        else:
            kind = rng.choice([kinds.mjGEOM_BOX, kinds.mjGEOM_CYLINDER, kinds.mjGEOM_SPHERE], p=[0.5, 0.3, 0.2])
            size = rng.uniform(0.012, 0.045, 3)
        if kind == kinds.mjGEOM_CYLINDER:
            size[1], size[2], half, radius = size[2], 0.0, size[2], size[0]
        elif kind == kinds.mjGEOM_SPHERE:
            size[1:], half, radius = 0.0, size[0], size[0]
        else:
            half, radius = size[2], float(np.hypot(size[0], size[1]))
        extent = np.array([size[0], size[0] if size[1] == 0 or kind == kinds.mjGEOM_CYLINDER else size[1], half])
        model.geom_type[geom], model.geom_size[geom] = kind, size
        model.geom_rbound[geom] = np.linalg.norm(extent)
        model.geom_aabb[geom, 3:] = extent
        mass = DENSITY * 8 * extent.prod()
        model.body_mass[body] = mass
        model.body_inertia[body] = mass / 3 * (extent @ extent - extent**2)
        material = model.geom_matid[geom]
        textured = rng.random() < 0.4
        texture = model.texture(f'object{slot % OBJECT_TEXTURES}').id if textured else -1
        model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture
        color = np.clip(sample_color(rng, 1.0, 0.35) * (1.3 if textured else 1.0), 0, 1)
        model.mat_rgba[material, :3] = model.geom_rgba[geom, :3] = color
        model.mat_specular[material], model.mat_shininess[material] = rng.uniform(0, 0.5), rng.uniform(0, 0.7)
        return SceneObject(name, body, qpos, float(half), float(radius), kind == kinds.mjGEOM_BOX)

    def _surfaces(self, rng, renderer) -> None:
        model = self.model
        model.mat_rgba[:] = self._materials
        for name in ('texplane', 'tex-ceramic', 'tex-light-gray-plaster'):
            self._fill(model.texture(name).id, [sample_texture(rng, TEXTURE_SIZE)], renderer)
        for index in range(OBJECT_TEXTURES):
            faces = [sample_texture(rng, 64, 1.0)] * 6
            self._fill(model.texture(f'object{index}').id, faces, renderer)
        for name, most in (('table_ceramic', 4.0), ('floorplane', 3.0), ('walls_mat', 3.0)):
            material = model.material(name).id
            model.mat_texrepeat[material] = rng.uniform(0.7, most)
            model.mat_reflectance[material] = 0.0
            model.mat_specular[material] = rng.uniform(0, 0.3)
        shade = rng.uniform(0.65, 1.0) * (1 + 0.15 * (sample_color(rng) - 0.5) * (rng.random() < 0.4))
        for material in range(model.nmat):
            if model.material(material).name.startswith(('robot0', 'gripper0', 'fixed_mount0')):
                model.mat_rgba[material, :3] = np.clip(self._materials[material, :3] * shade, 0, 1)
        half = np.array([rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.8), 0.025])
        table = model.geom('table_visual').id
        model.geom_size[table], model.geom_pos[table, 0] = half, half[0] - 0.4
        model.geom_rbound[table] = np.linalg.norm(half)
        for index, (x, y) in enumerate(((1, 1), (-1, 1), (-1, -1), (1, -1))):
            leg = model.geom(f'table_leg{index + 1}_visual').id
            model.geom_pos[leg, :2] = (half[0] - 0.4 + x * (half[0] - 0.06), y * (half[1] - 0.06))

    def _fill(self, texture: int, faces: list[np.ndarray], renderer) -> None:
        model = self.model
        start = model.tex_adr[texture]
        pixels = np.concatenate([face.reshape(-1) for face in faces])
        model.tex_data[start : start + pixels.size] = pixels
        if renderer is not None:
            renderer.upload_texture(texture)

    def _lights(self, rng, renderer) -> None:
        model = self.model
        ambient = rng.uniform(0.2, 0.4)
        model.vis.headlight.ambient[:] = ambient * (1 + 0.1 * (sample_color(rng) - 0.5))
        model.vis.headlight.diffuse[:] = rng.uniform(0.0, 0.1)
        model.vis.headlight.specular[:] = 0.0
        shadows = rng.random() < self.settings.shadows
        if renderer is not None:
            renderer.shadows = shadows
        for light in range(3):
            azimuth, elevation = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(35, 85))
            away = np.array(
                [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
            )
            main = light == 0
            kinds = mujoco.mjtLightType
            model.light_type[light] = kinds.mjLIGHT_DIRECTIONAL if main or rng.random() < 0.5 else kinds.mjLIGHT_SPOT
            model.light_cutoff[light] = 90.0
            model.light_pos[light] = np.array([0, 0, TABLE_TOP]) + away * rng.uniform(1.5, 2.5)
            model.light_dir[light] = -away
            strength = rng.uniform(0.3, 0.65) if main else rng.uniform(0.0, 0.25)
            model.light_diffuse[light] = strength * (1 + 0.3 * (sample_color(rng) - 0.5))
            model.light_specular[light] = strength * rng.uniform(0.1, 0.6)
            model.light_castshadow[light] = int(main and shadows)
            model.light_active[light] = 1
