"""What a stream is told of a scene beside its images, from nothing to everything, with the errors that real desks have."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from wristworld_ros.data.episode import Episode
from wristworld_ros.data.ground_truth import GroundTruth
from wristworld_ros.errors import UserError
from wristworld_ros.sim.sensor import EXACT, SensorSettings, displaced_pose, measured_depth
from wristworld_ros.types import AnchorSet, RobotPoints


@dataclass(frozen=True)
class KnowledgeLevel:
    """What is known of every set.

    title: in tables. mount: how the wrist camera is mounted, as a camera of the robot's hand. cameras: the anchors'
    calibrations and the wrist camera, whose pose kinematics give exactly. depth: of the anchors. sensor: errors of depth and of
    the anchors' poses. robot: the robot's surface points, of simulated episodes. memory: whether the stream remembers what the
    robot hides. refine: whether it corrects the anchors' poses by it.
    """

    title: str
    mount: bool = False
    cameras: bool = False
    depth: bool = False
    sensor: SensorSettings = SensorSettings()
    robot: bool = False
    memory: bool = False
    refine: bool = True


LEVELS = {
    'rgb': KnowledgeLevel('RGB'),
    'mounted': KnowledgeLevel('RGB, mount known', mount=True),
    'calibrated': KnowledgeLevel('CALIBRATED', mount=True, cameras=True),
    'calibrated-exact': KnowledgeLevel('CALIBRATED exact', mount=True, cameras=True, sensor=EXACT),
    'rgbd': KnowledgeLevel('RGBD', mount=True, cameras=True, depth=True),
    'exact': KnowledgeLevel('RGBD exact', mount=True, cameras=True, depth=True, sensor=EXACT),
}


def levels_from(names: str) -> list[KnowledgeLevel]:
    """The levels of a list of names with commas between.

    Raises:
        UserError: A name is unknown.
    """
    chosen = [name.strip() for name in names.split(',')]
    for name in chosen:
        if name not in LEVELS:
            raise UserError(f'Setting knowledge names {name!r}', f'give names out of {", ".join(LEVELS)}')
    return [LEVELS[name] for name in chosen]


def levels_of(episode: Episode, anchors: int | None = None) -> list[KnowledgeLevel]:
    """The levels that an episode knows enough for."""
    names = (*episode.anchors(anchors), *episode.names('wrist')[:1])
    calibrated = all(episode.K(n) is not None and episode.T_camera_world(n) is not None for n in names)
    mounted = calibrated and episode.meta.get('T_hand_wrist') is not None
    depth = all(episode.camera(name).has_depth for name in episode.anchors(anchors))
    return [
        level
        for level in LEVELS.values()
        if (calibrated if level.cameras else mounted or not level.mount) and (depth or not level.depth)
    ]


def known_sets(truth: GroundTruth, level: KnowledgeLevel, seed: int = 0) -> list[AnchorSet]:
    """The anchor sets of an episode with what a level knows of them.

    Args:
        truth: The episode.
        level: What is known.
        seed: Of the sensor's errors; the anchors' poses are off by the same amount in all frames.

    Raises:
        UserError: The level has cameras, depth or robot points, and the episode does not.
    """
    sets = [truth.anchor_set(i) for i in range(len(truth))]
    rng = np.random.default_rng(seed)
    if level.depth and truth.depth is None:
        raise UserError('An episode has no depth of its anchors', 'leave out rgbd and exact, or record it with depth')
    if (level.mount or level.cameras) and not truth.calibrated:
        raise UserError(
            'An episode has cameras without calibration', 'evaluate it from images alone, with --knowledge rgb'
        )
    if level.mount:
        sets = [replace(s, mounted=truth.mounted_camera(i)) for i, s in enumerate(sets)]
    if level.cameras:
        T = np.stack([displaced_pose(pose, level.sensor, rng) for pose in truth.T_anchor_world[:, 0]])
        still = truth.T_anchor_world @ np.linalg.inv(truth.T_anchor_world[:, :1])  # the motion of an anchor that moves
        T_base_anchor = np.linalg.inv(still @ T[:, None])
        sets = [
            replace(s, intrinsics=truth.K[:, i], T_base_anchor=T_base_anchor[:, i], wrist=truth.wrist_camera(i))
            for i, s in enumerate(sets)
        ]
    if level.depth:
        assert truth.depth is not None
        maps = [np.stack([measured_depth(d, level.sensor, rng) for d in truth.depth[:, i]]) for i in range(len(truth))]
        sets = [replace(s, depth=depth) for s, depth in zip(sets, maps, strict=True)]
    if level.robot:
        surface = _robot_surface(truth)
        sets = [replace(s, robot_points=surface(i)) for i, s in enumerate(sets)]
    return sets


def _robot_surface(truth: GroundTruth) -> Callable[[int], RobotPoints]:
    """The simulated robot's surface at a frame."""
    from wristworld_ros.sim.grippers import GRIPPERS
    from wristworld_ros.sim.robot_description import recorded_positions

    joints, gripper = truth.joints, truth.gripper
    if joints is None or gripper is None:
        raise UserError('An episode has no joint angles', 'evaluate robot points on simulated episodes')
    robot, hand = _simulated_robot(truth.hand), GRIPPERS[truth.hand]
    return lambda i: robot.surface(recorded_positions(joints[i], gripper[i], hand))


@cache
def _simulated_robot(hand: str):
    from wristworld_ros.robot.description import RobotModel
    from wristworld_ros.sim.grippers import GRIPPERS
    from wristworld_ros.sim.robot_description import robot_description
    from wristworld_ros.sim.scene import compile_scene
    from wristworld_ros.sim.settings import SimulatorSettings

    with tempfile.TemporaryDirectory() as folder:
        model = compile_scene(SimulatorSettings().mesh_cell, GRIPPERS[hand])
        return RobotModel.from_urdf(robot_description(model, Path(folder)))
