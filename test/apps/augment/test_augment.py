"""`wristworld augment`: what is added, what stays, and that neither a killed run nor a killed worker changes a byte of it."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest

from wristworld_ros.apps.augment.episode import EpisodeResult, EpisodeWorker, Job
from wristworld_ros.apps.augment.identity import run_identity
from wristworld_ros.apps.augment.page import suspects
from wristworld_ros.apps.augment.result import column_names
from wristworld_ros.apps.augment.run import augment
from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.cli import main
from wristworld_ros.data.check import check_data_set
from wristworld_ros.data.formats.lerobot.writer import WriteSettings, write_lerobot
from wristworld_ros.data.formats.native import CameraTrack, NativeSet, write_episode
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.errors import UserError
from wristworld_ros.pipeline import save_model, tiny_random_model
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import FrameStatus

FOLDER = 'meta/wristworld'
KEY, LENGTHS, FPS = 'observation.images.wrist_virtual', (9, 7, 8, 6, 9, 7), 10
VALID, STATUS, CONFIDENCE = (f'{KEY}.{what}' for what in ('valid', 'status', 'confidence'))
COLUMNS = [VALID, STATUS, CONFIDENCE, 'camera.wrist_virtual.K']
ANCHOR_POSE, BASE_POSE = 'camera.wrist_virtual.T_camera_anchor', 'camera.wrist_virtual.T_camera_base'


def track(name, role, rng, frames):
    coarse = rng.integers(0, 256, (frames, 6, 8, 3), dtype=np.uint8)
    T = np.tile(np.eye(4), (frames, 1, 1))
    T[:, :3, 3] = (0.1 * len(name), 0, 0.8)
    K = np.tile([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]], (frames, 1, 1))
    return CameraTrack(name, role, coarse.repeat(8, 1).repeat(8, 2), K, T)


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    """A folder with a small model, and one set as v3.0 and as v2.1."""
    folder, rng = tmp_path_factory.mktemp('given'), np.random.default_rng(3)
    save_model(tiny_random_model(), folder / 'model')
    for number, frames in enumerate(LENGTHS):
        cameras = [track('left', 'anchor', rng, frames), track('right', 'anchor', rng, frames)]
        write_episode(
            folder / f'episodes/{number}', task=('lift', 'push')[number % 2], seed=0, fps=FPS, success=True,
            stamps_ns=np.arange(frames) * 10**8, cameras=cameras, tracks={'joints': rng.normal(size=(frames, 7))},
        )  # fmt: skip
    data = NativeSet(folder / 'episodes')
    for version in ('v3.0', 'v2.1'):
        write_lerobot(folder / version, [partial(data.episode, i) for i in range(len(data))], WriteSettings(version))
    (folder / 'v3.0/README.md').write_text('of the set')
    return folder


def run(given, source, target, **settings):
    stream = StreamSettings(model=str(given / 'model'), device='cpu', threads=1, min_coverage=0.0)
    return augment(source, target, AugmentSettings(**settings), stream, progress=False)


def content(folder):
    """Bytes of all files but the one that says what the run took."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob('*') if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.endswith('.seconds.json')}


@pytest.fixture(scope='module')
def augmented(given, tmp_path_factory):
    """The sets with the camera, by version; made by one worker that nothing disturbs."""
    folder = tmp_path_factory.mktemp('augmented')
    before = {version: content(given / version) for version in ('v3.0', 'v2.1')}
    run(given, given / 'v3.0', folder / 'v3.0')
    run(given, given / 'v2.1', folder / 'v2.1', size='48x32', knowledge='images')
    assert {version: content(given / version) for version in before} == before, 'the source is only read'
    return folder


@pytest.mark.parametrize('version', ['v3.0', 'v2.1'])
def test_the_new_set_is_whole_and_every_frame_of_the_new_camera_is_read(augmented, version):
    data = open_data_set(augmented / version)
    assert [str(problem) for problem in check_data_set(data)] == []
    entry = data.episode(0).camera(KEY)
    assert (entry.role, entry.width, entry.height) == (('wrist', 32, 32) if version == 'v3.0' else ('wrist', 48, 32))
    for number, frames in enumerate(LENGTHS):
        episode = data.episode(number)
        images = episode.rgb(KEY)
        assert images.shape == (frames, entry.height, entry.width, 3) and images.std() > 5
        assert episode.K(KEY).shape == (frames, 3, 3)


