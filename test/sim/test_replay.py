"""Recorded motion is replayed as it was, by DROID's rig or another, on a table that fits it."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('mujoco')
pytest.importorskip('robosuite')

from wristworld_ros.data.formats.native import ROBOT, CameraTrack, read_episode, write_episode
from wristworld_ros.data.ground_truth import read_ground_truth
from wristworld_ros.data.real_clips import FOCAL, wrist_mount
from wristworld_ros.errors import UserError
from wristworld_ros.robot.description import RobotModel
from wristworld_ros.sim.env import SimEnv
from wristworld_ros.sim.grippers import DROID
from wristworld_ros.sim.record import record_episode
from wristworld_ros.sim.replay import Recordings
from wristworld_ros.sim.robot_description import recorded_positions, robot_description
from wristworld_ros.sim.scene import START_Q
from wristworld_ros.sim.settings import SimulatorSettings, check_simulator

FPS, FRAMES = 5, 20


@pytest.fixture(scope='module')
def recorded(tmp_path_factory):
    """A set of one episode: the arm moves to the side and down, and closes its gripper half way at the tenth frame."""
    folder = tmp_path_factory.mktemp('recorded')
    write_recording(folder / '000000')
    return folder


def write_recording(path, joints=7, gripper=True):
    time = np.linspace(0, 1, FRAMES)
    q = START_Q[:joints] + np.outer(np.sin(2 * time), [0.3, 0.2, 0.1, -0.2, 0.1, 0.1, 0.5][:joints])
    tracks = {'joints': q} | ({'gripper': np.where(time < 0.5, 0.085, 0.04)} if gripper else {})
    rgb = np.zeros((FRAMES, 16, 16, 3), np.uint8)
    K, T = np.broadcast_to(np.eye(3), (FRAMES, 3, 3)), np.broadcast_to(np.eye(4), (FRAMES, 4, 4))
    write_episode(
        path, task='move', seed=0, fps=FPS, success=True, stamps_ns=np.arange(FRAMES) * (1_000_000_000 // FPS),
        cameras=[CameraTrack(name='wrist', role='wrist', rgb=rgb, K=K, T_camera_world=T)], tracks=tracks, meta={},
    )  # fmt: skip


@pytest.fixture(scope='module')
def settings(recorded):
    return SimulatorSettings(
        rig='droid', replay=str(recorded), clip_frames=None, fps=FPS, shadows=0.0, anchor_width=96, anchor_height=54,
        random_cameras=0, wrist_size=64,
    )  # fmt: skip


@pytest.fixture(scope='module')
def env(settings):
    env = SimEnv(settings)
    yield env
    env.close()


@pytest.fixture(scope='module')
def episode(env, tmp_path_factory):
    return read_episode(record_episode(env, 1, tmp_path_factory.mktemp('replayed') / 'e'))


def test_joints_and_gripper_of_the_recording_are_those_of_the_replay(recorded, episode):
    source = read_episode(recorded / '000000')
    joints = episode.joints[:FRAMES]
    assert np.degrees(np.abs(joints - source.joints[: len(joints)])).max() < 3
    assert episode.gripper[2] == pytest.approx(0.085, abs=0.004) and episode.gripper[15] < 0.06
    assert (episode.task, episode.meta['replayed'], episode.meta['text']) == ('replay', 'episode 000000', 'move')


def test_the_wrist_camera_is_droids_and_has_the_gripper_at_its_lower_edge(episode):
    assert episode.hand_link == 'panda_link8'
    mount = np.array(episode.meta['T_hand_wrist'])
    nominal = min((wrist_mount(turned) for turned in (False, True)), key=lambda T: np.linalg.norm(T - mount))
    assert np.linalg.norm(mount[:3, 3] - nominal[:3, 3]) < 0.03
    assert np.degrees(np.arccos((np.trace(mount[:3, :3].T @ nominal[:3, :3]) - 1) / 2)) < 12
    K = episode.K('wrist')[0]
    assert K[0, 0] / 64 == pytest.approx(FOCAL, rel=0.08) and K[1, 1] / K[0, 0] == pytest.approx(16 / 9)
    robot = episode.objects('wrist')[2] == ROBOT
    near, far = (robot[40:], robot[:24]) if np.allclose(nominal, wrist_mount()) else (robot[:24], robot[40:])
    assert near.mean() > 0.15 and far.mean() < 0.05


def test_the_exterior_cameras_stand_on_both_sides_and_see_the_gripper(episode):
    places = [np.linalg.inv(episode.T_camera_world(f'anchor{i}')[0])[:3, 3] for i in range(2)]
    assert places[0][1] * places[1][1] < 0 and min(abs(place[1]) for place in places) > 0.3
    tip = episode.T_base_hand[:, :3, :3] @ [0, 0, 0.16] + episode.T_base_hand[:, :3, 3]
    for name in ('anchor0', 'anchor1'):
        local = tip @ episode.T_camera_world(name)[0][:3, :3].T + episode.T_camera_world(name)[0][:3, 3]
        pixel = (local @ episode.K(name)[0].T)[:, :2] / local[:, 2:]
        assert ((pixel > 0) & (pixel < (96, 54))).all(1).mean() > 0.6


def test_the_table_is_as_high_as_the_lowest_point_of_the_motion(env, episode):
    motion = env._recordings.motion(0)
    env.replay(np.random.default_rng(2), motion)
    height = (env.T_base_world @ [0, 0, 0.8, 1])[2]
    tip = episode.T_base_hand[:, :3, :3] @ [0, 0, 0.175] + episode.T_base_hand[:, :3, 3]
    assert -0.02 < tip[:, 2].min() - height < 0.03
    assert all(
        env.data.xpos[item.body][2] == pytest.approx(0.8 + item.half_height, abs=0.01) for item in env.layout.items
    )


def test_the_description_of_the_rig_has_its_gripper_and_the_body_of_its_camera(env, episode, tmp_path):
    truth = read_ground_truth(episode, (64, 64))
    assert truth.hand == 'droid'
    robot = RobotModel.from_urdf(robot_description(env.model, tmp_path))
    assert not robot.missing_meshes
    positions = recorded_positions(truth.joints[0], truth.gripper[0], DROID)
    np.testing.assert_allclose(robot.link_poses(positions)['fr3_hand'], episode.T_base_hand[0], atol=1e-6)
    assert {'left_inner_finger', 'right_inner_finger'} <= set(robot.surface(positions).links)


def test_a_window_has_the_length_that_is_asked_for_and_mostly_a_grasp(recorded):
    recordings = Recordings(recorded, DROID, 20)
    whole = recordings.motion(0)
    assert len(whole.joints) == (FRAMES - 1) * 20 // FPS + 1 and 20 < whole.grasp < 45
    rng = np.random.default_rng(0)
    windows = [recordings.sample(rng, 1.0) for _ in range(20)]
    assert {len(window.joints) for window in windows} == {30}
    assert sum(window.grasp is not None for window in windows) > 10


@pytest.mark.parametrize(
    ('joints', 'gripper', 'words'),
    [(6, True, 'has 6 joint angles, and the arm has 7'), (7, False, 'does not say how far its gripper is open')],
)
def test_what_cannot_be_replayed_is_said(tmp_path, joints, gripper, words):
    write_recording(tmp_path / '000000', joints, gripper)
    with pytest.raises(UserError, match=words):
        Recordings(tmp_path, DROID, 20)


@pytest.mark.parametrize('change', [{'gripper': 'any'}, {'anchor_rigs': 'real'}, {'wrist_mounts': 'any'}], ids=str)
def test_a_rig_has_its_own_gripper_and_cameras(settings, change):
    name, given = next(iter(change.items()))
    with pytest.raises(UserError, match=f'{name} is {given} and rig droid'):
        check_simulator(replace(settings, **change))
