"""Rate and latency end to end: a stream without ROS, and all nodes over ROS 2 topics."""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from wristworld_ros.apps.bench.inputs import moving_pattern
from wristworld_ros.apps.processes import ProcessGroup, ros_parameters, wait_for
from wristworld_ros.data.recording import Recording
from wristworld_ros.data.video import write_video
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.virtual_wrist import VirtualWrist
from wristworld_ros.runtime.machine import resident_bytes
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.settings import CameraSettings, NodeSettings, StreamSettings
from wristworld_ros.types import AnchorSet, WristFrame

ANCHORS = ('left', 'right')
DESK_MOMENTS = 60  # that are rendered before the measurement


def overlapped_rate(wrist: VirtualWrist, sets: Iterable[AnchorSet]) -> float:
    """Frames per second where one thread reconstructs the next set while another generates the last chunk, as in the
    node."""
    observations: queue.Queue = queue.Queue(maxsize=1)

    def reconstruct() -> None:
        try:
            for anchors in sets:
                observations.put(wrist.reconstruct(anchors))
            observations.put(None)
        except Exception as error:
            observations.put(error)

    started, count = time.perf_counter(), 0
    threading.Thread(target=reconstruct, daemon=True).start()
    while (observation := observations.get()) is not None:
        if isinstance(observation, Exception):
            raise observation
        count += len(wrist.generate(observation))
    return count / (time.perf_counter() - started)


def run_stream(
    model: WristModel,
    settings: StreamSettings,
    views: int,
    chunk: int,
    frames: int = 60,
    anchor_hw: tuple[int, int] = (240, 320),
    warm_chunks: int | None = None,
) -> dict[str, float]:
    """Push anchor sets through a stream without ROS, and measure it.

    Args:
        model: The model.
        settings: Of the stream, except for its chunk.
        views: Images of an anchor set.
        chunk: Latent frames generated at once.
        frames: Anchor sets, in whole chunks, at least one.
        anchor_hw: Pixels.
        warm_chunks: Chunks before the measurement; None for as many as fill the ring of keys and values and turn it once,
            after which all CUDA graphs are captured.

    Returns:
        Among others the latency, from the push of a frame's anchors to the moment it was ready, with pushes one after
        another (a camera at a fixed rate adds the wait for its chunk); overlapped_per_second of `overlapped_rate`, None for a
        single chunk; and milliseconds per frame of stage 1, condition map and generation.
    """
    model.configure_process(settings.threads)
    wrist = VirtualWrist(model, replace(settings, chunk=chunk))
    names = tuple(f'view{v}' for v in range(views))
    sets = [AnchorSet(0, names, moving_pattern(i, views, *anchor_hw)) for i in range(8)]
    stamp = 0

    def push() -> list[WristFrame]:
        nonlocal stamp
        stamp += 1
        return wrist.push(replace(sets[stamp % len(sets)], stamp_ns=stamp))

    for _ in range(2 * (settings.history + 1) if warm_chunks is None else warm_chunks):
        for _ in range(wrist.chunk_frames):
            push()
    start_mib, latencies = resident_bytes() / 2**20, []
    parts = dict.fromkeys(('stage1', 'condition', 'generation'), 0.0)
    started = time.perf_counter()
    for _ in range(frames - frames % wrist.chunk_frames or wrist.chunk_frames):
        latencies += [frame.latency_s for frame in push()]
        for name in parts:
            parts[name] += wrist.seconds[name]
    spent = time.perf_counter() - started
    both = None
    if len(latencies) > wrist.chunk_frames:  # of a single chunk there is nothing to overlap
        stamps = range(stamp + 1, stamp + 1 + len(latencies))
        both = overlapped_rate(wrist, (replace(sets[s % len(sets)], stamp_ns=s) for s in stamps))
    p50, p95 = np.percentile(latencies, [50, 95])
    return {
        'anchors': views, 'chunk': chunk, 'steps': settings.steps, 'frames': len(latencies),
        'frames_per_second': len(latencies) / spent, 'overlapped_per_second': both,
        'latency_p50_ms': float(p50) * 1e3, 'latency_p95_ms': float(p95) * 1e3,
        **{f'{name}_ms': total / len(latencies) * 1e3 for name, total in parts.items()},
        'memory_start_mib': start_mib, 'memory_end_mib': resident_bytes() / 2**20,
    }  # fmt: skip