def test_columns_of_frames_lie_below_the_key_and_those_of_the_camera_beside_it():
    names = column_names('observation.images.image_2')
    assert [names[what] for what in ('valid', 'status', 'confidence')] == [
        f'observation.images.image_2.{what}' for what in ('valid', 'status', 'confidence')
    ]
    assert names['K'] == 'camera.img_2.K'


def test_statistics_of_v21_have_the_shape_that_lerobot_wants_of_such_names(given, tmp_path):
    run(given, given / 'v2.1', tmp_path / 'set')
    lines = (tmp_path / 'set/meta/episodes_stats.jsonl').read_text().splitlines()
    for name in (VALID, STATUS, CONFIDENCE):
        stats = json.loads(lines[0])['stats'][name]
        assert np.shape(stats['mean']) == (3, 1, 1) and np.shape(stats['count']) == (1,)


@pytest.mark.parametrize('version', ['v3.0', 'v2.1'])
def test_what_was_there_stays_as_it_was(given, augmented, version):
    source, target = content(given / version), content(augmented / version)
    assert set(source) < set(target)
    for name, before in source.items():
        old, new = given / version / name, augmented / version / name
        if name.endswith('.parquet') and source[name] != target[name]:
            one, two = pq.ParquetFile(old), pq.ParquetFile(new)
            assert two.read().select(one.schema_arrow.names).cast(one.schema_arrow).equals(one.read())
            assert [two.metadata.row_group(i).num_rows for i in range(two.num_row_groups)] == [
                one.metadata.row_group(i).num_rows for i in range(one.num_row_groups)
            ]
        elif name.endswith(('info.json', 'stats.json')):
            one, two = json.loads(before), json.loads(target[name])
            assert {key: two[key] for key in one if key not in ('features', 'total_videos')} == {
                key: one[key] for key in one if key not in ('features', 'total_videos')
            }
            assert all(two['features'][key] == value for key, value in one.get('features', {}).items())
        elif not name.endswith('episodes_stats.jsonl'):
            assert target[name] == before and old.stat().st_ino == new.stat().st_ino, name
    if version == 'v2.1':
        name = 'meta/episodes_stats.jsonl'
        for old, new in zip(source[name].splitlines(), target[name].splitlines(), strict=True):
            old, new = json.loads(old), json.loads(new)
            assert {key: new['stats'][key] for key in old['stats']} == old['stats']


def test_the_video_lies_along_the_boundaries_of_the_anchors(augmented):
    table = pq.read_table(augmented / 'v3.0/meta/episodes/chunk-000/file-000.parquet')
    for name in ('chunk_index', 'file_index', 'from_timestamp', 'to_timestamp'):
        assert table[f'videos/{KEY}/{name}'].equals(table[f'videos/observation.images.left/{name}']), name


def test_columns_say_what_a_frame_is_worth_and_where_its_camera_was(augmented):
    data = open_data_set(augmented / 'v3.0')
    manifest = json.loads((augmented / f'v3.0/{FOLDER}/wrist_virtual.json').read_text())
    assert {*COLUMNS, ANCHOR_POSE, BASE_POSE} <= set(data.info.features)
    for number, frames in enumerate(LENGTHS):
        table, told = data.episode(number).table(), manifest['episodes'][number]
        valid, status, confidence = (table.array(name) for name in (VALID, STATUS, CONFIDENCE))
        assert valid.dtype == bool and (valid == (status == FrameStatus.VALID)).all()
        assert told['frames'] == frames and told['valid_share'] == pytest.approx(valid.mean(), abs=1e-4)
        assert told['mean_confidence'] == pytest.approx(confidence.mean(), abs=1e-3)
        T_camera_base = table.array(BASE_POSE).reshape(-1, 4, 4)
        T_anchor_base = data.episode(number).T_camera_world('observation.images.left')
        np.testing.assert_allclose(
            table.array(ANCHOR_POSE).reshape(-1, 4, 4) @ T_anchor_base, T_camera_base, atol=1e-6
        )  # fmt: skip
    assert len(manifest['model']['sha256']) == 64 and manifest['versions']['torch']


def test_images_alone_give_a_pose_by_the_first_anchor_and_none_by_the_base(augmented):
    data = open_data_set(augmented / 'v2.1')
    assert ANCHOR_POSE in data.info.features and BASE_POSE not in data.info.features
    assert data.episode(0).T_camera_world(KEY) is None


