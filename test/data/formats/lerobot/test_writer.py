"""What is written is read back as it was, with the statistics that lerobot would have computed."""

import errno
import json
import pickle
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wristworld_ros.data.check import check_data_set
from wristworld_ros.data.formats.lerobot.stats import HistogramStats, combine, vector_stats
from wristworld_ros.data.formats.lerobot.writer import WriteSettings, regular_frames, write_lerobot
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.errors import UserError
from wristworld_ros.runtime.files import write_error

LEFT, WRIST = 'observation.images.left', 'observation.images.wrist'


@pytest.mark.parametrize('version', ['v3.0', 'v2.1'])
@pytest.mark.parametrize('codec', ['h264', 'av1'])
def test_our_own_episodes_come_back(episodes, written, version, codec):
    data = open_data_set(written(version=version, codec=codec))
    assert [problem.what for problem in check_data_set(data)] == []
    for i in range(2):
        before, after = episodes.episode(i), data.episode(i)
        assert after.task == before.task and len(after) == len(before) and after.fps == 10
        assert [(c.name, c.role, c.has_depth) for c in after.cameras] == [
            (LEFT, 'anchor', version == 'v3.0'),
            (WRIST, 'wrist', False),
        ]
        np.testing.assert_array_equal(after.stamps_ns - after.stamps_ns[0], before.stamps_ns - before.stamps_ns[0])
        for name in ('joints', 'gripper', 'actions', 'T_base_hand'):
            np.testing.assert_allclose(getattr(after, name), getattr(before, name), atol=1e-6)
        assert (after.gripper_unit, after.hand_link) == ('metres', 'panda_hand')
        np.testing.assert_array_equal(after.K(LEFT), before.K('left'))
        np.testing.assert_array_equal(after.T_camera_world(WRIST), before.T_camera_world('wrist'))
        off = np.abs(after.rgb(LEFT).astype(float) - before.rgb('left'))
        assert off.mean() < 4, 'the images are those of the same frames'


def test_depth_comes_back_within_a_step_of_its_code(episodes, written):
    before, after = episodes.episode(1), open_data_set(written()).episode(1)
    depth, truth = after.read_depth(LEFT, [3, 9]), before.depth('left')[[3, 9]]
    assert (depth[:, :5, :5] == 0).all()
    np.testing.assert_allclose(depth, truth, atol=0.003)
    assert depth.dtype == np.float32 and depth.shape == truth.shape


def test_both_versions_of_a_stored_set_are_copied_without_loss(stored, tmp_path):
    for name, version in (('lerobot_v30_tiny', 'v2.1'), ('lerobot_v21_tiny', 'v3.0'), ('lerobot_v30_tiny', 'v3.0')):
        source = open_data_set(stored / name)
        target = tmp_path / f'{name}-{version}'
        report = write_lerobot(target, [partial(source.episode, i) for i in (2, 0, 1)], WriteSettings(version))
        copy = open_data_set(target)
        assert (report.episodes, report.frames, report.left_out) == (3, 60, [])
        assert [problem.what for problem in check_data_set(copy)] == []
        for new, old in enumerate((2, 0, 1)):
            before, after = source.episode(old), copy.episode(new)
            for camera in before.cameras:
                np.testing.assert_array_equal(after.rgb(camera.name), before.rgb(camera.name))
            left = before.table().content.drop_columns(['episode_index', 'index', 'task_index'])
            assert after.table().content.select(left.column_names).equals(left)
            assert after.task == before.task


