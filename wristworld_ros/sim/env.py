"""The simulated robot: physics, task and wrist camera of one process, advanced one control period at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import numpy as np

from wristworld_ros.data.formats.native import ROBOT
from wristworld_ros.errors import UserError
from wristworld_ros.sim.cameras import WristExtrinsics
from wristworld_ros.sim.grippers import CHOSEN, DROID, GRIPPERS
from wristworld_ros.sim.kinematics import GRIP_SITE
from wristworld_ros.sim.layout import Layout
from wristworld_ros.sim.opengl import mujoco
from wristworld_ros.sim.policy import OPEN, ScriptedPolicy, succeeded
from wristworld_ros.sim.randomise import Randomiser
from wristworld_ros.sim.render import Renderer
from wristworld_ros.sim.replay import Motion, Recordings, ReplayPolicy
from wristworld_ros.sim.rigs import place_camera_body
from wristworld_ros.sim.robot_description import HAND_FRAME, LinkPose, joint_positions, link_poses, pose_in_base
from wristworld_ros.sim.scene import TIMESTEP, compile_scene
from wristworld_ros.sim.settings import SimulatorSettings, check_simulator
from wristworld_ros.types import Camera

RAMP = 5  # drive targets within one control period
TAIL = 10  # control periods after the plan, in which objects come to rest


class SimEnv:
    """The compiled scene of one process, with its renderer; `begin` makes an episode.

    Args:
        settings: SimulatorSettings.
        render: Whether images are wanted; False needs no OpenGL.

    Attributes:
        model, data: MuJoCo's.
        gripper: On the arm.
        layout: Task and objects of the current episode.
        motion: What it replays; None where it does a task.
        wrist: WristExtrinsics of the current episode.
        T_base_world: float64 [4, 4], MuJoCo's world to the robot's base, metres.

    Raises:
        UserError: A setting is not allowed, a package is missing, or OpenGL does not work.
    """

    def __init__(self, settings: SimulatorSettings, render: bool = True):
        check_simulator(settings)
        if settings.gripper not in CHOSEN:
            raise UserError(
                f'Setting gripper is {settings.gripper}, and one scene has one gripper', f'give {" or ".join(CHOSEN)}'
            )
        self.settings, self.gripper = settings, DROID if settings.rig == 'droid' else GRIPPERS[settings.gripper]
        self._recordings = None
        if settings.replay is not None:
            self._recordings = Recordings(settings.replay, self.gripper, settings.control_hz)
        self.motion: Motion | None = None
        wide = settings.objects == 'wide', settings.surroundings == 'wide'
        self.model = compile_scene(settings.mesh_cell, self.gripper, *wide)
        self.data = mujoco.MjData(self.model)
        self._randomiser = Randomiser(self.model, settings, self.gripper)
        self.renderer: Renderer | None = None
        if render:
            width, height = (max(settings.wrist_size, n) for n in (settings.anchor_width, settings.anchor_height))
            self.renderer = Renderer(
                self.model, width, height, settings.supersample, settings.msaa, settings.shadow_map
            )
        mujoco.mj_forward(self.model, self.data)
        self._find_base()
        # A whole number of physics steps per drive target, so that simulated time is the control periods' sum exactly.
        ramp_period = 1 / (settings.control_hz * RAMP)
        self._steps = math.ceil(ramp_period / TIMESTEP - 1e-9)
        self.model.opt.timestep = ramp_period / self._steps

    def begin(self, rng: np.random.Generator, task: str) -> None:
        """Set up a new episode: scene, wrist camera and plan."""
        self.layout: Layout = self._randomiser.apply(self.data, rng, task, self.renderer)
        self.motion = None
        self._mount_wrist(rng)
        self._policy = ScriptedPolicy(self.model, self.data, self.layout, rng, self.settings.control_hz)
        self._tail = TAIL
        self._last = self.data.qpos[:7].copy(), OPEN

    def begin_replay(self, rng: np.random.Generator, seconds: float) -> None:
        """Set up an episode that replays a window of a recorded one, as the setting `replay` says.

        Raises:
            UserError: The recorded episode cannot be replayed.
        """
        assert self._recordings is not None
        self.replay(rng, self._recordings.sample(rng, seconds))

    def replay(self, rng: np.random.Generator, motion: Motion) -> None:
        """Set up an episode that replays a motion, on a table as high as its lowest point, with objects along its way."""
        self.motion = motion
        self.layout = self._randomiser.apply_motion(self.data, rng, motion, self.renderer)
        self._mount_wrist(rng)
        self._policy, self._tail = ReplayPolicy(motion), TAIL
        self._last = motion.joints[0], float(motion.openings[0]) / 2

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
            self.data.ctrl[7:9] = self.gripper.control(2 * finger)
            mujoco.mj_step(self.model, self.data, self._steps)
        self._last = command
        return running

    @property
    def unstable(self) -> bool:
        """Whether the physics of this episode have failed; MuJoCo has then put everything back to where it started."""
        kinds = mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC
        return any(self.data.warning[kind].number for kind in kinds)

    def restore(self, qpos: np.ndarray) -> None:
        """Show an earlier state: kinematics and lights only, no physics."""
        self.data.qpos[:] = qpos
        self.show()

    def show(self) -> None:
        """Hand the present state to the renderer."""
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        self.renderer.update(self.data)

    @cached_property
    def robot_bodies(self) -> list[int]:
        """MuJoCo's bodies of arm and gripper."""
        return [b for b in range(self.model.nbody) if self.model.body(b).name.startswith(('robot0', 'gripper0'))]

    def _mount_wrist(self, rng: np.random.Generator) -> None:
        self._find_base()
        self.wrist = WristExtrinsics(self.model, rng, self.settings)
        if self.gripper.straight:
            place_camera_body(self.model, self.wrist.T_hand_wrist)

    def _find_base(self) -> None:
        """The arm may stand elsewhere in every episode."""
        base = self.data.body('robot0_link0')
        self.T_base_world = np.eye(4)
        self.T_base_world[:3, :3] = base.xmat.reshape(3, 3).T
        self.T_base_world[:3, 3] = -base.xmat.reshape(3, 3).T @ base.xpos

    @property
    def base(self) -> np.ndarray:
        """Origin of the robot's base in MuJoCo's world, float64 [3], metres."""
        return self.data.body('robot0_link0').xpos.copy()

    @property
    def grip(self) -> np.ndarray:
        """Middle between the fingers in MuJoCo's world, float64 [3], metres."""
        return self.data.site_xpos[self.model.site(GRIP_SITE).id].copy()

    @property
    def T_base_hand(self) -> np.ndarray:
        """Pose of the hand (`robot_description.HAND_FRAME`) in the robot's base, float64 [4, 4], metres."""
        return pose_in_base(self.data, HAND_FRAME)

    def joint_positions(self) -> dict[str, float]:
        """Positions of all joints by their names in the robot description, radians and metres."""
        return joint_positions(self.model, self.data)

    def link_poses(self) -> dict[str, LinkPose]:
        """Where every link of the robot description is, in its parent."""
        return link_poses(self.model, self.data)

    def task_done(self) -> bool:
        """Whether the task is done in the present state."""
        return succeeded(self.data, self.layout)

    def in_base(self, camera: Camera) -> Camera:
        """A camera of MuJoCo's world as a camera of the robot's base frame."""
        return Camera(camera.K, camera.T_camera_world @ np.linalg.inv(self.T_base_world), camera.width, camera.height)

    def objects(self, camera: Camera) -> np.ndarray:
        """What each pixel of a camera (in MuJoCo's world) shows, uint8 [H, W]: 0, `ROBOT`, or 1 + the place in the layout."""
        labels = np.zeros(self.model.nbody + 1, np.uint8)  # the last one: no body at all
        labels[self.robot_bodies] = ROBOT
        for place, item in enumerate(self.layout.items):
            labels[item.body] = place + 1
        return labels[self.renderer.bodies(camera)]

    def close(self) -> None:
        """Free the renderer."""
        if self.renderer is not None:
            self.renderer.close()


class SimEnvs:
    """The scenes of one process: one for each gripper that the settings allow, compiled when it is first needed.

    Args:
        settings: SimulatorSettings, whose gripper may be `any`.
    """

    def __init__(self, settings: SimulatorSettings):
        self._settings = settings
        self._made: dict[str, SimEnv] = {}

    def of(self, seed: int) -> SimEnv:
        """The scene in which the episode of a seed plays."""
        name = self.gripper(seed)
        if name not in self._made:
            self._made[name] = SimEnv(replace(self._settings, gripper=name))
        return self._made[name]

    def gripper(self, seed: int) -> str:
        """Name of the gripper that the episode of a seed has."""
        if self._settings.gripper != 'any':
            return self._settings.gripper
        return str(np.random.default_rng([seed, 1]).choice(list(CHOSEN)))


def sample_task(rng: np.random.Generator, settings: SimulatorSettings) -> str:
    """A task by its share."""
    shares = settings.task_shares()
    return str(rng.choice(list(shares), p=list(shares.values())))
