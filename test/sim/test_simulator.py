"""The simulator's images, depth and calibration agree with each other, and a seed decides everything."""

import os
from dataclasses import fields, replace

import numpy as np
import pytest

pytest.importorskip('mujoco')
pytest.importorskip('robosuite')

from wristworld_ros.data.formats.native import read_episode
from wristworld_ros.errors import UserError
from wristworld_ros.sim.env import SimEnv
from wristworld_ros.sim.record import record_episode
from wristworld_ros.sim.settings import SimulatorSettings, check_simulator
from wristworld_ros.sim.simulate import episode_seed, simulate
from wristworld_ros.sim.stream import LIVE_SETTINGS, SimulatorStream, wrist_mount

SETTINGS = SimulatorSettings(clip_frames=3, shadows=0.0, anchor_width=160, anchor_height=120, keep_failures=True)


@pytest.fixture(scope='module')
def env():
    env = SimEnv(SETTINGS)
    yield env
    env.close()


@pytest.fixture(scope='module')
def episode(env, tmp_path_factory):
    return read_episode(record_episode(env, 5, tmp_path_factory.mktemp('sim') / 'e'))


def reproject(episode, source, target, frame):
    """Source depth carried into the target view. Returns depth differences [N], metres, and colours there [N, 2, 3]."""
    depth = episode.depth(source)[frame]
    height, width = depth.shape
    v, u = np.mgrid[:height, :width]
    rays = np.stack([u, v, np.ones_like(u)], -1).reshape(-1, 3) @ np.linalg.inv(episode.K(source)[frame]).T
    T = episode.T_camera_world(target)[frame] @ np.linalg.inv(episode.T_camera_world(source)[frame])
    points = (rays * depth.reshape(-1, 1)) @ T[:3, :3].T + T[:3, 3]
    pixels = points @ episode.K(target)[frame].T
    pixels = np.round(pixels[:, :2] / np.maximum(pixels[:, 2:], 1e-6)).astype(int)
    seen = episode.depth(target)[frame]
    inside = (points[:, 2] > 0.01) & (pixels >= 0).all(1) & (pixels < seen.shape[::-1]).all(1)
    x, y = pixels[inside].T
    colors = np.stack(
        [episode.rgb(source)[frame].reshape(-1, 3)[inside], episode.rgb(target)[frame][y, x]], axis=1
    ).astype(float)
    return points[inside, 2] - seen[y, x], colors


@pytest.mark.parametrize('source', ['anchor0', 'anchor1', 'random0', 'random1'])
@pytest.mark.parametrize('target', ['wrist', 'anchor0'])
def test_depth_of_one_camera_lands_on_the_same_surface_of_another(episode, source, target):
    difference, colors = reproject(episode, source, target, 1)
    assert len(difference) > 300
    same = np.abs(difference) < 0.01
    assert same.mean() > 0.3  # the rest is hidden behind arm and objects
    assert np.median(np.abs(difference[same])) < (
        0.001 if target == 'wrist' else 0.003
    )  # half a pixel on slanted surfaces
    assert np.abs(colors[same, 0] - colors[same, 1]).mean() < 12


def test_anchors_stand_still_random_cameras_do_not_and_the_wrist_rides_on_the_hand(episode):
    assert np.ptp(episode.T_camera_world('anchor0'), axis=0).max() == 0
    assert np.ptp(episode.T_camera_world('random0'), axis=0).max() > 0.05
    T_hand_wrist = np.array(episode.meta['T_hand_wrist'])
    there = episode.T_camera_world('wrist') @ episode.tracks['T_base_hand'] @ T_hand_wrist
    np.testing.assert_allclose(there, np.broadcast_to(np.eye(4), there.shape), atol=1e-9)


def test_one_process_renders_the_same_seed_twice_alike(env, episode, tmp_path):
    record_episode(env, 6, tmp_path / 'between')
    again = read_episode(record_episode(env, 5, tmp_path / 'again'))
    np.testing.assert_array_equal(again.rgb('wrist'), episode.rgb('wrist'))
    np.testing.assert_array_equal(again.depth('random1'), episode.depth('random1'))


def test_thinned_meshes_look_like_the_whole_ones(env, episode):
    whole = SimEnv(replace(SETTINGS, mesh_cell=None))
    states = []
    for one in (env, whole):
        one.begin(np.random.default_rng(5), 'lift')
        one.show()
        states.append(one.renderer.render(one.wrist.camera(one.data))[1])
    whole.close()
    assert np.abs(states[0] - states[1]).mean() < 0.001


def test_a_stream_runs_past_the_end_of_a_task(tmp_path):
    stream = SimulatorStream(replace(LIVE_SETTINGS, anchor_width=64, anchor_height=48, wrist_size=32), seed=1)
    first = stream.cameras()
    while stream.episode == 0:
        images = stream.step()
    for _ in range(2):
        images = stream.step()
    assert images['anchor1'].shape == (48, 64, 3) and images['wrist'].std() > 3
    np.testing.assert_array_equal(stream.cameras()['anchor0'].T_camera_world, first['anchor0'].T_camera_world)
    assert stream.stamp_ns > 1_000_000_000
    stream.close()


