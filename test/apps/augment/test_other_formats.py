"""`wristworld augment` for bags and folders of videos: what is added, what stays, and that a killed run changes no byte of it."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from wristworld_ros.apps.augment.run import augment
from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.cli import main
from wristworld_ros.data.check import check_data_set
from wristworld_ros.data.formats.native import CameraTrack, NativeSet, write_episode
from wristworld_ros.data.formats.rosbag.writer import write_bags
from wristworld_ros.data.formats.videos_writer import write_videos
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.errors import UserError
from wristworld_ros.pipeline import save_model, tiny_random_model
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import FrameStatus

LENGTHS, START = (6, 5), 1_700_000_000 * 10**9
KINDS = ('bags', 'sqlite', 'videos')


def track(name, rng, frames):
    coarse = rng.integers(0, 256, (frames, 6, 8, 3), dtype=np.uint8)
    T = np.tile(np.eye(4), (frames, 1, 1))
    T[:, :3, 3] = (0.1 * len(name), 0, 0.8)
    K = np.tile([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]], (frames, 1, 1))
    return CameraTrack(name, 'anchor', coarse.repeat(8, 1).repeat(8, 2), K, T)


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    """A folder with a small model, and two episodes as bags of both kinds and as a folder of videos."""
    folder, rng = tmp_path_factory.mktemp('given'), np.random.default_rng(3)
    save_model(tiny_random_model(), folder / 'model')
    for number, frames in enumerate(LENGTHS):
        write_episode(
            folder / f'episodes/{number}', task='lift', seed=0, fps=10, success=True, stamps_ns=START + np.arange(frames) * 10**8,
            cameras=[track('left', rng, frames), track('right', rng, frames)], tracks={'joints': rng.normal(size=(frames, 7))},
        )  # fmt: skip
    data = NativeSet(folder / 'episodes')
    opened = [partial(data.episode, i) for i in range(len(data))]
    write_bags(folder / 'bags', opened)
    write_bags(folder / 'sqlite', opened, storage='sqlite3', packing='jpeg')
    write_videos(folder / 'videos', opened)
    for name in KINDS:
        (folder / name / 'README.md').write_text('of the set')
    return folder


def run(given, source, target, **settings):
    stream = StreamSettings(
        model=str(given / 'model'), device='cpu', threads=1, min_coverage=0.0, min_confidence=0.0, min_agreement=0.01
    )
    return augment(source, target, AugmentSettings(**settings), stream, progress=False)


def content(folder):
    """Bytes of all files but the one that says what the run took."""
    files = {str(path.relative_to(folder)): path for path in Path(folder).rglob('*') if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.endswith('.seconds.json')}


@pytest.fixture(scope='module')
def augmented(given, tmp_path_factory):
    """The sets with the camera, made by one worker that nothing disturbs; by kind."""
    folder = tmp_path_factory.mktemp('augmented')
    for kind in KINDS:
        before = content(given / kind)
        assert run(given, given / kind, folder / kind).problems == []
        assert content(given / kind) == before, 'the source is only read'
        assert not (folder / f'.{kind}.work').exists()
    return folder


def messages(bag, of=lambda topic: True):
    with AnyReader([bag]) as opened:
        return [
            (connection.topic, connection.msgtype, time, bytes(data))
            for connection, time, data in opened.messages()
            if of(connection.topic)
        ]


@pytest.mark.parametrize('kind', ['bags', 'sqlite'])
def test_a_bag_keeps_every_message_and_gets_topics_at_the_anchors_stamps(given, augmented, kind):
    added = ('/wrist/status', '/wrist/image_raw', '/wrist/camera_info', '/wrist/pose', '/tf')
    for number, frames in enumerate(LENGTHS):
        bag, old = augmented / kind / f'{number:06d}', messages(given / kind / f'{number:06d}')
        assert messages(bag, lambda topic: topic not in added) == old, 'the anchors stand still: there was no /tf'
        with AnyReader([bag]) as opened:
            stamps = {topic: [] for topic in added[:4]}
            for connection, time, data in opened.messages():
                if connection.topic not in stamps:
                    continue
                message = opened.deserialize(data, connection.msgtype)
                stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
                stamps[connection.topic].append(stamp)
                assert time == stamp, 'logged with the image of that stamp'
                if connection.topic == '/wrist/pose':
                    assert message.header.frame_id == 'base_link'
                if connection.topic == '/wrist/status':
                    assert message.status[0].message == 'VALID' and message.status[0].values[0].value == '0'
        assert all(found == [START + i * 10**8 for i in range(frames)] for found in stamps.values())
    assert (augmented / kind / 'README.md').stat().st_ino == (given / kind / 'README.md').stat().st_ino


@pytest.mark.parametrize('kind', KINDS)
def test_the_new_camera_is_read_back_with_images_k_and_pose(augmented, kind):
    data, name = open_data_set(augmented / kind), 'wrist_virtual' if kind == 'videos' else 'wrist'
    assert [str(problem) for problem in check_data_set(data)] == []
    for number, frames in enumerate(LENGTHS):
        episode = data.episode(number)
        entry = episode.camera(name)
        assert (entry.role, entry.width, entry.height) == ('wrist', 32, 32)
        images = episode.rgb(name)
        assert images.shape == (frames, 32, 32, 3) and images.std() > 5
        assert episode.K(name).shape == (frames, 3, 3) and (episode.times_ns(name) == episode.stamps_ns).all()
        assert np.isfinite(episode.T_camera_world(name)).all()


def test_a_folder_of_videos_keeps_its_files_and_gets_a_video_and_a_json(given, augmented):
    old, new = given / 'videos', augmented / 'videos'
    for path in old.rglob('*'):
        if path.is_file() and path.name != 'wristworld_videos.yaml':
            assert (new / path.relative_to(old)).stat().st_ino == path.stat().st_ino
    for number, frames in enumerate(LENGTHS):
        folder = new / 'wrist_virtual/annotation'
        assert (folder / f'{number:06d}.mp4').is_file()
        said = json.loads((folder / f'{number:06d}.json').read_text())
        assert {
            len(said[key]) for key in ('valid', 'status', 'confidence', 'K', 'T_camera_anchor', 'T_camera_base')
        } == {frames}
        assert said['valid'] == [status == FrameStatus.VALID for status in said['status']]


@pytest.mark.parametrize('kind', KINDS)
def test_manifest_and_page_lie_beside_it(augmented, kind):
    folder = augmented / kind / 'wristworld'
    manifest = json.loads((folder / 'wrist_virtual.json').read_text())
    assert manifest['totals']['frames'] == sum(LENGTHS) and manifest['source']['name'] == kind
    assert (folder / 'wrist_virtual.html').read_text().count('data:image/jpeg') == 2


@pytest.mark.parametrize('kind', ['bags', 'videos'])
def test_a_run_that_is_killed_goes_on_and_gives_the_same_bytes(given, augmented, tmp_path, kind, monkeypatch):
    from wristworld_ros.apps.augment import bags, folders

    module = bags if kind == 'bags' else folders

    def killed(*arguments, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, 'read_columns', killed)  # all episodes are made, and the set is being put together
        with pytest.raises(KeyboardInterrupt):
            run(given, given / kind, tmp_path / kind)
    assert not (tmp_path / kind).exists()
    assert run(given, given / kind, tmp_path / kind).made == 0
    assert content(tmp_path / kind) == content(augmented / kind)


def test_one_bag_becomes_one_bag_and_a_bare_file_too(given, tmp_path):
    one = given / 'bags/000000'
    run(given, one, tmp_path / 'one', page=False)
    (file,) = one.glob('*.mcap')
    shutil.copy(file, tmp_path / 'bare.mcap')
    run(given, tmp_path / 'bare.mcap', tmp_path / 'bare', page=False)
    assert messages(tmp_path / 'one') == messages(tmp_path / 'bare')
    assert len(open_data_set(tmp_path / 'one')) == 1 and (tmp_path / 'one/metadata.yaml').is_file()
    assert not list((tmp_path / 'bare').glob('bare.mcap/*')) and len(list((tmp_path / 'bare').glob('*.mcap'))) == 1


def test_a_damaged_bag_stays_as_it_is_and_is_named(given, tmp_path, capsys):
    source, target = tmp_path / 'source', tmp_path / 'target'
    shutil.copytree(given / 'bags', source)
    (file,) = (source / '000001').glob('*.mcap')
    file.write_bytes(file.read_bytes()[:3000])
    arguments = [
        'augment',
        str(source),
        str(target),
        '--model',
        str(given / 'model'),
        '--device',
        'cpu',
        '--threads',
        '1',
    ]
    assert main([*arguments, '--no-page']) == 1
    assert 'Episode 1: ' in capsys.readouterr().out
    assert content(target / '000001') == content(source / '000001')
    assert '/wrist/status' in {topic for topic, *_ in messages(target / '000000')}


def test_a_camera_that_is_there_already_is_refused_before_any_work(given, augmented, tmp_path):
    for kind, said in (('bags', 'has /wrist/.* already'), ('videos', "has the camera 'wrist_virtual' already")):
        with pytest.raises(UserError, match=said):
            run(given, augmented / kind, tmp_path / kind)
    assert not list(tmp_path.iterdir())
    run(given, augmented / 'bags', tmp_path / 'bags', out_key='observation.images.second', anchors='left', page=False)
    assert {'wrist', 'second'} <= {camera.name for camera in open_data_set(tmp_path / 'bags').episode(0).cameras}


@pytest.mark.parametrize('kind', ['bags', 'videos'])
def test_depth_comes_with_the_images_where_it_is_asked_for(given, tmp_path, kind):
    run(given, given / kind, tmp_path / kind, depth=True, page=False)
    episode = open_data_set(tmp_path / kind).episode(0)
    depth = episode.depth('wrist' if kind == 'bags' else 'wrist_virtual')
    assert depth.shape == (LENGTHS[0], 32, 32) and (depth > 0).any() and depth.dtype == np.float32


def test_released_clips_of_droid_get_a_camera(given, tmp_path):
    folder = Path(os.environ.get('WRISTWORLD_DATA', ''), 'droid_real')
    if not os.environ.get('WRISTWORLD_DATA') or not folder.is_dir():
        pytest.skip('WRISTWORLD_DATA names no folder with droid_real')
    source = tmp_path / 'clips'
    shutil.copytree(folder / 'annotation/val', source / 'annotation/val')
    shutil.copytree(folder / 'videos/val', source / 'videos/val')
    for path in sorted((source / 'annotation/val').iterdir())[1:]:
        path.unlink()
    run(given, source, tmp_path / 'out', page=False)
    episode = open_data_set(tmp_path / 'out').episode(0)
    assert episode.rgb('wrist_virtual').shape[0] == len(episode)
    assert [camera.name for camera in episode.cameras] == ['exterior_1', 'exterior_2', 'wrist', 'wrist_virtual']
