"""The episode format keeps what it is given, and says in a sentence what is wrong with what it cannot read."""

import json
import os
import zipfile

import numpy as np
import pytest

from wristworld_ros.data.formats.native import CameraTrack, list_episodes, read_episode, write_episode
from wristworld_ros.data.video import write_video
from wristworld_ros.errors import UserError


def _track(name='anchor0', role='anchor', frames=5, depth=True, seed=0):
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, 32)[None, None, :, None] + np.arange(frames)[:, None, None, None] * 4
    rgb = np.broadcast_to(ramp, (frames, 24, 32, 3)).astype(np.uint8)
    K = np.broadcast_to([[30.0, 0, 15.5], [0, 30, 11.5], [0, 0, 1]], (frames, 3, 3))
    T = np.broadcast_to(np.eye(4), (frames, 4, 4)).copy()
    T[:, :3, 3] = rng.normal(size=(frames, 3))
    metres = rng.uniform(0.05, 3, (frames, 24, 32)).astype(np.float32) if depth else None
    return CameraTrack(name, role, rgb, K, T, metres)


def _write(path, cameras, frames=5, **more):
    stamps = np.arange(frames) * 100_000_000
    return write_episode(
        path, task='lift', seed=3, fps=10, success=True, stamps_ns=stamps, cameras=cameras, meta={'a': [1]}, **more
    )


def test_round_trip_keeps_numbers_exactly_depth_to_half_a_millimetre_and_colours_closely(tmp_path):
    anchor, wrist = _track(), _track('wrist', 'wrist', depth=False, seed=1)
    joints = np.arange(35.0).reshape(5, 7)
    _write(tmp_path / 'e', [anchor, wrist], tracks={'joints': joints})
    episode = read_episode(tmp_path / 'e')
    assert (episode.task, episode.seed, episode.fps, episode.success, len(episode)) == ('lift', 3, 10, True, 5)
    assert episode.meta == {'a': [1]} and episode.names('wrist') == ('wrist',)
    np.testing.assert_array_equal(episode.stamps_ns, np.arange(5) * 100_000_000)
    np.testing.assert_array_equal(episode.tracks['joints'], joints)
    np.testing.assert_array_equal(episode.K('anchor0'), anchor.K)
    np.testing.assert_array_equal(episode.T_camera_world('wrist'), wrist.T_camera_world)
    assert np.abs(episode.depth('anchor0') - anchor.depth).max() <= 0.00051
    rgb = episode.rgb('anchor0')
    assert rgb.dtype == np.uint8 and rgb.shape == anchor.rgb.shape
    assert np.abs(rgb.astype(float) - anchor.rgb).mean() < 3


def test_writing_that_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(UserError, match='4 images; give 5'):
        _write(tmp_path / 'e', [_track(), _track('wrist', 'wrist', frames=4)])
    assert list(tmp_path.iterdir()) == []


def test_an_existing_episode_is_never_overwritten(tmp_path):
    _write(tmp_path / 'e', [_track()])
    with pytest.raises(UserError, match='exists already'):
        _write(tmp_path / 'e', [_track()])


def test_listing_is_sorted_and_skips_what_is_not_an_episode(tmp_path):
    for name in ('b', 'a'):
        _write(tmp_path / name, [_track(depth=False)])
    (tmp_path / 'c').mkdir()
    assert [path.name for path in list_episodes(tmp_path)] == ['a', 'b']
    with pytest.raises(UserError, match='not a directory'):
        list_episodes(tmp_path / 'nowhere')


def test_the_first_frames_alone_are_the_same_as_those_of_the_whole(tmp_path):
    episode = read_episode(_write(tmp_path / 'e', [_track()]))
    whole = episode.rgb('anchor0')
    np.testing.assert_array_equal(episode.rgb('anchor0', stop=2), whole[:2])
    np.testing.assert_array_equal(np.stack(list(episode.rgb_frames('anchor0'))), whole)
    np.testing.assert_array_equal(episode.depth('anchor0', stop=3), episode.depth('anchor0')[:3])


def test_a_video_with_another_number_of_frames_than_its_episode_is_refused(tmp_path):
    path = _write(tmp_path / 'e', [_track(depth=False)])
    write_video(path / 'anchor0.mp4', read_episode(path).rgb('anchor0')[:4], 10)
    with pytest.raises(UserError, match='4 of the 5 frames'):
        read_episode(path).rgb('anchor0')


def test_anchors_are_the_first_so_many_and_of_one_size(tmp_path):
    small = _track('anchor1', depth=False)
    small = CameraTrack('anchor1', 'anchor', small.rgb[:, :16], small.K, small.T_camera_world)
    episode = read_episode(_write(tmp_path / 'e', [_track(depth=False), small, _track('wrist', 'wrist', depth=False)]))
    assert episode.anchors(1) == ('anchor0',)
    with pytest.raises(UserError, match='differ in size'):
        episode.anchors()
    with pytest.raises(
        UserError, match=r'episode .* of .* has 2 anchor cameras, and 3 are asked for; set anchors to 2'
    ):
        episode.anchors(3)