def test_a_stream_says_where_hand_joints_and_links_are_and_what_its_anchors_measure():
    stream = SimulatorStream(replace(LIVE_SETTINGS, anchor_width=64, anchor_height=48, wrist_size=32), seed=3)
    stream.step()
    assert stream.depth == {}
    images = stream.step(depth=True)
    assert set(stream.depth) == {'anchor0', 'anchor1'}
    env, cameras = stream.env, stream.cameras()
    for name, depth in stream.depth.items():
        assert depth.shape == images[name].shape[:2] and depth.dtype == np.float32
        middle = cameras[name].T_camera_world[:3, :3] @ [0.6, 0, 0] + cameras[name].T_camera_world[:3, 3]
        assert abs(np.median(depth) - middle[2]) < 0.5  # the table's middle is about as far as what is seen
    mounted = np.linalg.inv(cameras['wrist'].T_camera_world)
    np.testing.assert_allclose(env.T_base_hand @ wrist_mount(3), mounted, atol=1e-9)
    links, T = env.link_poses(), np.eye(4)
    link = 'fr3_hand'
    while link != 'fr3_link0':
        T, link = links[link].T_parent_link @ T, links[link].parent
    np.testing.assert_allclose(T, env.T_base_hand, atol=1e-9)
    assert links['fr3_hand'].fixed and not links['fr3_link7'].fixed and not links['fr3_leftfinger'].fixed
    assert [env.joint_positions()[f'fr3_joint{i}'] for i in range(1, 8)] == stream.joints.tolist()
    stream.reset(4)
    assert np.abs(stream.env.wrist.T_hand_wrist - wrist_mount(3)).max() > 1e-4
    stream.close()


def test_a_set_resumes_and_its_seeds_depend_on_base_seed_and_index_only(tmp_path):
    settings = replace(SETTINGS, random_cameras=0, clip_frames=2)
    assert simulate(tmp_path, 2, seed=4, workers=2, settings=settings, progress=False).rendered == 2
    before = (tmp_path / '000001' / 'wrist.mp4').stat().st_mtime_ns
    report = simulate(tmp_path, 3, seed=4, workers=1, settings=settings, progress=False)
    assert (report.rendered, report.skipped, report.failed) == (1, 2, ())
    assert (tmp_path / '000001' / 'wrist.mp4').stat().st_mtime_ns == before
    assert read_episode(tmp_path / '000002').seed == episode_seed(4, 2)


@pytest.mark.parametrize(('fps', 'control_hz'), [(10, 20), (15, 60)])
def test_stored_stamps_are_the_states_times(fps, control_hz):
    env = SimEnv(replace(SETTINGS, fps=fps, control_hz=control_hz), render=False)
    if control_hz == 20:
        assert env.model.opt.timestep == 0.0025
    env.begin(np.random.default_rng(0), 'lift')
    for frame in range(20):
        assert abs(env.settings.stamp_ns(frame) - env.data.time * 1e9) < 1
        for _ in range(env.settings.control_steps):
            env.advance()


@pytest.mark.parametrize('control_hz', [5, 7, 20, 30, 48, 60, 100, 240])
def test_every_fps_that_the_control_rate_allows_has_stamps_equal_to_the_states_times(control_hz):
    env = SimEnv(replace(SETTINGS, fps=control_hz, control_hz=control_hz), render=False)
    env.begin(np.random.default_rng(0), 'lift')
    times = [env.data.time]
    for _ in range(2 * control_hz):
        env.advance()
        times.append(env.data.time)
    for fps in range(1, control_hz + 1):
        settings = replace(SETTINGS, fps=fps, control_hz=control_hz)
        if control_hz % fps:
            with pytest.raises(
                UserError, match=rf'fps is {fps}, which does not divide control_hz, {control_hz}; give fps as'
            ):
                check_simulator(settings)
            continue
        check_simulator(settings)
        stored = np.array(times[:: settings.control_steps]) * 1e9
        stamps = np.array([settings.stamp_ns(i) for i in range(len(stored))])
        assert np.abs(stamps - stored).max() < 2, fps
        np.testing.assert_allclose(stamps, np.arange(len(stamps)) * 1e9 / fps, atol=1)


def test_the_advice_for_another_fps_is_allowed_itself():
    with pytest.raises(UserError, match=r'give fps as one of 1, .*, 140\.$'):
        check_simulator(replace(SETTINGS, fps=130, control_hz=140))


def test_every_setting_is_documented_and_its_bounds_are_checked():
    for f in fields(SimulatorSettings):
        assert f.metadata['doc'].endswith('.') and len(f.metadata['doc']) > 10, f.name
        if f.metadata['low'] is not None and f.name not in ('fps', 'control_hz'):
            assert f.metadata['high'] is not None, f.name
            for value in (f.metadata['low'] - 1, f.metadata['high'] + 1, float('nan'), 'x', None):
                if value is None and f.metadata['none']:
                    continue
                with pytest.raises(UserError, match=f.name):
                    check_simulator(replace(SETTINGS, **{f.name: value}))


def test_leftovers_of_a_killed_run_are_cleared_by_the_next(tmp_path):
    settings = replace(SETTINGS, random_cameras=0, clip_frames=1, anchors=1)
    for name in ('.000000.making', '.000007.making'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'wrist.mp4').write_text('half')
    simulate(tmp_path, 1, workers=1, settings=settings, progress=False)
    assert os.listdir(tmp_path) == ['000000']


def test_an_episode_holds_the_times_of_its_states(episode):
    since = episode.tracks['time_s'] - episode.tracks['time_s'][0]
    assert np.abs(episode.stamps_ns - since * 1e9).max() < 1


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'tasks': 'juggle'}, 'known are stack, lift, place'),
        ({'tasks': 'lift=much'}, "share 'much'"),
        ({'fps': 15}, r'fps is 15.*one of 1, 2, 4, 5, 10, 20, or another control_hz, e\.g\. 30'),
        ({'anchors': 0}, '1 to 16'),
        ({'anchor_width': 33}, 'even'),
        ({'anchor_fov_min': 70.0}, 'maximum'),
        ({'shadows': float('nan')}, r'0\.0 to 1\.0'),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_made(tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        simulate(tmp_path / 'set', 1, settings=replace(SETTINGS, **change))
    assert not (tmp_path / 'set').exists()
