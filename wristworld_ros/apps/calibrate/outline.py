"""`wristworld calibrate robot` for an anchor without depth: by the outline of the arm in many pictures."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from wristworld_ros.apps.calibrate.outcome import Outcome
from wristworld_ros.errors import UserError
from wristworld_ros.robot.arm_recording import ArmRecording
from wristworld_ros.robot.board import Intrinsics
from wristworld_ros.robot.calibration_file import Calibration, CameraModel, PlacedCamera, Quality, place, wrist_pixels
from wristworld_ros.robot.outline import FIX, OutlineFit, find_camera
from wristworld_ros.robot.outline_picture import outline_over

PICTURES = 6
MOST_FOCAL_ERROR = 30.0  # percent


def calibrate_by_outline(args: argparse.Namespace, recording: ArmRecording, guess: np.ndarray | None) -> Outcome:
    """Find the camera of a recording without depth.

    Raises:
        UserError: The lens has distortion, too little moves, or the answer is not to be trusted.
    """
    if recording.camera.distortion.any():
        raise UserError('camera_info.yaml has distortion', 'give rectified pictures and the camera_info of these')
    if not 0 <= args.focal_error <= MOST_FOCAL_ERROR:
        raise UserError(f'--focal-error is {args.focal_error:g}', f'give 0 to {MOST_FOCAL_ERROR:g} percent')
    images = np.stack(recording.pictures)
    surfaces = recording.surfaces(args.urdf, args.base_frame)
    fit = find_camera(images, surfaces, recording.camera.K, args.focal_error / 100, guess)
    if fit.doubt:
        raise UserError(f'the arm does not tell where the camera is: {fit.doubt}', FIX)
    return _outcome(args, fit, recording, surfaces)


def _outcome(args: argparse.Namespace, fit: OutlineFit, recording: ArmRecording, surfaces) -> Outcome:
    expected = fit.expected_error
    pixels = wrist_pixels(expected)
    quality = Quality(
        method='robot', poses=len(fit.frames), residual=round(fit.residual, 2), unit='px',
        expected_mm=round(1e3 * expected, 2), expected_wrist_px=round(pixels, 2), date=time.strftime('%Y-%m-%d'),
    )  # fmt: skip
    xyz, quaternion = place(fit.T_base_camera)
    found = Intrinsics(fit.K, np.empty(0), recording.camera.width, recording.camera.height)
    camera = PlacedCamera(
        xyz=xyz, quaternion=quaternion, frame=args.frame, camera=CameraModel.of(found), quality=quality
    )
    facts = [
        (f'{fit.residual:.1f}', 'px', "mean distance of the arm's outline from the border of what changes"),
        (
            f'{1e3 * expected:.0f}',
            'mm',
            'expected error at the arm: three times the distance between the answers of two halves of the pictures, or 4.5 pixels',
        ),
        (f'{fit.explained:.0%}', '', 'of the features that move are explained by the arm'),
        (f'{fit.K[0, 0]:.1f}', 'px', 'focal length'),
    ]
    if recording.truth is not None:
        error = np.linalg.inv(recording.truth) @ fit.T_base_camera
        degrees = float(np.degrees(Rotation.from_matrix(error[:3, :3]).magnitude()))
        place_error = f'{1e3 * np.linalg.norm(error[:3, 3]):.1f} mm, {degrees:.2f}'
        facts.append((place_error, 'degrees', "error against the simulator's truth"))
    names = [Path(recording.names[i]).name for i in fit.frames]
    shown = fit.frames[:: max(1, len(fit.frames) // PICTURES)]
    pictures = [
        (
            Path(recording.names[i]).name,
            outline_over(recording.pictures[i], surfaces[i], fit.K, fit.T_base_camera),
        )
        for i in shown
    ]
    return Outcome(
        f'anchor_{args.name} in {args.base_frame}, by the outline of the arm', Calibration(
            base_frame=args.base_frame, anchors={args.name: camera}
        ), camera, facts, ['picture'], [[name] for name in names], (),
        ['the answer rests on the outline alone: look at the pictures before you use it'],
        'The outline of the arm as the joints place it: it must lie on the arm in every picture.', pictures, [],
    )  # fmt: skip
