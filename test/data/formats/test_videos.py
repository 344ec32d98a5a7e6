"""Folders of videos: a mapping says what lies where, and the released examples of DROID are known without one."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from wristworld_ros.data.check import check_data_set
from wristworld_ros.data.poses import pose_from_xyz_rpy
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.data.video import read_frames, write_video
from wristworld_ros.errors import UserError

FRAMES, STRIDE = 10, 3


@pytest.fixture
def folder(make, tmp_path):
    """Two episodes with two cameras and numbers at three times the rate of the images."""
    root, rng = tmp_path / 'set', np.random.default_rng(0)
    for number in (2, 10):
        for camera in ('top', 'hand'):
            path = root / f'movies/{number}/{camera}.mp4'
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, [make.scene(i + number, 64, 48) for i in range(FRAMES)], 5)
        said = {
            'q': rng.normal(size=(FRAMES * STRIDE - 1, 7)).tolist(), 'grip': rng.uniform(size=FRAMES * STRIDE - 1).tolist(),
            'pose': rng.uniform(-1, 1, (FRAMES * STRIDE - 1, 6)).tolist(), 'say': ['pick it', ''], 'ok': 1,
        }  # fmt: skip
        (root / f'{number}.json').write_text(json.dumps(said))
    mapping = {
        'annotations': '*.json', 'stride': STRIDE, 'joints': 'q', 'gripper': 'grip', 'gripper_unit': 'closed', 'hand_pose': 'pose',
        'hand_link': 'panda_link8', 'actions': ['q', 'grip'], 'language': 'say', 'success': 'ok',
        'cameras': {'top': {'video': 'movies/{stem}/top.mp4'}, 'eye': {'video': 'movies/{stem}/hand.mp4', 'role': 'wrist'}},
    }  # fmt: skip
    (root / 'wristworld_videos.yaml').write_text(yaml.safe_dump(mapping, sort_keys=False))
    return root


def change(folder, **entries):
    path = folder / 'wristworld_videos.yaml'
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | entries, sort_keys=False))
    return folder


def test_images_and_numbers_are_what_the_mapping_says(folder):
    data = open_data_set(folder)
    assert [data.episode(i).path.stem for i in range(len(data))] == ['2', '10'], 'in order of number'
    episode, said = data.episode(1), json.loads((folder / '10.json').read_text())
    assert [(c.name, c.role, c.width, c.height) for c in episode.cameras] == [
        ('top', 'anchor', 64, 48),
        ('eye', 'wrist', 64, 48),
    ]
    whole = read_frames(folder / 'movies/10/hand.mp4')
    np.testing.assert_array_equal(episode.read('eye', [7, 0]), whole[[7, 0]])
    np.testing.assert_array_equal(episode.joints, np.array(said['q'])[::3])
    np.testing.assert_array_equal(episode.gripper, said['grip'][::3])
    np.testing.assert_allclose(episode.T_base_hand, pose_from_xyz_rpy(np.array(said['pose'])[::3]))
    assert episode.actions.shape == (FRAMES, 8) and (episode.gripper_unit, episode.hand_link) == (
        'closed',
        'panda_link8',
    )
    assert episode.language == ('pick it',) and episode.success is True and episode.fps == 5
    assert [problem.what for problem in check_data_set(data)] == []


def test_the_mapping_can_lie_elsewhere(folder, tmp_path):
    change(folder, root=str(folder))
    path = tmp_path / 'other.yaml'
    (folder / 'wristworld_videos.yaml').rename(path)
    assert len(open_data_set(path).episode(0)) == FRAMES


def test_a_camera_that_lags_gives_its_nearest_image(folder, make):
    write_video(folder / 'movies/2/hand.mp4', [make.scene(i, 64, 48) for i in range(4)], 2)
    episode = open_data_set(folder).episode(0)
    whole = read_frames(folder / 'movies/2/hand.mp4')
    np.testing.assert_array_equal(episode.read('eye', [0, 2, 3, 5]), whole[[0, 1, 1, 2]])
    assert episode.times_ns('eye')[[0, 2, 3, 5]].tolist() == [0, 500_000_000, 500_000_000, 1_000_000_000]
    found = [problem.what for problem in check_data_set(open_data_set(folder))]
    assert found == ["Episode set/2: camera 'eye' has 4 images, and 'top' has 10."]


def test_too_few_numbers_shorten_the_episode_and_are_told(folder):
    said = json.loads((folder / '2.json').read_text())
    (folder / '2.json').write_text(
        json.dumps({key: v[:14] if key in ('q', 'grip', 'pose') else v for key, v in said.items()})
    )
    data = open_data_set(folder)
    assert len(data.episode(0)) == 5
    found = [problem.what for problem in check_data_set(data)]
    assert found == ["Episode set/2: there are 14 rows of numbers, 3 per image, and 'top' has 10 images."]


@pytest.mark.parametrize(
    ('entries', 'words'),
    [
        ({'cameras': {}}, 'names no camera'),
        ({'cameras': {'a': {'video': '../{stem}.mp4'}}}, 'keep the videos below the root'),
        ({'cameras': {'a': {'video': 'none/{stem}.mp4'}}}, 'There is no video file'),
        ({'annotations': '*.txt'}, r'fits \*\.txt'),
        ({'annotations': '../*.json'}, 'no pattern of its episodes below the root'),
        ({'joints': 'none'}, 'lacks none'),
        ({'joints': 'say'}, 'no rows of equally many numbers'),
        ({'hand_pose': 'q', 'gripper': 'q'}, None),
        ({'stride': 0}, 'stride: expected `int` >= 1'),
        ({'colour': 1}, 'unknown key colour'),
    ],
)
def test_a_mapping_that_does_not_fit_is_one_sentence(folder, entries, words):
    change(folder, **entries)
    if words is None:
        assert open_data_set(folder).episode(0).T_base_hand.shape == (FRAMES, 4, 4)  # seven numbers: a quaternion
        return
    with pytest.raises(UserError, match=words) as error:
        open_data_set(folder).episode(0)
    assert '\n' not in str(error.value)


def test_the_released_examples_of_droid_are_read_whole():
    folder = Path(os.environ.get('WRISTWORLD_DATA', ''), 'droid_real')
    if not os.environ.get('WRISTWORLD_DATA') or not folder.is_dir():
        pytest.skip('WRISTWORLD_DATA names no folder with droid_real')
    data = open_data_set(folder)
    assert len(data) == 11
    lengths = {data.episode(i).name: len(data.episode(i)) for i in range(11)}
    assert lengths['episode train/0'] == 56 and lengths['episode val/199'] == 33
    episode = data.episode(1)
    assert episode.task == 'Put the blue block in the green bowl' and episode.joints.shape == (89, 7)
    assert [(c.role, c.width, c.height) for c in episode.cameras] == [('anchor', 320, 192)] * 2 + [('wrist', 320, 192)]
    # The hand's pose is that of link 8 of the plain Panda: its height over the table follows from joints 2, 4 and 6.
    np.testing.assert_allclose(np.linalg.norm(episode.T_base_hand[:, :3, 0], axis=1), 1, atol=1e-9)
    whole = read_frames(folder / 'videos/train/1/2.mp4')
    np.testing.assert_array_equal(episode.read('wrist', [88, 3]), whole[[88, 3]])
