"""Hand-eye calibration: known answers, noise, poses that tell too little, boards in rendered images, and a real arm."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wristworld_ros.errors import UserError
from wristworld_ros.robot.board import Board, Detection, Intrinsics, board_poses, detect
from wristworld_ros.robot.calibration_images import read_intrinsics, read_poses, rigid
from wristworld_ros.robot.hand_eye import solve_hand_eye

CAMERA = Intrinsics(np.array([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]]), np.empty(0), 640, 480)
BOARD = Board('chessboard', 9, 6, 0.0236)
POINTS = np.stack([*np.meshgrid(np.arange(9), np.arange(6)), np.zeros((6, 9))], -1).reshape(-1, 3) * 0.0236


def pose(vector, translation) -> np.ndarray:
    return rigid(np.array([translation]), Rotation.from_rotvec([vector]))[0]


X = pose((0.1, -0.2, 1.5), (0.06, -0.03, 0.04))  # the camera in its parent
Y = pose((3.0, 0.2, 0.1), (0.5, 0.1, 0.02))  # the board in the other


def recorded(parent, count=10, pixels=0.0, metres=0.0, axes=3, seed=0):
    """Poses of the hand and detections of a board about 40 cm before the camera."""
    rng = np.random.default_rng(seed)
    hands, detections = [], []
    for _ in range(count):
        turn = rng.uniform(-0.5, 0.5, 3) * (np.arange(3) >= 3 - axes)
        board = pose(turn, (*rng.uniform(-0.12, -0.05, 2), rng.uniform(0.35, 0.5)))
        move = Y @ np.linalg.inv(X @ board)
        hand = move if parent == 'hand' else np.linalg.inv(move)
        corners = CAMERA.project(POINTS @ board[:3, :3].T + board[:3, 3]) + rng.normal(0, pixels, (len(POINTS), 2))
        detections.append(Detection(POINTS, corners))
        hands.append(hand @ pose(rng.normal(0, metres, 3), rng.normal(0, metres, 3)))
    return np.stack(hands), detections


def error(T) -> tuple[float, float]:
    """Metres and degrees."""
    turn = Rotation.from_matrix(X[:3, :3].T @ T[:3, :3]).magnitude()
    return float(np.linalg.norm(T[:3, 3] - X[:3, 3])), float(np.degrees(turn))


@pytest.mark.parametrize('parent', ['hand', 'base'])
def test_exact_poses_give_the_camera_exactly(parent):
    found = solve_hand_eye(*recorded(parent), CAMERA, parent)
    metres, degrees = error(found.T_parent_camera)
    assert metres < 1e-6 and degrees < 1e-4
    np.testing.assert_allclose(found.T_other_board, Y, atol=1e-6)
    assert found.residuals.max() < 1e-3 and not found.outliers and not found.warnings


@pytest.mark.parametrize('parent', ['hand', 'base'])
def test_noise_of_corners_and_arm_is_borne_and_told(parent):
    errors, expected = [], []
    for seed in range(5):
        found = solve_hand_eye(*recorded(parent, 15, pixels=0.2, metres=0.001, seed=seed), CAMERA, parent)
        errors.append(error(found.T_parent_camera))
        expected.append(found.expected_error(0.4))
    metres, degrees = np.median(errors, 0)
    assert metres < 0.002 and degrees < 0.2
    assert 0.0003 < np.median(expected) < 0.006


def test_a_wrong_pose_is_named_and_does_not_move_the_answer():
    hands, detections = recorded('hand', 12, pixels=0.1)
    hands[4] = hands[4] @ pose((0.05, 0, 0), (0.02, 0, 0))
    found = solve_hand_eye(hands, detections, CAMERA, 'hand')
    assert found.outliers == (4,)
    assert error(found.T_parent_camera)[0] < 0.002


def test_turning_about_one_axis_is_refused_with_what_to_do():
    with pytest.raises(UserError, match='rotate about a second axis'):
        solve_hand_eye(*recorded('hand', axes=1), CAMERA, 'hand')


def test_two_poses_are_refused():
    with pytest.raises(UserError, match='at least 3'):
        solve_hand_eye(*recorded('hand', count=2), CAMERA, 'hand')


def rendered(board: Board, T: np.ndarray) -> np.ndarray:
    """A grey image of the board, whose first corner is its origin, at T_camera_board."""
    cell, margin = 60, 60
    if board.kind == 'chessboard':
        squares = np.indices((board.rows + 1, board.columns + 1)).sum(0) % 2
        print_ = np.kron(255 * squares, np.ones((cell, cell))).astype(np.uint8)
        origin, scale = cell, board.square / cell
    elif board.kind == 'charuco':
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, f'DICT_{board.dictionary}'))
        pattern = cv2.aruco.CharucoBoard((board.columns, board.rows), board.square, board.marker, dictionary)
        print_ = pattern.generateImage((board.columns * cell, board.rows * cell))
        origin, scale = 0, board.square / cell
    else:
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, f'DICT_{board.dictionary}'))
        print_ = cv2.aruco.generateImageMarker(dictionary, board.first_id, 4 * cell)
        origin, scale = 0, board.square / (4 * cell)
    print_ = cv2.copyMakeBorder(print_, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=255)
    to_board = np.array(
        [[scale, 0, -(origin + margin - 0.5) * scale], [0, scale, -(origin + margin - 0.5) * scale], [0, 0, 1]]
    )
    H = CAMERA.K @ np.stack([T[:3, 0], T[:3, 1], T[:3, 3]], 1) @ to_board
    return cv2.warpPerspective(print_, H, (640, 480), flags=cv2.INTER_AREA, borderValue=255)


@pytest.mark.parametrize('board', [
    BOARD, Board('charuco', 6, 5, 0.04, 0.03, '5X5_100'), Board('tags', 1, 1, 0.08, first_id=3),
])  # fmt: skip
def test_a_board_in_an_image_is_found_where_it_is(board):
    T = pose((0.25, -0.3, 0.1), (-0.08, -0.06, 0.45))
    found = detect(rendered(board, T), board)
    expected = CAMERA.project(found.points @ T[:3, :3].T + T[:3, 3])
    assert np.abs(found.corners - expected).max() < 1.0
    metres = [np.linalg.norm(candidate[:3, 3] - T[:3, 3]) for candidate in board_poses(found, CAMERA)]
    assert min(metres) < 0.01


def test_no_board_is_none():
    assert all(detect(np.full((480, 640), 128, np.uint8), b) is None for b in (BOARD, Board('tags', 1, 1, 0.05)))


@pytest.fixture
def franka():
    folder = os.environ.get('WRISTWORLD_DATA')
    if not folder:
        pytest.skip('WRISTWORLD_DATA names no folder of recordings')
    return Path(folder) / 'visp_franka_handeye'


def solved(folder: Path, board: Board, parent):
    images, hands = read_poses(folder)
    found = [detect(cv2.imread(str(image)), board) for image in images]
    return solve_hand_eye(hands, found, read_intrinsics(folder), parent)


def test_a_real_camera_on_the_hand(franka):
    found = solved(franka / 'data-eye-in-hand', BOARD, 'hand')
    assert np.linalg.norm(found.T_parent_camera[:3, 3] - [0.0577, -0.0339, -0.0423]) < 0.003
    known = Rotation.from_rotvec([0.002, 0.009, 1.582])
    turn = known.inv() * Rotation.from_matrix(found.T_parent_camera[:3, :3])
    assert np.degrees(turn.magnitude()) < 0.3
    assert found.residuals.mean() < 0.6


def test_a_real_camera_beside_the_arm(franka):
    found = solved(franka / 'data-eye-to-hand', Board('tags', 1, 1, 0.048, first_id=10), 'base')
    assert found.residuals.mean() < 0.6 and found.expected_error(0.5) < 0.01
