"""Every writer through the `Episode` protocol: what is read back is what was written, whatever the format, and damage is left out."""

import shutil
from functools import partial

import numpy as np
import pytest

from wristworld_ros.data.check import check_data_set
from wristworld_ros.data.formats.native import CameraTrack, NativeSet, write_episode
from wristworld_ros.data.formats.native_writer import write_native
from wristworld_ros.data.formats.rosbag.writer import write_bags
from wristworld_ros.data.formats.videos_writer import write_videos
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.errors import UserError

FRAMES, HW = 11, (32, 48)
WRITERS = {
    'native': write_native,
    'videos': write_videos,
    'mcap': partial(write_bags, storage='mcap'),
    'sqlite3': partial(write_bags, storage='sqlite3'),
    'png': partial(write_bags, packing='png'),
    'jpeg': partial(write_bags, packing='jpeg'),
}
EXACT = ('mcap', 'sqlite3', 'png')  # of images
OF_ONE_WRITER = ('native', 'videos', 'mcap')


def poses(rng, frames):
    turned, T = np.linalg.qr(rng.normal(size=(frames, 3, 3)))[0], np.tile(np.eye(4), (frames, 1, 1))
    T[:, :3, :3] = turned * np.linalg.det(turned)[:, None, None]
    T[:, :3, 3] = rng.normal(size=(frames, 3))
    return T


