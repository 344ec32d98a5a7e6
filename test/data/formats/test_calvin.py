"""CALVIN's folders of steps become episodes, and nothing that its pickled texts name is run."""

import pickle

import numpy as np
import pytest

from wristworld_ros.data.check import check_data_set
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.errors import UserError

FIRST, STEPS = 358, 6


@pytest.fixture
def folder(tmp_path):
    """Two episodes with a gap of numbers between them."""
    path, rng = tmp_path / 'training', np.random.default_rng(0)
    path.mkdir()
    for number in (*range(FIRST, FIRST + STEPS), *range(900, 904)):
        np.savez(
            path / f'episode_{number:07d}.npz', rgb_static=np.full((20, 20, 3), number % 251, np.uint8),
            rgb_gripper=np.full((8, 8, 3), number % 7, np.uint8), depth_static=np.full((20, 20), 1 + number % 5, np.float32),
            depth_gripper=np.zeros((8, 8), np.float32), actions=np.zeros(7), rel_actions=rng.normal(size=7),
            robot_obs=np.arange(15) + number / 1000, scene_obs=np.zeros(24),
        )  # fmt: skip
    np.save(path / 'ep_start_end_ids.npy', np.array([[FIRST, FIRST + STEPS - 1], [900, 903]]))
    (path / 'lang_annotations').mkdir()
    texts = {'language': {'ann': ['push it', 'lift it'], 'task': ['push', 'lift'], 'emb': np.zeros((2, 1, 3))}}
    texts |= {'info': {'episodes': [], 'indx': [(FIRST + 1, FIRST + 3), (900, 902)]}}
    np.save(path / 'lang_annotations/auto_lang_ann.npy', texts, allow_pickle=True)
    return path


def test_episodes_are_read_step_by_step(folder):
    data = open_data_set(folder)
    episode = data.episode(0)
    assert data.format == 'CALVIN' and [len(data.episode(i)) for i in range(2)] == [STEPS, 4]
    assert [(c.name, c.role, c.width, c.has_depth) for c in episode.cameras] == [
        ('static', 'anchor', 20, True),
        ('gripper', 'wrist', 8, True),
    ]
    assert episode.read('static', [5, 0])[:, 0, 0, 0].tolist() == [(FIRST + 5) % 251, FIRST % 251]
    assert episode.read_depth('static', [1])[0, 0, 0] == 1 + (FIRST + 1) % 5
    np.testing.assert_allclose(episode.joints[2], np.arange(7, 14) + (FIRST + 2) / 1000)
    np.testing.assert_allclose(episode.gripper, 6 + np.arange(FIRST, FIRST + STEPS) / 1000)
    assert episode.fps == 30 and episode.meta['segments'] == [(1, 3, 'push it')]
    assert data.episode(1).meta['segments'] == [(0, 2, 'lift it')]
    assert [problem.what for problem in check_data_set(data)] == []


def test_damage_is_named_and_the_rest_is_read(folder):
    path = folder / f'episode_{FIRST + 2:07d}.npz'
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{key: value for key, value in arrays.items() if key != 'rgb_gripper'})
    (folder / 'episode_0000901.npz').write_bytes(b'none')
    found = [problem.what for problem in check_data_set(open_data_set(folder))]
    assert found == [
        f"Episode 0: frame 2 has no image of camera 'gripper' ({path} lacks rgb_gripper).",
        f'Episode 1: {folder / "episode_0000901.npz"} cannot be read as arrays (File is not a zip file).',
    ]


def test_what_a_pickle_names_is_not_run(folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return exec, (f'open({str(tmp_path / "sprung")!r}, "w")',)

    array = np.empty((), object)
    array[()] = {'language': Trap()}
    np.save(folder / 'lang_annotations/auto_lang_ann.npy', array, allow_pickle=True)
    with pytest.raises(UserError, match=r'it names builtins\.exec'):
        open_data_set(folder).episode(0)
    assert not (tmp_path / 'sprung').exists()


def test_bounds_that_are_none_are_one_sentence(folder):
    for content in (np.zeros((2, 3), int), np.array([[5, 2]]), np.array([[0.5, 1.0]])):
        np.save(folder / 'ep_start_end_ids.npy', content)
        with pytest.raises(UserError, match='rows of first and last step are wanted'):
            open_data_set(folder)
    (folder / 'ep_start_end_ids.npy').write_bytes(pickle.dumps(1))
    with pytest.raises(UserError, match='cannot be read'):
        open_data_set(folder)
