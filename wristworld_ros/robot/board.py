"""Calibration boards in images: their corners, and the board's pose in the camera.

Chessboards, ChArUco boards and grids of AprilTag or ArUco markers, with OpenCV 4.x and 5.x. The board's frame has x along its
columns, y along its rows and z into the board (away from a camera that sees it upright); its origin is the first corner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from wristworld_ros.errors import UserError

LEAST_CORNERS = 4
_REFINE = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-3)


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera with OpenCV's distortion.

    K: float64 [3, 3], pixels. distortion: float64 [0, 4, 5 or 8], OpenCV's order. width, height: pixels.
    """

    K: np.ndarray
    distortion: np.ndarray
    width: int
    height: int

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels [N, 2] of points [N, 3] in the camera's frame, metres."""
        if not self.distortion.any():  # many times faster
            return points[:, :2] / points[:, 2:] * (self.K[0, 0], self.K[1, 1]) + self.K[:2, 2]
        pixels, _ = cv2.projectPoints(points.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), self.K, self.distortion)
        return pixels.reshape(-1, 2)


@dataclass(frozen=True)
class Board:
    """What a calibration board looks like.

    kind: 'chessboard', 'charuco' or 'tags' (a grid of AprilTag or ArUco markers; 1 x 1 is a single tag).
    columns, rows: inner corners of a chessboard, squares of a ChArUco board, tags of a grid.
    square: metres; edge of a square, or of a tag's black border.
    marker: metres; edge of the markers in a ChArUco board, or the gap between tags. Unused for a chessboard.
    dictionary: OpenCV's name without DICT_, as in 'APRILTAG_36h11'.
    first_id: number of the first tag of a grid; the others follow along the rows.

    Raises:
        UserError: A size or the dictionary is not possible.
    """

    kind: Literal['chessboard', 'charuco', 'tags']
    columns: int
    rows: int
    square: float
    marker: float = 0.0
    dictionary: str = 'APRILTAG_36h11'
    first_id: int = 0

    def __post_init__(self):
        if self.kind not in ('chessboard', 'charuco', 'tags'):
            raise UserError(f'the board is {self.kind!r}', 'give chessboard, charuco or tags')
        least = {'chessboard': 3, 'charuco': 2, 'tags': 1}[self.kind]
        if min(self.columns, self.rows) < least:
            raise UserError(f'a {self.kind} board has {self.columns}x{self.rows}', f'give at least {least}x{least}')
        if not 0 < self.square < 10:
            raise UserError(f'the edge of a square is {self.square} m', 'give metres, as in 0.024')
        if self.kind == 'charuco' and not 0 < self.marker < self.square:
            raise UserError(f'the marker edge is {self.marker} m', 'give one smaller than the square, in metres')
        if self.kind != 'chessboard' and not hasattr(cv2.aruco, f'DICT_{self.dictionary}'):
            raise UserError(
                f'OpenCV has no marker dictionary {self.dictionary!r}', 'give one as in APRILTAG_36h11 or 5X5_100'
            )


@dataclass(frozen=True)
class Detection:
    """Corners of a board in one image.

    points: float64 [N, 3], in the board's frame, metres. corners: float64 [N, 2], pixels.
    """

    points: np.ndarray
    corners: np.ndarray