def test_statistics_of_all_that_is_new_are_those_of_its_values(augmented):
    data = open_data_set(augmented / 'v3.0')
    stats = json.loads((augmented / 'v3.0/meta/stats.json').read_text())
    values = np.concatenate([data.episode(i).table().array(CONFIDENCE) for i in range(len(LENGTHS))])
    found = stats[CONFIDENCE]
    assert found['count'] == [sum(LENGTHS)] and found['max'] == [pytest.approx(values.max())]
    np.testing.assert_allclose([found['mean'][0], found['std'][0]], [values.mean(), values.std()], atol=1e-6)
    assert np.array(stats[KEY]['mean']).shape == (3, 1, 1)


def test_a_killed_worker_loses_nothing_and_repeats_nothing(given, augmented, tmp_path, capsys):
    target, killed = tmp_path / 'v3.0', []

    def kill_one():
        while not list(tmp_path.glob('.v3.0.work/episode_*/result.json')):
            time.sleep(0.01)
        victim = multiprocessing.active_children()[0]
        killed.append(victim.pid)
        os.kill(victim.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    report = run(given, given / 'v3.0', target, workers=2)
    killer.join()
    assert killed and 'exit code -9' in capsys.readouterr().out
    assert [one.episode for one in report.episodes] == list(range(len(LENGTHS)))
    assert content(target) == content(augmented / 'v3.0')
    assert not (tmp_path / '.v3.0.work').exists()


def test_episodes_side_by_side_give_the_same_frames_and_survive_a_kill_to_the_byte(given, augmented, tmp_path, capsys):
    killed = []

    def kill_one():
        while not list(tmp_path.glob('.two.work/episode_*/result.json')):
            time.sleep(0.01)
        killed.append(multiprocessing.active_children()[0].pid)
        os.kill(killed[0], signal.SIGKILL)

    one = run(given, given / 'v3.0', tmp_path / 'one', batch=2)
    killer = threading.Thread(target=kill_one)
    killer.start()
    two = run(given, given / 'v3.0', tmp_path / 'two', batch=2, workers=2)
    killer.join()
    assert 'exit code -9' in capsys.readouterr().out
    # What the worker had finished when it was killed is not made twice.
    assert two.made + sum(episode.reused for episode in two.episodes) == one.made == len(LENGTHS)
    assert content(tmp_path / 'one') == content(tmp_path / 'two')
    batched, alone = open_data_set(tmp_path / 'one'), open_data_set(augmented / 'v3.0')
    for number in range(len(LENGTHS)):
        own, other = batched.episode(number), alone.episode(number)
        assert np.abs(own.rgb(KEY).astype(int) - other.rgb(KEY)).mean() < 1
        for column in (VALID, STATUS, CONFIDENCE, BASE_POSE):
            np.testing.assert_allclose(own.table().array(column), other.table().array(column), atol=1e-3)


def test_a_group_of_which_one_is_missing_is_made_again_to_the_byte(given, tmp_path):
    stream = StreamSettings(model=str(given / 'model'), device='cpu', threads=1, min_coverage=0.0)
    settings, anchors = AugmentSettings(batch=3), ('observation.images.left', 'observation.images.right')
    worker = EpisodeWorker(
        Job(given / 'v3.0', tmp_path, stream, settings, anchors, run_identity(stream, settings, anchors))
    )

    def made():
        files = [path for path in tmp_path.rglob('*') if path.is_file() and path.name != 'result.json']
        return {str(path.relative_to(tmp_path)): path.read_bytes() for path in files}

    first = worker(0)
    assert [one.frames for one in first] == sorted(LENGTHS)[:3] and not any(one.reused for one in first)
    before = made()
    shutil.rmtree(tmp_path / first[1].folder)
    assert [one.reused for one in worker(0)] == [True, False, True]
    assert made() == before
    assert [one.episode for one in first + worker(1)] == sorted(range(len(LENGTHS)), key=lambda i: (LENGTHS[i], i))


def test_what_one_episode_of_a_batch_lacks_is_told_of_it_alone(given, tmp_path):
    source = tmp_path / 'source'
    shutil.copytree(given / 'v2.1', source)
    video = source / 'videos/chunk-000/observation.images.left/episode_000002.mp4'
    video.write_bytes(video.read_bytes()[:300])
    report = run(given, source, tmp_path / 'target', batch=6)
    assert [sentence.partition(':')[0] for sentence in report.problems] == ['Episode 2']
    data = open_data_set(tmp_path / 'target')
    assert data.episode(2).rgb(KEY).max() < 3
    assert all(data.episode(number).rgb(KEY).std() > 5 for number in range(len(LENGTHS)) if number != 2)
    assert [len(data.episode(number)) for number in range(len(LENGTHS))] == list(LENGTHS)


def test_a_killed_run_goes_on_where_it_was(given, augmented, tmp_path):
    target = tmp_path / 'v3.0'
    command = [
        sys.executable,
        '-m',
        'wristworld_ros.cli',
        'augment',
        given / 'v3.0',
        target,
        '--model',
        given / 'model',
    ]
    command += ['--device', 'cpu', '--threads', '1', '--min-coverage', '0']
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob('.v3.0.work/episode_*/result.json')):
        assert process.poll() is None, 'the run ended before it could be killed'
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not target.exists()
    report = run(given, given / 'v3.0', target)
    assert 1 <= sum(one.reused for one in report.episodes) < len(LENGTHS) and report.made < len(LENGTHS)
    assert content(target) == content(augmented / 'v3.0')


