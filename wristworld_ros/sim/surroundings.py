"""Other surroundings in every episode: where the arm stands, its table, a mat on it, furniture, colours of the robot, more kinds of light."""

from __future__ import annotations

import numpy as np

from wristworld_ros.sim.grippers import PREFIX
from wristworld_ros.sim.objects import HIDDEN_GROUP, SHOWN_GROUP
from wristworld_ros.sim.opengl import mujoco
from wristworld_ros.sim.scene import FURNITURE, OBJECT_TEXTURES, TABLE_TOP
from wristworld_ros.sim.textures import sample_color

NEAREST = 1.5  # metres from the table's middle that furniture keeps: cameras are nearer
BEHIND = 1.05  # the same behind the robot, where no camera is
LOWEST, HIGHEST = -0.2, 0.02  # metres: the table's top in the robot's base frame
LEVEL = -0.02  # at least this of an arm that stands on the table


def place_arm(model, x: float, y: float, height: float) -> None:
    """Stand the arm at a place of MuJoCo's world, metres, with the table's top at `height` in its base frame."""
    model.body_pos[model.body('robot0_base').id] = (x, y, TABLE_TOP - height)


class WideSurroundings:
    """Varies a compiled scene that is furnished.

    Args:
        model: From compile_scene.
    """

    def __init__(self, model):
        self.model = model
        self._base = model.body('robot0_base').pos.copy()
        self._gripper = [g for g in range(model.ngeom) if model.geom(g).name.startswith(PREFIX)]
        self._pedestal = [
            g
            for g in range(model.ngeom)
            if model.geom(g).name.startswith('fixed_mount0') and model.geom_group[g] == SHOWN_GROUP
        ]
        self._gripper_colors = model.geom_rgba[self._gripper].copy()

    def apply(self, rng: np.random.Generator, height: float | None = None) -> None:
        """Sample surroundings. Lights and surfaces are taken as `Randomiser` left them, and varied further.

        Args:
            rng: Chooses them.
            height: Of the table's top in the arm's base frame, metres; None samples it.
        """
        height = self._stand(rng) if height is None else height
        self._table(rng, height)
        self._furnish(rng)
        self._tint(rng)
        self._light(rng)

    def _stand(self, rng) -> float:
        """Place the arm. Returns the height of the table in its base frame, metres: half of all arms stand about level with it."""
        height = rng.uniform(LOWEST, HIGHEST) if rng.random() < 0.5 else rng.uniform(LEVEL, 0)
        x, y = self._base[0] + rng.uniform(-0.06, 0.06), rng.uniform(-0.05, 0.05)
        place_arm(self.model, x, y, height)
        return height

    def _table(self, rng, height: float) -> None:
        """Size the table; an arm that is level with it stands on it."""
        model = self.model
        on_it = LEVEL <= height <= 0 and rng.random() < 0.8
        model.geom_group[self._pedestal] = HIDDEN_GROUP if on_it else SHOWN_GROUP
        near = rng.uniform(-1.1, -0.75) if on_it else rng.uniform(-0.42, -0.32)
        far, left, right = rng.uniform((0.35, 0.4, 0.4), (0.9, 0.9, 0.9))
        middle, half = np.array([near + far, left - right]) / 2, np.array([far - near, left + right]) / 2
        for name in ('table_visual', 'table_collision'):
            geom = model.geom(name).id
            thick = model.geom_size[geom, 2]
            model.geom_size[geom], model.geom_pos[geom, :2] = (*half, thick), middle
            model.geom_rbound[geom] = np.linalg.norm((*half, thick))
            model.geom_aabb[geom, 3:] = (*half, thick)
        for index, (x, y) in enumerate(((1, 1), (-1, 1), (-1, -1), (1, -1))):
            leg = model.geom(f'table_leg{index + 1}_visual').id
            model.geom_pos[leg, :2] = middle + (x, y) * (half - 0.06)
        size = rng.uniform((0.1, 0.12), (0.3, 0.4)) if rng.random() < 0.5 else np.zeros(2)
        place = rng.uniform((-0.1, -0.15), (0.1, 0.15))
        self._box('mat', (*place, TABLE_TOP), (*np.maximum(size, 1e-3), 0.0006), rng.uniform(-0.3, 0.3), rng)

    def _furnish(self, rng) -> None:
        for index in range(FURNITURE):
            half = rng.uniform((0.06, 0.15, 0.15), (0.35, 0.6, 0.6))
            around = rng.uniform(-np.pi, np.pi) if index else np.pi + rng.uniform(-0.4, 0.4)
            least = BEHIND if abs(abs(around) - np.pi) < 0.6 else NEAREST
            away = least + np.hypot(*half[:2]) + rng.uniform(0, 0.6)
            height = half[2] if rng.random() < 0.6 else rng.uniform(half[2], 1.6)
            place = (away * np.cos(around), away * np.sin(around), height)
            self._box(f'furniture{index}', place, half, around + rng.normal(0, 0.4), rng)

    def _box(self, name: str, position, half, yaw: float, rng) -> None:
        model = self.model
        geom = model.geom(name).id
        model.geom_pos[geom], model.geom_size[geom] = position, half
        model.geom_quat[geom] = (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
        model.geom_rbound[geom] = np.linalg.norm(half)
        model.geom_aabb[geom, 3:] = half
        model.geom_sameframe[geom] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE
        material = int(model.geom_matid[geom])
        texture = model.texture(f'object{int(rng.integers(OBJECT_TEXTURES))}').id if rng.random() < 0.4 else -1
        model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture
        model.mat_rgba[material, :3] = sample_color(rng, 0.8, 0.1)
        model.mat_specular[material] = rng.uniform(0, 0.2)

    def _tint(self, rng) -> None:
        """Arms are white, grey or dark; so are grippers."""
        model = self.model
        arm = rng.uniform(0.8, 1.1) if rng.random() < 0.75 else rng.uniform(0.25, 0.6)
        hand = rng.uniform(0.6, 1.2) if rng.random() < 0.6 else rng.uniform(0.2, 0.5)
        for material in range(model.nmat):
            if model.material(material).name.startswith('robot0'):
                model.mat_rgba[material, :3] = np.clip(model.mat_rgba[material, :3] * arm, 0, 1)
        colors = (self._gripper_colors[:, :3] + rng.uniform(0, 0.15)) * hand * (1 + 0.1 * (sample_color(rng) - 0.5))
        model.geom_rgba[self._gripper, :3] = np.clip(colors, 0, 1)

    def _light(self, rng) -> None:
        """Brighter, darker and more coloured light, also from low."""
        model = self.model
        warm = 1 + rng.uniform(-0.25, 0.25) * np.array([1.0, 0.1, -1.0])
        model.vis.headlight.ambient[:] *= rng.uniform(0.7, 1.5) * warm
        model.light_diffuse[:] *= rng.uniform(0.75, 1.6) * warm
        for light in range(model.nlight):
            if rng.random() < 0.3:
                low = model.light_dir[light] * (1, 1, rng.uniform(0.3, 1.0))
                model.light_dir[light] = low / np.linalg.norm(low)
                offset = model.light_pos[light] - (0, 0, TABLE_TOP)
                model.light_pos[light] = (0, 0, TABLE_TOP) - model.light_dir[light] * np.linalg.norm(offset)
