"""One simulated episode, from a seed to a directory. Physics runs first; only the stored frames are rendered."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from wristworld_ros.data.formats.native import HAND_LINK, CameraTrack, write_episode
from wristworld_ros.sim.cameras import sample_anchor, sample_anchors, sample_exterior
from wristworld_ros.sim.env import SimEnv, sample_task
from wristworld_ros.sim.opengl import mujoco
from wristworld_ros.sim.settings import SimulatorSettings
from wristworld_ros.types import Camera

MOST_REPLAYED = 1000  # frames of a replayed episode that is stored whole


class TaskFailed(RuntimeError):
    """The scripted policy did not do its task in this episode, or its physics failed."""


def record_episode(env: SimEnv, seed: int, path: str | Path) -> Path:
    """Simulate, render and write the episode of a seed.

    Args:
        env: With a renderer; its current episode is replaced.
        seed: Decides the whole episode.
        path: The episode's directory, which must not exist.

    Returns:
        path.

    Raises:
        TaskFailed: The policy failed, and failures are not kept; or the physics failed.
        UserError: The episode cannot be written.
    """
    settings, clip = env.settings, env.settings.clip_frames
    rng = np.random.default_rng(seed)
    if settings.replay is None:
        env.begin(rng, sample_task(rng, settings))
    else:
        env.begin_replay(rng, (clip or MOST_REPLAYED) / settings.fps)
    states, grips, times = _simulate(env, clip or 0)
    if env.unstable:
        raise TaskFailed(f'Seed {seed}: the physics are unstable.')
    success = env.task_done()
    if not success and not settings.keep_failures:
        raise TaskFailed(f"Seed {seed}: the policy failed at '{env.layout.task}'.")
    first = int(rng.integers(0, len(states) - clip + 1)) if clip else 0
    states, grips, times = (values[first:][:clip] for values in (states, grips, times))
    cameras, T_base_hand = _render(env, rng, states, grips)
    hand_link = 'panda_link8' if env.gripper.straight else HAND_LINK
    return write_episode(
        path,
        task=env.layout.task,
        seed=seed,
        fps=settings.fps,
        success=success,
        stamps_ns=np.array([settings.stamp_ns(i) for i in range(len(states))], np.int64),
        cameras=cameras,
        tracks={
            'joints': states[:, :7], 'gripper': env.gripper.opening(states), 'T_base_hand': T_base_hand, 'time_s': times,
        },
        meta={
            'source': 'simulator',
            'first_frame': first,
            'picked': env.layout.picked.name,
            'objects': [item.name for item in env.layout.items],
            'shadows': bool(env.renderer.shadows),
            'T_hand_wrist': env.wrist.T_hand_wrist.tolist(),
            **({} if env.motion is None else {'replayed': env.motion.name, 'text': env.motion.text}),
            'settings': asdict(settings),
        },
        hand_link=hand_link,
        gripper_link=hand_link,
    )  # fmt: skip


def _simulate(env: SimEnv, least: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An episode's physics, `least` stored frames at least: qpos [T, n], grip positions [T, 3] and times [T] of each."""
    rows: list[tuple] = []
    tick, running = 0, True
    while running or len(rows) < least:
        if tick % env.settings.control_steps == 0:
            rows.append((env.data.qpos.copy(), env.grip, env.data.time))
        running = env.advance()
        tick += 1
    states, grips, times = zip(*rows)
    return np.array(states), np.array(grips), np.array(times)


def _render(
    env: SimEnv, rng: np.random.Generator, states: np.ndarray, grips: np.ndarray
) -> tuple[list[CameraTrack], np.ndarray]:
    """What all cameras see in these states, and T_base_hand [T, 4, 4]."""
    settings = env.settings
    own_places = settings.anchor_rigs == 'real' or settings.rig == 'droid'
    robot = _robot_places(env, states) if own_places else None
    anchors = _anchors(env, rng, grips, robot)
    elsewhere = _of_random_cameras(settings)
    frames: dict[tuple[str, str], list] = {}  # (name, role) -> camera, image, depth and objects of every frame
    hands = []
    for state, grip in zip(states, grips):
        env.restore(state)
        cameras = {(f'anchor{i}', 'anchor'): camera for i, camera in enumerate(anchors)}
        for i in range(settings.random_cameras):
            cameras[f'random{i}', 'random'] = _random_camera(env, rng, elsewhere, grip, robot)
        cameras['wrist', 'wrist'] = wrist = env.wrist.camera(env.data)
        T_world_hand = np.linalg.inv(wrist.T_camera_world) @ np.linalg.inv(env.wrist.T_hand_wrist)
        hands.append(env.T_base_world @ T_world_hand)
        for key, camera in cameras.items():
            with_depth = settings.wrist_depth if key[1] == 'wrist' else settings.anchor_depth
            image, depth = env.renderer.render(camera, with_depth)
            objects = env.objects(camera) if key[1] == 'wrist' and settings.wrist_objects else None
            frames.setdefault(key, []).append((env.in_base(camera), image, depth, objects))
    tracks = [
        CameraTrack(
            name=name,
            role=role,
            rgb=np.stack([row[1] for row in rows]),
            K=np.stack([row[0].K for row in rows]),
            T_camera_world=np.stack([row[0].T_camera_world for row in rows]),
            depth=np.stack([row[2] for row in rows]) if rows[0][2] is not None else None,
            objects=np.stack([row[3] for row in rows]) if rows[0][3] is not None else None,
        )
        for (name, role), rows in frames.items()
    ]
    return tracks, np.stack(hands)


def _anchors(env: SimEnv, rng: np.random.Generator, grips: np.ndarray, robot: np.ndarray | None) -> list[Camera]:
    """The episode's fixed cameras; in DROID's rig the first two stand on either side."""
    if env.settings.rig != 'droid':
        return sample_anchors(rng, env.settings, grips, robot)
    first = rng.choice([-1.0, 1.0])
    return [
        sample_exterior(rng, env.settings, grips, robot, env.base, first * (-1) ** i)
        for i in range(env.settings.anchors)
    ]


def _random_camera(env: SimEnv, rng, settings: SimulatorSettings, grip: np.ndarray, robot: np.ndarray | None) -> Camera:
    if settings.rig != 'droid':
        return sample_anchor(rng, settings, grip[None], robot=robot)
    return sample_exterior(rng, settings, grip[None], robot, env.base, rng.choice([-1.0, 1.0]))


def _robot_places(env: SimEnv, states: np.ndarray) -> np.ndarray:
    """Where the robot's links are in these states, in MuJoCo's world, [N, 3], metres."""
    places = []
    for state in states:
        env.data.qpos[:] = state
        mujoco.mj_kinematics(env.model, env.data)
        places.append(env.data.xpos[env.robot_bodies].copy())
    return np.concatenate(places)


def _of_random_cameras(settings: SimulatorSettings) -> SimulatorSettings:
    """The settings with the limits of random cameras in place of those of anchors."""
    azimuth, fov_max = settings.random_azimuth, settings.random_fov_max
    return replace(
        settings,
        anchor_azimuth=settings.anchor_azimuth if azimuth is None else azimuth,
        anchor_fov_max=settings.anchor_fov_max if fov_max is None else fov_max,
    )
