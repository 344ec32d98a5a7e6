"""The demonstration from start to end: nodes up, recording, nodes down, report."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
import time
from dataclasses import fields
from pathlib import Path

import av
from tqdm import tqdm

from wristworld_ros.apps.demo.report import needs, render_report
from wristworld_ros.apps.demo.settings import DemoSettings
from wristworld_ros.apps.processes import DemoError, ManagedProcess, ProcessGroup, ros_parameters, wait_for
from wristworld_ros.runtime import machine
from wristworld_ros.settings import CameraSettings, NodeSettings, StreamSettings, check

CAMERA, NODE, RECORDER = 'camera node', 'virtual_wrist node', 'recorder'


def run_demo(
    demo: DemoSettings | None = None,
    stream: StreamSettings | None = None,
    videos: list[Path] | None = None,
    wrist_video: Path | None = None,
    out: Path = Path('reports'),
    progress: bool = True,
) -> Path:
    """Run the demonstration and return the report's folder.

    videos: one file an anchor camera; None plays the simulator with its true wrist camera. wrist_video: a real wrist
    camera's recording to compare with. out: where the folder, named by date and time, is made.
    Raises DemoError (a ValueError), one sentence, when a video cannot be used or a node fails.
    """
    demo, stream = demo or DemoSettings(), stream or StreamSettings()
    needs()
    if demo.view and not importlib.util.find_spec('rerun'):
        raise DemoError("The live viewer needs rerun-sdk, which is not installed: pip install 'wristworld-ros[view]'.")
    check(demo)  # type: ignore[arg-type]
    cameras = camera_settings(demo, videos or [], wrist_video)
    node = node_settings(stream, cameras)
    config = _model(stream)
    folder = _new_folder(Path(out))
    head = _head(demo, stream, cameras, config)
    recording = folder / 'recording'
    with ProcessGroup(folder / 'logs') as family:
        arguments = ['--out', str(recording), '--anchors', *cameras.anchors, '--head', json.dumps(head)]
        recorder = family.start(RECORDER, 'wristworld_ros.ros.recorder_node', arguments + ['--view'] * demo.view)
        family.start(NODE, 'wristworld_ros.ros.virtual_wrist_node', ros_parameters(node), {'OMP_WAIT_POLICY': 'PASSIVE'})
        family.start(CAMERA, 'wristworld_ros.ros.camera_node', ros_parameters(cameras))
        domain = family.env['ROS_DOMAIN_ID']
        print(f'Nodes are up; look in from another terminal with: export ROS_DOMAIN_ID={domain}', flush=True)
        print('Waiting for the first wrist frame (the model warms up, the cameras start) ...', flush=True)
        if demo.view:
            wait_for(lambda: _told(recorder, 'viewer'), family, 60, 'The live viewer')
            print(f'Live view: {_told(recorder, "viewer")}', flush=True)
        views = recording / 'views.jsonl'
        wait_for(lambda: views.exists() or _counted(recorder), family, demo.patience, 'The first wrist frame')
        try:
            _record(demo.seconds, family, recorder, progress)
        except KeyboardInterrupt:
            print('\nStopped early; the report is made of what there is.', flush=True)
    page = render_report(recording, folder, _mean_wrist(stream), progress)
    print(f'Open {page} in a browser.')
    return folder


def camera_settings(demo: DemoSettings, videos: list[Path], wrist_video: Path | None) -> CameraSettings:
    """What the camera node plays; DemoError when a video is missing or is none."""
    if not videos:
        if wrist_video:
            raise DemoError('A wrist video was given without anchor videos; name those with --anchors.')
        return CameraSettings(
            source='simulator', anchors=['left', 'right'], rate=demo.rate or 10.0, seed=demo.demo_seed
        )
    sizes = [probe_video(Path(v)) for v in [*videos, *([wrist_video] if wrist_video else [])]]
    width, height = sizes[0]
    names = ['left', 'right'] if len(videos) == 2 else [f'view{i + 1}' for i in range(len(videos))]
    small = (320, max(2, round(320 * height / width / 2) * 2)) if width > 320 else (width, height)
    return CameraSettings(
        source='videos', videos=[str(v) for v in videos], wrist_video=str(wrist_video or ''), anchors=names, rate=demo.rate,
        width=small[0], height=small[1],
    )  # fmt: skip


def node_settings(stream: StreamSettings, cameras: CameraSettings) -> NodeSettings:
    """The node listens to these cameras, starts by itself, and shows unfit frames to the recorder too."""
    given = {f.name: getattr(stream, f.name) for f in fields(StreamSettings)}
    settings = NodeSettings(**given, anchors=list(cameras.anchors), publish_invalid=True, autostart=True)
    check(settings)
    return settings


def probe_video(path: Path) -> tuple[int, int]:
    """Width and height of a video, pixels; DemoError when it is missing or no video."""
    if not path.is_file():
        raise DemoError(f'There is no video {path}.')
    try:
        with av.open(str(path)) as file:
            stream = file.streams.video[0]
            next(file.decode(stream))
            return stream.width, stream.height
    except (av.FFmpegError, IndexError, StopIteration):
        raise DemoError(
            f'{path} is no video that can be decoded; give MP4, MKV, AVI or another that FFmpeg reads.'
        ) from None


def _record(seconds: float, family: ProcessGroup, recorder: ManagedProcess, progress: bool) -> None:
    """Let it run, with a bar that tells rate and latency."""
    start = time.monotonic()
    shape = '{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}'
    with tqdm(total=seconds, desc='recording', bar_format=shape, disable=not progress) as bar:
        while (spent := time.monotonic() - start) < seconds:
            time.sleep(min(0.5, seconds - spent))
            family.check()
            bar.n = min(time.monotonic() - start, seconds)
            told = _last_told(recorder)
            if told.get('age') is not None:
                bar.set_postfix_str(f'{told["rate"]:.1f} frames/s, {told["age"] * 1e3:.0f} ms behind', refresh=False)
            bar.refresh()


def _last_told(recorder: ManagedProcess) -> dict:
    for line in reversed(recorder.log.read_text(errors='replace').splitlines()[-5:]):
        if line.startswith('{"counts"'):
            return json.loads(line)
    return {}


def _counted(recorder: ManagedProcess) -> bool:
    return _last_told(recorder).get('counts', {}).get('views', 0) > 0


def _told(recorder: ManagedProcess, key: str) -> str:
    for line in recorder.log.read_text(errors='replace').splitlines():
        if line.startswith(f'{{"{key}"'):
            return json.loads(line)[key]
    return ''


def _new_folder(out: Path) -> Path:
    name = time.strftime('%Y-%m-%d_%H-%M-%S')
    for extra in ('', *(f'_{i}' for i in range(2, 100))):
        folder = out / (name + extra)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise DemoError(f'The report folder {folder} cannot be made: {error.strerror}.') from None
        return folder
    raise DemoError(f'{out} is full of reports of this second; wait a moment.')


def _model(stream: StreamSettings):
    """The model's configuration, so that a missing one is told at once."""
    from wristworld_ros.models.config import ModelConfig, find_model

    return ModelConfig.read(find_model(stream.model) / 'config.json')


