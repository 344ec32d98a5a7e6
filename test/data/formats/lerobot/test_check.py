"""Every kind of damage is one sentence with its episode and place, and the rest is checked all the same."""

import json

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wristworld_ros.data.check import check_data_set
from wristworld_ros.data.sets import open_data_set

EXTERIOR, WRIST = 'observation.images.exterior', 'observation.images.wrist'
DATA, EPISODES = 'data/chunk-000/file-000.parquet', 'meta/episodes/chunk-000/file-000.parquet'
VIDEO = 'videos/{}/chunk-000/file-000.mp4'
BROKEN = {
    'short_video': [f"Episode 2: frames 7 to 21 have no image of camera '{WRIST}' (the nearest is at 2.9333 s, 66.7 ms off)."],
    'no_episode_video_cols': [
        f'meta/episodes lacks videos/{WRIST}/chunk_index, videos/{WRIST}/file_index, videos/{WRIST}/from_timestamp: '
        f"nothing says where the video of camera '{WRIST}' is, of every episode."
    ],
    'wrong_total': ['meta/info.json says total_frames 61, and the tables hold 60.'],
    'ts_shift': ['Episode 0: frame 5 is at 0.3533 s, 20.0 ms off its place at 15 frames a second.'],
    'missing_stats': [f"meta/stats.json has no statistics of '{WRIST}'."],
    'wrong_fps': ['meta/info.json says 30 frames a second, and the times of the episodes are 15 a second.'],
}  # fmt: skip


def problems(root):
    return [problem.what for problem in check_data_set(open_data_set(root))]


def change_column(root, name, change, path=DATA):
    """Write a column again: `change` takes its values as a list and returns them, or None to drop it."""
    table = pq.read_table(root / path)
    values = change(table[name].to_pylist())
    place = table.column_names.index(name)
    kind = table.schema.field(name).type
    table = table.remove_column(place)
    if values is not None:
        table = table.add_column(place, name, pa.array(values, kind))
    pq.write_table(table, root / path)


@pytest.mark.parametrize('version', ['v3.0', 'v2.1'])
def test_sets_that_are_written_here_have_no_faults(whole_sets, version):
    assert problems(whole_sets / version) == []


@pytest.mark.parametrize('name', ['lerobot_v30_tiny', 'lerobot_v21_tiny', 'lerobot_v21_to_v30_converted'])
def test_whole_sets_have_no_faults(stored, name):
    assert problems(stored / name) == []


@pytest.mark.parametrize('name', BROKEN)
def test_each_broken_set_is_named_for_what_it_is_in_one_sentence(stored, name):
    assert problems(stored / 'lerobot_broken' / name) == BROKEN[name]


def test_a_lost_packet_is_named_with_episode_and_frame(copied):
    root = copied()
    overwrite_packet(root / VIDEO.format(EXTERIOR), 23)
    (found,) = problems(root)
    assert found.startswith(f"Episode 1: frame 3 has no image of camera '{EXTERIOR}' (")