def test_an_episode_that_cannot_be_read_is_black_and_named(given, tmp_path, capsys):
    source, target = tmp_path / 'source', tmp_path / 'target'
    shutil.copytree(given / 'v2.1', source)
    video = source / 'videos/chunk-000/observation.images.left/episode_000002.mp4'
    video.write_bytes(video.read_bytes()[:300])
    arguments = ['augment', str(source), str(target), '--model', str(given / 'model'), '--device', 'cpu']
    assert main([*arguments, '--threads', '1']) == 1
    assert 'Episode 2: ' in capsys.readouterr().out
    episode = open_data_set(target).episode(2)
    assert episode.rgb(KEY).max() < 3 and not episode.table().array(VALID).any()
    assert set(episode.table().array(STATUS).tolist()) == {FrameStatus.REQUIRED_MISSING}
    assert open_data_set(target).episode(3).rgb(KEY).std() > 5


@pytest.mark.parametrize(('settings', 'said'), [
    ({'anchors': 'observation.images.top'}, "no camera 'observation.images.top'"),
    ({'anchors': 'observation.images.left,observation.images.left'}, 'names one camera twice'),
    ({'out_key': 'observation.images.left'}, "has 'observation.images.left' already"),
    ({'wrist_mount': '0 0 0.1 0 0 0 0'}, 'quaternion is zero'),
    ({'wrist_mount': '0 0 0.1 0 0 0 1'}, 'does not say where the hand is'),
    ({'wrist_mount': '0 0 0.1 0 0 0 1', 'urdf': 'none.urdf'}, 'none.urdf is missing'),
])  # fmt: skip
def test_what_cannot_be_done_is_said_before_any_work(given, tmp_path, settings, said):
    with pytest.raises(UserError, match=said):
        run(given, given / 'v3.0', tmp_path / 'set', **settings)
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_before_its_first_episode_leaves_nothing(given, tmp_path):
    shutil.copytree(given / 'model', tmp_path / 'model')
    for weights in (tmp_path / 'model').glob('*.safetensors'):
        weights.write_bytes(b'no weights')
    stream = StreamSettings(model=str(tmp_path / 'model'), device='cpu', threads=1)
    (tmp_path / 'out').mkdir()
    with pytest.raises(UserError):
        augment(given / 'v3.0', tmp_path / 'out/set', AugmentSettings(page=False), stream, progress=False)
    assert not list((tmp_path / 'out').iterdir())


def test_a_target_that_exists_or_lies_within_the_source_is_refused(given, augmented, tmp_path):
    with pytest.raises(UserError, match='exists already'):
        run(given, given / 'v3.0', augmented / 'v3.0')
    with pytest.raises(UserError, match='lie within each other'):
        run(given, given / 'v3.0', given / 'v3.0/more')
    (tmp_path / 'link').symlink_to(given / 'v3.0')
    with pytest.raises(UserError, match='lie within each other'):
        run(given, tmp_path / 'link', given / 'v3.0/more')
    with pytest.raises(UserError, match='no LeRobot data set, ROS 2 bag or folder of videos'):
        run(given, given / 'episodes', tmp_path / 'set')


def test_depth_is_a_video_of_the_format_s_own_with_statistics(given, tmp_path):
    run(given, given / 'v3.0', tmp_path / 'set', depth=True, page=False)
    data = open_data_set(tmp_path / 'set')
    assert [str(problem) for problem in check_data_set(data)] == []
    assert data.episode(0).camera(KEY).has_depth
    seen = np.concatenate([data.episode(i).depth(KEY) for i in range(len(LENGTHS))])
    assert seen.shape == (sum(LENGTHS), 32, 32) and (seen > 0).any()
    found = json.loads((tmp_path / 'set/meta/stats.json').read_text())[f'{KEY}_depth']
    assert found['max'][0][0][0] == pytest.approx(seen.max() * 1000, rel=1e-3)
    with pytest.raises(UserError, match='has no depth videos'):
        run(given, given / 'v2.1', tmp_path / 'other', depth=True)