def detect(image: np.ndarray, board: Board) -> Detection | None:
    """Find a board.

    Args:
        image: uint8 [H, W, 3] RGB or [H, W] grey.
        board: What it looks like.

    Returns:
        Its corners; None where the board is not seen (a chessboard: not seen wholly).
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    find = {'chessboard': _detect_chessboard, 'charuco': _detect_charuco, 'tags': _detect_tags}[board.kind]
    return find(np.ascontiguousarray(grey), board)


def board_poses(detection: Detection, camera: Intrinsics) -> list[np.ndarray]:
    """The poses that a flat board can have, best first: a small or distant one looks nearly the same tilted either way.

    Args:
        detection: At least 4 corners.
        camera: Its intrinsics.

    Returns:
        T_camera_board, float64 [4, 4], metres, at most two, each refined on the reprojection error.
    """
    points, corners = (np.ascontiguousarray(part)[:, None] for part in (detection.points, detection.corners))
    distortion = camera.distortion if camera.distortion.size else None
    _, rotations, translations, _ = cv2.solvePnPGeneric(points, corners, camera.K, distortion, flags=cv2.SOLVEPNP_IPPE)
    poses = []
    for rotation, translation in zip(rotations, translations):
        rotation, translation = cv2.solvePnPRefineLM(points, corners, camera.K, distortion, rotation, translation)
        T = np.eye(4)
        T[:3, :3] = Rotation.from_rotvec(rotation.ravel()).as_matrix()
        T[:3, 3] = translation.ravel()
        if T[2, 3] > 0:
            poses.append(T)
    return sorted(poses, key=lambda T: reprojection(T, detection, camera).mean())


def reprojection(T_camera_board: np.ndarray, detection: Detection, camera: Intrinsics) -> np.ndarray:
    """Distances [N] between corners and where a pose puts them, pixels."""
    local = detection.points @ T_camera_board[:3, :3].T + T_camera_board[:3, 3]
    return np.linalg.norm(camera.project(local) - detection.corners, axis=1)


def _grid(columns: int, rows: int, step: float) -> np.ndarray:
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    return np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3) * step


def _detect_chessboard(grey: np.ndarray, board: Board) -> Detection | None:
    size = (board.columns, board.rows)
    found, corners = cv2.findChessboardCornersSB(grey, size, flags=cv2.CALIB_CB_ACCURACY | cv2.CALIB_CB_NORMALIZE_IMAGE)
    if not found:
        found, corners = cv2.findChessboardCorners(grey, size)
        if not found:
            return None
        # OpenCV 4 gives [N, 1, 2] and OpenCV 5 [N, 2]; both refine [N, 1, 2].
        corners = cv2.cornerSubPix(grey, np.asarray(corners, np.float32).reshape(-1, 1, 2), (5, 5), (-1, -1), _REFINE)
    pixels = np.asarray(corners, np.float64).reshape(-1, 2)
    # The order may start at either end. Where a half turn changes the squares' colours, they tell which.
    if (board.columns + board.rows) % 2 and not _first_is_dark(grey, pixels.reshape(board.rows, board.columns, 2)):
        pixels = pixels[::-1]
    return Detection(_grid(board.columns, board.rows, board.square), np.ascontiguousarray(pixels))


def _first_is_dark(grey: np.ndarray, corners: np.ndarray) -> bool:
    """Whether the square between the first four of the corners [rows, columns, 2] has the dark colour."""
    middles = (corners[:-1, :-1] + corners[1:, 1:] + corners[:-1, 1:] + corners[1:, :-1]) / 4
    x, y = np.rint(middles).astype(int).transpose(2, 0, 1)
    values = grey[y.clip(0, grey.shape[0] - 1), x.clip(0, grey.shape[1] - 1)].astype(float)
    odd = np.indices(values.shape).sum(0) % 2 == 1
    return bool(values[~odd].mean() < values[odd].mean())


def _dictionary(board: Board):
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, f'DICT_{board.dictionary}'))


def _detect_charuco(grey: np.ndarray, board: Board) -> Detection | None:
    pattern = cv2.aruco.CharucoBoard((board.columns, board.rows), board.square, board.marker, _dictionary(board))
    corners, numbers, _, _ = cv2.aruco.CharucoDetector(pattern).detectBoard(grey)
    if numbers is None or len(numbers) < LEAST_CORNERS:
        return None
    points = np.asarray(pattern.getChessboardCorners(), np.float64)[np.asarray(numbers).ravel()]
    if np.linalg.matrix_rank(points[:, :2] - points[0, :2], tol=1e-9) < 2:  # one line of corners has no pose
        return None
    return Detection(points, np.asarray(corners, np.float64).reshape(-1, 2))


def _detect_tags(grey: np.ndarray, board: Board) -> Detection | None:
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    corners, numbers, _ = cv2.aruco.ArucoDetector(_dictionary(board), parameters).detectMarkers(grey)
    if numbers is None:
        return None
    offsets = _grid(2, 2, board.square)[[0, 1, 3, 2]]  # as the detector goes round a tag
    points, pixels = [], []
    for number, four in zip(np.asarray(numbers).ravel() - board.first_id, corners):
        if 0 <= number < board.columns * board.rows:
            row, column = divmod(int(number), board.columns)
            points.append(offsets + np.array([column, row, 0.0]) * (board.square + board.marker))
            pixels.append(np.asarray(four, np.float64).reshape(4, 2))
    return Detection(np.concatenate(points), np.concatenate(pixels)) if points else None
