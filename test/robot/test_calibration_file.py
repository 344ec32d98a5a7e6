"""The calibration file: what is written is read again, mistakes are refused with their place, TF gets the same numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from wristworld_ros.errors import UserError
from wristworld_ros.robot.board import Intrinsics
from wristworld_ros.robot.calibration_file import (
    Calibration,
    CameraModel,
    PlacedCamera,
    Quality,
    WristMount,
    launch_text,
    merged,
    place,
    read_calibration,
    wrist_pixels,
    write_calibration,
)

T = np.eye(4)
T[:3, :3] = Rotation.from_rotvec([0.4, -2.0, 0.7]).as_matrix()
T[:3, 3] = 1.02, -0.41, 0.55
CAMERA = Intrinsics(np.array([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]]), np.zeros(5), 640, 480)


def calibration(name='left', **changes):
    quality = Quality(
        method='robot', poses=5, residual=2.1, unit='mm', expected_mm=1.5, expected_wrist_px=1.9, date='2025-05-01',
        warnings=['5 poses'],
    )  # fmt: skip
    xyz, quaternion = place(T)
    left = PlacedCamera(xyz=xyz, quaternion=quaternion, camera=CameraModel.of(CAMERA), quality=quality)
    wrist = WristMount(hand_frame='fr3_hand', xyz=[0.05, 0, 0.04], quaternion=[0, 0, 0, 1])
    return Calibration(**({'base_frame': 'fr3_link0', 'anchors': {name: left}, 'wrist': wrist} | changes))


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / 'new' / 'calibration.yaml'
    write_calibration(path, calibration())
    found = read_calibration(path)
    assert found == calibration()
    np.testing.assert_allclose(found.anchors['left'].T, T, atol=2e-6)
    np.testing.assert_allclose(found.anchors['left'].camera.intrinsics.K, CAMERA.K)
    assert found.wrist.T[2, 3] == 0.04


def test_a_file_written_by_hand_needs_no_more_than_places(tmp_path):
    path = tmp_path / 'calibration.yaml'
    path.write_text('base_frame: base\nanchors: {left: {xyz: [1, 0, 0.5], quaternion: [0, 0, 0, 1]}}\n')
    found = read_calibration(path).anchors['left']
    assert found.camera is None and found.quality is None and found.T[0, 3] == 1


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda c: c.pop('base_frame'), 'base_frame'),
        (lambda c: c.update(base_frame='a b'), 'base_frame'),
        (lambda c: c.update(more=1), 'more'),
        (lambda c: c.update(anchors={}, wrist=None), 'neither'),
        (lambda c: c.update(anchors={'a/b': c['anchors']['left']}), "'a/b'"),
        (lambda c: c['anchors']['left'].update(xyz=[1020, -410, 550]), 'metres'),
        (lambda c: c['anchors']['left'].update(xyz=[1, 2]), r'anchors\[...\].xyz'),
        (lambda c: c['anchors']['left'].update(xyz=[float('nan'), 0, 0]), 'xyz'),
        (lambda c: c['anchors']['left'].update(quaternion=[1, 1, 0, 0]), 'unit quaternion'),
        (lambda c: c['anchors']['left']['camera'].update(K=[0.0] * 9), 'K is'),
        (lambda c: c['anchors']['left']['camera'].update(width=0), 'width'),
        (lambda c: c['anchors']['left']['camera'].update(distortion=[1.0]), 'distortion'),
        (lambda c: c['anchors']['left']['quality'].update(method='eye'), 'method'),
        (lambda c: c['wrist'].pop('hand_frame'), 'hand_frame'),
    ],
)
def test_a_mistake_is_refused_with_its_place(tmp_path, change, words):
    path = tmp_path / 'calibration.yaml'
    write_calibration(path, calibration())
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=words) as caught:
        read_calibration(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize('text', ['', '[1]', 'a: [', '\x00', 'base_frame: {a: 1}'])
def test_something_else_is_refused(tmp_path, text):
    path = tmp_path / 'calibration.yaml'
    path.write_text(text)
    with pytest.raises(UserError, match=r'calibration\.yaml'):
        read_calibration(path)
    with pytest.raises(UserError, match='missing'):
        read_calibration(tmp_path / 'none.yaml')


def test_a_second_camera_joins_the_first_and_a_new_place_replaces_the_old():
    both = merged(calibration('left'), calibration('right', wrist=None))
    assert set(both.anchors) == {'left', 'right'} and both.wrist is not None
    again = PlacedCamera(xyz=[0, 0, 1], quaternion=[0, 0, 0, 1])
    assert merged(both, calibration(anchors={'left': again})).anchors['left'] == again
    with pytest.raises(UserError, match='world'):
        merged(both, calibration(base_frame='world'))


def test_the_launch_file_is_python_and_publishes_the_same_places():
    text = launch_text(calibration())
    compile(text, 'calibration.launch.py', 'exec')
    x, qw = (float(re.search(rf"'--{key}', '([^']+)'", text).group(1)) for key in ('x', 'qw'))
    xyz, quaternion = place(T)
    assert x == pytest.approx(xyz[0]) and qw == pytest.approx(quaternion[3])
    assert text.count('static_transform_publisher') == 2
    assert "'--child-frame-id', 'anchor_left_optical_frame'" in text and "'--frame-id', 'fr3_hand'" in text


def test_pixels_of_the_wrist_are_those_of_its_stated_camera():
    assert wrist_pixels(0.001) == pytest.approx(0.001 / 0.25 * 312.77, rel=1e-3)