def write_pattern_video(path: Path, view: int, frames: int = 150, rate: int = 15) -> Path:
    """Write a 320x240 video of the moving pattern."""
    write_video(path, (moving_pattern(i, view + 1)[view] for i in range(frames)), rate, crf=18)
    return path


def run_topics(
    settings: StreamSettings, rate: float, seconds: float, videos: list[Path] | None = None, progress: bool = True
) -> dict[str, float]:
    """Measure a camera node, the virtual_wrist node and a recorder, each a process, end to end.

    Args:
        settings: Of the node's stream.
        rate: Of the two anchor cameras, Hz.
        seconds: How long is measured.
        videos: Two files to play; None plays a moving pattern.
        progress: Whether a bar is shown.

    Returns:
        Wrist frames per second, age when published, drops, and the node's memory, which is the mean of the first and of the
        last tenth of the time.

    Raises:
        UserError: A node failed.
    """
    with tempfile.TemporaryDirectory(prefix='wristworld_bench_') as work:
        folder = Path(work)
        videos = videos or [write_pattern_video(folder / f'{name}.mp4', i) for i, name in enumerate(ANCHORS)]
        cameras = CameraSettings(source='videos', videos=[str(v) for v in videos], anchors=list(ANCHORS), rate=rate)
        given = {f.name: getattr(settings, f.name) for f in fields(StreamSettings)}
        given |= {'min_coverage': 0.0, 'min_confidence': 0.0, 'min_agreement': 0.01, 'check_anchors': False}
        node = NodeSettings(**given, anchors=list(ANCHORS), publish_invalid=True, autostart=True)
        return _run_nodes(cameras, node, rate, seconds, folder, progress)


def run_desk(
    settings: StreamSettings, rate: float, seconds: float, hw: tuple[int, int], known: bool, progress: bool = True
) -> dict[str, float]:
    """Measure the nodes on a simulated desk that was rendered before, with its depth, TF, joint states and description.

    Args:
        settings: Of the node's stream.
        rate: Of the two anchor cameras, Hz.
        seconds: How long is measured.
        hw: Of their images, pixels.
        known: Whether the node uses what the desk says beside images.
        progress: Whether a bar is shown.

    Returns:
        As `run_topics`, and what was measured.

    Raises:
        UserError: A node failed.
    """
    from wristworld_ros.ros.transforms import pose_text
    from wristworld_ros.sim.stream import wrist_mount

    height, width = hw
    cameras = CameraSettings(anchors=list(ANCHORS), rate=rate, width=width, height=height, prerender=DESK_MOMENTS)
    given = {f.name: getattr(settings, f.name) for f in fields(StreamSettings)} | {'check_anchors': False}
    use = 'auto' if known else 'never'
    node = NodeSettings(
        **given, anchors=list(ANCHORS), publish_invalid=True, autostart=True, wrist_mount=pose_text(wrist_mount(cameras.seed)), use_depth=use, use_tf=use,
        use_robot_model=use,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix='wristworld_bench_') as work:
        figures = _run_nodes(cameras, node, rate, seconds, Path(work), progress)
    return {'desk': 'RGBD' if known else 'RGB', 'anchor_size': f'{width}x{height}', **figures}


def _run_nodes(
    cameras: CameraSettings, node: NodeSettings, rate: float, seconds: float, folder: Path, progress: bool
) -> dict[str, float]:
    """Figures of a recorder, the virtual wrist and a camera node, each a process."""
    recording = folder / 'recording'
    with ProcessGroup(folder / 'logs') as processes:
        arguments = ['--out', str(recording), '--anchors', *ANCHORS, '--no-images']
        processes.start('recorder', 'wristworld_ros.ros.recorder_node', arguments)
        passive = {'OMP_WAIT_POLICY': 'PASSIVE'}
        processes.start('virtual_wrist', 'wristworld_ros.ros.virtual_wrist_node', ros_parameters(node), passive)
        processes.start('camera', 'wristworld_ros.ros.camera_node', ros_parameters(cameras))
        wait_for((recording / 'views.jsonl').exists, processes, 180, 'The first wrist frame')
        started = time.monotonic()
        with ProgressBar(total=round(seconds), desc=f'topics at {rate:g} Hz', unit='s', disable=not progress) as bar:
            while (spent := time.monotonic() - started) < seconds:
                bar.update(int(spent) - bar.n)
                processes.check()
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
