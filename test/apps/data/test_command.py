"""`wristworld data`: what it prints and how it ends."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from wristworld_ros.cli import main
from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.data.images import read_image
from wristworld_ros.data.sets import open_data_set


@pytest.fixture
def episodes(tmp_path):
    """Two small episodes of our own."""
    for number in range(2):
        rgb = np.zeros((6, 48, 64, 3), np.uint8)
        rgb[..., 0] = 40 * np.arange(6)[:, None, None]
        T = np.tile(np.eye(4), (6, 1, 1))
        cameras = [
            CameraTrack(name, role, rgb, T[:, :3, :3], T) for name, role in (('left', 'anchor'), ('wrist', 'wrist'))
        ]
        write_episode(
            tmp_path / f'episodes/{number}', task='lift', seed=0, fps=10, success=True, stamps_ns=np.arange(6) * 10**8,
            cameras=cameras, tracks={'joints': np.zeros((6, 7))},
        )  # fmt: skip
    return tmp_path / 'episodes'


def test_inspect_tells_cameras_rates_and_robot_and_draws_a_sheet(episodes, tmp_path, capsys):
    assert main(['data', 'inspect', str(episodes), '--sheet', str(tmp_path / 'sheet.png')]) == 0
    told = capsys.readouterr().out
    assert 'wristworld episodes, 2 episodes' in told and "'lift' (2)" in told and 'Robot: joints 7' in told
    assert 'left   anchor 64x48, 10 a second; intrinsics, pose' in told
    assert '10 frames a second, 6 in each episode' in told and 'Success: 2 of 2 episodes\n' in told
    sheet = read_image(tmp_path / 'sheet.png')
    assert sheet.shape == (4 * (18 + 120 + 4), 6 * 164, 3)
    assert sheet[60, 5 * 164 + 80, 0] > 180 > 60 > sheet[60, 80, 0], 'time runs to the right'
    assert main(['data', 'inspect', str(episodes), '--json']) == 0
    assert json.loads(capsys.readouterr().out)['cameras'][1]['role'] == 'wrist'


def test_inspect_tells_what_differs_between_episodes(episodes, tmp_path, capsys):
    T = np.tile(np.eye(4), (4, 1, 1))
    write_episode(
        episodes / '2', task='', seed=0, fps=10, success=False, stamps_ns=np.arange(4) * 10**8,
        cameras=[CameraTrack('left', 'anchor', np.zeros((4, 32, 32, 3), np.uint8), T[:, :3, :3], T)],
    )  # fmt: skip
    assert main(['data', 'inspect', str(episodes)]) == 0
    told = capsys.readouterr().out
    assert '4 to 6 in an episode' in told and 'Success: 2 of 3 episodes\n' in told
    assert "'lift' (2); none is told of 1 episode\n" in told
    assert 'Episode 2 has other cameras than the first: left 32x32.' in told


def test_convert_writes_a_set_that_check_finds_whole(episodes, tmp_path, capsys):
    target = tmp_path / 'set'
    assert main(['data', 'convert', str(episodes), str(target), '--to', 'lerobot-v2.1', '--episodes', '1']) == 0
    assert open_data_set(target).format == 'LeRobot v2.1' and len(open_data_set(target)) == 1
    assert main(['data', 'check', str(target)]) == 0
    assert 'Nothing is wrong: LeRobot v2.1, 1 episodes.' in capsys.readouterr().out
    assert main(['data', 'convert', str(episodes), str(target)]) == 2
    assert main(['data', 'convert', str(episodes), str(target), '--force']) == 0
    assert open_data_set(target).format == 'LeRobot v3.0'
    assert main(['data', 'convert', str(episodes), str(tmp_path / 'other'), '--episodes', '2']) == 2


@pytest.mark.parametrize(('to', 'options', 'name'), [
    ('lerobot-3.0', (), 'LeRobot v3.0'), ('lerobot-2.1', (), 'LeRobot v2.1'), ('native', (), 'wristworld episodes'),
    ('videos', ('--codec', 'av1'), 'videos with annotations'), ('bag', ('--storage', 'sqlite3', '--packing', 'png'), 'ROS 2 bag'),
])  # fmt: skip
def test_convert_writes_every_format_that_is_read_again(episodes, tmp_path, to, options, name):
    assert main(['data', 'convert', str(episodes), str(tmp_path / 'copy'), '--to', to, *options]) == 0
    data = open_data_set(tmp_path / 'copy')
    assert data.format == name and len(data) == 2 and data.episode(1).joints.shape == (6, 7)
    assert main(['data', 'check', str(tmp_path / 'copy')]) == 0


def test_what_a_format_cannot_do_is_said_before_any_work(episodes, tmp_path, capsys):
    for given in (['--to', 'bag', '--fps', '5'], ['--to', 'native', '--codec', 'av1']):
        assert main(['data', 'convert', str(episodes), str(tmp_path / 'copy'), *given]) == 2
    told = capsys.readouterr().err
    assert 'keeps the times of the recording' in told and 'episodes of our own are h264' in told


def test_check_names_what_is_wrong_and_ends_with_one(episodes, capsys):
    video = episodes / '1/left.mp4'
    video.write_bytes(video.read_bytes()[:600])
    assert main(['data', 'check', str(episodes)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert (
        told[0].startswith("Episode 1: camera 'left' cannot be read: ") and told[-1] == '1 fault: 1 in 1 of 2 episodes.'
    )
    assert main(['data', 'check', str(episodes), '--json']) == 1
    assert json.loads(capsys.readouterr().out)[0]['episode'] == 1
    assert main(['data', 'check', str(episodes), '--no-frames']) == 0


def test_what_is_no_data_set_is_one_sentence(tmp_path, capsys):
    assert main(['data', 'check', str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert 'no data set of a known format' in told and 'wristworld_videos.yaml' in told
    assert main(['data', 'check', str(tmp_path / 'none')]) == 2
    assert 'There is no' in capsys.readouterr().err


@pytest.mark.parametrize(
    'name', ['missing_stats', 'no_episode_video_cols', 'short_video', 'ts_shift', 'wrong_fps', 'wrong_total']
)
def test_broken_sets_end_with_one(name):
    path = Path(os.environ.get('WRISTWORLD_DATA', ''), 'lerobot/lerobot_broken', name)
    if not os.environ.get('WRISTWORLD_DATA') or not path.is_dir():
        pytest.skip('WRISTWORLD_DATA names no folder with lerobot')
    assert main(['data', 'check', str(path)]) == 1


def test_a_copy_replaces_neither_its_source_nor_what_it_lies_in(episodes, tmp_path, capsys):
    source = tmp_path / 'set'
    assert main(['data', 'convert', str(episodes), str(source)]) == 0
    before = {path: path.read_bytes() for path in source.rglob('*') if path.is_file()}
    (tmp_path / 'link').symlink_to(source)
    for given, target in ((source, source), (tmp_path / 'link', source), (source, source / 'copy')):
        assert main(['data', 'convert', str(given), str(target), '--force']) == 2
        assert 'lie within each other' in capsys.readouterr().err
    assert {path: path.read_bytes() for path in source.rglob('*') if path.is_file()} == before
    assert main(['data', 'convert', str(episodes), str(tmp_path / 'videos'), '--to', 'videos']) == 0
    mapping = (tmp_path / 'videos/wristworld_videos.yaml').read_text()
    (tmp_path / 'elsewhere.yaml').write_text(f'{mapping}\nroot: {tmp_path / "videos"}\n')
    capsys.readouterr()
    assert main(['data', 'convert', str(tmp_path / 'elsewhere.yaml'), str(tmp_path / 'videos/copy')]) == 2
    assert 'lie within each other' in capsys.readouterr().err


def test_what_inspect_is_given_in_vain_is_refused(episodes, tmp_path, capsys):
    (tmp_path / 'arm.txt').write_text('no xml')
    for options, said in (
        (['--urdf', str(tmp_path / 'arm.txt')], "arm.txt: The robot description is not a URDF that can be read (syntax error: line 1, column 0)"),
        (['--base-link', 'base'], 'base_link is given without a robot description; give --urdf as well'),
    ):  # fmt: skip
        assert main(['data', 'inspect', str(episodes), *options]) == 2
        assert said in capsys.readouterr().err
