"""`wristworld generate`: a recording in, a wrist video and poses out."""

import json

import numpy as np
import pytest

from wristworld_ros import cli
from wristworld_ros.apps.generate.generate import generate, output_paths
from wristworld_ros.data.anchor_sources import open_recording
from wristworld_ros.data.formats.native import CameraTrack, read_episode, write_episode
from wristworld_ros.data.video import read_frames, write_video
from wristworld_ros.errors import UserError
from wristworld_ros.pipeline import save_model, tiny_random_model
from wristworld_ros.settings import WindowSettings

FRAMES, SIZE = 6, 56
WINDOWS = WindowSettings(window=4, overlap=2, steps=2, solver='unipc')


def coarse_images(seed, frames=FRAMES, size=SIZE):
    coarse = np.random.default_rng(seed).integers(0, 256, (frames, size // 8, size // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)


@pytest.fixture(scope='module')
def model():
    return tiny_random_model()


@pytest.fixture
def episode(tmp_path):
    K = np.tile(np.array([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]]), (FRAMES, 1, 1))
    T = np.tile(np.eye(4), (FRAMES, 1, 1))
    T[:, 2, 3] = 0.7
    cameras = [CameraTrack(f'anchor{i}', 'anchor', coarse_images(i), K, T) for i in range(3)]
    return write_episode(
        tmp_path / 'episode', task='none', seed=0, fps=10, success=True, stamps_ns=np.arange(1, FRAMES + 1) * 10**8,
        cameras=cameras,
    )  # fmt: skip


@pytest.fixture
def videos(tmp_path):
    paths = [tmp_path / f'{name}.mp4' for name in ('left', 'right')]
    for i, path in enumerate(paths):
        write_video(path, iter(coarse_images(i, FRAMES + i)), 12)
    return paths


def make(model, sources, folder, anchors=None, seed=0, force=False):
    """Generate, and return the paths of the files."""
    paths = output_paths(folder, 'virtual_wrist', force)
    generate(model, open_recording(sources, anchors), *paths, WINDOWS, seed, progress=False)
    return paths


@pytest.mark.parametrize('anchors', [1, 2, None])
def test_an_episode_gets_a_video_and_a_pose_for_each_frame_and_stays_an_episode(model, episode, anchors):
    made = make(model, [episode], episode, anchors)
    assert [p.name for p in made] == ['virtual_wrist.mp4', 'virtual_wrist.json']
    video, poses = read_frames(made[0]), json.loads(made[1].read_text())
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
    video, poses_path = make(model, videos, tmp_path / 'out')
    poses = json.loads(poses_path.read_text())
    assert len(read_frames(video)) == len(poses['frames']) == FRAMES
    assert poses['anchors'] == ['left', 'right'] and poses['fps'] == pytest.approx(12)
    assert 'T_wrist_world' not in poses['frames'][0]


def test_the_same_seed_gives_the_same_files_and_none_is_replaced_unasked(model, episode, tmp_path):
    first, second = make(model, [episode], tmp_path / 'a'), make(model, [episode], tmp_path / 'b')
    assert first[0].read_bytes() == second[0].read_bytes()
    with pytest.raises(UserError, match='--force'):
        make(model, [episode], tmp_path / 'a')
    make(model, [episode], tmp_path / 'a', seed=1, force=True)
    assert first[0].read_bytes() != second[0].read_bytes()


def test_a_model_that_produces_nan_is_one_sentence_and_leaves_no_file(episode, tmp_path):
    model = tiny_random_model()
    for parameter in model.generator.transformer.parameters():
        parameter.data.fill_(float('nan'))
    with pytest.raises(UserError, match='produced NaN or infinity'):
        make(model, [episode], tmp_path / 'out')
    assert not list((tmp_path / 'out').iterdir())


def test_the_command_reads_an_episode_and_prints_where_the_files_are(episode, tmp_path, capsys):
    save_model(tiny_random_model(), tmp_path / 'model')
    out = tmp_path / 'out'
    arguments = ['--model', str(tmp_path / 'model'), '--window', '4', '--steps', '1', '--frames', '4', '--anchors', '2']
    assert cli.main(['generate', str(episode), '--out', str(out), *arguments]) == 0
    assert str(out / 'virtual_wrist.mp4') in capsys.readouterr().out
    poses = json.loads((out / 'virtual_wrist.json').read_text())
    assert len(poses['frames']) == 4 and len(poses['anchors']) == 2


def test_recordings_that_cannot_be_read_are_refused(episode, videos, tmp_path):
    for paths, words in (([tmp_path / 'no.mp4'], 'no.mp4'), ([episode, videos[0]], 'one episode, or videos only')):
        with pytest.raises(UserError, match=words):
            open_recording(paths)
    with pytest.raises(UserError):
        open_recording([episode], anchors=4)
    write_video(tmp_path / 'small.mp4', iter(coarse_images(0, size=48)), 12)
    with pytest.raises(UserError, match='one size'):
        open_recording([videos[0], tmp_path / 'small.mp4'])
