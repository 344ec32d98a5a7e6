"""The table of real clips, on made-up ones and a tiny model with random weights."""

from __future__ import annotations

import numpy as np
import pytest

from wristworld_ros import cli
from wristworld_ros.data.images import read_image
from wristworld_ros.data.real_clips import read_clip, wrist_mount
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.real import CALIBRATED, FILLED, FIRST, MEAN, RGB, evaluate_real, known_cameras
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.geometry.poses import looking_at
from wristworld_ros.pipeline import tiny_random_model
from wristworld_ros.robot.calibration_file import (
    Calibration,
    CameraModel,
    PlacedCamera,
    WristMount,
    place,
    write_calibration,
)
from wristworld_ros.settings import StreamSettings

K = [80.0, 0, 31.5, 0, 80, 17.5, 0, 0, 1]
ANCHOR = looking_at(np.array([1.0, -0.5, 0.6]), np.array([0.4, 0, 0.1]))


@pytest.fixture(scope='module')
def clips(write_clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp('clips')
    for i, name in enumerate(('train/0', 'train/1', 'val/7')):
        write_clip(folder, name, seed=9 * i)
    return folder


@pytest.fixture(scope='module')
def calibrations(tmp_path_factory):
    """Of one clip, one of its anchors."""
    folder = tmp_path_factory.mktemp('calibrations')
    xyz, quaternion = place(ANCHOR)
    anchor = PlacedCamera(xyz=xyz, quaternion=quaternion, camera=CameraModel(64, 36, K))
    write_calibration(
        folder / 'val/7/calibration.yaml', Calibration(base_frame='panda_link0', anchors={'exterior_2': anchor})
    )
    return folder


def test_floors_and_rows(clips, calibrations, tmp_path):
    model = tiny_random_model()
    table = evaluate_real(model, clips, StreamSettings(), calibrations, out=tmp_path, progress=False)
    assert list(table.rows) == [MEAN, FIRST, RGB, CALIBRATED, FILLED]
    assert [len(table.rows[row]) for row in table.rows] == [3, 3, 3, 1, 1]
    assert '1 of 3 clips' in table.head['calibrated']
    for record in table.rows[RGB]:
        assert 0 <= record['valid_percent'] <= 100 and ('valid_psnr' in record) == (record['valid_percent'] > 0)
    assert 'valid_percent' not in table.rows[MEAN][0]
    sheet = read_image(tmp_path / 'sheet.png')
    assert sheet.shape[0] == 3 * 3 * 96
    assert (tmp_path / 'clips/val_7.json').exists()


def test_the_floors_use_other_clips_and_the_first_frame_alone(clips):
    model = tiny_random_model()
    hw = model.config.wrist_hw
    truths = [resize_images(read_clip(clips, name).wrist, hw).astype(float) for name in ('train/0', 'train/1', 'val/7')]
    table = evaluate_real(model, clips, progress=False)
    for i, truth in enumerate(truths):
        others = np.mean([t.mean(0) for j, t in enumerate(truths) if j != i], 0).round()
        mean = np.mean([10 * np.log10(255**2 / ((frame - others) ** 2).mean()) for frame in truth])
        first = np.mean([10 * np.log10(255**2 / ((frame - truth[0]) ** 2).mean()) for frame in truth[1:]])
        assert abs(table.rows[MEAN][i]['psnr'] - mean) < 0.01 and abs(table.rows[FIRST][i]['psnr'] - first) < 0.01


def test_a_set_with_known_cameras_has_what_the_calibration_knows(clips):
    clip = read_clip(clips, 'val/7')
    xyz, quaternion = place(ANCHOR)
    anchor = PlacedCamera(
        xyz=xyz, quaternion=quaternion, camera=CameraModel(128, 72, [160.0, 0, 63.5, 0, 160, 35.5, 0, 0, 1])
    )
    mount = wrist_mount(turned=True)
    xyz, quaternion = place(mount)
    wrist = WristMount(xyz=xyz, quaternion=quaternion, hand_frame='panda_link8')
    anchors = known_cameras(clip, 2, Calibration(base_frame='b', anchors={'exterior_2': anchor}, wrist=wrist), (32, 32))
    assert np.isnan(anchors.T_base_anchor[0]).all() and np.isnan(anchors.intrinsics[0]).all()
    np.testing.assert_allclose(anchors.T_base_anchor[1], ANCHOR, atol=1e-5)
    np.testing.assert_allclose(anchors.intrinsics[1].ravel(), K)
    np.testing.assert_allclose(np.linalg.inv(anchors.wrist.T_camera_world), clip.T_base_hand[2] @ mount, atol=1e-5)


def test_one_clip_is_too_few(write_clip, tmp_path):
    write_clip(tmp_path)
    with pytest.raises(UserError, match='holds one clip'):
        evaluate_real(tiny_random_model(), tmp_path, progress=False)


def test_episodes_and_real_clips_are_one_or_the_other(clips, capsys):
    assert cli.main(['evaluate']) == 2
    assert cli.main(['evaluate', str(clips), '--real', str(clips)]) == 2
    assert cli.main(['evaluate', str(clips), '--calibrations', str(clips)]) == 2
    assert capsys.readouterr().err.count('\n') == 3
