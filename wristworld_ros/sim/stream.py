"""A live simulated robot: pictures of its anchors and of its true wrist camera, one step at a time, without end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wristworld_ros.sim.cameras import sample_anchors
from wristworld_ros.sim.policy import GRIP_SITE
from wristworld_ros.sim.record import SimEnv, sample_task
from wristworld_ros.sim.settings import SimulatorSettings
from wristworld_ros.types import Camera

LIVE_SETTINGS = replace(SimulatorSettings(), anchor_width=320, anchor_height=240, wrist_size=256, shadows=0.0)


class SimulatorStream:
    """Runs task after task; one object a process, used from one thread.

    Arguments:
        settings: SimulatorSettings; settings.fps steps are one simulated second.
        seed: of anchors, wrist mount and the first episode. The cameras stay until `reset`; every further episode has
            new objects, surfaces, lights and a new task.
    """

    def __init__(self, settings: SimulatorSettings = LIVE_SETTINGS, seed: int = 0):
        self.settings = settings
        self.world = SimEnv(settings)
        self._every = settings.control_hz // settings.fps
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Start anew: cameras, scene and task of this seed; the stamp goes back to 0."""
        self._rng = np.random.default_rng(seed)
        self._frame, self.episode = -1, -1
        self._anchors: list[Camera] | None = None
        self._next_episode()

    @property
    def stamp_ns(self) -> int:
        """Simulated time of the last step, nanoseconds."""
        return self._frame * (1_000_000_000 // self.settings.fps)

    @property
    def joints(self) -> np.ndarray:
        """Joint angles [7], radians."""
        return self.world.data.qpos[:7].copy()

    @property
    def gripper(self) -> float:
        """Distance between the fingers, metres."""
        return float(self.world.data.qpos[7] - self.world.data.qpos[8])

    @property
    def task(self) -> str:
        """The task under way."""
        return self.world.layout.task

    def cameras(self) -> dict[str, Camera]:
        """Calibration at the last step, world = robot base: anchor0, anchor1, ..., wrist."""
        return {name: self.world.in_base(camera) for name, camera in self._views().items()}

    def step(self) -> dict[str, np.ndarray]:
        """Advance by 1 / fps seconds and render. uint8 [H, W, 3] by camera name: anchor0, ..., wrist."""
        if self._frame >= 0:
            running = True
            for _ in range(self._every):
                running = self.world.advance()
            if not running:
                self._next_episode()
        self._frame += 1
        self.world.show()
        return {name: self.world.renderer.render(camera, False)[0] for name, camera in self._views().items()}

    def close(self) -> None:
        """Free the renderer."""
        self.world.renderer.close()

    def _views(self) -> dict[str, Camera]:
        views = {f'anchor{i}': camera for i, camera in enumerate(self._anchors)}
        return views | {'wrist': self.world.mount.camera(self.world.data)}

    def _next_episode(self) -> None:
        mount = getattr(self.world, 'mount', None) if self._anchors is not None else None
        self.world.begin(self._rng, sample_task(self._rng, self.settings))
        if mount is not None:
            self.world.mount = mount  # a camera rig does not change between tasks
        self.episode += 1
        if self._anchors is None:
            grip = self.world.data.site_xpos[self.world.model.site(GRIP_SITE).id]
            self._anchors = sample_anchors(self._rng, self.settings, np.array([grip, grip - (0, 0, 0.15)]))