def overwrite_packet(path, number):
    """Fill a packet with 0xFF, as a bad disk does."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        packet = [(p.pos, p.size) for p in file.demux(video=0) if p.size][number]
    data[packet[0] : sum(packet)] = b'\xff' * packet[1]
    path.write_bytes(data)


def test_a_cut_video_is_named_for_every_episode_that_needs_it(copied):
    root = copied('v2.1')
    path = root / f'videos/chunk-000/{WRIST}/episode_000001.mp4'
    path.write_bytes(path.read_bytes()[:1500])
    (found,) = problems(root)
    assert found.startswith(f"Episode 1: camera '{WRIST}' cannot be read: The video") and 'cannot be decoded' in found


def test_a_missing_video_is_named(copied):
    root = copied('v2.1')
    (root / f'videos/chunk-000/{WRIST}/episode_000001.mp4').unlink()
    (found,) = problems(root)
    assert found.startswith(f"Episode 1: camera '{WRIST}' cannot be read: There is no video file")


def test_a_missing_column_is_named_and_frames_are_still_read(copied):
    root = copied()
    change_column(root, 'action', lambda values: None)
    assert problems(root) == [f"{DATA} lacks the column 'action' (from episode 0 on)."]
    episode = open_data_set(root).episode(1)
    assert episode.actions is None and episode.read(WRIST, [3]).shape == (1, 48, 64, 3)


def test_a_number_that_is_none_is_named_with_frame_and_entry(copied):
    root = copied()

    def spoil(values):
        values[25][2] = float('nan')
        return values

    change_column(root, 'observation.state', spoil)
    found = problems(root)
    assert found == ["Episode 1: 'observation.state[2]' of frame 5 is nan."]


def test_a_pose_that_is_none_is_named(copied):
    root = copied()
    name = 'camera.wrist.T_camera_base'

    def spoil(values):
        values[3] = [float('nan')] * 16
        return values

    change_column(root, name, spoil)
    found = problems(root)
    assert found == [f"Episode 0: '{name}[0]' of frame 3 is nan (16 values in all)."]


def test_rows_that_are_missing_are_counted(copied):
    root = copied()
    table = pq.read_table(root / DATA)
    pq.write_table(pa.concat_tables([table.slice(0, 36), table.slice(38)]), root / DATA)
    found = problems(root)
    assert found == [f'Episode 1: {root / DATA} holds 16 rows of it, and the table of episodes says 18.']


def test_counters_that_jump_are_named(copied):
    root = copied()
    change_column(root, 'index', lambda values: [v + (v > 40) for v in values])
    assert problems(root) == ['Episode 2: index of row 3 is 42, and 41 is wanted.']


def test_statistics_that_are_missing_are_named_wherever_they_are(copied):
    root = copied()
    stats = json.loads((root / 'meta/stats.json').read_text())
    del stats['action']['std']
    stats['observation.state']['mean'][2] = None
    (root / 'meta/stats.json').write_text(json.dumps(stats))
    table = pq.read_table(root / EPISODES)
    lacking = [name for name in table.column_names if name.startswith(f'stats/{WRIST}/')]
    pq.write_table(table.drop_columns(lacking), root / EPISODES)
    assert sorted(problems(root)) == [
        f"meta/episodes has no statistics of '{WRIST}' of any episode.",
        "meta/stats.json has statistics of 'observation.state' that are not finite.",
        "meta/stats.json lacks std of 'action'.",
    ]


def test_statistics_of_v21_are_looked_at_in_every_episode(copied):
    root = copied('v2.1')
    path = root / 'meta/episodes_stats.jsonl'
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    del lines[1]['stats'][WRIST]
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    assert problems(root) == [f"meta/episodes_stats.jsonl has no statistics of '{WRIST}' of episode 1."]


def test_a_number_with_image_in_its_name_is_named_where_lerobot_stumbles_over_it(copied):
    root = copied('v2.1')
    info = json.loads((root / 'meta/info.json').read_text())
    key = 'observation.images.wrist.valid'
    info['features'][key] = info['features'].pop('action')
    (root / 'meta/info.json').write_text(json.dumps(info))
    stats = root / 'meta/episodes_stats.jsonl'
    stats.write_text(stats.read_text().replace('"action"', f'"{key}"'))
    assert any(told.startswith(f"'{key}' has 'image' in its name and is none") for told in problems(root))


def test_statistics_of_v20_are_those_of_the_set(copied, whole_sets):
    root = copied('v2.1')
    info = json.loads((root / 'meta/info.json').read_text())
    (root / 'meta/info.json').write_text(json.dumps(info | {'codebase_version': 'v2.0'}))
    (root / 'meta/episodes_stats.jsonl').unlink()
    (root / 'meta/stats.json').write_text((whole_sets / 'v3.0/meta/stats.json').read_text())
    assert problems(root) == []
    (root / 'meta/stats.json').unlink()
    assert problems(root) == [f'{root}/meta/stats.json is missing.']


def test_parts_of_a_video_that_overlap_are_named(copied):
    root = copied()
    change_column(root, f'videos/{WRIST}/from_timestamp', lambda v: [v[0], v[0], v[2]], EPISODES)
    change_column(root, f'videos/{WRIST}/to_timestamp', lambda v: [v[0], 1.2, v[2]], EPISODES)
    assert problems(root) == [f"Episodes 0 and 1 overlap in {VIDEO.format(WRIST)}, the video of camera '{WRIST}'."]


def test_a_video_of_another_size_is_named(copied):
    root = copied()
    info = json.loads((root / 'meta/info.json').read_text())
    info['features'][EXTERIOR]['shape'] = [40, 64, 3]
    (root / 'meta/info.json').write_text(json.dumps(info))
    assert problems(root) == [f"{VIDEO.format(EXTERIOR)} is 64x48, and camera '{EXTERIOR}' is to be 64x40."]


def test_a_task_that_nobody_knows_is_named(copied):
    root = copied()
    change_column(root, 'task_index', lambda values: [7 if i >= 38 else v for i, v in enumerate(values)])
    assert problems(root) == ['Episode 2: its task_index is 7, which the table of tasks does not have.']


def test_a_data_file_that_is_torn_costs_its_own_episodes(copied):
    root = copied('v2.1')
    path = root / 'data/chunk-000/episode_000001.parquet'
    path.write_bytes(path.read_bytes()[:900])
    (found,) = problems(root)
    assert found.startswith(f'Episode 1: {path} cannot be read as a Parquet file')


def test_times_that_stand_still_are_named(copied):
    root = copied()
    change_column(root, 'timestamp', lambda values: [np.float32(0.4) if i == 5 else v for i, v in enumerate(values)])
    found = problems(root)
    assert found[0] == 'Episode 0: frame 5 is at 0.4000 s, 66.7 ms off its place at 15 frames a second.'
    assert found[1:] == ['Episode 0: the time of frame 6 is not after that of frame 5.']
