"""What differs from episode to episode: objects, surfaces, textures, lights. The compiled model is changed in place."""

from __future__ import annotations

import numpy as np

from wristworld_ros.sim.grippers import FRANKA, Gripper
from wristworld_ros.sim.kinematics import GRIP_SITE, solve_arm
from wristworld_ros.sim.layout import Layout, ObjectSampler
from wristworld_ros.sim.opengl import mujoco
from wristworld_ros.sim.replay import Motion
from wristworld_ros.sim.scene import (
    OBJECT_TEXTURES,
    START_Q,
    TABLE_TOP,
    TEXTURE_SIZE,
)
from wristworld_ros.sim.settings import SimulatorSettings
from wristworld_ros.sim.surroundings import WideSurroundings, place_arm
from wristworld_ros.sim.textures import sample_color, sample_texture

HEIGHTS = (-0.35, 0.4)  # metres: the table's top in the base frame of an arm that replays a motion
GAP = 0.012  # metres at most between the table and the lowest point of such a motion
BEYOND_GRIP = 0.02  # metres from the middle between the fingers to their tips


class Randomiser:
    """Varies one compiled scene.

    Args:
        model: From compile_scene.
        settings: SimulatorSettings.
        gripper: On the arm.
    """

    def __init__(self, model, settings: SimulatorSettings, gripper: Gripper = FRANKA):
        self.model, self.settings, self._gripper = model, settings, gripper
        self._objects = ObjectSampler(model, settings)
        self._surroundings = WideSurroundings(model) if settings.surroundings == 'wide' else None
        self._materials = model.mat_rgba.copy()
        self._stand = tuple(model.body('robot0_base').pos[:2])

    def apply(self, data, rng: np.random.Generator, task: str, renderer=None) -> Layout:
        """Sample an episode: change the model, set data.qpos, send textures to the renderer. Returns its Layout."""
        self._surfaces(rng, renderer)
        self._lights(rng, renderer)
        if self._surroundings is not None:
            self._surroundings.apply(rng)
        mujoco.mj_resetData(self.model, data)
        layout = self._objects.sample(data, rng, task, renderer)
        q = START_Q + rng.normal(0, 0.06, 7)
        data.qpos[:7] = np.clip(q, self.model.jnt_range[:7, 0] + 0.05, self.model.jnt_range[:7, 1] - 0.05)
        fingers = self._gripper.state(self._gripper.width)
        data.qpos[7 : 7 + len(fingers)] = fingers
        if self._surroundings is not None:
            data.qpos[:7] = self._start_above_table(data.qpos, rng)
        mujoco.mj_setConst(self.model, mujoco.MjData(self.model))
        mujoco.mj_forward(self.model, data)
        return layout

    def apply_motion(self, data, rng: np.random.Generator, motion: Motion, renderer=None) -> Layout:
        """The same for a motion that is replayed: its table is as high as its lowest point."""
        self._surfaces(rng, renderer)
        self._lights(rng, renderer)
        way = self._way(motion)  # in the base frame, as long as the arm stands at the world's origin
        height = float(np.clip(way[:, 2].min() - rng.uniform(0, GAP), *HEIGHTS))
        place_arm(self.model, *self._stand, height)
        if self._surroundings is not None:
            self._surroundings.apply(rng, height)
        mujoco.mj_resetData(self.model, data)
        way += (*self._stand, TABLE_TOP - height)
        layout = self._objects.along(data, rng, way, motion.grasp, renderer)
        data.qpos[:7] = motion.joints[0]
        fingers = self._gripper.state(motion.openings[0])
        data.qpos[7 : 7 + len(fingers)] = fingers
        mujoco.mj_setConst(self.model, mujoco.MjData(self.model))
        mujoco.mj_forward(self.model, data)
        return layout

    def _way(self, motion: Motion) -> np.ndarray:
        """The lowest point of the gripper in the robot's base frame, float64 [N, 3], metres."""
        model, scratch, way = self.model, mujoco.MjData(self.model), []
        site, base = model.site(GRIP_SITE).id, model.body('robot0_link0').id
        for joints in motion.joints:
            scratch.qpos[:7] = joints
            mujoco.mj_kinematics(model, scratch)
            tip = scratch.site_xpos[site] + scratch.site_xmat[site].reshape(3, 3)[:, 2] * BEYOND_GRIP
            way.append(tip - scratch.xpos[base])
        return np.array(way)

    def _start_above_table(self, qpos, rng) -> np.ndarray:
        """Joint angles [7] with the gripper, pointing down, somewhere above the table: the arm may stand lower or higher than usual."""
        model, scratch = self.model, mujoco.MjData(self.model)
        site = model.site(GRIP_SITE).id
        scratch.qpos[:] = qpos
        mujoco.mj_kinematics(model, scratch)
        rotation = scratch.site_xmat[site].reshape(3, 3).copy()
        where = rng.uniform((-0.18, -0.18, TABLE_TOP + 0.17), (0.08, 0.18, TABLE_TOP + 0.35))
        return solve_arm(model, scratch, site, qpos[:7].copy(), where, rotation, steps=30)

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