def test_numbers_are_counted_as_lerobot_counts_them(stored, tmp_path):
    source = open_data_set(stored / 'lerobot_v30_tiny')
    write_lerobot(tmp_path / 'copy', [partial(source.episode, i) for i in range(3)])
    ours, theirs = (json.loads((p / 'meta/stats.json').read_text()) for p in (tmp_path / 'copy', source.path))
    assert set(ours) == set(theirs)
    for key, entry in theirs.items():
        assert set(ours[key]) == set(entry) and ours[key]['count'] == entry['count']
        is_image = key.startswith('observation.images')
        for name in ('mean', 'std') if is_image else ('min', 'max', 'mean', 'std'):
            # The images that lerobot counted were those before they were coded.
            np.testing.assert_allclose(ours[key][name], entry[name], atol=0.03 if is_image else 2e-6)
    rows = pq.read_table(tmp_path / 'copy/meta/episodes/chunk-000/file-000.parquet').to_pylist()
    stored_rows = pq.read_table(source.path / 'meta/episodes/chunk-000/file-000.parquet').to_pylist()
    assert set(rows[0]) == set(stored_rows[0])
    for name in (
        'dataset_from_index',
        'dataset_to_index',
        f'videos/{WRIST}/from_timestamp',
        f'videos/{WRIST}/to_timestamp',
    ):
        assert [row[name] for row in rows] == pytest.approx([row[name] for row in stored_rows])


def test_tables_have_the_types_of_lerobot_s_own(stored, tmp_path):
    source = open_data_set(stored / 'lerobot_v30_tiny')
    write_lerobot(tmp_path / 'copy', [partial(source.episode, 0)])
    for name in ('data/chunk-000/file-000.parquet', 'meta/episodes/chunk-000/file-000.parquet', 'meta/tasks.parquet'):
        ours, theirs = (pq.read_schema(root / name) for root in (tmp_path / 'copy', source.path))
        assert {f.name: f.type for f in ours} == {f.name: f.type for f in theirs}
    ours, theirs = (
        json.loads(pq.read_schema(root / 'data/chunk-000/file-000.parquet').metadata[b'huggingface'])['info']
        for root in (tmp_path / 'copy', source.path)
    )
    assert ours == theirs


def test_histograms_give_what_all_pixels_give():
    images = np.random.default_rng(3).integers(0, 256, (5, 20, 30, 3), np.uint8)
    stats = HistogramStats(np.arange(256) / 255, 3, len(images))
    for image in images:
        stats.add(image)
    found, pixels = stats.result(), images.reshape(-1, 3) / 255
    assert found['mean'].shape == (3, 1, 1) and found['count'].tolist() == [5]
    for name, truth in (
        ('min', pixels.min(0)),
        ('max', pixels.max(0)),
        ('mean', pixels.mean(0)),
        ('std', pixels.std(0)),
    ):
        np.testing.assert_allclose(found[name][:, 0, 0], truth, atol=1e-9)
    np.testing.assert_allclose(found['q10'][:, 0, 0], np.quantile(pixels, 0.1, axis=0, method='inverted_cdf'))


def test_statistics_of_parts_combine_to_those_of_the_whole():
    values = np.random.default_rng(1).normal(size=(50, 4)) * [1, 10, 100, 0]
    whole, parts = vector_stats(values), combine([vector_stats(values[:13]), vector_stats(values[13:])])
    for name in ('min', 'max', 'mean', 'std', 'count'):
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-12)


def test_a_damaged_episode_is_left_out_whole_and_named(stored, tmp_path):
    source = open_data_set(stored / 'lerobot_broken/short_video')
    report = write_lerobot(tmp_path / 'copy', [partial(source.episode, i) for i in (2, 0, 1)])
    assert report.episodes == 2 and len(report.left_out) == 1
    assert report.left_out[0].startswith('Episode 0 is left out: Frame 7 of episode 2, camera')
    copy = open_data_set(tmp_path / 'copy')
    assert [problem.what for problem in check_data_set(copy)] == [] and [len(copy.episode(i)) for i in range(2)] == [
        20,
        18,
    ]


def test_without_a_good_episode_nothing_is_left(episodes, tmp_path):
    def broken():
        raise UserError('It is torn', 'glue it')

    with pytest.raises(UserError, match='Episode 0 is left out: It is torn'):
        write_lerobot(tmp_path / 'copy', [broken])
    assert list(tmp_path.iterdir()) == []


