"""The demonstration from start to end: nodes up, recording, nodes down, report."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypedDict

from wristworld_ros.apps.demo.measures import mean_wrist_of
from wristworld_ros.apps.demo.replay import replay
from wristworld_ros.apps.demo.report import render_report, require_report_packages
from wristworld_ros.apps.demo.settings import (
    TOLD,
    DemoSettings,
    camera_settings,
    check_demo,
    live_mode,
    node_remappings,
    node_settings,
    replayed_modes,
)
from wristworld_ros.apps.processes import ManagedProcess, ProcessGroup, ros_parameters, wait_for
from wristworld_ros.errors import UserError, require_package
from wristworld_ros.input_files import decode_json, json_text
from wristworld_ros.models.config import ModelConfig
from wristworld_ros.pipeline.model_directory import find_model
from wristworld_ros.runtime import machine
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.setting import shown
from wristworld_ros.settings import CameraSettings, StreamSettings

CAMERA, NODE, RECORDER = 'camera node', 'virtual_wrist node', 'recorder'


def run_demo(
    demo: DemoSettings,
    stream: StreamSettings,
    videos: Sequence[Path] = (),
    wrist_video: Path | None = None,
    out: Path = Path('reports'),
    progress: bool = True,
) -> Path:
    """Run the demonstration and return the report's folder.

    Args:
        demo: What is played, and for how long.
        stream: Settings of the model.
        videos: One file per anchor camera; empty plays the simulator with its true wrist camera.
        wrist_video: A recording of a real wrist camera, for comparison.
        out: Where the folder, named by date and time, is made.
        progress: Whether bars are shown.

    Raises:
        UserError: A package or the model is missing, a video cannot be used, or a node failed.
    """
    require_report_packages()
    if demo.view:
        require_package('rerun', 'view', 'The live viewer')
    check_demo(demo)
    cameras = camera_settings(demo, videos, wrist_video)
    mode, others = live_mode(demo, cameras.source), replayed_modes(demo, cameras.source)
    if mode != 'rgb':
        require_package('yourdfpy', 'robot', 'The simulated desk')
    node = node_settings(stream, cameras, mode)
    config = ModelConfig.read(find_model(stream.model) / 'config.json')  # so that a missing model is reported at once
    folder = _new_folder(Path(out))
    recording = folder / 'recording'
    head = json_text(_head(stream, cameras, config, mode, others), indent=None)
    with ProcessGroup(folder / 'logs') as processes:
        arguments = ['--out', str(recording), '--anchors', *cameras.anchors, '--head', head]
        arguments += ['--desk'] if cameras.source == 'simulator' else []
        arguments += ['--view', '--view-bind', demo.view_bind] if demo.view else []
        recorder = processes.start(RECORDER, 'wristworld_ros.ros.recorder_node', arguments)
        passive = {'OMP_WAIT_POLICY': 'PASSIVE'}
        processes.start(
            NODE,
            'wristworld_ros.ros.virtual_wrist_node',
            ros_parameters(node) + node_remappings(cameras, mode),
            passive,
        )
        processes.start(CAMERA, 'wristworld_ros.ros.camera_node', ros_parameters(cameras))
        domain = processes.env['ROS_DOMAIN_ID']
        print(f'Nodes are up; to watch from another terminal: export ROS_DOMAIN_ID={domain}', flush=True)
        print('Waiting for the first wrist frame (the model warms up, the cameras start) ...', flush=True)
        if demo.view:
            wait_for(lambda: bool(_viewer(recorder)), processes, 60, 'The live viewer')
            viewer = _viewer(recorder)
            print(f'Live view: {viewer["viewer"]} (listens on {viewer["listens_on"]})', flush=True)
        views = recording / 'views.jsonl'
        wait_for(lambda: views.exists() or _has_views(recorder), processes, demo.patience, 'The first wrist frame')
        try:
            _record(demo.seconds, processes, recorder, progress)
        except KeyboardInterrupt:
            print('\nStopped early; the report is made from what was recorded.', flush=True)
        lost = _last_status(recorder)
        if lost.get('problem'):
            print(f'{lost["dropped"]} images and records are not in the recording: {lost["problem"]}', flush=True)
    if others:
        replay(recording, others, stream, progress)
    page = render_report(recording, folder, mean_wrist_of(stream.model), progress)
    print(f'Open {page} in a browser.')
    return folder


def _record(seconds: float, processes: ProcessGroup, recorder: ManagedProcess, progress: bool) -> None:
    """Let it run, with a bar that shows rate and latency."""
    start = time.monotonic()
    form = '{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}'
    with ProgressBar(total=round(seconds), desc='recording', bar_format=form, disable=not progress) as bar:
        while (spent := time.monotonic() - start) < seconds:
            time.sleep(min(0.5, seconds - spent))
            processes.check()
            status = _last_status(recorder)
            if status and status['age'] is not None:
                bar.set_postfix_str(
                    f'{status["rate"]:.1f} frames/s, {status["age"] * 1e3:.0f} ms behind', refresh=False
                )
            bar.update(round(min(time.monotonic() - start, seconds)) - bar.n)


class RecorderLine(TypedDict, total=False):
    """A line of JSON that the recorder prints: of its viewer, or of its counts; see `ros.recorder_node`."""

    viewer: str
    listens_on: str
    counts: dict[str, int]
    rate: float
    dropped: int
    problem: str
    age: float | None


def _lines(recorder: ManagedProcess) -> list[RecorderLine]:
    """What the recorder has printed; its log has other lines too, and the last one may be half written."""
    found = []
    for line in recorder.log.read_text(errors='replace').splitlines():
        if line.startswith('{'):
            try:
                found.append(decode_json(line, RecorderLine, 'a line of the recorder'))
            except UserError:
                continue
    return found


def _last_status(recorder: ManagedProcess) -> RecorderLine:
    """The newest line of counts."""
    return next((line for line in reversed(_lines(recorder)) if 'counts' in line), {})


def _has_views(recorder: ManagedProcess) -> bool:
    return _last_status(recorder).get('counts', {}).get('views', 0) > 0


def _viewer(recorder: ManagedProcess) -> RecorderLine:
    """The line about the recorder's live viewer; empty until it is there."""
    return next((line for line in _lines(recorder) if 'viewer' in line), {})


