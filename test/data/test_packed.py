"""Packed frames are the episode's own, at the model's size, and appear whole or not at all."""

import numpy as np
import pytest

from wristworld_ros.data.formats.native import CameraTrack, read_episode, write_episode
from wristworld_ros.data.packed import pack_episode, pack_episodes
from wristworld_ros.errors import UserError

FRAMES = 3


@pytest.fixture
def episodes(make, tmp_path):
    K = np.tile(np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]), (FRAMES, 1, 1))
    T = np.tile(np.eye(4), (FRAMES, 1, 1))
    images = np.stack([make.scene(i, 64, 48) for i in range(FRAMES)])
    depth = np.random.default_rng(0).uniform(0.1, 2, (FRAMES, 48, 64)).astype(np.float32)
    roles = {'random0': 'random', 'anchor0': 'anchor', 'wrist': 'wrist'}
    cameras = [CameraTrack(name, role, images, K, T, depth) for name, role in roles.items()]
    stamps = np.arange(FRAMES) * 10**8
    for name in ('a', 'b'):
        write_episode(
            tmp_path / 'set' / name, task='none', seed=0, fps=10, success=True, stamps_ns=stamps, cameras=cameras
        )
    return tmp_path / 'set'


def test_views_are_anchors_first_resized_with_their_intrinsics_and_depth_is_not_averaged(episodes, tmp_path):
    packed = pack_episodes(episodes, tmp_path / 'packed', (32, 24), (64, 48), workers=1)[0]
    episode = read_episode(episodes / 'a')
    assert packed.anchors == 1 and packed.rgb.shape == (2, FRAMES, 24, 32, 3) and packed.length == FRAMES
    np.testing.assert_array_equal(packed.wrist_rgb, episode.rgb('wrist'))
    millimetres = np.round(episode.depth('anchor0') * 1000).astype(np.uint16)
    np.testing.assert_array_equal(packed.depth[0], millimetres[:, ::2, ::2])
    np.testing.assert_allclose(packed.cameras['K'][0, 0], [[30, 0, 15.5], [0, 30, 11.5], [0, 0, 1]])


def test_what_is_packed_already_is_left_alone_and_a_failure_leaves_nothing(episodes, tmp_path):
    target = tmp_path / 'packed'
    first = pack_episodes(episodes, target, (32, 24), (32, 24), workers=1)[0].path
    before = (first / 'rgb.npy').stat().st_mtime_ns
    assert pack_episode(episodes / 'a', first, (32, 24), (32, 24)) == first
    assert (first / 'rgb.npy').stat().st_mtime_ns == before
    (episodes / 'b' / 'random0.mp4').write_bytes(b'no video')
    with pytest.raises(UserError, match=r'random0\.mp4 cannot be decoded'):
        pack_episode(episodes / 'b', target / 'c', (32, 24), (32, 24))
    assert sorted(folder.name[0] for folder in target.iterdir()) == ['a', 'b']
