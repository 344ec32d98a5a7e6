"""Scripted pick, lift, stack and place: hand waypoints, a smooth path through them, and inverse kinematics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wristworld_ros.sim.kinematics import GRIP_SITE, exponential, logarithm, solve_arm
from wristworld_ros.sim.layout import REPLAY, Layout
from wristworld_ros.sim.opengl import mujoco
from wristworld_ros.sim.scene import START_Q, TABLE_TOP

OPEN, CLOSED = 0.04, 0.0


@dataclass(frozen=True)
class Waypoint:
    """A goal of the hand: position between the fingers in MuJoCo's world, metres; yaw, tilt: radians; finger: metres each."""

    position: np.ndarray
    yaw: float
    tilt: tuple[float, float]
    finger: float
    seconds: float


def _rotation_about(axis: int, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    R = np.eye(3)
    R[i, i] = R[j, j] = c
    R[i, j], R[j, i] = -s, s
    return R


class ScriptedPolicy:
    """Moves the arm through one episode: `command()` is called at control_hz until it returns None.

    Args:
        model: MuJoCo's, after Randomiser.apply.
        data: MuJoCo's state, after Randomiser.apply.
        layout: What Randomiser.apply returned.
        rng: For the plan's variation.
        control_hz: Commands per second.
    """

    def __init__(self, model, data, layout: Layout, rng: np.random.Generator, control_hz: int):
        self.model, self.period = model, 1.0 / control_hz
        self._site = model.site(GRIP_SITE).id
        self._own = mujoco.MjData(model)
        self._q = data.qpos[:7].copy()
        self._down = self._nominal_rotation()
        self._own.qpos[:] = data.qpos
        mujoco.mj_kinematics(model, self._own)
        start = self._own.site_xpos[self._site].copy()
        self._rotation = self._own.site_xmat[self._site].reshape(3, 3).copy()
        self._plan = _plan(data, layout, start, rng)
        self._from, self._from_rotation = start, self._rotation
        self._clock, self._index = 0.0, 0
        self._swing = rng.uniform(0, 0.006), rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.3, 1.0, 3)

    def _nominal_rotation(self) -> np.ndarray:
        self._own.qpos[:7] = START_Q
        mujoco.mj_kinematics(self.model, self._own)
        return np.round(self._own.site_xmat[self._site].reshape(3, 3))

    def command(self) -> tuple[np.ndarray, float] | None:
        """The next joint angles [7], radians, and finger opening, metres; None when the plan is done."""
        if self._index >= len(self._plan):
            return None
        goal = self._plan[self._index]
        goal_rotation = (
            _rotation_about(2, goal.yaw)
            @ _rotation_about(0, goal.tilt[0])
            @ _rotation_about(1, goal.tilt[1])
            @ self._down
        )
        self._clock += self.period
        t = min(self._clock / goal.seconds, 1.0)
        blend = t**3 * (10 - 15 * t + 6 * t * t)
        position = self._from + blend * (goal.position - self._from)
        arc = logarithm(goal_rotation @ self._from_rotation.T)
        rotation = exponential(blend * arc) @ self._from_rotation
        self._q = solve_arm(self.model, self._own, self._site, self._q, position, rotation)
        if t >= 1.0:
            self._from, self._from_rotation = goal.position, goal_rotation
            self._clock, self._index = 0.0, self._index + 1
        return self._q.copy(), goal.finger


def _plan(data, layout: Layout, start: np.ndarray, rng: np.random.Generator) -> list[Waypoint]:
    item = layout.picked
    spot = data.xpos[item.body].copy()
    w, _, _, z = data.xquat[item.body]
    yaw = 2 * np.arctan2(z, w)
    if item.square:
        yaw = (yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4
        if rng.random() < 0.25:
            yaw -= np.sign(yaw) * np.pi / 2
    else:
        yaw = rng.uniform(-0.9, 0.9)
    speed = rng.uniform(0.12, 0.35)
    plan: list[Waypoint] = []
    here = start

    def go(position, yaw, finger, tilt=0.0, least=0.35, pace=1.0):
        nonlocal here
        seconds = max(np.linalg.norm(position - here) / (speed * pace) * 1.3, least)
        plan.append(
            Waypoint(np.array(position), yaw, tuple(rng.normal(0, tilt, 2)) if tilt else (0.0, 0.0), finger, seconds)
        )
        here = np.array(position)

    def wander(times, finger):
        for _ in range(times):
            where = rng.uniform((-0.18, -0.25, TABLE_TOP + 0.12), (0.18, 0.25, TABLE_TOP + 0.36))
            go(where, rng.uniform(-0.8, 0.8), finger, tilt=0.15)

    wander(int(rng.integers(0, 3)), OPEN)
    grasp = spot + (0, 0, np.clip(item.half_height - rng.uniform(0.008, 0.022), -0.004, None))
    grasp[:2] += rng.normal(0, 0.002, 2)
    above = grasp + (*rng.normal(0, 0.01, 2), rng.uniform(0.07, 0.15))
    go(above, yaw, OPEN, tilt=0.05)
    go(grasp, yaw, OPEN, pace=0.7, least=0.5)
    go(grasp, yaw, OPEN, least=rng.uniform(0.1, 0.25))
    go(grasp, yaw, CLOSED, least=rng.uniform(0.35, 0.6))
    go(grasp + (*rng.normal(0, 0.01, 2), rng.uniform(0.1, 0.2)), yaw, CLOSED, tilt=0.03, pace=0.8)
    if layout.goal is None:
        wander(int(rng.integers(1, 3)), CLOSED)
        return plan
    if rng.random() < 0.3:
        wander(1, CLOSED)
    turn = yaw + rng.uniform(-0.3, 0.3)
    release = layout.goal + (grasp - spot) + (0, 0, 0.004)
    go(release + (0, 0, rng.uniform(0.06, 0.12)), turn, CLOSED)
    go(release, turn, CLOSED, pace=0.6, least=0.5)
    go(release, turn, CLOSED, least=rng.uniform(0.15, 0.3))
    go(release, turn, OPEN, least=rng.uniform(0.3, 0.5))
    go(release + (0, 0, rng.uniform(0.08, 0.16)), turn, OPEN, pace=0.8)
    wander(1, OPEN)
    return plan


def succeeded(data, layout: Layout) -> bool:
    """Whether the task is done in this state; nobody says what a replayed motion was to do."""
    if layout.task == REPLAY:
        return True
    position = data.xpos[layout.picked.body]
    if layout.goal is None:
        return bool(position[2] > TABLE_TOP + layout.picked.half_height + 0.05)
    off = np.linalg.norm(position[:2] - layout.goal[:2])
    return bool(off < (0.03 if layout.task == 'stack' else 0.05) and abs(position[2] - layout.goal[2]) < 0.015)
