"""A wrist video and its camera's poses for a recording."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from wristworld_ros.data.anchor_sources import AnchorRecording
from wristworld_ros.data.video import write_video
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import check_folder, check_name, json_text
from wristworld_ros.pipeline.generate import NotFiniteError
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.offline import EncodedVideo, encode_video, generate_video, plan_for, window_sizes
from wristworld_ros.runtime.files import clear_leftovers, write_text
from wristworld_ros.runtime.overlap import ahead
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.settings import WindowSettings
from wristworld_ros.types import FrameStatus

CONVENTIONS = (
    'T_wrist_anchor takes coordinates of the first anchor camera to the wrist camera, T_wrist_world those of the world of the '
    "episode (robot base); OpenCV axes, metres in the model's scale; K in pixels, a pixel's centre is its index."
)


def output_paths(folder: Path, name: str, force: bool) -> tuple[Path, Path]:
    """Paths of the video and of the poses, in the folder; what a killed run left there is cleared.

    Raises:
        UserError: The name leads out of the folder, or a file exists and may not be replaced.
    """
    check_name(name, '--name')
    check_folder(folder)
    clear_leftovers(folder)
    paths = Path(folder) / f'{name}.mp4', Path(folder) / f'{name}.json'
    for path in paths:
        if path.is_dir():
            raise UserError(f'{path} is a directory', 'give another --out or --name')
        if path.exists() and not force:
            raise UserError(f'{path} exists already', 'give another --out or --name, or replace it with --force')
    return paths


def generate(
    model: WristModel,
    recording: AnchorRecording,
    video_path: Path,
    poses_path: Path,
    windows: WindowSettings,
    seed: int = 0,
    near: float | None = None,
    wrist_fov: float | None = None,
    progress: bool = True,
) -> None:
    """Write the wrist video of a recording, and its poses as JSON.

    Args:
        model: The model.
        recording: What its anchors saw.
        video_path: Of an MP4 file; its folder is made when missing.
        poses_path: Of a JSON file.
        windows: How the video is sampled.
        seed: Of the noise; the same seed and recording give the same files.
        near: Near plane of the wrist camera, metres; None for the model's own.
        wrist_fov: Its vertical field of view, degrees; None for the predicted one.
        progress: Whether bars are shown.

    Raises:
        UserError: The model cannot follow the settings, the recording cannot be read, or stage 2 produced no image.
    """
    window_sizes(model, windows, len(recording.names))  # so that impossible windows are reported before the work
    with ProgressBar(total=recording.frames, desc='reconstruct', unit='frame', disable=not progress) as bar:
        encoded = encode_video(model, recording.anchor_sets(), near, wrist_fov, on_frame=bar.update)
    plan = plan_for(model, encoded, windows)
    steps = len(model.generator.sigmas(windows.steps))
    with ProgressBar(total=len(plan) * steps, desc='generate', unit='window', disable=not progress) as bar:
        images = generate_video(model, encoded, windows, seed, plan, on_window=bar.update)
        try:
            write_video(video_path, _with_progress(ahead(images), len(encoded), progress), recording.fps)
        except NotFiniteError as error:
            raise UserError(
                f'Stage 2 of {model.config.name} produced NaN or infinity, so there is no video',
                'check the weights with `wristworld doctor`, or use --precision float32',
            ) from error
    poses = {
        'model': model.config.name,
        'anchors': list(recording.names),
        'fps': recording.fps,
        'width': model.config.wrist_hw[1],
        'height': model.config.wrist_hw[0],
        'seed': seed,
        'windows': asdict(windows),
        'conventions': CONVENTIONS,
        'frames': _poses(recording, encoded),
    }
    write_text(poses_path, json_text(poses))


def _with_progress(images: Iterator[np.ndarray], frames: int, progress: bool) -> Iterator[np.ndarray]:
    """The first image comes when everything is sampled, so the bar of decoding starts there."""
    bar = None
    for image in images:
        bar = bar or ProgressBar(total=frames, desc='decode', unit='frame', disable=not progress)
        bar.update()
        yield image
    if bar is not None:
        bar.close()


def _poses(recording: AnchorRecording, encoded: EncodedVideo) -> list[dict]:
    """The wrist camera of every frame."""
    entries = []
    for i, frame in enumerate(encoded.frames):
        entry = {
            'stamp_ns': frame.stamp_ns,
            'K': frame.camera.K.tolist(),
            'T_wrist_anchor': frame.camera.T_camera_world.tolist(),
            'coverage': round(frame.coverage, 4),
            'confidence': round(frame.confidence, 4),
            'agreement': round(frame.agreement, 4) if math.isfinite(frame.agreement) else None,
        }
        if recording.T_anchor_world is not None:
            entry['T_wrist_world'] = (frame.camera.T_camera_world @ recording.T_anchor_world[i]).tolist()
        if frame.verdict.status is not FrameStatus.VALID:
            entry |= {'status': frame.verdict.status.name, 'reason': frame.verdict.reason}
        entries.append(entry)
    return entries