def _mean_wrist(stream: StreamSettings):
    from wristworld_ros.evaluation.baselines import mean_wrist
    from wristworld_ros.models.config import ModelConfig, find_model

    folder = find_model(stream.model)
    return mean_wrist(folder, ModelConfig.read(folder / 'config.json').wrist_hw)


def _head(demo: DemoSettings, stream: StreamSettings, cameras: CameraSettings, config) -> dict:
    count, rate = len(cameras.anchors), f'{cameras.rate:g} Hz' if cameras.rate else "the videos' rate"
    if cameras.source == 'simulator':
        about = f'A simulated Franka arm at work, seen by {count} third-person cameras at {rate}. '
    else:
        about = f'{count} video{"s" * (count > 1)} played as third-person cameras at {rate}. '
    about += 'Over real ROS 2 topics, the virtual_wrist node generates what a camera on the wrist would see.'
    keep = {k: str(v) for k, v in vars(stream).items() if k not in ('model', 'device')}
    height, width = config.wrist_hw
    return {
        'about': about, 'source': cameras.source, 'date': time.strftime('%Y-%m-%d %H:%M'),
        'model_name': config.name,
        'model': f'{config.name} ({config.licence}), wrist {width}x{height}',
        'cameras': f'{", ".join(cameras.anchors)}: {cameras.width}x{cameras.height} at {rate}',
        'videos': ', '.join(Path(v).name for v in cameras.videos),
        'command': shlex.join(['wristworld', *sys.argv[1:]]) if Path(sys.argv[0]).name in ('wristworld', 'cli.py') else '',
        'machine': machine.describe(), 'settings': keep,
    }  # fmt: skip
