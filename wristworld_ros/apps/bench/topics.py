"""End to end over ROS 2 topics: a camera node, the virtual_wrist node and a listener, each a process."""

from __future__ import annotations

import tempfile
import time
from dataclasses import fields
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from wristworld_ros.apps.bench.stream import pictures
from wristworld_ros.apps.processes import ProcessGroup, ros_parameters, wait_for
from wristworld_ros.data.recording import Recording
from wristworld_ros.settings import CameraSettings, NodeSettings, StreamSettings

ANCHORS = ('left', 'right')


def write_pattern_video(path: Path, view: int, frames: int = 150, rate: int = 15) -> Path:
    """A 320x240 video of the moving pattern."""
    with av.open(str(path), 'w') as file:
        stream = file.add_stream('libx264', rate=rate, options={'crf': '18', 'preset': 'veryfast', 'threads': '1'})
        stream.width, stream.height, stream.pix_fmt = 320, 240, 'yuv420p'
        for i in range(frames):
            image = pictures(i, view + 1)[view]
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path


def run_topics(
    settings: StreamSettings, rate: float, seconds: float, videos: list[Path] | None = None, progress: bool = True
) -> dict[str, float]:
    """Two anchors at `rate` Hz for `seconds`: wrist frames a second, stamp to publish, drops and the node's memory.

    videos: two files; None plays a moving pattern. Memory is the mean of the first and of the last tenth of the time.
    Raises DemoError (a ValueError) when a node fails.
    """
    with tempfile.TemporaryDirectory(prefix='wristworld_bench_') as work:
        folder = Path(work)
        videos = videos or [write_pattern_video(folder / f'{name}.mp4', i) for i, name in enumerate(ANCHORS)]
        cameras = CameraSettings(source='videos', videos=[str(v) for v in videos], anchors=list(ANCHORS), rate=rate)
        given = {f.name: getattr(settings, f.name) for f in fields(StreamSettings)}
        given |= {'min_coverage': 0.0, 'min_confidence': 0.0}
        node = NodeSettings(**given, anchors=list(ANCHORS), publish_invalid=True, autostart=True)
        recording = folder / 'recording'
        with ProcessGroup(folder / 'logs') as family:
            arguments = ['--out', str(recording), '--anchors', *ANCHORS, '--no-pictures']
            family.start('recorder', 'wristworld_ros.ros.recorder_node', arguments)
            family.start(
                'virtual_wrist',
                'wristworld_ros.ros.virtual_wrist_node',
                ros_parameters(node),
                {'OMP_WAIT_POLICY': 'PASSIVE'},
            )
            family.start('camera', 'wristworld_ros.ros.camera_node', ros_parameters(cameras))
            wait_for(lambda: (recording / 'views.jsonl').exists(), family, 180, 'The first wrist frame')
            started = time.monotonic()
            with tqdm(total=round(seconds), desc=f'topics at {rate:g} Hz', unit='s', disable=not progress) as bar:
                while (spent := time.monotonic() - started) < seconds:
                    bar.update(int(spent) - bar.n)
                    family.check()
                    time.sleep(min(0.5, seconds - spent))
        return _figures(Recording(recording), rate)


def _figures(recording: Recording, rate: float) -> dict[str, float]:
    ages, seconds = recording.series('age') * 1e3, recording.seconds()
    memory = np.array([s['memory'] for s in recording.status]) / 2**20
    tenth = max(len(memory) // 10, 1)
    last, first = (recording.status[i] if recording.status else {} for i in (-1, 0))
    return {
        'camera_hz': rate, 'seconds': float(seconds[-1]), 'frames': len(seconds),
        'frames_per_second': (len(seconds) - 1) / max(float(seconds[-1]), 1e-9),
        'age_p50_ms': float(np.percentile(ages, 50)), 'age_p95_ms': float(np.percentile(ages, 95)), 'age_max_ms': float(ages.max()),
        'sets_replaced': last.get('sets_replaced', 0) - first.get('sets_replaced', 0),
        'frames_invalid': last.get('frames_invalid', 0) - first.get('frames_invalid', 0),
        'memory_start_mib': float(memory[:tenth].mean()) if len(memory) else 0.0,
        'memory_end_mib': float(memory[-tenth:].mean()) if len(memory) else 0.0,
    }  # fmt: skip
