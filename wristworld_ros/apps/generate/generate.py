"""A wrist video and its camera's poses for a recording."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from wristworld_ros.apps.generate.settings import GenerateSettings
from wristworld_ros.data.anchor_sources import Recording, open_recording
from wristworld_ros.data.video import write_video
from wristworld_ros.pipeline import WristModel, load_model
from wristworld_ros.pipeline.check_memory import check_memory
from wristworld_ros.pipeline.generator_inputs import NotFiniteError
from wristworld_ros.pipeline.offline import EncodedVideo, draw, watch, window_sizes, windows_for
from wristworld_ros.settings import StreamSettings, WindowSettings, check


def generate(
    paths: Sequence[Path],
    folder: Path,
    model: WristModel | None = None,
    stream: StreamSettings | None = None,
    windows: WindowSettings | None = None,
    settings: GenerateSettings | None = None,
    progress: bool = True,
) -> tuple[Path, Path]:
    """Make the wrist video of a recording; returns the video's path and that of its poses.

    paths: one episode directory, or one video for each anchor camera. folder: where NAME.mp4 and NAME.json go; the
    episode's own directory is as good as any. model: None for that of the stream's settings, of which `model`, `device`,
    `threads`, `near`, `wrist_fov` and `seed` count here.
    Raises ValueError or OSError, one sentence, for what the user can mend.
    """
    stream, windows, settings = stream or StreamSettings(), windows or WindowSettings(), settings or GenerateSettings()
    for record in (stream, windows, settings):
        check(record)  # type: ignore[arg-type]
    video_path, poses_path = (Path(folder) / f'{settings.name}.{ending}' for ending in ('mp4', 'json'))
    for path in (video_path, poses_path):
        if path.exists() and not settings.force:
            raise FileExistsError(f'{path} exists already; give another --out or --name, or --force.')
    recording = open_recording(paths, settings.anchors, settings.frames)
    if stream.threads:
        torch.set_num_threads(stream.threads)
    if model is None:
        check_memory(replace(stream, history=0), len(recording.names))  # a window takes more than one chunk alone
        model = load_model(stream.model, stream.device, stream.precision, stream.decoder)
    window_sizes(model, windows, len(recording.names))  # what cannot be is told before the work, not after

    total = recording.frames or None
    with tqdm(total=total, desc='reconstruct', unit='frame', disable=not progress) as bar:
        seen = watch(model, recording.anchor_sets(), stream.near, stream.wrist_fov, lambda: bar.update())
    plan = windows_for(model, seen, windows)
    steps = windows.steps or model.generator.settings.sampling_steps
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(plan) * steps, desc='generate', unit='window', disable=not progress) as bar, _mendable():
        pictures = draw(model, seen, windows, stream.seed, plan, lambda: bar.update())
        write_video(video_path, _counted(pictures, len(seen), progress), recording.fps)
    poses = _poses(model, recording, seen, stream, windows)
    _write_json(poses_path, poses)
    return video_path, poses_path


def _counted(pictures: Iterator[np.ndarray], frames: int, progress: bool) -> Iterator[np.ndarray]:
    """The first picture comes when all is sampled, so the bar of decoding starts there."""
    bar = None
    for picture in pictures:
        bar = bar or tqdm(total=frames, desc='decode', unit='frame', disable=not progress)
        bar.update()
        yield picture
    if bar is not None:
        bar.close()


@contextmanager
def _mendable():
    """What the command line can say in one sentence."""
    try:
        yield
    except NotFiniteError as error:
        raise ValueError(str(error)) from error


def _poses(
    model: WristModel, recording: Recording, seen: EncodedVideo, stream: StreamSettings, windows: WindowSettings
) -> dict:
    """The wrist camera of every frame, and what made it."""
    height, width = model.config.wrist_hw
    frames = []
    for i, frame in enumerate(seen.frames):
        entry = {
            'stamp_ns': frame.stamp_ns,
            'K': frame.camera.K.tolist(),
            'T_wrist_anchor': frame.camera.T_camera_world.tolist(),
            'coverage': round(frame.coverage, 4),
            'confidence': round(frame.confidence, 4),
        }
        if recording.T_anchor_world is not None:
            entry['T_wrist_world'] = (frame.camera.T_camera_world @ recording.T_anchor_world[i]).tolist()
        if frame.broken:
            entry['broken'] = frame.broken
        frames.append(entry)
    return {
        'model': model.config.name,
        'anchors': list(recording.names),
        'fps': recording.fps,
        'width': width,
        'height': height,
        'seed': stream.seed,
        'windows': {k: getattr(windows, k) for k in windows.__dataclass_fields__},
        'conventions': 'T_wrist_anchor takes the first anchor camera to the wrist camera, T_wrist_world the world of the '
        "episode (robot base); OpenCV axes, metres in the model's scale; K in pixels, a pixel's centre is its index.",
        'frames': frames,
    }


def _write_json(path: Path, content: dict) -> None:
    part = path.with_name(f'.{path.name}.part')
    part.write_text(json.dumps(content, indent=1) + '\n')
    os.replace(part, path)
