"""`wristworld calibrate`: folders in, a calibration file, a launch file and a page out; one sentence where a folder is wrong."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wristworld_ros import cli
from wristworld_ros.errors import UserError
from wristworld_ros.robot.arm_recording import pose_of, read_arm_recording
from wristworld_ros.robot.calibration_file import (
    Calibration,
    PlacedCamera,
    place,
    read_calibration,
    write_calibration,
)
from wristworld_ros.robot.calibration_images import read_intrinsics

WIDTH, HEIGHT = 640, 480
K = np.array([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]])
SQUARE = 0.03
CAMERA_INFO = f'image_width: {WIDTH}\nimage_height: {HEIGHT}\ncamera_matrix: {{data: {K.ravel().tolist()}}}\n'
BOARD = ['--columns', '7', '--rows', '5', '--square', str(SQUARE)]


def pose(vector, translation) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(vector).as_matrix()
    T[:3, 3] = translation
    return T


ANCHOR = pose((-1.9, 0.3, -0.2), (0.9, -0.4, 0.5))  # T_base_camera
ON_HAND = pose((0.2, 0.1, 0.4), (-0.08, -0.05, 0.06))  # T_hand_board


def picture(T_camera_board: np.ndarray) -> np.ndarray:
    """A chessboard of 7 x 5 inner corners, the first of which is the board's origin."""
    cell, margin = 60, 60
    squares = np.kron(255 * (np.indices((6, 8)).sum(0) % 2), np.ones((cell, cell))).astype(np.uint8)
    squares = cv2.copyMakeBorder(squares, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=255)
    step, start = SQUARE / cell, (cell + margin - 0.5) * SQUARE / cell
    H = K @ T_camera_board[:3, [0, 1, 3]] @ np.array([[step, 0, -start], [0, step, -start], [0, 0, 1]])
    return cv2.warpPerspective(squares, H, (WIDTH, HEIGHT), flags=cv2.INTER_AREA, borderValue=255)


@pytest.fixture(scope='module')
def board_folder(tmp_path_factory):
    """An anchor that sees a board on the hand in 8 poses, and nothing in a ninth."""
    folder, rng = tmp_path_factory.mktemp('board'), np.random.default_rng(0)
    lines = ['image,x,y,z,qx,qy,qz,qw']
    for i in range(9):
        seen = pose(rng.uniform(-0.4, 0.4, 3), (*rng.uniform(-0.12, -0.06, 2), rng.uniform(0.4, 0.5)))
        xyz, quaternion = place(ANCHOR @ seen @ np.linalg.inv(ON_HAND))
        image = picture(seen) if i < 8 else np.full((HEIGHT, WIDTH), 128, np.uint8)
        cv2.imwrite(str(folder / f'{i}.png'), image)
        lines.append(','.join([f'{i}.png', *map(str, [*xyz, *quaternion])]))
    (folder / 'poses.csv').write_text('\n'.join(lines))
    (folder / 'camera_info.yaml').write_text(CAMERA_INFO)
    return folder


def test_a_board_on_the_hand_places_an_anchor_beside_those_that_the_file_has(board_folder, tmp_path, capsys):
    out = tmp_path / 'out'
    left = PlacedCamera(xyz=[1, 0, 0], quaternion=[0, 0, 0, 1])
    write_calibration(out / 'calibration.yaml', Calibration(base_frame='fr3_link0', anchors={'left': left}))
    assert (
        cli.main(
            ['calibrate', 'board', str(board_folder), '--mount', 'hand', *BOARD, '--name', 'top', '--out', str(out)]
        )
        == 0
    )
    found = read_calibration(out / 'calibration.yaml')
    top = found.anchors['top']
    assert found.base_frame == 'fr3_link0' and found.wrist is None and found.anchors['left'] == left
    assert np.linalg.norm(top.T[:3, 3] - ANCHOR[:3, 3]) < 0.003
    turn = Rotation.from_matrix(top.T[:3, :3].T @ ANCHOR[:3, :3]).magnitude()
    assert np.degrees(turn) < 0.3
    assert top.quality.method == 'board' and top.quality.poses == 8 and top.quality.residual < 0.5
    np.testing.assert_allclose(top.camera.intrinsics.K, K)
    printed = capsys.readouterr().out
    assert '8.png' in printed and '7.png' in printed and 'expected error' in printed
    page = (out / 'calibration_top.html').read_text()
    assert page.count('<svg') == 3 and page.count('data:image/jpeg') == 8 and 'src="http' not in page
    compile((out / 'calibration.launch.py').read_text(), 'launch', 'exec')


