"""What makes episodes more varied does so, keeps masks, depth and calibration true, and leaves the default as it was."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('mujoco')
pytest.importorskip('robosuite')

from wristworld_ros.data.formats.native import ROBOT, read_episode
from wristworld_ros.errors import UserError
from wristworld_ros.sim.cameras import CLEARANCE, RIGS, intrinsics, sample_anchors
from wristworld_ros.sim.env import SimEnv, SimEnvs
from wristworld_ros.sim.grippers import CHOSEN
from wristworld_ros.sim.opengl import mujoco
from wristworld_ros.sim.record import record_episode
from wristworld_ros.sim.settings import SimulatorSettings
from wristworld_ros.types import Camera

BASIC = SimulatorSettings(clip_frames=2, shadows=0.0, anchor_width=96, anchor_height=72, keep_failures=True)
WIDE = replace(
    BASIC, objects='wide', surroundings='wide', gripper='robotiq', anchor_rigs='real', wrist_mounts='any', anchors=3,
    random_cameras=0, anchor_azimuth=120.0, distractors=8,
)  # fmt: skip


@pytest.fixture(scope='module')
def env():
    env = SimEnv(WIDE)
    yield env
    env.close()


@pytest.fixture(scope='module')
def episode(env, tmp_path_factory):
    return read_episode(record_episode(env, 3, tmp_path_factory.mktemp('wide') / 'e'))


def test_the_default_scene_of_a_seed_is_what_it_always_was():
    """Every number that an episode samples before it is rendered: sets of another version must stay comparable."""
    env = SimEnv(BASIC, render=False)
    rng = np.random.default_rng(5)
    env.begin(rng, 'stack')
    assert [item.name for item in env.layout.items] == ['slot1', 'slot2', 'can', 'slot5', 'slot3', 'slot4']
    places = [env.data.qpos[item.qpos : item.qpos + 2] for item in env.layout.items]
    expected = [
        (-0.0685, -0.1621), (-0.0855, 0.0491), (0.1268, 0.0189), (-0.0638, 0.1874), (0.1937, 0.2339), (0.1792, 0.1575),
    ]  # fmt: skip
    np.testing.assert_allclose(places, expected, atol=1e-4)
    joints = [-0.0298, 0.208, -0.0979, -2.6732, -0.0293, 3.0704, 0.705, 0.04, -0.04]
    np.testing.assert_allclose(env.data.qpos[:9], joints, atol=1e-4)
    camera = sample_anchors(rng, BASIC, env.grip[None])[1]
    np.testing.assert_allclose(camera.T_camera_world[:3, 3], [-0.0725, 0.7465, 1.2696], atol=1e-4)
    assert rng.random() == pytest.approx(0.6749505433031209, abs=1e-12)


def test_objects_of_any_shape_stand_on_the_table_and_show_in_the_masks(env):
    seen, names = 0, set()
    for seed in range(6):
        env.begin(np.random.default_rng(seed), 'place')
        env.show()
        camera = Camera(intrinsics(96, 96, 40), overhead(), 96, 96)
        shown = set(np.unique(env.objects(camera))) - {0, ROBOT}
        names |= {item.name for item in env.layout.items}
        seen += len(shown)
        assert shown <= set(range(1, len(env.layout.items) + 1))
        for item in env.layout.items:
            assert env.data.xpos[item.body][2] == pytest.approx(0.8 + item.half_height, abs=0.01), item.name
        places = [env.data.xpos[item.body][:2] for item in env.layout.items]
        for i, item in enumerate(env.layout.items):
            for j in range(i):
                apart = np.linalg.norm(places[i] - places[j])
                assert apart > item.radius + env.layout.items[j].radius
    assert len(names) > 6 and seen > 15


def overhead():
    T = np.diag([1.0, -1, -1, 1])
    T[:3, 3] = -T[:3, :3] @ (0, 0, 1.9)
    return T


def test_shapes_change_between_episodes_of_one_process_and_come_back_with_their_seed(env, episode, tmp_path):
    record_episode(env, 4, tmp_path / 'between')
    again = read_episode(record_episode(env, 3, tmp_path / 'again'))
    np.testing.assert_array_equal(again.rgb('wrist'), episode.rgb('wrist'))
    np.testing.assert_array_equal(again.depth('anchor2'), episode.depth('anchor2'))


def test_the_arm_stands_at_other_heights_and_calibrations_are_in_its_base(env):
    heights = []
    for seed in range(8):
        env.begin(np.random.default_rng(seed), 'lift')
        heights.append((env.T_base_world @ [0, 0, 0.8, 1])[2])
        assert 0.1 < env.grip[2] - 0.8 < 0.45  # the arm starts above its table
        base = env.data.body('robot0_link0')
        np.testing.assert_allclose(env.T_base_world @ [*base.xpos, 1], [0, 0, 0, 1], atol=1e-9)
    assert -0.21 < min(heights) < -0.05 and max(heights) > -0.03


def test_cameras_are_those_of_real_rigs_and_not_inside_the_arm(env, episode):
    allowed = np.array([up for _, up in RIGS.values()])
    for name in ('anchor0', 'anchor1', 'anchor2'):
        fov = np.degrees(2 * np.arctan(36 / episode.K(name)[0][1, 1]))
        assert (np.abs(fov / allowed - 1) < 0.031).any()
        assert episode.depth(name).min() > CLEARANCE / 2


def test_the_wrist_camera_sees_the_gripper_and_more_from_every_mount(env):
    mounts = []
    for seed in range(8):
        env.begin(np.random.default_rng(seed), 'lift')
        env.show()
        objects = env.objects(env.wrist.camera(env.data))
        assert 0.02 < (objects == ROBOT).mean() < 0.6, seed
        mounts.append(env.wrist.T_hand_wrist[:3, 3])
    assert np.ptp(mounts, axis=0).max() > 0.05


@pytest.mark.parametrize('name', CHOSEN)
def test_what_a_gripper_is_told_is_what_its_fingers_do(name):
    env = SimEnv(replace(BASIC, gripper=name), render=False)
    env.begin(np.random.default_rng(0), 'lift')
    for opening in (env.gripper.width, 0.03):
        env.data.ctrl[:7] = env.data.qpos[:7]
        env.data.ctrl[7:9] = env.gripper.control(opening)
        mujoco.mj_step(env.model, env.data, 400)
        assert env.gripper.opening(env.data.qpos) == pytest.approx(opening, abs=0.002)
        fingers = len(env.gripper.opened)
        np.testing.assert_allclose(env.data.qpos[7 : 7 + fingers], env.gripper.state(opening), atol=0.03)
    assert set(env.link_poses()) >= set(env.gripper.links.values()) - {next(iter(env.gripper.links.values()))}


def test_any_gripper_is_chosen_by_the_seed_and_one_scene_has_one(env):
    with pytest.raises(UserError, match='one scene has one gripper; give franka or robotiq'):
        SimEnv(replace(BASIC, gripper='any'), render=False)
    assert SimEnvs(BASIC).gripper(0) == 'franka'
    envs = SimEnvs(replace(BASIC, gripper='any'))
    assert {envs.gripper(seed) for seed in range(20)} == set(CHOSEN)
    assert [envs.gripper(seed) for seed in range(20)] == [envs.gripper(seed) for seed in range(20)]


def test_pixels_that_are_not_square_are_rendered_as_their_K_says(env):
    env.begin(np.random.default_rng(1), 'lift')
    env.show()
    square = Camera(intrinsics(96, 72, 45), overhead(), 96, 72)
    K = square.K.copy()
    K[0] *= 0.5
    K[0, 2] = 23.5
    stretched = Camera(K, overhead(), 48, 72)
    _, wide = env.renderer.render(square)
    _, narrow = env.renderer.render(stretched)
    assert np.median(np.abs(wide[:, ::2] - narrow)) < 0.002
