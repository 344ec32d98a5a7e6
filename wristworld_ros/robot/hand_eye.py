"""Hand-eye calibration: where a camera is on the hand, or in the robot's base, from images of a board in many arm poses.

A camera on the hand sees a board that is fixed in the base; a camera in the base sees a board that is fixed on the hand. With
the hand's pose inverted the second is the first: M_i X C_i = Y for all poses i, where C_i is the board's pose in the camera,
X the camera's in its parent (hand or base) and Y the board's in the other. Park and Martin (1994) give the start; least
squares on the reprojection error over all poses, with a robust loss, the answer. The arm's poses are not exact either (joint
offsets, a bent tool): each may be corrected a little, as far as the poses disagree at the start, or the corners, of which
there are many, would bend the answer to the arm's errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from wristworld_ros.errors import UserError
from wristworld_ros.robot.board import Detection, Intrinsics, board_poses, reprojection

Parent = Literal['hand', 'base']
LEAST_POSES = 3
NO_ROTATION = 2.0  # degrees: a second axis turned by less is none
LITTLE_ROTATION = 15.0
ROBUST = 2.0  # standard deviations from which an error counts less than its square
ANGLE_MEDIAN = 1.54  # median length of three numbers of deviation one
LEAST_ANGLE, LEAST_LENGTH, LEAST_PIXELS = 1e-4, 1e-4, 0.05  # radians, metres, pixels: no arm or corner is better


@dataclass(frozen=True)
class HandEye:
    """A solved hand-eye calibration.

    parent: Where the camera is fixed: 'hand' or 'base'.
    T_parent_camera: float64 [4, 4], metres.
    T_other_board: float64 [4, 4]: the board in the base (camera on the hand) or in the hand (camera in the base).
    start: float64 [4, 4], Park's answer.
    covariance: float64 [6, 6] of the rotation vector (radians) and translation (metres) in the camera's frame.
    residuals: float64 [P], mean reprojection error of each pose, pixels, its hand corrected as `arm` says.
    arm: float64 [P, 2], how far each pose of the hand is from where the others want it, metres and degrees.
    reprojected: P arrays [N, 2], where the answer puts each pose's corners, pixels.
    outliers: Indices of poses that do not agree with the others.
    second_axis: Degrees (root mean square) by which the hand turned about a second axis.
    warnings: Sentences on what the poses leave uncertain, each with what to do.
    """

    parent: Parent
    T_parent_camera: np.ndarray
    T_other_board: np.ndarray
    start: np.ndarray
    covariance: np.ndarray
    residuals: np.ndarray
    arm: np.ndarray
    reprojected: tuple[np.ndarray, ...]
    outliers: tuple[int, ...]
    second_axis: float
    warnings: tuple[str, ...]

    def expected_error(self, distance: float) -> float:
        """Standard deviation of the place of a point on the optical axis at `distance` metres, in metres."""
        return point_error(self.covariance, np.array([0, 0, distance]))


def solve_hand_eye(
    T_base_hand: np.ndarray, detections: Sequence[Detection], camera: Intrinsics, parent: Parent
) -> HandEye:
    """Solve a camera's place from one detection per arm pose.

    Args:
        T_base_hand: Float64 [P, 4, 4], the hand in the base at each image, metres.
        detections: P detections of the board.
        camera: Intrinsics of the camera.
        parent: 'hand' for a camera on the hand, 'base' for a fixed one.

    Raises:
        UserError: Fewer than 3 poses, a board that has no pose, or a hand that turned about one axis only.
    """
    poses = np.asarray(T_base_hand, np.float64)
    if len(poses) != len(detections) or poses.shape[1:] != (4, 4):
        raise UserError(f'{len(poses)} poses for {len(detections)} detections', 'give one pose [4, 4] per detection')
    if len(poses) < LEAST_POSES:
        raise UserError(f'the board is seen in {len(poses)} poses', f'record at least {LEAST_POSES}, better 10 to 20')
    second = second_axis_degrees(poses)
    if second < NO_ROTATION:
        raise UserError(
            f'the hand turned about one axis only ({second:.1f} degrees about a second one)',
            'rotate about a second axis, by 30 degrees or more, and record again',
        )
    moves = _moves(poses, parent)
    candidates = [board_poses(detection, camera) for detection in detections]
    if not all(candidates):
        raise UserError(
            'the corners of an image give no pose of the board', 'check the size of the board, or leave it out'
        )
    # A flat board has two poses; the second is tried where it agrees better with the first answer.
    boards = np.stack([options[0] for options in candidates])
    start = park(moves, boards)
    for _ in range(3):
        other = _average(moves @ start @ boards)
        wanted = np.linalg.inv(moves @ start) @ other
        chosen = [min(options, key=lambda T: _distance(T, w)) for options, w in zip(candidates, wanted)]
        boards = np.stack(chosen)
        start = park(moves, boards)
    fit, other, corrections, result = _refine(poses, parent, start, boards, detections, camera)
    corrected = np.stack([moved(T, step) for T, step in zip(poses, corrections)])
    reprojected = tuple(_predict(_moves(corrected, parent), fit, other, detections, camera))
    residuals = np.array([np.linalg.norm(a - d.corners, axis=1).mean() for a, d in zip(reprojected, detections)])
    arm = np.stack(
        [np.linalg.norm(corrections[:, 3:], axis=1), np.degrees(np.linalg.norm(corrections[:, :3], axis=1))], 1
    )
    return HandEye(
        parent, fit, other, start, _covariance(result), residuals, arm, reprojected, _outliers(residuals, arm), second,
        tuple(_warnings(poses, second)),
    )  # fmt: skip


def park(moves: np.ndarray, boards: np.ndarray) -> np.ndarray:
    """X [4, 4] of M_i X C_i = Y, least squares over all pairs of poses; rotation first, then translation.

    Args:
        moves: M, float64 [P, 4, 4].
        boards: C, float64 [P, 4, 4].
    """
    first, second = np.triu_indices(len(moves), 1)
    A = np.linalg.inv(moves[second]) @ moves[first]
    B = boards[second] @ np.linalg.inv(boards[first])
    a = Rotation.from_matrix(A[:, :3, :3]).as_rotvec()
    b = Rotation.from_matrix(B[:, :3, :3]).as_rotvec()
    u, _, vt = np.linalg.svd(a.T @ b)
    X = np.eye(4)
    X[:3, :3] = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    left = (A[:, :3, :3] - np.eye(3)).reshape(-1, 3)
    right = (B[:, :3, 3] @ X[:3, :3].T - A[:, :3, 3]).reshape(-1)
    X[:3, 3] = np.linalg.lstsq(left, right, rcond=None)[0]
    return X


def second_axis_degrees(poses: np.ndarray) -> float:
    """Root mean square, over pairs of poses [P, 4, 4], of the rotation about an axis other than the main one, degrees."""
    first, second = np.triu_indices(len(poses), 1)
    relative = np.swapaxes(poses[second, :3, :3], 1, 2) @ poses[first, :3, :3]
    vectors = Rotation.from_matrix(relative).as_rotvec()
    return float(np.degrees(np.linalg.svd(vectors, compute_uv=False)[1] / np.sqrt(len(vectors))))


def point_error(covariance: np.ndarray, point: np.ndarray) -> float:
    """Standard deviation of a point's place, metres.

    Args:
        covariance: Float64 [6, 6], of rotation vector and translation in the frame of the point.
        point: Float64 [3], metres.
    """
    x, y, z = point
    J = np.hstack([-np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), np.eye(3)])
    return float(np.sqrt(np.trace(J @ covariance @ J.T)))


def moved(T: np.ndarray, step: np.ndarray) -> np.ndarray:
    """T @ Exp(step): a pose [4, 4] moved in its own frame by a rotation vector and a translation [6]."""
    change = np.eye(4)
    change[:3, :3] = Rotation.from_rotvec(step[:3]).as_matrix()
    change[:3, 3] = step[3:]
    return T @ change


def _moves(T_base_hand: np.ndarray, parent: Parent) -> np.ndarray:
    return T_base_hand if parent == 'hand' else np.linalg.inv(T_base_hand)


def _predict(moves, X, Y, detections, camera) -> list[np.ndarray]:
    boards = np.linalg.inv(moves @ X) @ Y
    local = [d.points @ T[:3, :3].T + T[:3, 3] for T, d in zip(boards, detections)]
    return np.split(camera.project(np.concatenate(local)), np.cumsum([len(part) for part in local])[:-1])


def _refine(poses, parent, start, boards, detections, camera):
    """X, Y, the corrections [P, 6] of the hand's poses, and the optimiser's result, whose residuals are in deviations."""
    moves = _moves(poses, parent)
    other = _average(moves @ start @ boards)
    # How far the poses disagree at the start is how far the arm's poses can be trusted.
    wanted = np.stack([np.linalg.inv(other) @ T for T in moves @ start @ boards])
    angle = np.median(Rotation.from_matrix(wanted[:, :3, :3]).magnitude()) / ANGLE_MEDIAN
    length = np.median(np.linalg.norm(wanted[:, :3, 3], axis=1)) / ANGLE_MEDIAN
    spread = np.repeat([max(angle, LEAST_ANGLE), max(length, LEAST_LENGTH)], 3)
    pixels = [reprojection(T, d, camera).mean() for T, d in zip(boards, detections)]
    sigma = max(float(np.median(pixels)), LEAST_PIXELS)
    corners = np.concatenate([d.corners for d in detections])

    def errors(step):
        corrections = step[12:].reshape(-1, 6) * spread
        hands = np.stack([moved(T, c) for T, c in zip(poses, corrections)])
        predicted = _predict(
            _moves(hands, parent), moved(start, step[:6]), moved(other, step[6:12]), detections, camera
        )
        return np.concatenate([(np.concatenate(predicted) - corners).ravel() / sigma, step[12:]])

    count = len(poses)
    scales = np.concatenate([spread, spread, np.ones(6 * count)])
    result = least_squares(
        errors, np.zeros(12 + 6 * count), loss='soft_l1', f_scale=ROBUST, x_scale=scales, max_nfev=40
    )
    x = result.x
    return moved(start, x[:6]), moved(other, x[6:12]), x[12:].reshape(-1, 6) * spread, result


def _covariance(result) -> np.ndarray:
    """Of the camera's six numbers, the board's and the arm's marginalised."""
    excess = max(1.0, (1.4826 * np.median(np.abs(result.fun))) ** 2)
    return (np.linalg.pinv(result.jac.T @ result.jac) * excess)[:6, :6]


def _outliers(residuals: np.ndarray, arm: np.ndarray) -> tuple[int, ...]:
    bad = residuals > max(3 * float(np.median(residuals)), 0.5)
    for column, least in zip(arm.T, (0.001, 0.1)):
        bad |= column > max(4 * float(np.median(column)), least)
    return tuple(int(i) for i in np.flatnonzero(bad))


def _warnings(poses: np.ndarray, second: float):
    if second < LITTLE_ROTATION:
        yield f'the hand turned by only {second:.0f} degrees about a second axis; rotate about a second axis, by 30 degrees or more'
    if len(poses) < 8:
        yield f'{len(poses)} poses leave little to check them by; record 10 to 20'


def _average(poses: np.ndarray) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_matrix(poses[:, :3, :3]).mean().as_matrix()
    T[:3, 3] = np.median(poses[:, :3, 3], 0)
    return T


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(first[:3, :3] - second[:3, :3]) + np.linalg.norm(first[:3, 3] - second[:3, 3]))