@pytest.mark.parametrize(
    ('change', 'arguments', 'words'),
    [
        (None, ['--columns', '9'], 'seen in 0 of 9'),
        ('camera_info.yaml', [], 'camera_info.yaml is missing'),
        ('poses.csv', [], 'has no poses.csv'),
        ('3.png', [], '3.png is missing'),
        (None, ['--square', '24'], 'metres'),
    ],
)
def test_a_wrong_folder_or_board_is_one_sentence(board_folder, tmp_path, capsys, change, arguments, words):
    folder = tmp_path / 'copy'
    shutil.copytree(board_folder, folder)
    if change:
        (folder / change).unlink()
    out = ['--out', str(tmp_path / 'out')]
    assert cli.main(['calibrate', 'board', str(folder), '--mount', 'hand', *BOARD, *out, *arguments]) == 2
    message = capsys.readouterr().err
    assert words in message and message.count('\n') == 1 and not (tmp_path / 'out').exists()


def test_a_real_camera_on_the_hand(tmp_path):
    if not (data := os.environ.get('WRISTWORLD_DATA')):
        pytest.skip('WRISTWORLD_DATA names no folder of recordings')
    folder = Path(data) / 'visp_franka_handeye' / 'data-eye-in-hand'
    options = ['--mount', 'table', '--columns', '9', '--rows', '6', '--square', '0.0236', '--out', str(tmp_path)]
    assert cli.main(['calibrate', 'board', str(folder), *options]) == 0
    wrist = read_calibration(tmp_path / 'calibration.yaml').wrist
    assert wrist.hand_frame == 'fr3_hand' and wrist.quality.residual < 0.6
    assert np.linalg.norm(wrist.T[:3, 3] - [0.0577, -0.0339, -0.0423]) < 0.003


@pytest.fixture(scope='module')
def simulated(tmp_path_factory):
    """A folder of the simulated arm, and what came of its calibration."""
    pytest.importorskip('mujoco')
    pytest.importorskip('yourdfpy')
    root = tmp_path_factory.mktemp('arm')
    assert cli.main(['calibrate', 'robot', str(root / 'arm'), '--simulate', '3', '--out', str(root / 'out')]) == 0
    return root / 'arm', root / 'out'


def test_the_simulated_arm_places_its_camera(simulated):
    folder, out = simulated
    left = read_calibration(out / 'calibration.yaml').anchors['left']
    truth = read_arm_recording(folder).truth
    error = np.linalg.inv(truth) @ left.T
    assert np.linalg.norm(error[:3, 3]) < 0.005 and np.degrees(Rotation.from_matrix(error[:3, :3]).magnitude()) < 0.5
    assert left.quality.method == 'robot' and left.quality.unit == 'mm' and left.quality.expected_mm < 3
    page = (out / 'calibration_left.html').read_text()
    assert page.count('data:image/jpeg') == 10 and page.count('<svg') == 2


def test_a_guess_by_tape_does_as_well(simulated, tmp_path):
    folder, _ = simulated
    truth = read_arm_recording(folder).truth
    position, target = truth[:3, 3] + 0.05, truth[:3, 3] + truth[:3, 2]
    options = ['--position', *map(str, position), '--looks-at', *map(str, target), '--out', str(tmp_path)]
    assert cli.main(['calibrate', 'robot', str(folder), *options]) == 0
    left = read_calibration(tmp_path / 'calibration.yaml').anchors['left']
    assert np.linalg.norm(left.T[:3, 3] - truth[:3, 3]) < 0.005


def _write(name, text):
    return lambda folder: (folder / name).write_text(text)


