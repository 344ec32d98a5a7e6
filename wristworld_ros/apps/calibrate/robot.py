"""`wristworld calibrate robot`: an anchor is placed by how it sees the arm in several poses, by depth or by outline."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from wristworld_ros.apps.calibrate import drawing
from wristworld_ros.apps.calibrate.outcome import Outcome, Plot
from wristworld_ros.apps.calibrate.outline import calibrate_by_outline
from wristworld_ros.errors import UserError
from wristworld_ros.geometry.poses import looking_at
from wristworld_ros.robot.arm_recording import (
    GUESS,
    TRUTH,
    ArmRecording,
    ArmRecordingWriter,
    pose_of,
    read_arm_recording,
)
from wristworld_ros.robot.board import Intrinsics
from wristworld_ros.robot.calibration_file import Calibration, CameraModel, PlacedCamera, Quality, place, wrist_pixels
from wristworld_ros.robot.register import Registration, distances_to_arm, register_arm
from wristworld_ros.types import RobotPoints

PICTURES = 6  # poses in the page


def calibrate_robot(args: argparse.Namespace) -> Outcome:
    """Find the arm in the depth images of the folder or, where there are none, its outline in the pictures.

    Raises:
        UserError: The folder does not hold what it must, there is no guess for depth, or what moved is not the arm.
    """
    if args.simulate is not None:
        simulate_folder(args.folder, args.simulate, args.poses)
    recording = read_arm_recording(args.folder)
    if recording.depth is None:
        return calibrate_by_outline(args, recording, _guess(args, recording, needed=False))
    guess = _guess(args, recording)
    assert guess is not None  # it is needed
    surfaces = recording.surfaces(args.urdf, args.base_frame)
    fit = register_arm(recording.depth, recording.camera, surfaces, guess)
    return _outcome(args, fit, recording, surfaces)


def simulate_folder(folder: Path, seed: int, poses: int) -> None:
    """Write a folder as a user would record it, of the simulated arm, with the noise of a sensor and a guess that is off by 10 cm
    and 10 degrees.

    Raises:
        UserError: The folder holds something already, or the simulator cannot run.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f'{folder} holds something already', 'give a new folder to --simulate, or leave --simulate out')
    from wristworld_ros.sim.arm_poses import SETTINGS, record_arm_poses, wrong_guess
    from wristworld_ros.sim.robot_description import robot_description
    from wristworld_ros.sim.stream import SimulatorStream

    stream = SimulatorStream(SETTINGS, seed)
    try:
        record = record_arm_poses(stream, seed, poses)
        urdf = robot_description(stream.env.model, folder / 'meshes')
    finally:
        stream.close()
    writer = ArmRecordingWriter(folder)
    for color, depth, joints in zip(record.color, record.depth, record.joints):
        writer.add(color, depth, joints)
    camera = record.camera
    truth = np.linalg.inv(camera.T_camera_world)
    writer.write_camera(Intrinsics(camera.K, np.empty(0), camera.width, camera.height))
    writer.write_robot(urdf)
    writer.write_pose(TRUTH, truth)
    writer.write_pose(GUESS, wrong_guess(truth, seed))


def _guess(args: argparse.Namespace, recording: ArmRecording, needed: bool = True) -> np.ndarray | None:
    if args.guess is not None:
        return pose_of(args.guess, '--guess')
    if (args.position is None) != (args.looks_at is None):
        raise UserError('only one of --position and --looks-at is given', 'give both')
    if args.position is not None:
        position, target = np.array(args.position), np.array(args.looks_at)
        if np.linalg.norm(target - position) < 0.01:
            raise UserError('--position and --looks-at are one point', 'measure both in the base frame, in metres')
        return looking_at(position, target)
    if recording.guess is not None or not needed:
        return recording.guess
    raise UserError(
        f'there is no guess of where the camera is, and {recording.folder} has no {GUESS}',
        'measure with a tape, to 10 cm: --position X Y Z --looks-at X Y Z, both in the base frame',
    )


