"""What lerobot wrote is read from its head to its frames, in both versions."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wristworld_ros.data.episode import role_of
from wristworld_ros.data.formats.lerobot.depth import DepthCode
from wristworld_ros.data.formats.lerobot.layout import Feature, path_in_set
from wristworld_ros.data.poses import pose_from_xyz_rpy
from wristworld_ros.data.sets import open_data_set, open_episode
from wristworld_ros.data.video import read_frames
from wristworld_ros.errors import UserError

EXTERIOR, WRIST = 'observation.images.exterior', 'observation.images.wrist'
SETS = ('lerobot_v30_tiny', 'lerobot_v21_tiny', 'lerobot_v21_to_v30_converted')


@pytest.mark.parametrize('name', SETS)
def test_a_stored_set_is_read_whole(stored, name):
    data = open_data_set(stored / name)
    opened = [data.episode(i) for i in range(3)]
    assert data.format == f'LeRobot {"v2.1" if name == "lerobot_v21_tiny" else "v3.0"}'
    assert [len(episode) for episode in opened] == [20, 18, 22]
    assert [episode.task for episode in opened] == ['pick the cube', 'open the drawer', 'pick the cube']
    for episode in opened:
        assert [(c.name, c.role, c.width, c.height) for c in episode.cameras] == [
            (EXTERIOR, 'anchor', 64, 48),
            (WRIST, 'wrist', 64, 48),
        ]
        np.testing.assert_allclose(np.diff(episode.stamps_ns), 1e9 / 15, atol=100)
        assert episode.joints.shape == (len(episode), 7) and episode.actions.shape == (len(episode), 7)
        np.testing.assert_allclose(episode.joints[0], np.sin(np.arange(7)), atol=1e-6)
        assert episode.gripper[0] == pytest.approx(np.sin(7), abs=1e-6)
        assert episode.K(WRIST) is None and episode.T_camera_world(WRIST) is None and episode.T_base_hand is None


def test_an_episode_of_a_shared_file_is_its_own_part_of_it(stored):
    data = open_data_set(stored / 'lerobot_v30_tiny')
    whole = read_frames(stored / f'lerobot_v30_tiny/videos/{EXTERIOR}/chunk-000/file-000.mp4')
    second = data.episode(1)
    np.testing.assert_array_equal(second.rgb(EXTERIOR), whole[20:38])
    np.testing.assert_array_equal(second.read(EXTERIOR, [17, 0, 5]), whole[[37, 20, 25]])
    np.testing.assert_array_equal(np.stack(list(second.rgb_frames(EXTERIOR))), whole[20:38])


def test_both_versions_of_the_same_recording_are_the_same(stored):
    old, new = (open_data_set(stored / name) for name in SETS[1:])
    for i in range(3):
        for camera in (EXTERIOR, WRIST):
            np.testing.assert_array_equal(old.episode(i).rgb(camera), new.episode(i).rgb(camera))
        np.testing.assert_array_equal(old.episode(i).actions, new.episode(i).actions)


def test_a_frame_beyond_the_episode_is_refused(stored):
    episode = open_data_set(stored / 'lerobot_v30_tiny').episode(0)
    with pytest.raises(IndexError, match='of 20'):
        episode.read(EXTERIOR, [20])  # it is there, but of the next episode
    with pytest.raises(UserError, match="no camera 'left'"):
        episode.read('left', [0])


def test_one_episode_of_several_has_to_be_named(stored):
    with pytest.raises(UserError, match='holds 3 episodes; say which one'):
        open_episode(stored / 'lerobot_v30_tiny')
    with pytest.raises(UserError, match='number 3 is asked for'):
        open_episode(stored / 'lerobot_v30_tiny', 3)
    assert len(open_episode(stored / 'lerobot_v30_tiny', 2)) == 22


def test_images_within_the_table_are_read(written):
    """openpi's ports hold their images as PNG in the Parquet files, and call the columns without `observation`."""
    import cv2

    root = written()
    info = json.loads((root / 'meta/info.json').read_text())
    path = root / 'data/chunk-000/file-000.parquet'
    images = np.random.default_rng(0).integers(0, 256, (24, 20, 30, 3), np.uint8)
    cells = [{'bytes': cv2.imencode('.png', image[..., ::-1])[1].tobytes(), 'path': None} for image in images]
    kind = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    pq.write_table(pq.read_table(path).append_column('wrist_image_left', pa.array(cells, kind)), path)
    info['features']['wrist_image_left'] = {
        'dtype': 'image',
        'shape': [20, 30, 3],
        'names': ['height', 'width', 'channel'],
    }
    (root / 'meta/info.json').write_text(json.dumps(info))
    episode = open_data_set(root).episode(1)
    assert episode.camera('wrist_image_left').role == 'wrist'
    np.testing.assert_array_equal(episode.read('wrist_image_left', [3, 0]), images[[15, 12]])