def test_missing_and_bad_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r'episode\.json is missing'):
        read_episode(tmp_path)
    path = _write(tmp_path / 'e', [_track(depth=False)])
    with pytest.raises(UserError, match='give one of anchor0'):
        read_episode(path).rgb('anchor7')
    with pytest.raises(UserError, match='without depth'):
        read_episode(path).depth('anchor0')
    (path / 'anchor0.mp4').write_bytes(b'no video')
    with pytest.raises(UserError, match='cannot be decoded'):
        read_episode(path).rgb('anchor0')
    (path / 'anchor0.mp4').unlink()
    with pytest.raises(UserError, match=r'anchor0\.mp4'):
        read_episode(path)
    (path / 'episode.json').write_text(json.dumps({'version': 99}))
    with pytest.raises(UserError, match='version 99'):
        read_episode(path)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'role': 'side'}, 'give one of anchor'),
        ({'name': 'a/b'}, 'letters'),
        ({'K': np.zeros((2, 3, 3))}, 'its images ask for'),
        ({'rgb': np.zeros((5, 24, 32))}, 'uint8'),
    ],
)
def test_a_camera_track_checks_its_shapes(change, words):
    good = _track()
    with pytest.raises(UserError, match=words):
        CameraTrack(
            **{**{k: getattr(good, k) for k in ('name', 'role', 'rgb', 'K', 'T_camera_world', 'depth')}, **change}
        )


def change_head(path, **values):
    head = json.loads((path / 'episode.json').read_text())
    camera = values.pop('camera', {})
    head['cameras'][0].update(camera)
    (path / 'episode.json').write_text(json.dumps(head | values))


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'fps': 'fast'}, 'fps: expected `float`'),
        ({'fps': 0}, 'fps'),
        ({'fps': 10**30}, 'fps'),
        ({'frames': 10**12}, 'frames'),
        ({'frames': 4}, r'stamps_ns is \[5\], and \[4\]'),
        ({'task': None}, 'task: expected `str`'),
        ({'success': 'yes'}, 'success'),
        ({'cameras': {}}, 'cameras: expected `array`'),
        ({'cameras': [{}]}, r'cameras\[0\]'),
        ({'meta': []}, 'meta: expected `object`'),
        ({'extra': 1}, 'unknown key extra'),
        ({'camera': {'rgb_file': '../other/anchor0.mp4'}}, "A file of camera 'anchor0'"),
        ({'camera': {'rgb_file': '/etc/passwd'}}, "A file of camera 'anchor0'"),
        ({'camera': {'depth_file': '../x.mkv', 'has_depth': True}}, "A file of camera 'anchor0'"),
        ({'camera': {'rgb_file': 7}}, 'rgb_file'),
        ({'camera': {'name': '../../etc'}}, 'name'),
        ({'camera': {'role': 'side'}}, 'role'),
        ({'camera': {'width': 10**12}}, 'width'),
        ({'camera': {'width': -1}}, 'width'),
        ({'camera': {'name': 'other'}}, 'lacks K_other'),
    ],
)
def test_a_head_that_is_wrong_is_one_sentence(tmp_path, values, words):
    path = _write(tmp_path / 'e', [_track(depth=False)])
    change_head(path, **values)
    with pytest.raises(UserError, match=words) as error:
        read_episode(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


def rewrite_tracks(path, **changes):
    with np.load(path / 'tracks.npz') as file:
        tracks = dict(file)
    np.savez(path / 'tracks.npz', **{k: v for k, v in (tracks | changes).items() if v is not None})


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'stamps_ns': None}, 'lacks stamps_ns'),
        ({'stamps_ns': np.arange(4)}, 'stamps_ns is'),
        ({'stamps_ns': np.arange(5.0)}, 'stamps_ns holds'),
        ({'stamps_ns': np.zeros(5, np.int64)}, 'do not rise'),
        ({'K_anchor0': np.zeros((5, 3, 4))}, 'K_anchor0 is'),
        ({'K_anchor0': np.full((5, 3, 3), np.nan)}, 'K_anchor0 holds'),
        ({'K_anchor0': np.full((5, 3, 3), 'x')}, 'K_anchor0 holds'),
        ({'T_camera_world_anchor0': np.full((5, 4, 4), np.inf)}, 'T_camera_world_anchor0 holds'),
        ({'joints': np.zeros(3)}, 'joints is'),
        ({'joints': np.array(3.0)}, 'joints is'),
        ({'joints': np.array([object()] * 5)}, 'cannot be read as arrays'),
    ],
)
def test_arrays_that_are_wrong_are_one_sentence(tmp_path, changes, words):
    path = _write(tmp_path / 'e', [_track(depth=False)])
    rewrite_tracks(path, **changes)
    with pytest.raises(UserError, match=words) as error:
        read_episode(path)
    assert 'tracks.npz' in str(error.value) and '\n' not in str(error.value)


def test_files_that_are_pipes_devices_bombs_or_damaged_are_named(tmp_path):
    path = _write(tmp_path / 'e', [_track(depth=False)])
    good = (path / 'tracks.npz').read_bytes()
    for data in (good[:100], b'', b'not a zip'):
        (path / 'tracks.npz').write_bytes(data)
        with pytest.raises(UserError, match=r'tracks\.npz cannot be read'):
            read_episode(path)
    with (
        zipfile.ZipFile(path / 'tracks.npz', 'w', zipfile.ZIP_DEFLATED) as archive,
        archive.open('a.npy', 'w', force_zip64=True) as file,
    ):
        for _ in range(1100):
            file.write(bytes(1 << 20))
    with pytest.raises(UserError, match=r'unpacks to \d+ bytes'):
        read_episode(path)
    (path / 'tracks.npz').write_bytes(good)
    for name in ('tracks.npz', 'episode.json', 'anchor0.mp4'):
        kept = (path / name).rename(tmp_path / 'kept')
        os.mkfifo(path / name)
        with pytest.raises(UserError, match='is a named pipe'):
            read_episode(path)
        (path / name).unlink()
        (path / name).symlink_to('/dev/zero')
        with pytest.raises(UserError, match='is a device'):
            read_episode(path)
        (path / name).unlink()
        kept.rename(path / name)
    (path / 'episode.json').write_text('{"meta": ' + '[' * 10_000_000)
    with pytest.raises(UserError, match=r'nested too deeply|at most'):
        read_episode(path)
