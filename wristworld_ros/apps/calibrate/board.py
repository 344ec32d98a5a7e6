"""`wristworld calibrate board`: a board on the hand places an anchor, a board on the table places the wrist camera."""

from __future__ import annotations

import argparse
import time

import numpy as np

from wristworld_ros.apps.calibrate import drawing
from wristworld_ros.apps.calibrate.outcome import Outcome, Plot
from wristworld_ros.data.images import read_image
from wristworld_ros.errors import UserError
from wristworld_ros.robot.board import Board, Detection, Intrinsics, detect
from wristworld_ros.robot.calibration_file import (
    Calibration,
    CameraModel,
    PlacedCamera,
    Quality,
    WristMount,
    place,
    wrist_pixels,
)
from wristworld_ros.robot.calibration_images import read_intrinsics, read_poses
from wristworld_ros.robot.hand_eye import LEAST_POSES, HandEye, solve_hand_eye

PICTURES = 12  # in the page


def calibrate_board(args: argparse.Namespace) -> Outcome:
    """Find the board in every image of the folder, and solve.

    Raises:
        UserError: The folder does not hold what it must, or its poses do not suffice.
    """
    board = Board(args.board, args.columns, args.rows, args.square, args.marker, args.dictionary, args.first_id)
    camera = read_intrinsics(args.folder)
    paths, hands = read_poses(args.folder)
    found, unseen = [], []
    for i, path in enumerate(paths):
        picture = read_image(path)
        if picture.shape[:2] != (camera.height, camera.width):
            raise UserError(
                f'{path} is {picture.shape[1]}x{picture.shape[0]}, and its camera {camera.width}x{camera.height}',
                'give the camera_info of these images',
            )
        detection = detect(picture, board)
        if detection is None or len(detection.points) < 4:
            unseen.append(path.name)
        else:
            found.append((i, path.name, picture, detection))
    if len(found) < LEAST_POSES:
        raise UserError(
            f'the board ({board.kind}, {board.columns}x{board.rows}) is seen in {len(found)} of {len(paths)} images',
            'check kind, columns and rows (inner corners of a chessboard, squares of a ChArUco board), and show it whole',
        )
    poses = hands[[i for i, *_ in found]]
    detections = [detection for *_, detection in found]
    parent = 'base' if args.mount == 'hand' else 'hand'
    fit = solve_hand_eye(poses, detections, camera, parent)
    return _outcome(args, fit, poses, found, unseen, camera)


def _outcome(args, fit: HandEye, poses: np.ndarray, found, unseen: list[str], camera: Intrinsics) -> Outcome:
    detections = [detection for *_, detection in found]
    distance = float(np.median(np.linalg.norm(_boards(fit, poses)[:, :3, 3], axis=1)))
    expected = fit.expected_error(distance)
    # Of an anchor: what a scene that is displaced so much is in a wrist image. Of the wrist camera: in its own.
    pixels = wrist_pixels(expected) if fit.parent == 'base' else expected * float(camera.K[0, 0]) / distance
    notes = [f'the board was not found in {", ".join(unseen)}; these images were left out'] if unseen else []
    names = [name for _, name, *_ in found]
    if fit.outliers:
        named = ', '.join(names[i] for i in fit.outliers)
        notes.append(
            f'{named} do not agree with the other poses and count for little; leave them out, or record them again'
        )
    notes += fit.warnings
    quality = Quality(
        method='board', poses=len(poses), residual=round(float(fit.residuals.mean()), 3), unit='px', expected_mm=round(1e3 * expected, 2),
        expected_wrist_px=round(pixels, 2), date=time.strftime('%Y-%m-%d'), warnings=notes,
    )  # fmt: skip
    xyz, quaternion = place(fit.T_parent_camera)
    fields = {
        'xyz': xyz,
        'quaternion': quaternion,
        'frame': args.frame,
        'camera': CameraModel.of(camera),
        'quality': quality,
    }
    if fit.parent == 'base':
        placed = PlacedCamera(**fields)
        calibration = Calibration(base_frame=args.base_frame, anchors={args.name: placed})
        title = f'anchor_{args.name} in {args.base_frame}, with a board on the hand'
    else:
        placed = WristMount(hand_frame=args.hand_frame, **fields)
        calibration = Calibration(base_frame=args.base_frame, wrist=placed)
        title = f'The wrist camera in {args.hand_frame}, with a board that does not move'
    facts = [
        (f'{fit.residuals.mean():.2f}', 'px', 'mean reprojection error'),
        (f'{1e3 * expected:.1f}', 'mm', f'expected error {distance:.2f} m before the camera'),
        (f'{pixels:.1f}', 'px', 'of a wrist image that this moves'),
        (f'{len(poses)}', '', 'arm poses'),
        (f'{fit.second_axis:.0f}', 'degrees', 'turn of the hand about a second axis'),
    ]  # fmt: skip
    rows = [
        [name, str(len(detection.points)), f'{residual:.2f}', f'{1e3 * metres:.2f}', f'{degrees:.3f}']
        for (_, name, _, detection), residual, (metres, degrees) in zip(found, fit.residuals, fit.arm)
    ]
    return Outcome(
        title, calibration, placed, facts, ['image', 'corners', 'error, px', 'arm, mm', 'arm, degrees'], rows, fit.outliers, notes,
        'Corners as they were found (green), where the closed-form start puts them with the poses as they were recorded (orange), and '
        'where the answer does (blue), on the part of each image that shows the board.',
        _pictures(fit, poses, found, camera), _plots(fit, names, detections),
    )  # fmt: skip


def _boards(fit: HandEye, poses: np.ndarray, camera_pose: np.ndarray | None = None) -> np.ndarray:
    """T_camera_board [P, 4, 4] for a place of the camera (None: the answer), with the arm's poses as recorded."""
    moves = poses if fit.parent == 'hand' else np.linalg.inv(poses)
    return np.linalg.inv(moves @ (fit.T_parent_camera if camera_pose is None else camera_pose)) @ fit.T_other_board


def _pictures(fit: HandEye, poses, found, camera: Intrinsics) -> list[tuple[str, np.ndarray]]:
    before = _boards(fit, poses, fit.start)
    pictures = []
    for (_, name, picture, detection), T, after in list(zip(found, before, fit.reprojected))[:PICTURES]:
        start = camera.project(detection.points @ T[:3, :3].T + T[:3, 3])
        pictures.append((name, drawing.board_over(picture, detection.corners, start, after)))
    return pictures


def _plots(fit: HandEye, names: list[str], detections: list[Detection]) -> list[Plot]:
    errors = np.concatenate([d.corners - r for d, r in zip(detections, fit.reprojected)])
    arm = fit.arm * (1000, 1)
    return [
        Plot(
            'Reprojection error of each pose', 'Mean over its corners; dashed is the median. Red poses do not agree with the others.',
            drawing.bars(names, fit.residuals, 'pixels', fit.outliers),
        ),
        Plot('Corners about where the answer puts them', 'A cloud that is not round, or not about 0, tells of the intrinsics.', drawing.spread(errors)),
        Plot(
            'How far the arm is from where the images want it',
            "The arm's poses are not exact: joint offsets, a bent tool, a board that is loose. Each was corrected by this much.",
            drawing.bars(names, arm, 'millimetres|degrees', fit.outliers),
        ),
    ]  # fmt: skip