def test_the_names_of_droid_s_port_are_known(written):
    root = written()
    info = json.loads((root / 'meta/info.json').read_text())
    path = root / 'data/chunk-000/file-000.parquet'
    table, rng = pq.read_table(path), np.random.default_rng(0)
    poses = np.concatenate([rng.normal(size=(24, 3)), rng.uniform(-1, 1, (24, 3))], 1)
    vectors = {
        'observation.state.joint_position': rng.normal(size=(24, 7)), 'observation.state.cartesian_position': poses,
        'camera_extrinsics.left': np.tile(poses[0], (24, 1)), 'camera_extrinsics.wrist': np.tile(poses[1], (24, 1)),
    }  # fmt: skip
    for name, values in vectors.items():
        table = table.append_column(
            name, pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        )
        info['features'][name] = {'dtype': 'float64', 'shape': [values.shape[1]], 'names': None}
    table = table.append_column('observation.state.gripper_position', pa.array(np.linspace(0, 1, 24)))
    info['features']['observation.state.gripper_position'] = {'dtype': 'float64', 'shape': [1], 'names': None}
    table = table.drop_columns(['observation.state.hand_pose'])
    del info['features']['observation.state.hand_pose']
    pq.write_table(table, path)
    (root / 'meta/info.json').write_text(json.dumps(info))
    episode = open_data_set(root).episode(1)
    np.testing.assert_array_equal(episode.joints, vectors['observation.state.joint_position'][12:])
    assert episode.gripper_unit == 'closed' and episode.gripper[-1] == 1
    np.testing.assert_allclose(episode.T_base_hand, pose_from_xyz_rpy(poses[12:]))
    assert episode.hand_link == 'panda_link8'
    claimed = episode.meta['claimed_T_base_camera']
    assert list(claimed) == ['observation.images.left'], 'that of the wrist does not move with the hand'
    np.testing.assert_allclose(claimed['observation.images.left'], pose_from_xyz_rpy(poses[0]))


def test_depth_becomes_codes_and_back_within_a_step():
    code, depth = DepthCode(), np.linspace(0.02, 9.9, 2000).reshape(40, 50)
    depth[0, 0] = depth[0, 1] = 0
    depth[0, 1] = np.nan
    back = code.decode(code.encode(depth))
    assert back[0, 0] == back[0, 1] == 0
    known = np.isfinite(depth) & (depth > 0)
    assert np.abs(back - depth)[known].max() < 0.5 * (10 + 3.5) * np.log(13.5 / 3.51) / 4095 * 1.01
    assert code.encode(np.array([0.001, 50.0])).tolist() == [1, 4095]


@pytest.mark.parametrize(
    ('shape', 'names', 'hw'),
    [
        ((480, 640, 3), ['height', 'width', 'channels'], (480, 640)),
        ((3, 480, 640), ['channels', 'height', 'width'], (480, 640)),
        ((3, 480, 640), None, (480, 640)),
        ((480, 640, 3), None, (480, 640)),
    ],
)
def test_the_size_of_images_is_known_whichever_way_round(shape, names, hw):
    assert Feature('video', shape, names).image_hw == hw


@pytest.mark.parametrize(
    'name',
    ['../{video_key}.mp4', '/etc/{video_key}', '{episode_index.__class__}', '{video_key!r}', '{other}', '{video_key'],
)
def test_a_path_that_leads_out_of_the_set_is_refused(name, tmp_path):
    with pytest.raises(UserError, match='has the path'):
        path_in_set(name, tmp_path / 'info.json', video_key='a', episode_index=1)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'codebase_version': 'v1.6'}, "codebase_version 'v1.6'"),
        ({'fps': 0}, 'fps: expected'),
        ({'features': None}, 'features: expected'),
        ({'data_path': '../{chunk_index}.parquet'}, 'keep the files of a set in its directory'),
    ],
)
def test_a_head_that_is_not_one_is_one_sentence(written, change, words):
    root = written()
    info = json.loads((root / 'meta/info.json').read_text())
    (root / 'meta/info.json').write_text(json.dumps(info | change))
    with pytest.raises(UserError, match=words) as error:
        open_data_set(root)
    assert '\n' not in str(error.value)


def test_names_of_cameras_say_where_they_are():
    assert [role_of(n) for n in ('wrist_left', 'rgb_gripper', 'cam_left_wrist', 'exterior_1_left', 'top')] == [
        'wrist', 'wrist', 'wrist', 'anchor', 'anchor',
    ]  # fmt: skip
