"""Which objects an episode has, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wristworld_ros.sim.objects import BODIES, HIDDEN_GROUP, SceneObject, ShapedObjects
from wristworld_ros.sim.opengl import mujoco
from wristworld_ros.sim.scene import MESHES, OBJECT_TEXTURES, SLOTS, TABLE_TOP, WIDE_MESHES
from wristworld_ros.sim.settings import SimulatorSettings
from wristworld_ros.sim.shapes import sample_shape
from wristworld_ros.sim.textures import sample_color

DENSITY = 500.0  # kg / m^3
REPLAY = 'replay'  # name of the task of an episode that replays a motion
REACHED = 0.2  # metres about a motion's way, standard deviation, in which objects lie
GRASP_HEIGHT = 0.1  # metres above the table, at most, of what is grasped
EDGE = 0.37  # metres from the table's middle in which objects lie, along both axes


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


class ObjectSampler:
    """Chooses, shapes and places the objects of one compiled scene.

    Args:
        model: From compile_scene.
        settings: SimulatorSettings.
    """

    def __init__(self, model, settings: SimulatorSettings):
        self.model, self.settings = model, settings
        self._shaped = ShapedObjects(model) if settings.objects == 'wide' else None
        self._meshes = MESHES if self._shaped is None else WIDE_MESHES
        self._geoms = {
            name: [g for g in range(model.ngeom) if model.geom_bodyid[g] == model.body(name).id]
            for name in [f'slot{i}' for i in range(SLOTS)] + [f'{m}_main' for m in self._meshes]
        }
        self._collides = model.geom_contype.copy(), model.geom_conaffinity.copy()
        self._groups = model.geom_group.copy()

    def sample(self, data, rng: np.random.Generator, task: str, renderer=None) -> Layout:
        """Objects for a task, in data.qpos."""
        self._hide(data)
        return self._basic(data, rng, task) if self._shaped is None else self._wide(data, rng, task, renderer)

    def _hide(self, data) -> None:
        model = self.model
        if self._shaped is not None:
            self._shaped.hide(data)
        for name, geoms in self._geoms.items():
            model.geom_contype[geoms] = model.geom_conaffinity[geoms] = 0
            model.geom_group[geoms] = HIDDEN_GROUP
            model.body_gravcomp[model.body(name).id] = 1.0
            adr = model.jnt_qposadr[model.body(name).jntadr[0]]
            data.qpos[adr : adr + 7] = (list(self._geoms).index(name), 8, -3, 1, 0, 0, 0)

    def _basic(self, data, rng, task) -> Layout:
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

    def _wide(self, data, rng, task, renderer) -> Layout:
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
            item = self._other_item(rng, slots, bodies, left, renderer)
            if item is None:
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
            _lay(data, item, spot, rng.uniform(-np.pi, np.pi))
        return Layout(task, tuple(items), items[0], goal, items[1] if needed == 2 else None)

    def along(self, data, rng: np.random.Generator, way: np.ndarray, grasp: int | None, renderer=None) -> Layout:
        """Objects along the way of a motion, in data.qpos: one where it grasps, the others where it passes above or beside.

        Args:
            way: float64 [N, 3], the lowest point of the gripper in MuJoCo's world, metres.
            grasp: The step at which it grasps something; None where it does not.
        """
        self._hide(data)
        slots, left = [int(i) for i in rng.permutation(SLOTS)], list(self._meshes)
        bodies = [] if self._shaped is None else [int(i) for i in rng.permutation(BODIES)]
        items: list[SceneObject] = []
        taken: list[tuple[np.ndarray, float]] = []
        if grasp is not None and way[grasp, 2] < TABLE_TOP + GRASP_HEIGHT:
            held = not bodies or rng.random() < 0.5
            items.append(
                self._slot_item(slots.pop(), rng, 'target', REPLAY)
                if held
                else self._shaped_item(bodies.pop(), rng, True, renderer)
            )
            taken.append((way[grasp, :2].copy(), items[0].radius))
        for _ in range(int(rng.integers(1, max(self.settings.distractors, 1) + 1))):
            item = self._other_item(rng, slots, bodies, left, renderer)
            if item is None:
                break
            spot = self._spot_beside(rng, item, taken, way)
            if spot is None and not items:
                spot = self._free_spot(rng, item.radius, taken, (EDGE, EDGE), 0.0)
            if spot is None:
                self._hide_one(item, data)
                continue
            items.append(item)
            taken.append((spot, item.radius))
        for item, (spot, _) in zip(items, taken):
            _lay(data, item, spot, rng.uniform(-np.pi, np.pi))
        return Layout(REPLAY, tuple(items), items[0], None, None)

    @staticmethod
    def _spot_beside(rng, item: SceneObject, taken, way: np.ndarray) -> np.ndarray | None:
        """A place [2] near a motion's way that the gripper does not run into; None where there is no room."""
        low = way[way[:, 2] < TABLE_TOP + 2 * item.half_height + 0.03, :2]
        for _ in range(60):
            spot = way[rng.integers(len(way)), :2] + rng.normal(0, REACHED, 2)
            apart = all(np.linalg.norm(spot - other) > item.radius + r + 0.01 for other, r in taken)
            clear = not len(low) or np.linalg.norm(low - spot, axis=1).min() > item.radius + 0.06
            if apart and clear and np.abs(spot).max() < EDGE:
                return spot
        return None

    def _other_item(self, rng, slots: list[int], bodies: list[int], left: list[str], renderer) -> SceneObject | None:
        """Anything, out of what is left; None where that is nothing."""
        kind = rng.random()
        if kind < 0.15 and left:
            return self._mesh_item(left.pop(int(rng.integers(len(left)))), rng)
        if (kind < 0.35 or not bodies) and slots:
            return self._slot_item(slots.pop(), rng, 'any', '')
        return self._shaped_item(bodies.pop(), rng, False, renderer) if bodies else None

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


def _lay(data, item: SceneObject, spot: np.ndarray, yaw: float) -> None:
    """Put an object upright on the table."""
    data.qpos[item.qpos : item.qpos + 7] = (
        *spot, TABLE_TOP + item.half_height + 0.002, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2),
    )  # fmt: skip
