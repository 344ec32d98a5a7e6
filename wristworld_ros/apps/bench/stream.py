"""Speed of the stream without ROS: frames a second, latency of a frame, time of each part, memory."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from wristworld_ros.pipeline import VirtualWrist
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.runtime.machine import resident_mib
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet


def pictures(frame: int, views: int, height: int = 240, width: int = 320) -> np.ndarray:
    """A moving pattern, uint8 [V, H, W, 3]."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    images = []
    for view in range(views):
        phase = frame * 0.11 + view
        red = 128 + 90 * np.sin(columns / 23 + phase)
        green = 128 + 90 * np.sin(rows / 17 - phase)
        blue = 128 + 90 * np.sin((rows + columns) / 31 + 2 * phase)
        images.append(np.stack([red, green, blue], -1))
    return np.stack(images).astype(np.uint8)


def overlapped(wrist: VirtualWrist, sets: Iterable[AnchorSet]) -> float:
    """Frames a second where one thread looks at the next set while another draws the last, as in the node."""
    views: queue.Queue = queue.Queue(maxsize=1)

    def look() -> None:
        try:
            for anchors in sets:
                views.put(wrist.look(anchors))
            views.put(None)
        except Exception as error:
            views.put(error)

    started, count = time.perf_counter(), 0
    threading.Thread(target=look, daemon=True).start()
    while (view := views.get()) is not None:
        if isinstance(view, Exception):
            raise view
        count += len(wrist.draw(view))
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
    """Push `frames` anchor sets of `views` images through a stream, in whole chunks, at least one; its figures.

    anchor_hw: pixels. warm_chunks: chunks before the measurement; None for as many as fill the ring of keys and
    values and turn it once, after which all CUDA graphs are recorded.

    latency: from the push of a frame's anchors to the moment it was ready, with pushes one after another; a camera at a
    fixed rate adds the wait for its chunk. overlapped_per_second: of `overlapped`, None for a single chunk. stage1, condition, generation: milliseconds a frame.
    """
    wrist = VirtualWrist(model, replace(settings, chunk=chunk))
    sets = [AnchorSet(0, tuple(f'view{v}' for v in range(views)), pictures(i, views, *anchor_hw)) for i in range(8)]
    stamp = 0

    def push():
        nonlocal stamp
        stamp += 1
        return wrist.push(replace(sets[stamp % len(sets)], stamp_ns=stamp))

    for _ in range(2 * (settings.history + 1) if warm_chunks is None else warm_chunks):
        for _ in range(wrist.chunk_frames):
            push()
    start_mib, latencies = resident_mib(), []
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
        both = overlapped(wrist, (replace(sets[s % len(sets)], stamp_ns=s) for s in stamps))
    p50, p95 = np.percentile(latencies, [50, 95])
    return {
        'anchors': views, 'chunk': chunk, 'steps': settings.steps, 'frames': len(latencies),
        'frames_per_second': len(latencies) / spent, 'overlapped_per_second': both,
        'latency_p50_ms': float(p50) * 1e3, 'latency_p95_ms': float(p95) * 1e3,
        **{f'{name}_ms': total / len(latencies) * 1e3 for name, total in parts.items()},
        'memory_start_mib': start_mib, 'memory_end_mib': resident_mib(),
    }  # fmt: skip
