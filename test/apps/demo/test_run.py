"""The demonstration from start to end, over real DDS, on a tiny model with random weights."""

import json
from pathlib import Path

import numpy as np
import pytest

from wristworld_ros.apps.bench.streams import write_pattern_video
from wristworld_ros.apps.demo.run import run_demo
from wristworld_ros.apps.demo.settings import DemoSettings, camera_settings, node_settings
from wristworld_ros.data.video import write_video
from wristworld_ros.errors import UserError
from wristworld_ros.pipeline import save_model, tiny_random_model
from wristworld_ros.settings import StreamSettings


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    return [write_pattern_video(folder / f'{i}.mp4', i, frames=30) for i in range(3)]


def test_the_demo_on_videos_ends_in_a_whole_report(tmp_path, videos, capsys):
    save_model(tiny_random_model(), tmp_path / 'model')
    stream = StreamSettings(model=str(tmp_path / 'model'), threads=1, min_coverage=0.0, min_confidence=0.0)
    demo = DemoSettings(seconds=3.0, patience=120.0)
    folder = run_demo(demo, stream, videos[:2], videos[2], tmp_path / 'reports', progress=False)
    assert folder.parent == tmp_path / 'reports'
    for name in (
        'index.html',
        'side_by_side.mp4',
        'contact_sheet.png',
        'quality.svg',
        'latency.svg',
        'trust.svg',
        'table.md',
    ):
        assert (folder / name).stat().st_size > 500, name
    report = json.loads((folder / 'report.json').read_text())
    assert report['live']['frames'] >= 5
    assert report['live']['counters']['model_errors'] == 0
    assert report['quality']['summary']['generated']['psnr']['mean'] > 0
    views = (folder / 'recording' / 'views.jsonl').read_text().splitlines()
    stamps = {p.stem for p in (folder / 'recording' / 'anchor_left').iterdir()}
    assert all(str(json.loads(line)['stamp_ns']) in stamps for line in views)
    assert 'ROS_DOMAIN_ID' in capsys.readouterr().out


def test_the_demo_on_the_simulated_desk_shows_its_modes_side_by_side(tmp_path):
    pytest.importorskip('robosuite', reason='the simulator is not installed')
    pytest.importorskip('yourdfpy', reason='the robot extra is not installed')
    save_model(tiny_random_model(), tmp_path / 'model')
    stream = StreamSettings(model=str(tmp_path / 'model'), threads=1, min_coverage=0.0, min_confidence=0.0)
    folder = run_demo(
        DemoSettings(seconds=3.0, rate=4.0, patience=180.0), stream, out=tmp_path / 'reports', progress=False
    )
    views = [json.loads(line) for line in (folder / 'recording' / 'views.jsonl').read_text().splitlines()]
    assert views[-1]['geometry'] == 'RGBD'
    known = [json.loads(line) for line in (folder / 'recording' / 'desk.jsonl').read_text().splitlines()]
    assert set(known[-1]['T_base_anchor']) == {'left', 'right'} and 'fr3_joint7' in known[-1]['joints']
    summary = json.loads((folder / 'report.json').read_text())['quality']['summary']
    assert {'RGB: generated', 'CALIBRATED: generated', 'RGBD: generated'} <= set(summary)
    geometries = {mode: (folder / 'recording' / f'views_{mode}.jsonl').read_text() for mode in ('rgb', 'calibrated')}
    assert '"RGB"' in geometries['rgb'] and '"CALIBRATED"' in geometries['calibrated']


def test_files_that_are_missing_or_not_videos_are_reported_before_anything_starts(tmp_path, videos):
    with pytest.raises(UserError, match=r'none\.mp4'):
        camera_settings(DemoSettings(), [tmp_path / 'none.mp4'], None)
    with pytest.raises(UserError, match=r'test_run\.py'):
        camera_settings(DemoSettings(), [Path(__file__)], None)
    with pytest.raises(UserError, match='without anchor videos'):
        camera_settings(DemoSettings(), [], videos[0])


def test_big_videos_are_played_small_at_their_own_aspect(tmp_path):
    write_video(tmp_path / 'wide.mp4', iter([np.zeros((360, 640, 3), np.uint8)] * 3), 10)
    settings = camera_settings(DemoSettings(), [tmp_path / 'wide.mp4'], None)
    assert (settings.width, settings.height) == (320, 180)


def test_the_node_listens_to_the_cameras_that_are_played(videos):
    cameras = camera_settings(DemoSettings(), videos, None)
    node = node_settings(StreamSettings(chunk=2), cameras)
    assert node.anchors == cameras.anchors == ['view1', 'view2', 'view3']
    assert node.chunk == 2 and node.autostart and node.publish_invalid
