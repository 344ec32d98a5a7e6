"""A live simulated robot: images of its anchors and of its true wrist camera, one step at a time, without end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wristworld_ros.sim.cameras import WristExtrinsics, sample_anchors
from wristworld_ros.sim.env import SimEnv, sample_task
from wristworld_ros.sim.scene import compile_scene
from wristworld_ros.sim.settings import SimulatorSettings
from wristworld_ros.types import Camera

LIVE_SETTINGS = replace(SimulatorSettings(), anchor_width=320, anchor_height=240, wrist_size=256, shadows=0.0)


class SimulatorStream:
    """Runs task after task; one object per process, used from one thread.

    Args:
        settings: SimulatorSettings; settings.fps steps are one simulated second.
        seed: Of anchors, wrist camera and the first episode. The cameras stay until `reset`; every further episode has new
            objects, surfaces, lights and a new task.

    Attributes:
        env: The robot itself: joints, links, hand and mount of the wrist camera at the last step.
        depth: At the last step, where it was asked for: float32 [H, W], metres along the optical axis, by anchor (anchor0, ...);
            exact, and registered to the image.

    Raises:
        UserError: A setting is not allowed, a package is missing, or OpenGL does not work.
    """

    def __init__(self, settings: SimulatorSettings = LIVE_SETTINGS, seed: int = 0):
        self.settings = settings
        self.env = SimEnv(settings)
        self.depth: dict[str, np.ndarray] = {}
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Start over with the cameras, scene and task of this seed; the stamp goes back to 0."""
        self._rng = np.random.default_rng(seed)
        self._wrist = _mounted_wrist(self.env.model, self.settings, seed)
        self.depth = {}
        self._frame, self.episode = -1, -1
        self._anchors: list[Camera] = []
        self._next_episode()

    @property
    def stamp_ns(self) -> int:
        """Simulated time of the last step, nanoseconds."""
        return self.settings.stamp_ns(self._frame)

    @property
    def joints(self) -> np.ndarray:
        """Joint angles [7], radians."""
        return self.env.data.qpos[:7].copy()

    @property
    def gripper(self) -> float:
        """Distance between the fingers, metres."""
        return float(self.env.gripper.opening(self.env.data.qpos))

    @property
    def task(self) -> str:
        """The task under way."""
        return self.env.layout.task

    def cameras(self) -> dict[str, Camera]:
        """Calibration at the last step, world = robot base: anchor0, anchor1, ..., wrist."""
        return {name: self.env.in_base(camera) for name, camera in self._cameras().items()}

    def step(self, depth: bool = False) -> dict[str, np.ndarray]:
        """Advance by 1 / fps seconds and render.

        Args:
            depth: Whether depth of the anchors is wanted too.

        Returns:
            uint8 [H, W, 3] by camera name: anchor0, ..., wrist.
        """
        if self._frame >= 0:
            running = True
            for _ in range(self.settings.control_steps):
                running = self.env.advance()
            if not running:
                self._next_episode()
        self._frame += 1
        self.env.show()
        images, self.depth = {}, {}
        for name, camera in self._cameras().items():
            images[name], measured = self.env.renderer.render(camera, depth and name != 'wrist')
            if measured is not None:
                self.depth[name] = measured
        return images

    def wrist_objects(self) -> np.ndarray:
        """What each pixel of the true wrist camera shows, uint8 [H, W]: 0, `ROBOT` of data.formats.native, or an object's number."""
        return self.env.objects(self.env.wrist.camera(self.env.data))

    def close(self) -> None:
        """Free the renderer."""
        self.env.close()

    def _cameras(self) -> dict[str, Camera]:
        cameras = {f'anchor{i}': camera for i, camera in enumerate(self._anchors)}
        return cameras | {'wrist': self.env.wrist.camera(self.env.data)}

    def _next_episode(self) -> None:
        self.env.begin(self._rng, sample_task(self._rng, self.settings))
        self.env.wrist = self._wrist  # the cameras do not move between tasks
        self.episode += 1
        if not self._anchors:
            grip = self.env.grip
            self._anchors = sample_anchors(self._rng, self.settings, np.array([grip, grip - (0, 0, 0.15)]))


def wrist_mount(seed: int, settings: SimulatorSettings = LIVE_SETTINGS) -> np.ndarray:
    """Where a `SimulatorStream` of that seed has its wrist camera: T_hand_wrist, float64 [4, 4], metres. It takes seconds."""
    return _mounted_wrist(compile_scene(settings.mesh_cell), settings, seed).T_hand_wrist


def _mounted_wrist(model, settings: SimulatorSettings, seed: int) -> WristExtrinsics:
    """The wrist camera of a seed: known without its episode, as a desk's mount is known before anything moves."""
    return WristExtrinsics(model, np.random.default_rng([seed, 1]), settings)
