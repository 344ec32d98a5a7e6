"""`wristworld generate`: a recording in, a wrist video and poses out."""

import json

import av
import numpy as np
import pytest

from wristworld_ros.apps.generate.generate import generate
from wristworld_ros.apps.generate.settings import GenerateSettings
from wristworld_ros.data.anchor_sources import open_recording
from wristworld_ros.data.formats.native import CameraTrack, read_episode, write_episode
from wristworld_ros.data.video import Videos, write_video
from wristworld_ros.pipeline import tiny_random_model
from wristworld_ros.settings import StreamSettings, WindowSettings

FRAMES, SIZE = 6, 56
WINDOWS = WindowSettings(window=4, overlap=2, steps=2, solver='unipc')


def pictures(seed, frames=FRAMES, size=SIZE):
    coarse = np.random.default_rng(seed).integers(0, 256, (frames, size // 8, size // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)


def decoded(path):
    with av.open(str(path)) as file:
        return np.stack([f.to_ndarray(format='rgb24') for f in file.decode(video=0)])


@pytest.fixture(scope='module')
def model():
    return tiny_random_model()


@pytest.fixture
def episode(tmp_path):
    K = np.tile(np.array([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]]), (FRAMES, 1, 1))
    T = np.tile(np.eye(4), (FRAMES, 1, 1))
    T[:, 2, 3] = 0.7
    cameras = [CameraTrack(f'anchor{i}', 'anchor', pictures(i), K, T) for i in range(3)]
    return write_episode(
        tmp_path / 'episode', task='none', seed=0, fps=10, success=True, stamps_ns=np.arange(1, FRAMES + 1) * 10**8,
        cameras=cameras,
    )  # fmt: skip


@pytest.fixture
def videos(tmp_path):
    paths = [tmp_path / f'{name}.mp4' for name in ('left', 'right')]
    for i, path in enumerate(paths):
        write_video(path, iter(pictures(i, FRAMES + i)), 12)
    return paths


@pytest.mark.parametrize('anchors', [1, 2, 0])
def test_an_episode_gets_a_video_and_a_pose_for_each_frame_and_stays_an_episode(model, episode, anchors):
    made = generate(
        [episode], episode, model, windows=WINDOWS, settings=GenerateSettings(anchors=anchors), progress=False
    )
    assert [p.name for p in made] == ['virtual_wrist.mp4', 'virtual_wrist.json']
    video, poses = decoded(made[0]), json.loads(made[1].read_text())
    assert video.shape == (FRAMES, 32, 32, 3) and len(poses['frames']) == FRAMES
    assert len(poses['anchors']) == (anchors or 3) and poses['fps'] == 10
    first = poses['frames'][0]
    assert first['stamp_ns'] == 10**8
    # The first anchor stands 0.7 m before the world's origin.
    T_anchor_world = np.eye(4)
    T_anchor_world[2, 3] = 0.7
    assert np.allclose(np.array(first['T_wrist_anchor']) @ T_anchor_world, first['T_wrist_world'])
    assert len(read_episode(episode)) == FRAMES
    assert not [p for p in episode.iterdir() if 'part' in p.name]


def test_videos_get_one_as_long_as_the_shortest_of_them(model, videos, tmp_path):
    made = generate(videos, tmp_path / 'out', model, windows=WINDOWS, progress=False)
    poses = json.loads(made[1].read_text())
    assert len(decoded(made[0])) == len(poses['frames']) == FRAMES
    assert poses['anchors'] == ['left', 'right'] and poses['fps'] == 12
    assert 'T_wrist_world' not in poses['frames'][0]


def test_the_same_seed_gives_the_same_files_and_none_is_replaced_unasked(model, episode, tmp_path):
    how = {'model': model, 'windows': WINDOWS, 'progress': False}
    first = generate([episode], tmp_path / 'a', **how)
    second = generate([episode], tmp_path / 'b', **how)
    assert first[0].read_bytes() == second[0].read_bytes()
    with pytest.raises(FileExistsError, match='--force'):
        generate([episode], tmp_path / 'a', **how)
    generate([episode], tmp_path / 'a', stream=StreamSettings(seed=1), settings=GenerateSettings(force=True), **how)
    assert first[0].read_bytes() != second[0].read_bytes()


def test_what_cannot_be_read_is_told_in_one_sentence(episode, videos, tmp_path):
    with pytest.raises(FileNotFoundError, match='not there'):
        open_recording([tmp_path / 'no.mp4'])
    with pytest.raises(ValueError, match='one episode, or videos only'):
        open_recording([episode, videos[0]])
    with pytest.raises(ValueError, match='3 anchor cameras; 4 are asked for'):
        open_recording([episode], anchors=4)
    with pytest.raises(ValueError, match='no video that can be read'):
        (tmp_path / 'text.mp4').write_text('no video')
        Videos([tmp_path / 'text.mp4'])
    write_video(tmp_path / 'small.mp4', iter(pictures(0, size=48)), 12)
    with pytest.raises(ValueError, match='one size'):
        Videos([videos[0], tmp_path / 'small.mp4'])
    write_video(tmp_path / 'fast.mp4', iter(pictures(0)), 24)
    with pytest.raises(ValueError, match='one rate'):
        Videos([videos[0], tmp_path / 'fast.mp4'])


def test_a_video_that_could_not_be_written_whole_is_not_there(tmp_path):
    def broken():
        yield pictures(0)[0]
        raise ValueError('no more')

    with pytest.raises(ValueError, match='no more'):
        write_video(tmp_path / 'x.mp4', broken(), 10)
    assert not list(tmp_path.iterdir())