def _outcome(args, fit: Registration, recording: ArmRecording, surfaces: list[RobotPoints]) -> Outcome:
    names = [Path(name).name for name in recording.names]
    notes = []
    if fit.outliers:
        named = ', '.join(names[i] for i in fit.outliers)
        notes.append(
            f'{named} do not agree with the other poses and count for little; leave them out, or record them again'
        )
    if fit.unseen:
        notes.append(f'{", ".join(names[i] for i in fit.unseen)} show no arm that moved; record others')
    notes += fit.warnings
    pixels = wrist_pixels(fit.expected_error)
    quality = Quality(
        method='robot', poses=len(names) - len(fit.unseen), residual=round(1e3 * fit.residual, 2), unit='mm', expected_mm=round(1e3 * fit.expected_error, 2),
        expected_wrist_px=round(pixels, 2), date=time.strftime('%Y-%m-%d'), warnings=notes,
    )  # fmt: skip
    xyz, quaternion = place(fit.T_base_camera)
    camera = PlacedCamera(
        xyz=xyz, quaternion=quaternion, frame=args.frame, camera=CameraModel.of(recording.camera), quality=quality
    )
    facts = [
        (f'{1e3 * fit.residual:.1f}', 'mm', "median distance of measured points to the arm's surface"),
        (f'{1e3 * fit.expected_error:.1f}', 'mm', 'expected error at the arm'),
        (f'{pixels:.1f}', 'px', 'of a wrist image that this moves'),
        (f'{fit.on_surface:.0%}', '', 'of what moved lies on the arm'),
        (f'{fit.least_certain_mm:.1f}', 'mm', f'least certain: {fit.least_certain}'),
    ]
    if recording.truth is not None:
        error = np.linalg.inv(recording.truth) @ fit.T_base_camera
        degrees = float(np.degrees(Rotation.from_matrix(error[:3, :3]).magnitude()))
        facts.append(
            (
                f'{1e3 * np.linalg.norm(error[:3, 3]):.1f} mm, {degrees:.2f}',
                'degrees',
                "error against the simulator's truth",
            )
        )
    rows = [
        [name, str(points), f'{1e3 * residual:.2f}']
        for name, points, residual in zip(names, fit.points, fit.pose_residuals)
    ]
    return Outcome(
        f'anchor_{args.name} in {args.base_frame}, by the arm that it sees',
        Calibration(base_frame=args.base_frame, anchors={args.name: camera}), camera, facts,
        ['depth image', 'points', 'distance, mm'], rows, fit.outliers, notes,
        'The arm as the joints place it, drawn over the picture: with the guess (orange) and calibrated (blue).',
        _pictures(fit, recording, surfaces, names), _plots(fit, recording, surfaces, names),
    )  # fmt: skip


def _pictures(fit: Registration, recording: ArmRecording, surfaces, names: list[str]) -> list[tuple[str, np.ndarray]]:
    assert recording.depth is not None  # or it had been found by its outline
    found = []
    for i in range(min(len(names), PICTURES)):
        picture = recording.pictures[i] if recording.pictures else drawing.depth_picture(recording.depth[i])
        for T, color, word in ((fit.start, drawing.BEFORE, 'guess'), (fit.T_base_camera, drawing.AFTER, 'calibrated')):
            found.append((f'{names[i]}, {word}', drawing.arm_over(picture, surfaces[i], recording.camera, T, color)))
    return found


def _plots(fit: Registration, recording: ArmRecording, surfaces, names: list[str]) -> list[Plot]:
    assert recording.depth is not None
    before, after = (
        distances_to_arm(recording.depth, recording.camera, surfaces, T) for T in (fit.start, fit.T_base_camera)
    )
    return [
        Plot(
            'Distance of what moved to the arm', 'What is left far from the arm is not the arm: what it carries, shadows of the sensor, '
            'people.', drawing.before_and_after(before, after),
        ),
        Plot(
            'Median distance of each pose', 'Dashed is the median. Red poses do not agree with the others.',
            drawing.bars(names, 1e3 * fit.pose_residuals, 'millimetres', fit.outliers),
        ),
    ]  # fmt: skip
