"""One simulated episode, from a seed to a directory. Physics runs first; only the stored frames are rendered."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.sim.cameras import WristExtrinsics, sample_anchor, sample_anchors
from wristworld_ros.sim.needs import mujoco
from wristworld_ros.sim.policy import GRIP_SITE, OPEN, ScriptedPolicy, succeeded
from wristworld_ros.sim.randomise import Layout, Randomiser
from wristworld_ros.sim.render import Renderer
from wristworld_ros.sim.scene import compile_world
from wristworld_ros.sim.settings import SimulatorSettings
from wristworld_ros.types import Camera

RAMP = 5  # drive targets within one control period
TAIL = 10  # control periods after the plan, in which objects come to rest


class TaskFailed(RuntimeError):
    """The scripted policy did not do its task in this episode."""


class SimEnv:
    """The compiled world of one process, with its renderer; `begin` makes an episode of a seed.

    model, data: MuJoCo's. layout: the current episode's task. T_base_world: MuJoCo's world to the robot's base.
    """

    def __init__(self, settings: SimulatorSettings, render: bool = True):
        self.settings = settings
        self.model = compile_world(settings.mesh_cell)
        self.data = mujoco.MjData(self.model)
        self._randomiser = Randomiser(self.model, settings)
        self.renderer = None
        if render:
            width, height = (
                max(settings.anchor_width, settings.wrist_size),
                max(settings.anchor_height, settings.wrist_size),
            )
            self.renderer = Renderer(
                self.model, width, height, settings.supersample, settings.msaa, settings.shadow_map
            )
        mujoco.mj_forward(self.model, self.data)
        base = self.data.body('robot0_link0')
        self.T_base_world = np.eye(4)
        self.T_base_world[:3, :3] = base.xmat.reshape(3, 3).T
        self.T_base_world[:3, 3] = -base.xmat.reshape(3, 3).T @ base.xpos
        self.steps = round(1 / (settings.control_hz * RAMP * self.model.opt.timestep))

    def begin(self, rng: np.random.Generator, task: str) -> None:
        """Set up a new episode."""
        self.layout: Layout = self._randomiser.apply(self.data, rng, task, self.renderer)
        self.mount = WristExtrinsics(self.model, rng, self.settings)
        self._policy = ScriptedPolicy(self.model, self.data, self.layout, rng, self.settings.control_hz)
        self._tail = TAIL
        self._last = self.data.qpos[:7].copy(), OPEN

    def advance(self) -> bool:
        """One control period of physics. False when the plan and its tail are over (the arm then holds still)."""
        command = self._policy.command()
        running = command is not None or self._tail > 0
        if command is None:
            self._tail -= 1
            command = self._last
        before, (target, finger) = self._last[0], command
        for step in range(RAMP):
            self.data.ctrl[:7] = before + (target - before) * (step + 1) / RAMP
            self.data.ctrl[7:9] = finger, -finger
            mujoco.mj_step(self.model, self.data, self.steps)
        self._last = command
        return running

    def pose(self, qpos: np.ndarray) -> None:
        """Show a state: kinematics and lights only."""
        self.data.qpos[:] = qpos
        self.show()

    def show(self) -> None:
        """Hand the present state to the renderer."""
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        self.renderer.update(self.data)

    def in_base(self, camera: Camera) -> Camera:
        """A camera of MuJoCo's world as a camera of the robot's base frame."""
        return Camera(camera.K, camera.T_camera_world @ np.linalg.inv(self.T_base_world), camera.width, camera.height)


def sample_task(rng: np.random.Generator, settings: SimulatorSettings) -> str:
    """A task by its share."""
    shares = settings.task_shares()
    return str(rng.choice(list(shares), p=list(shares.values())))


def record_episode(world: SimEnv, seed: int, path: str | Path) -> Path:
    """Simulate, render and write the episode of a seed. Raises TaskFailed where it is not to be kept."""
    settings = world.settings
    rng = np.random.default_rng(seed)
    task = sample_task(rng, settings)
    world.begin(rng, task)
    every, frames = settings.control_hz // settings.fps, settings.clip_frames
    site = world.model.site(GRIP_SITE).id
    states, grips, tick, running = [], [], 0, True
    while running or len(states) < frames:
        if tick % every == 0:
            states.append(world.data.qpos.copy())
            grips.append(world.data.site_xpos[site].copy())
        running = world.advance()
        tick += 1
    success = succeeded(world.data, world.layout)
    if not success and not settings.keep_failures:
        raise TaskFailed(f"Seed {seed}: the policy failed at '{task}'.")
    first = int(rng.integers(0, len(states) - frames + 1)) if frames else 0
    states, grips = states[first:][: frames or None], np.array(grips[first:][: frames or None])
    cameras = _render(world, rng, states, grips)
    states = np.array(states)
    hands = np.stack([track.pop('T_base_hand') for track in cameras.pop('hands')])
    return write_episode(
        path,
        task=task,
        seed=seed,
        fps=settings.fps,
        success=success,
        stamps_ns=(np.arange(len(states)) * (1_000_000_000 // settings.fps)).astype(np.int64),
        cameras=list(cameras.values()),
        tracks={'joints': states[:, :7], 'gripper': states[:, 7] - states[:, 8], 'T_base_hand': hands},
        meta={
            'source': 'simulator',
            'first_frame': first,
            'picked': world.layout.picked.name,
            'objects': [item.name for item in world.layout.items],
            'shadows': bool(world.renderer.shadows),
            'T_hand_wrist': world.mount.T_hand_wrist.tolist(),
            'settings': asdict(settings),
        },
    )


def _render(world: SimEnv, rng: np.random.Generator, states: list, grips: np.ndarray) -> dict:
    settings = world.settings
    fixed = sample_anchors(rng, settings, grips)
    table: dict[str, list] = {}
    hands = []
    for state, grip in zip(states, grips):
        world.pose(state)
        views = {f'anchor{i}': (camera, settings.anchor_depth) for i, camera in enumerate(fixed)}
        for i in range(settings.random_cameras):
            views[f'scatter{i}'] = sample_anchor(rng, settings, grip[None]), settings.anchor_depth
        views['wrist'] = world.mount.camera(world.data), settings.wrist_depth
        T_world_hand = np.linalg.inv(views['wrist'][0].T_camera_world) @ np.linalg.inv(world.mount.T_hand_wrist)
        hands.append({'T_base_hand': world.T_base_world @ T_world_hand})
        for name, (camera, depth) in views.items():
            picture, distance = world.renderer.render(camera, depth)
            table.setdefault(name, []).append((world.in_base(camera), picture, distance))
    tracks: dict = {'hands': hands}
    for name, rows in table.items():
        tracks[name] = CameraTrack(
            name=name,
            role=name.rstrip('0123456789'),
            rgb=np.stack([row[1] for row in rows]),
            K=np.stack([row[0].K for row in rows]),
            T_camera_world=np.stack([row[0].T_camera_world for row in rows]),
            depth=np.stack([row[2] for row in rows]) if rows[0][2] is not None else None,
        )
    return tracks
