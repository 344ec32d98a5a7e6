"""Raw recordings of DROID: metadata, trajectory and videos become episodes, and what is wrong is named."""

import json

import h5py
import numpy as np
import pytest

from wristworld_ros.data.check import check_data_set
from wristworld_ros.data.poses import pose_from_xyz_rpy
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.data.video import read_frames, write_video
from wristworld_ros.errors import UserError

STEPS = 8
SERIALS = {'wrist_cam_serial': '11', 'ext1_cam_serial': '22', 'ext2_cam_serial': '33'}


@pytest.fixture
def folder(make, tmp_path):
    """One episode, a few folders down as in the release."""
    path = tmp_path / 'droid/LAB/success/2023-01-01/one'
    rng = np.random.default_rng(0)
    for serial in SERIALS.values():
        (path / 'recordings/MP4').mkdir(parents=True, exist_ok=True)
        write_video(
            path / f'recordings/MP4/{serial}.mp4', [make.scene(i + int(serial), 64, 48) for i in range(STEPS + 1)], 60
        )
    said = SERIALS | {'uuid': 'x', 'success': True, 'current_task': 'Do it', 'trajectory_length': STEPS}
    (path / 'metadata_x.json').write_text(json.dumps(said))
    with h5py.File(path / 'trajectory.h5', 'w') as file:
        state = file.create_group('observation/robot_state')
        state['joint_positions'] = rng.normal(size=(STEPS, 7))
        state['cartesian_position'] = rng.uniform(-1, 1, (STEPS, 6))
        state['gripper_position'] = rng.uniform(size=STEPS)
        file['observation/timestamp/robot_state/read_start'] = 1_700_000_000_000 + np.arange(STEPS) * 67
        for serial in SERIALS.values():
            file[f'observation/camera_extrinsics/{serial}_left'] = np.tile(np.arange(6) / 10, (STEPS, 1))
        file['action/joint_position'] = rng.normal(size=(STEPS, 7))
        file['action/gripper_position'] = rng.uniform(size=STEPS)
    return path


def test_an_episode_is_read_whole(folder, tmp_path):
    data = open_data_set(tmp_path / 'droid')
    episode = data.episode(0)
    assert len(data) == 1 and len(episode) == STEPS and episode.task == 'Do it' and episode.success is True
    assert [(c.name, c.role) for c in episode.cameras] == [
        ('exterior_1', 'anchor'),
        ('exterior_2', 'anchor'),
        ('wrist', 'wrist'),
    ]
    np.testing.assert_array_equal(
        episode.read('exterior_2', [7, 1]), read_frames(folder / 'recordings/MP4/33.mp4')[[7, 1]]
    )
    with h5py.File(folder / 'trajectory.h5') as file:
        np.testing.assert_array_equal(episode.joints, file['observation/robot_state/joint_positions'])
        poses = pose_from_xyz_rpy(file['observation/robot_state/cartesian_position'])
        np.testing.assert_allclose(episode.T_base_hand, poses)
    assert (
        episode.actions.shape == (STEPS, 8) and episode.gripper_unit == 'closed' and episode.hand_link == 'panda_link8'
    )
    assert np.diff(episode.stamps_ns).tolist() == [67_000_000] * (STEPS - 1)
    assert [problem.what for problem in check_data_set(data)] == []


def test_where_cameras_are_said_to_be_is_a_claim_and_not_their_pose(folder):
    episode = open_data_set(folder).episode(0)
    assert sorted(episode.meta['claimed_T_base_camera']) == ['exterior_1', 'exterior_2']
    assert episode.T_camera_world('exterior_1') is None and episode.K('wrist') is None


def test_damage_is_named_with_episode_and_place(folder):
    write_video(folder / 'recordings/MP4/22.mp4', [np.zeros((48, 64, 3), np.uint8)] * 5, 60)
    with h5py.File(folder / 'trajectory.h5', 'a') as file:
        file['observation/robot_state/joint_positions'][4, 2] = np.nan
    assert [problem.what for problem in check_data_set(open_data_set(folder))] == [
        'Episode one: joints of frame 4 is not finite.',
        "Episode one: frames 5 to 7 have no image of camera 'exterior_1' (the video has 5 images).",
    ]


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (lambda f: (f / 'metadata_x.json').unlink(), 'has no metadata_<uuid>.json'),
        (lambda f: (f / 'trajectory.h5').write_bytes(b'none'), 'cannot be read as HDF5'),
        (lambda f: (f / 'recordings/MP4/11.mp4').unlink(), 'There is no video file'),
        (lambda f: (f / 'metadata_x.json').write_text('{"wrist_cam_serial": "../11"}'), 'wrist_cam_serial of'),
        (lambda f: (f / 'metadata_x.json').write_text('{}'), 'names no camera'),
    ],
)
def test_what_cannot_be_read_is_one_sentence(folder, damage, words):
    damage(folder)
    with pytest.raises(UserError, match=words) as error:
        open_data_set(folder).episode(0)
    assert '\n' not in str(error.value)


def test_missing_and_uneven_columns_are_named(folder):
    with h5py.File(folder / 'trajectory.h5', 'a') as file:
        del file['action/gripper_position']
        file['action/gripper_position'] = np.zeros(STEPS)
        del file['observation/robot_state/gripper_position']
    with pytest.raises(UserError, match='lacks observation/robot_state/gripper_position'):
        open_data_set(folder).episode(0)
    with h5py.File(folder / 'trajectory.h5', 'a') as file:
        file['observation/robot_state/gripper_position'] = np.zeros(STEPS - 1)
    with pytest.raises(UserError, match='8 rows of joints, 7 rows of gripper'):
        open_data_set(folder).episode(0)