def test_another_rate_repeats_and_leaves_out_frames(episodes, written):
    fast, slow = (open_data_set(written(f'{fps}', fps=fps)).episode(0) for fps in (20, 5))
    before = episodes.episode(0)
    assert len(slow) == 6 and len(fast) == 23
    np.testing.assert_allclose(slow.joints, before.joints[::2], atol=1e-6)
    np.testing.assert_allclose(fast.joints[::2], before.joints, atol=1e-6)


def test_frames_of_an_uneven_recording_are_taken_nearest_to_even_times():
    even = np.arange(10) * 100_000_000
    jitter = np.random.default_rng(0).integers(-40_000_000, 40_000_000, 10)
    jitter[0] = 0
    np.testing.assert_array_equal(regular_frames(even + jitter, 10), np.arange(10))
    gap = np.array([0, 1, 2, 5, 6]) * 100_000_000
    assert regular_frames(gap, 10).tolist() == [0, 1, 2, 2, 3, 3, 4]
    assert regular_frames(np.array([7]), 10).tolist() == [0]


def test_an_episode_that_does_not_fit_the_first_is_left_out(episodes, stored, tmp_path):
    other = open_data_set(stored / 'lerobot_v30_tiny')
    report = write_lerobot(tmp_path / 'copy', [partial(episodes.episode, 0), partial(other.episode, 0)])
    assert report.episodes == 1 and "camera 'observation.images.left' is missing" in report.left_out[0]


def test_depth_of_another_set_is_taken_as_it_is(written, tmp_path):
    source = open_data_set(written())
    write_lerobot(tmp_path / 'copy', [partial(source.episode, i) for i in range(2)])
    copy = open_data_set(tmp_path / 'copy')
    assert [problem.what for problem in check_data_set(copy)] == []
    for i in range(2):
        before, after = source.episode(i), copy.episode(i)
        np.testing.assert_array_equal(after.depth(LEFT), before.depth(LEFT))
        np.testing.assert_array_equal(after.rgb(WRIST), before.rgb(WRIST))
        np.testing.assert_array_equal(after.T_camera_world(LEFT), before.T_camera_world(LEFT))


def test_a_set_and_its_episodes_can_go_to_other_processes(written):
    data = open_data_set(written())
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again.episode(1).read(WRIST, [5]), data.episode(1).read(WRIST, [5]))
    episode = pickle.loads(pickle.dumps(data.episode(0)))
    np.testing.assert_array_equal(episode.read(LEFT, [2]), data.episode(0).read(LEFT, [2]))


def test_tasks_that_change_within_an_episode_stay(written, tmp_path):
    root = written()
    path = root / 'data/chunk-000/file-000.parquet'
    table = pq.read_table(path)
    numbers = [i % 2 for i in range(len(table))]
    place = table.column_names.index('task_index')
    pq.write_table(table.set_column(place, 'task_index', pa.array(numbers)), path)
    source = open_data_set(root)
    write_lerobot(tmp_path / 'copy', [partial(source.episode, 1)])
    copy = open_data_set(tmp_path / 'copy')
    assert copy.episode(0).language == ('lift', 'push')
    assert copy.episode(0).table().array('task_index').tolist() == [0, 1] * 6


def test_a_full_disk_ends_it_and_nothing_is_left(episodes, tmp_path, monkeypatch):
    from wristworld_ros.data.formats.lerobot import writer

    def full(path, *args, **options):
        raise write_error(path, OSError(errno.ENOSPC, 'No space left on device'))

    monkeypatch.setattr(writer, 'write_video', full)
    with pytest.raises(UserError, match='No space left on device'):
        write_lerobot(tmp_path / 'copy', [partial(episodes.episode, i) for i in range(2)])
    assert list(tmp_path.iterdir()) == []