def track(name, role, rng, fixed, depth):
    y, x = np.mgrid[: HW[0], : HW[1]]
    rgb = np.stack([np.stack([x * 4, y * 6, np.full_like(x, 20 + 15 * i)], -1) for i in range(FRAMES)]).astype(np.uint8)
    T = poses(rng, FRAMES)
    K = np.tile([[50.0, 0, 23.5], [0, 51, 15.5], [0, 0, 1]], (FRAMES, 1, 1))
    if not fixed:
        K[6:, 0, 0] += 7  # the lens zooms
    maps = rng.uniform(0.2, 3, (FRAMES, *HW)).astype(np.float32) if depth else None
    if depth:
        maps[:, :3] = 0
    return CameraTrack(name, role, rgb, K, T[:1].repeat(FRAMES, 0) if fixed else T, maps)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Two episodes with all that an episode can say; the frames are not quite even in time."""
    root = tmp_path_factory.mktemp('source')
    for number in range(2):
        rng = np.random.default_rng(number)
        stamps = 1_700_000_000 * 10**9 + np.arange(FRAMES) * 100_000_000 + rng.integers(0, 9_000_000, FRAMES)
        cameras = [
            track('left', 'anchor', rng, True, True), track('wrist', 'wrist', rng, False, False),
            track('top', 'anchor', rng, True, False),
        ]  # fmt: skip
        write_episode(
            root / str(number), task=('lift it', 'push it')[number], seed=number, fps=10, success=number == 0,
            stamps_ns=stamps, cameras=cameras, meta={'robot_type': 'panda', 'notes': [1, 2.5]},
            tracks={
                'joints': rng.normal(size=(FRAMES, 7)), 'gripper': rng.uniform(0, 0.08, FRAMES),
                'T_base_hand': poses(rng, FRAMES), 'actions': rng.normal(size=(FRAMES, 8)),
            },
        )  # fmt: skip
    return root


@pytest.fixture(scope='module')
def written(source, tmp_path_factory):
    """The same by every writer; by its name."""
    folder, data = tmp_path_factory.mktemp('written'), NativeSet(source)
    found = {}
    for name, write in WRITERS.items():
        report = write(folder / name, [partial(data.episode, i) for i in range(2)])
        assert (report.episodes, report.frames, report.left_out, report.notes) == (2, 2 * FRAMES, [], [])
        found[name] = open_data_set(folder / name)
    return found


@pytest.mark.parametrize('name', WRITERS)
def test_what_is_read_back_is_what_was_written(source, written, name):
    data = written[name]
    assert len(data) == 2 and [str(problem) for problem in check_data_set(data)] == []
    for number in range(2):
        one, two = NativeSet(source).episode(number), data.episode(number)
        assert {(c.name, c.role, c.width, c.height, c.has_depth) for c in two.cameras} == {
            (c.name, c.role, c.width, c.height, c.has_depth) for c in one.cameras
        }
        np.testing.assert_array_equal(two.stamps_ns, one.stamps_ns)
        assert two.language == one.language and two.success == one.success and two.fps == one.fps
        assert two.gripper_unit == one.gripper_unit and two.hand_link == one.hand_link
        assert {key: two.meta[key] for key in one.meta} == one.meta
        np.testing.assert_array_equal(two.joints, one.joints)
        np.testing.assert_array_equal(two.actions, one.actions)
        np.testing.assert_allclose(two.gripper, one.gripper, rtol=1e-15)
        np.testing.assert_allclose(two.T_base_hand, one.T_base_hand, atol=1e-12)
        for camera in one.cameras:
            np.testing.assert_array_equal(two.times_ns(camera.name), one.times_ns(camera.name))
            np.testing.assert_array_equal(two.K(camera.name), one.K(camera.name))
            np.testing.assert_allclose(two.T_camera_world(camera.name), one.T_camera_world(camera.name), atol=1e-12)
            mine, theirs = two.rgb(camera.name).astype(int), one.rgb(camera.name).astype(int)
            if name in EXACT:
                np.testing.assert_array_equal(mine, theirs)
            assert np.abs(mine - theirs).mean() < 4
            if camera.has_depth:
                np.testing.assert_allclose(two.depth(camera.name), one.depth(camera.name), atol=6e-4)
                assert ((two.depth(camera.name) == 0) == (one.depth(camera.name) == 0)).all()


@pytest.mark.parametrize('name', OF_ONE_WRITER)
def test_what_is_not_known_stays_unknown(make, tmp_path, name):
    """Two videos without numbers, one at half the rate of the other."""
    from wristworld_ros.data.video import write_video

    for camera, count, rate in (('a', 8, 10), ('b', 4, 5)):
        folder = tmp_path / 'set/movies/0'
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f'{camera}.mp4', [make.scene(8 * i // count, 48, 32) for i in range(count)], rate)
    (tmp_path / 'set/wristworld_videos.yaml').write_text(
        "episodes: movies/*\ncameras:\n  a: {video: 'movies/{stem}/a.mp4'}\n  b: {video: 'movies/{stem}/b.mp4'}\n"
    )
    data = open_data_set(tmp_path / 'set')
    WRITERS[name](tmp_path / name, [partial(data.episode, 0)])
    one, two = data.episode(0), open_data_set(tmp_path / name).episode(0)
    for value in ('joints', 'gripper', 'T_base_hand', 'actions', 'success'):
        assert getattr(two, value) is None, value
    assert two.language == () and two.hand_link == '' and two.task == ''
    for camera in 'ab':
        assert two.K(camera) is None and two.T_camera_world(camera) is None
        np.testing.assert_array_equal(two.times_ns(camera), one.times_ns(camera))
        assert np.abs(two.rgb(camera).astype(int) - one.rgb(camera)).mean() < 4


@pytest.mark.parametrize('name', OF_ONE_WRITER)
def test_an_episode_that_cannot_be_read_whole_is_left_out_and_told(source, tmp_path, name):
    damaged = tmp_path / 'damaged'
    shutil.copytree(source, damaged)
    video = damaged / '0/top.mp4'
    video.write_bytes(video.read_bytes()[:900])
    data = NativeSet(damaged)
    report = WRITERS[name](tmp_path / 'out', [partial(data.episode, i) for i in range(2)])
    assert (
        report.episodes == 1 and len(report.left_out) == 1 and report.left_out[0].startswith('Episode 0 is left out: ')
    )
    found = open_data_set(tmp_path / 'out')
    assert len(found) == 1 and found.episode(0).task == 'push it'
    assert [str(problem) for problem in check_data_set(found)] == []
    with pytest.raises(UserError, match='No episode could be written'):
        WRITERS[name](tmp_path / 'none', [partial(data.episode, 0)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ['damaged', 'out']


@pytest.mark.parametrize('name', OF_ONE_WRITER)
def test_an_older_set_gives_way_only_when_asked(source, tmp_path, name):
    data = NativeSet(source)
    opened = [partial(data.episode, 0)]
    WRITERS[name](tmp_path / 'out', opened)
    with pytest.raises(UserError, match='exists already'):
        WRITERS[name](tmp_path / 'out', opened)
    assert WRITERS[name](tmp_path / 'out', opened, replace=True).episodes == 1


def test_a_gripper_that_is_not_in_metres_keeps_its_unit(source, tmp_path):
    from dataclasses import replace

    episode = NativeSet(source).episode(0)
    for unit in ('closed', 'unknown'):
        given = replace(episode, gripper=np.linspace(0, 1, FRAMES), gripper_unit=unit, hand_link='tool_plate')
        for name in OF_ONE_WRITER:
            WRITERS[name](tmp_path / unit / name, [lambda given=given: given])
            found = open_data_set(tmp_path / unit / name).episode(0)
            assert (found.gripper_unit, found.hand_link) == (unit, 'tool_plate')
            np.testing.assert_array_equal(found.gripper, given.gripper)


def test_folders_of_videos_hold_episodes_of_one_kind(source, tmp_path):
    from dataclasses import replace

    data = NativeSet(source)
    other = replace(data.episode(1), actions=None)
    report = write_videos(tmp_path / 'out', [partial(data.episode, 0), lambda: other])
    assert report.left_out == ["Episode 1 is left out: episode 1 has actions (), and the first episode ('actions',)."]


def test_bags_take_times_that_ros_can_say_and_no_others(source, tmp_path):
    from dataclasses import replace

    episode = NativeSet(source).episode(0)
    late = replace(episode, stamps_ns=episode.stamps_ns + 10**19 // 4)
    with pytest.raises(UserError, match='ROS has 0 to 2147483648'):
        write_bags(tmp_path / 'out', [lambda: late])
