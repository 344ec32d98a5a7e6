"""What was recorded of a desk is what the other modes are told of it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from wristworld_ros.apps.demo import replay as module
from wristworld_ros.apps.demo.replay import anchor_set, replay
from wristworld_ros.apps.demo.settings import (
    DemoSettings,
    camera_settings,
    live_mode,
    node_remappings,
    node_settings,
    replayed_modes,
)
from wristworld_ros.data.recording import Recording
from wristworld_ros.errors import UserError
from wristworld_ros.pipeline import save_model, tiny_random_model
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import RobotPoints

spec = importlib.util.spec_from_file_location('demo_conftest', Path(__file__).with_name('conftest.py'))
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)
K, TURNED = [60.0, 0, 31.5, 0, 60.0, 23.5, 0, 0, 1.0], np.diag([1.0, -1.0, -1.0, 1.0])


class Robot:
    def surface(self, joints):
        return RobotPoints(np.full((1, 3), joints['j'], np.float32), np.zeros((1, 3), np.uint8), np.array(['link']))


@pytest.fixture
def desk(tmp_path):
    folder = made.write_recording(tmp_path / 'recording')
    places = {'left': np.eye(4), 'right': np.eye(4)}
    places['right'][:3, 3] = 0.3, 0, 0
    with open(folder / 'desk.jsonl', 'w') as file:
        for i in range(made.FRAMES - 1):  # of the last one nothing is known
            record = {
                'stamp_ns': made.BASE + i * 100_000_000, 'intrinsics': {'right': K}, 'joints': {'j': 0.5},
                'T_base_anchor': {name: T.ravel().tolist() for name, T in places.items()}, 'wrist_K': K,
                'T_wrist_base': TURNED.ravel().tolist(), 'wrist_size': [64, 48],
            }  # fmt: skip
            file.write(json.dumps(record) + '\n')
    return folder


def test_a_set_has_its_images_and_all_that_was_recorded_or_nothing_but_images(desk):
    recording = Recording(desk)
    known = anchor_set(recording, made.BASE, Robot())
    np.testing.assert_allclose(known.T_base_anchor[1][:3, 3], [0.3, 0, 0])
    np.testing.assert_allclose(known.intrinsics[1].ravel(), K)
    assert np.isnan(known.intrinsics[0]).all() and known.depth is None
    np.testing.assert_allclose(known.wrist.T_camera_world, TURNED)
    assert (known.wrist.width, known.wrist.height) == (64, 48) and known.robot_points.points[0, 0] == 0.5
    alone = anchor_set(recording, made.BASE, None)
    assert not alone.is_known
    np.testing.assert_array_equal(alone.images, known.images)
    assert anchor_set(recording, made.BASE + 11 * 100_000_000, Robot()) is None
    assert anchor_set(recording, made.BASE + 5_000_000, None) is None


def test_modes_are_replayed_into_the_recording(desk, tmp_path, monkeypatch):
    save_model(tiny_random_model(), tmp_path / 'model')
    monkeypatch.setattr(module, '_simulated_robot', Robot)
    settings = StreamSettings(model=str(tmp_path / 'model'), threads=1, min_coverage=0.0, min_confidence=0.0)
    replay(desk, ('rgb', 'calibrated'), settings, progress=False)
    recording = Recording(desk)
    assert (
        len(recording.stamps('wrist_rgb')) == made.FRAMES
        and len(recording.stamps('wrist_calibrated')) == made.FRAMES - 1
    )
    for mode in ('rgb', 'calibrated'):
        lines = [json.loads(line) for line in (desk / f'views_{mode}.jsonl').read_text().splitlines()]
        assert {line['geometry'] for line in lines} == {mode.upper()}


def test_each_mode_of_the_demo_tells_the_node_what_it_says():
    everything = DemoSettings()
    assert (live_mode(everything, 'simulator'), replayed_modes(everything, 'simulator')) == (
        'rgbd',
        ('rgb', 'calibrated'),
    )
    assert (live_mode(everything, 'videos'), replayed_modes(everything, 'videos')) == ('rgb', ())
    one = DemoSettings(mode='rgb')
    cameras = camera_settings(one, [], None)
    node = node_settings(StreamSettings(), cameras, 'rgb')
    assert (cameras.depth, cameras.robot) == (False, False)
    assert (node.use_depth, node.use_tf, node.use_robot_model, node.wrist_mount) == ('never', 'never', 'never', None)
    assert 'anchor_right/camera_info:=unheard/right/camera_info' in node_remappings(cameras, 'rgb')
    with pytest.raises(UserError, match='mode is rgbd, and videos are images alone'):
        camera_settings(DemoSettings(mode='rgbd'), [Path('a.mp4')], None)


@pytest.mark.parametrize(('mode', 'depth'), [('calibrated', 'never'), ('rgbd', 'auto')])
def test_a_desk_that_is_known_tells_its_mount(mode, depth):
    pytest.importorskip('robosuite', reason='the simulator is not installed')
    cameras = camera_settings(DemoSettings(mode=mode), [], None)
    node = node_settings(StreamSettings(), cameras, mode)
    assert cameras.depth == (mode == 'rgbd') and cameras.robot
    assert (node.use_depth, node.use_tf, len(node.wrist_mount.split())) == (depth, 'auto', 7)
    assert node_remappings(cameras, mode) == []
