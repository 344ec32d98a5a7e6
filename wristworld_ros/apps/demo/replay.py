"""The recorded anchor sets of a live run once more, told less of the desk: what other modes make of the very same images."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np

from wristworld_ros.data.images import write_image
from wristworld_ros.data.recording import DeskRecord, Recording, replayed_stream
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import json_text
from wristworld_ros.pipeline import VirtualWrist, load_model
from wristworld_ros.robot.description import RobotModel
from wristworld_ros.runtime.files import write_text
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet, Camera, WristFrame

_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)


def replay(folder: Path, modes: tuple[str, ...], settings: StreamSettings, progress: bool = True) -> None:
    """Run modes on a recording, and store their images and figures in it.

    They see the sets of which the live run made frames, in their order, and take the time they need.

    Args:
        folder: Of the recording of a simulated desk.
        modes: rgb: images alone; calibrated: with all that is known but depth.
        settings: Of the model.
        progress: Whether a bar is shown.

    Raises:
        UserError: There is no recording, or the model cannot be used.
    """
    recording = Recording(folder)
    model = load_model(settings.model, settings.device, settings.precision, settings.decoder)
    model.configure_process(settings.threads)
    robot = _simulated_robot() if 'calibrated' in modes else None
    stamps = [view['stamp_ns'] for view in recording.views]
    for mode in modes:
        wrist = VirtualWrist(model, settings)
        known = robot if mode == 'calibrated' else None
        records = []
        for stamp in ProgressBar(stamps, desc=f'{mode.upper()} on the same sets', unit='set', disable=not progress):
            anchors = anchor_set(recording, stamp, known)
            for frame in wrist.push(anchors) if anchors is not None else ():
                _write(folder, mode, frame)
                records.append(_record(frame))
        write_text(Path(folder) / f'views_{mode}.jsonl', ''.join(json_text(record, indent=None) for record in records))


def anchor_set(recording: Recording, stamp_ns: int, robot: RobotModel | None) -> AnchorSet | None:
    """A recorded set.

    Args:
        recording: Of a simulated desk.
        stamp_ns: Of the set.
        robot: With its description everything is known that was recorded; None gives images alone.

    Returns:
        None where an image is missing, or what is to be known was not recorded.
    """
    images = [recording.nearest(f'anchor_{name}', stamp_ns, 1e-6) for name in recording.anchors]
    if any(image is None for image in images):
        return None
    stacked = np.stack([image for image in images if image is not None])
    if robot is None:
        return AnchorSet(stamp_ns, recording.anchors, stacked)
    desk = recording.desk.get(stamp_ns)
    if desk is None:
        return None
    return AnchorSet(
        stamp_ns, recording.anchors, stacked, intrinsics=_stacked(recording.anchors, desk['intrinsics'], 3),
        T_base_anchor=_stacked(recording.anchors, desk['T_base_anchor'], 4), wrist=_wrist(desk),
        robot_points=robot.surface(desk['joints']) if desk['joints'] else None,
    )  # fmt: skip


def _stacked(names: tuple[str, ...], given: dict[str, list[float]], size: int) -> np.ndarray:
    """float64 [V, size, size], NaN for anchors of which it is unknown."""
    unknown = np.full((size, size), np.nan)
    return np.stack([np.array(given[n], np.float64).reshape(size, size) if n in given else unknown for n in names])


def _wrist(desk: DeskRecord) -> Camera:
    K, T = np.array(desk['wrist_K']).reshape(3, 3), np.array(desk['T_wrist_base']).reshape(4, 4)
    return Camera(K, T, *desk['wrist_size'])


def _simulated_robot() -> RobotModel:
    from wristworld_ros.sim.robot_description import robot_description
    from wristworld_ros.sim.scene import compile_scene
    from wristworld_ros.sim.stream import LIVE_SETTINGS

    with tempfile.TemporaryDirectory(prefix='wristworld_robot_') as meshes:
        return RobotModel.from_urdf(robot_description(compile_scene(LIVE_SETTINGS.mesh_cell), Path(meshes)))


def _write(folder: Path, mode: str, frame: WristFrame) -> None:
    path = Path(folder) / replayed_stream(mode) / f'{frame.stamp_ns}.png'
    try:
        path.parent.mkdir(exist_ok=True)
        write_image(path, frame.image, _PNG)
    except OSError as error:
        raise UserError(f'{path} cannot be written ({error.strerror})', 'free room on that disk') from error


def _record(frame: WristFrame) -> dict:
    return {
        'stamp_ns': frame.stamp_ns, 'coverage': frame.coverage, 'confidence': frame.confidence, 'agreement': frame.agreement,
        'latency': frame.latency_s, 'valid': frame.valid, 'status': frame.verdict.status.name, 'geometry': frame.geometry.name,
        'reason': frame.reason,
    }  # fmt: skip