def _small_depth(folder):
    cv2.imwrite(str(folder / 'depth' / '001.png'), np.full((10, 20), 900, np.uint16))


def _grey_depth(folder):
    cv2.imwrite(str(folder / 'depth' / '001.png'), np.full((240, 320), 90, np.uint8))


def _depth_in_tenths(folder):
    cv2.imwrite(str(folder / 'depth' / '001.png'), np.full((240, 320), 60000, np.uint16))


def _no_joint(folder):
    table = (folder / 'joints.csv').read_text()
    (folder / 'joints.csv').write_text(table.replace('fr3_joint4', 'panda_joint4'))


@pytest.mark.parametrize(
    ('change', 'arguments', 'words'),
    [
        (lambda folder: (folder / 'guess.txt').unlink(), [], '--position'),
        (_write('guess.txt', '1 2 3'), [], 'guess.txt'),
        (_write('guess.txt', 'a b'), [], 'guess.txt'),
        (None, ['--guess', '0', '0', '0', '0', '0', '0', '0'], '--guess'),
        (None, ['--position', '1', '0', '0'], 'give both'),
        (_small_depth, [], '20x10'),
        (_grey_depth, [], 'uint8'),
        (_depth_in_tenths, [], 'median depth'),
        (_write('depth/001.png', 'no image'), [], '001.png'),
        (_write('robot.urdf', 'no robot'), [], 'URDF'),
        (_no_joint, [], 'fr3_joint4'),
        (None, ['--base-frame', 'world'], 'world'),
        (None, ['--simulate', '1'], 'holds something'),
    ],
)
def test_a_wrong_recording_is_one_sentence(simulated, tmp_path, capsys, change, arguments, words):
    folder = tmp_path / 'copy'
    shutil.copytree(simulated[0], folder)
    if change:
        change(folder)
    assert cli.main(['calibrate', 'robot', str(folder), *arguments, '--out', str(tmp_path / 'out')]) == 2
    message = capsys.readouterr().err
    assert words in message and message.count('\n') == 1


@pytest.mark.parametrize(
    ('option', 'value'), [('--name', 'a/b'), ('--name', 'a-b'), ('--frame', 'a b'), ('--base-frame', '')]
)
def test_names_that_ros_does_not_take_are_refused_before_any_work(tmp_path, capsys, option, value):
    with pytest.raises(SystemExit) as end:
        cli.main(['calibrate', 'robot', str(tmp_path), option, value])
    assert end.value.code == 2 and option in capsys.readouterr().err


def test_record_becomes_the_recorder_with_the_options_and_remappings(tmp_path, monkeypatch):
    called = []

    def execv(path, arguments):
        called.append(arguments)
        raise SystemExit

    monkeypatch.setattr('os.execv', execv)
    with pytest.raises(SystemExit):
        cli.main(['calibrate', 'record', str(tmp_path), '--name', 'top', '--count', '3', '--remap', 'a:=b', 'c:=d'])
    assert called[0][1:3] == ['-m', 'wristworld_ros.ros.pose_recorder_node']
    assert called[0][3:7] == ['--out', str(tmp_path), '--anchor', 'top'] and called[0][-5:] == [
        '--ros-args',
        '-r',
        'a:=b',
        '-r',
        'c:=d',
    ]


def test_camera_info_is_read_as_ros_prints_it(tmp_path):
    text = f'header:\n  frame_id: camera\nheight: 480\nwidth: 640\ndistortion_model: plumb_bob\nd: [0.1, 0.0, 0.0, 0.0, 0.0]\nk: {K.ravel().tolist()}\n---\n'
    (tmp_path / 'camera_info.yaml').write_text(text)
    found = read_intrinsics(tmp_path)
    np.testing.assert_allclose(found.K, K)
    assert (found.width, found.height) == (640, 480) and found.distortion[0] == 0.1


def test_seven_numbers_are_a_pose_or_one_sentence():
    assert pose_of([1, 2, 3, 0, 0, 0, 1], '--guess')[1, 3] == 2
    with pytest.raises(UserError, match='--guess'):
        pose_of([1, 2, 3, 0, 0, 0, float('nan')], '--guess')
