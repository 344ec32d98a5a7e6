"""Frames a second of recordings (`wristworld augment`) beside those of the live node, on the same simulated desk from images alone."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from wristworld_ros.apps.augment.run import augment
from wristworld_ros.apps.augment.settings import STREAM, AugmentSettings
from wristworld_ros.data.formats.lerobot.writer import WriteSettings, write_lerobot
from wristworld_ros.data.formats.native import CameraTrack, NativeSet, write_episode
from wristworld_ros.runtime.machine import cores
from wristworld_ros.settings import StreamSettings

BATCH = 4  # episodes side by side


def run_offline(
    settings: StreamSettings,
    live: float,
    moments: int,
    cases: tuple[tuple[int, int], ...] | None = None,
    progress: bool = True,
) -> list[dict]:
    """Augment a recorded desk, of twice as many episodes as the largest batch.

    Args:
        settings: Of the stream; those of `augment` count.
        live: Frames a second of the node on the same desk.
        moments: Frames of an episode.
        cases: Workers and batch of each run; None for one worker and one per core, without and with batches.
        progress: Whether bars are shown.

    Returns:
        A row for each: workers, batch, frames, frames and episodes a second while the workers worked, the same for the whole run
        (with their start and the writing of the set), and how many times the live rate the first is.
    """
    cases = cases or ((1, 1), (cores(), 1), (1, BATCH), (cores(), BATCH))
    stream = StreamSettings(**{name: getattr(settings, name) for name in STREAM})
    with tempfile.TemporaryDirectory(prefix='wristworld_bench_') as work:
        folder = Path(work)
        source = record_desk(folder, moments, 2 * max(batch for _, batch in cases))
        rows = []
        for workers, batch in cases:
            chosen = AugmentSettings(knowledge='images', workers=workers, batch=batch, page=False)
            report = augment(source, folder / f'{workers}-{batch}', chosen, stream, progress)
            rate = report.working_rate(workers)
            rows.append(
                {
                    'workers': workers, 'batch': batch, 'frames': report.frames, 'frames_per_second': rate,
                    'episodes_per_second': rate * report.made / report.frames, 'run_per_second': report.frames / report.seconds,
                    'times_live': rate / live,
                }
            )  # fmt: skip
        return rows


def record_desk(folder: Path, moments: int, episodes: int) -> Path:
    """A LeRobot data set of one rendered episode of the live desk, as often as is asked for; returns its path.

    Raises:
        UserError: The simulator or pyarrow is not installed.
    """
    from wristworld_ros.sim.stream import SimulatorStream

    stream = SimulatorStream()
    fps, names = stream.settings.fps, ('anchor0', 'anchor1')
    seen = [(stream.step(), stream.cameras()) for _ in range(moments)]
    stream.close()
    tracks = []
    for name in names:
        K, T = (np.stack([getattr(cameras[name], key) for _, cameras in seen]) for key in ('K', 'T_camera_world'))
        tracks.append(CameraTrack(name, 'anchor', np.stack([images[name] for images, _ in seen]), K, T))
    stamps = (np.arange(moments) * 10**9 // fps).astype(np.int64)
    write_episode(folder / 'desk/0', task='stack', seed=0, fps=fps, success=True, stamps_ns=stamps, cameras=tracks)
    desk = NativeSet(folder / 'desk')
    write_lerobot(folder / 'source', [partial(desk.episode, 0)] * episodes, WriteSettings())
    return folder / 'source'