def _new_folder(out: Path) -> Path:
    name = time.strftime('%Y-%m-%d_%H-%M-%S')
    for suffix in ('', *(f'_{i}' for i in range(2, 100))):
        folder = out / (name + suffix)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f'The report folder {folder} cannot be made ({error.strerror})', 'choose another --out'
            ) from None
        return folder
    raise UserError(f'{out} holds 99 reports of this second', 'wait a moment')


def _head(
    stream: StreamSettings, cameras: CameraSettings, config: ModelConfig, mode: str, others: tuple[str, ...]
) -> dict:
    """What the report says of the run before it starts."""
    rate = f'{cameras.rate:g} Hz' if cameras.rate else "the videos' rate"
    settings = {
        f.name: str(shown(f, getattr(stream, f.name))) for f in fields(stream) if f.name not in ('model', 'device')
    }
    height, width = config.wrist_hw
    program = Path(sys.argv[0]).name
    head = {
        'about': _about(cameras, rate, mode), 'source': cameras.source, 'date': time.strftime('%Y-%m-%d %H:%M'),
        'model_name': config.name,
        'model': f'{config.name} ({config.licence}), wrist {width}x{height}',
        'cameras': f'{", ".join(cameras.anchors)}: {cameras.width}x{cameras.height} at {rate}',
        'videos': ', '.join(Path(v).name for v in cameras.videos),
        'command': shlex.join(['wristworld', *sys.argv[1:]]) if program in ('wristworld', 'cli.py') else '',
        'machine': machine.describe(), 'settings': settings,
    }  # fmt: skip
    if cameras.source == 'simulator':
        head |= {'mode': mode, 'what it was told': f'{mode.upper()}: {TOLD[mode]}'}
        head |= {'afterwards, on the same sets': ', '.join(other.upper() for other in others)} if others else {}
    return head


def _about(cameras: CameraSettings, rate: str, mode: str) -> str:
    """The run in two sentences."""
    count = len(cameras.anchors)
    if cameras.source == 'simulator':
        depth = ' with depth' if mode == 'rgbd' else ''
        about = f'A simulated Franka arm at work, filmed by {count} third-person cameras{depth} at {rate}. '
    else:
        about = f'{count} video{"s" * (count > 1)} played as third-person cameras at {rate}. '
    return about + 'Over ROS 2 topics, the virtual_wrist node generates what a camera on the wrist would see.'
