"""What the doctor says of a calibration file: whether it fits the settings, and how true it claims to be."""

from __future__ import annotations

from dataclasses import replace

from wristworld_ros.apps.doctor.finding import Finding, error, from_error, ok, warning
from wristworld_ros.errors import UserError
from wristworld_ros.robot.calibration_file import Calibration, PlacedCamera, read_calibration
from wristworld_ros.settings import NodeSettings

EXPECTED_MM = 5.0  # a good calibration has points in the middle of the workspace to within this


def read_file(settings: NodeSettings) -> tuple[Calibration | None, list[Finding]]:
    """The file that the settings name, where it can be used, and what is to be said of it."""
    if settings.calibration_file is None:
        return None, []
    path = settings.calibration_file
    try:
        calibration = read_calibration(path)
    except UserError as e:
        return None, [from_error(e)]
    found, wanted = calibration.base_frame, settings.base_frame
    if found.lstrip('/') != wanted.lstrip('/'):
        fix = f'set base_frame to {found}, or calibrate again'
        return None, [error(f'{path} says base_frame {found}, and the setting base_frame is {wanted}', fix)]
    return calibration, file_findings(path, calibration, settings)


def mounted_by(settings: NodeSettings, calibration: Calibration | None) -> NodeSettings:
    """The settings with the TF frame in which the file has the wrist camera, where that counts."""
    if calibration is None or calibration.wrist is None or settings.wrist_mount or settings.wrist_camera_frame:
        return settings
    return replace(settings, wrist_mount_frame=calibration.wrist.hand_frame)


def file_findings(path: str, calibration: Calibration, settings: NodeSettings) -> list[Finding]:
    """One finding per camera of the file that the node uses, and one where there is none of an anchor."""
    findings = []
    for name in settings.anchors:
        if camera := calibration.anchors.get(name):
            findings.append(_camera_finding(f'{path}: place of anchor_{name}', camera))
    if calibration.wrist is not None:
        findings.append(_camera_finding(f'{path}: wrist camera on {calibration.wrist.hand_frame}', calibration.wrist))
    if not findings:
        what = f'{path} has the anchors {", ".join(calibration.anchors)}, and none of them is in the setting anchors'
        return [error(f'{what} ({", ".join(settings.anchors)})', 'give the anchors the same names')]
    return findings


def _camera_finding(what: str, camera: PlacedCamera) -> Finding:
    quality = camera.quality
    if quality is None:
        return ok(f'{what}, given')
    what += (
        f', calibrated {f"on {quality.date} " if quality.date else ""}by {quality.method} with {quality.poses} poses, residual '
        f'{quality.residual:.2g} {quality.unit}, expected error {quality.expected_mm:.1f} mm'
    )
    if quality.warnings:
        return warning(f'{what}, with a warning', '; '.join(text.rstrip('.') for text in quality.warnings))
    if quality.expected_mm > EXPECTED_MM:
        return warning(
            f'{what}, where {EXPECTED_MM:g} mm can be had',
            'calibrate again with more and more different poses of the arm',
        )
    return ok(what)