ARM = """<robot name="arm"><link name="base"/><link name="hand"/>{links}{joints}<joint name="end" type="fixed"><parent link="l7"/>
<child link="hand"/><origin xyz="0 0 0.1" rpy="0 0 0"/></joint></robot>"""


def arm_urdf(count):
    """Joints that lift by metres: the hand is as high as their sum and 0.1 m."""
    links = ''.join(f'<link name="l{i}"/>' for i in range(1, count + 1)) + ('' if count == 7 else '<link name="l7"/>')
    joints = ''.join(
        f'<joint name="joint{i}" type="prismatic"><parent link="{f"l{i - 1}" if i > 1 else "base"}"/><child link="l{i}"/>'
        '<axis xyz="0 0 1"/><limit lower="-9" upper="9" effort="1" velocity="1"/></joint>'
        for i in range(1, count + 1)
    )
    if count < 7:
        joints += f'<joint name="weld" type="fixed"><parent link="l{count}"/><child link="l7"/></joint>'
    return ARM.format(links=links, joints=joints)


def test_joints_and_a_robot_description_place_the_wrist_camera(given, tmp_path):
    (tmp_path / 'arm.urdf').write_text(arm_urdf(7))
    mount = {'wrist_mount': '0 0 0 0 0 0 1', 'urdf': str(tmp_path / 'arm.urdf')}
    run(given, given / 'v3.0', tmp_path / 'set', **mount, wrist_mount_link='hand', page=False)
    data = open_data_set(tmp_path / 'set')
    for number in range(len(LENGTHS)):
        episode = data.episode(number)
        height = np.linalg.inv(episode.T_camera_world(KEY))[:, 2, 3]
        np.testing.assert_allclose(height, episode.joints.sum(1) + 0.1, atol=1e-5)
    for wrong, said in (
        (mount | {'wrist_mount_link': 'foot', 'gripper_link': 'hand'}, "no link 'foot'"),
        (mount | {'wrist_mount_link': 'hand', 'base_link': 'floor'}, "no link 'floor'"),
    ):
        with pytest.raises(UserError, match=said):
            run(given, given / 'v3.0', tmp_path / 'other', **wrong)
    report = run(
        given, given / 'v3.0', tmp_path / 'checked', **mount, wrist_mount_link='hand', places='checked', page=False
    )
    assert all(len(one.doubts) == 2 for one in report.episodes), 'nothing confirms places in images of noise'
    manifest = json.loads((tmp_path / f'checked/{FOLDER}/wrist_virtual.json').read_text())
    assert manifest['episodes'][0]['not_used'][0].startswith('observation.images.left: ')
    (tmp_path / 'arm.urdf').write_text(arm_urdf(6))
    with pytest.raises(UserError, match='has 7 joints, and the arm of the robot description 6'):
        run(given, given / 'v3.0', tmp_path / 'other', **mount, wrist_mount_link='hand')


def result(number, **changes):
    given = {'frames': 10, 'valid': 10, 'confidence': 0.5, 'coverage': 0.8, 'statuses': {'VALID': 10}} | changes
    return EpisodeResult(number, '', width=32, height=32, **given)


def test_episodes_to_look_at_are_the_worst_first_with_their_reason():
    found = suspects([
        result(0), result(1, step=0.4), result(2, valid=2, statuses={'VALID': 2, 'LOW_COVERAGE': 7, 'LOW_CONFIDENCE': 1}),
        result(3, problem='The video is cut.'), result(5, doubts=('left: it does not fit',)), result(4, valid=1, statuses={'VALID': 1, 'LOW_CONFIDENCE': 9}),
    ])  # fmt: skip
    assert [one.episode for one, _ in found] == [3, 4, 2, 5, 1]
    assert 'The video is cut.' in found[0][1] and 'LOW_COVERAGE' in found[2][1] and '0.40 m' in found[4][1]
    assert 'left: it does not fit' in found[3][1]


def test_the_page_shows_best_median_and_worst_and_is_one_file(augmented):
    text = (augmented / f'v3.0/{FOLDER}/wrist_virtual.html').read_text()
    assert all(f'{word}: episode ' in text for word in ('Best', 'Median', 'Worst'))
    assert text.count('data:image/jpeg') == 3 and 'http' not in text
    assert 'farthest move between two frames, at most ' in text and '30 cm and more' in text
