"""Does a stream wear out? Held-out episodes, thousands of frames long: `python -m wristworld_ros.evaluation.studies.drift`.

An episode is played forth and back, so that motion stays continuous and what is to be seen repeats: any fall is drift.
Stage 1 and condition maps do not depend on the stream's past and are made once; stage 2 runs as it does live.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from wristworld_ros.data.formats.native import list_episodes, read_episode
from wristworld_ros.data.ground_truth import GroundTruth, read_ground_truth
from wristworld_ros.evaluation.metrics import frame_change, psnr, seam_ratio, sharpness, ssim
from wristworld_ros.evaluation.studies.drift_tables import Drift, tables
from wristworld_ros.pipeline import VirtualWrist, WristModel, load_model
from wristworld_ros.pipeline.virtual_wrist import View
from wristworld_ros.settings import StreamSettings

# Anchor sets of noise that the recovery begins with.
BROKEN_FRAMES = 5


@dataclass(frozen=True)
class EpisodeRun:
    """An episode and what stage 1 makes of each of its frames. broken: the same of anchor images that are noise."""

    truth: GroundTruth
    views: list[View]
    broken: list[View]


def watch(model: WristModel, path: Path, settings: StreamSettings, frames: int = 0) -> EpisodeRun:
    """Stage 1 and condition maps of an episode's first frames (0: all), from two anchors."""
    truth = read_ground_truth(read_episode(path), model.config.wrist_hw, 2, frames)
    random = np.random.default_rng(0)
    wrist = VirtualWrist(model, settings)

    def seen(frame: int, noise: bool = False) -> View:
        anchors = truth.anchor_set(frame)
        if noise:
            anchors = replace(anchors, images=random.integers(0, 256, anchors.images.shape, dtype=np.uint8))
        # One stream draws them all, again and again, whatever their stamps say.
        return replace(wrist.look(anchors), fresh=False)

    count = len(truth)
    return EpisodeRun(truth, [seen(i) for i in range(count)], [seen(i, True) for i in range(min(BROKEN_FRAMES, count))])


def round_trip(frames: int) -> list[int]:
    """Frame numbers forth and back, each end once: 0 .. n - 1, n - 2 .. 1. Played in a circle it never jumps."""
    return [*range(frames), *range(frames - 2, 0, -1)]


def bin_frames(frames: int, wanted: int) -> int:
    """The whole number of round trips nearest to `wanted` frames, at least one, in frames: all bins then show the same."""
    trip = len(round_trip(frames))
    return max(round(wanted / trip), 1) * trip


def play(model: WristModel, views: Iterator[View], settings: StreamSettings) -> Iterator[np.ndarray]:
    """The pictures uint8 [h, w, 3] that one new stream draws of views."""
    wrist = VirtualWrist(model, settings)
    for view in views:
        yield from (frame.image for frame in wrist.draw(view))


def measure(video: np.ndarray, truth: np.ndarray) -> list[float]:
    """PSNR (dB), SSIM, sharpness and change from frame to frame (grey levels) of uint8 [N, h, w, 3]."""
    quality = (psnr(video, truth), ssim(video, truth))
    return [*(float(q.mean()) for q in quality), sharpness(video, truth), frame_change(video)]


def videos(
    model: WristModel, watched: EpisodeRun, settings: StreamSettings, size: int, count: int
) -> Iterator[np.ndarray]:
    """One long stream of round trips in pieces: `count` videos uint8 [size, h, w, 3]."""
    pictures = play(model, (watched.views[i] for i in cycle(round_trip(len(watched.views)))), settings)
    for _ in range(count):
        yield np.stack(list(islice(pictures, size)))


def truth_of(watched: EpisodeRun, frames: int) -> np.ndarray:
    """The true wrist video of the round trips from the first on, uint8 [frames, h, w, 3]."""
    return watched.truth.wrist[list(islice(cycle(round_trip(len(watched.views))), frames))]


def anchored_frames(model: WristModel, settings: StreamSettings, every: int, frames: int) -> range:
    """Frames j < frames at which a stream that re-anchors every so many chunks begins again.

    The first chunk of an autoencoder that compresses time s to 1 is s - 1 frames shorter than the others.
    """
    stride = model.autoencoder.temporal_stride
    return range(every * settings.chunk * stride - stride + 1, frames, every * settings.chunk * stride)


def recovery(model: WristModel, watched: EpisodeRun, settings: StreamSettings, frames: int) -> np.ndarray:
    """PSNR of a stream whose first views were noise, less that of one that saw the episode from the start, dB [frames]:
    how far the first is still behind so many frames after the noise. Both draw from the same noise of the sampler."""
    order = round_trip(len(watched.views))
    count = len(watched.broken)
    after = list(islice(cycle(order), count, count + frames))

    def quality(first: list[View]) -> np.ndarray:
        later = islice(cycle(order), count, None)
        pictures = play(model, chain(first, (watched.views[i] for i in later)), settings)
        return psnr(np.stack(list(islice(pictures, count, count + frames))), watched.truth.wrist[after])

    return quality(watched.broken) - quality(watched.views[:count])


_model: dict[str, WristModel] = {}


def _load(name: str) -> None:
    torch.set_num_threads(1)
    _model[name] = load_model(name, 'cpu')


def measure_episode(
    name: str, path: Path, settings: StreamSettings, frames: int, wanted: int, every: int, after: int
) -> Drift:
    """All of one episode at one number of steps. frames, wanted: of the long stream and of a bin, about. every: chunks
    between re-anchorings; after: frames that the recovery is watched."""
    model = _model[name]
    watched = watch(model, path, settings)
    size = bin_frames(len(watched.views), wanted)
    truth = truth_of(watched, size)
    pieces = videos(model, watched, settings, size, -(-frames // size))
    first = next(pieces)
    bins = [measure(first, truth), *(measure(piece, truth) for piece in pieces)]
    (apart,) = videos(model, watched, replace(settings, history=0), size, 1)
    (anchored,) = videos(model, watched, replace(settings, reanchor=every), size, 1)
    joins = anchored_frames(model, settings, every, size)
    return Drift(
        steps=settings.steps,
        bin_frames=size,
        bins=np.array(bins),
        apart=np.array(measure(apart, truth)),
        seams=np.array([seam_ratio(v, joins) for v in (anchored, first, truth)]),
        anchored=np.array(measure(anchored, truth)),
        recovery=recovery(model, watched, settings, after),
    )


def run(jobs: list[tuple], model: str, processes: int) -> Iterator[Drift]:
    """`measure_episode` of each job, as they end, in so many processes of one thread; in this one where it is 0."""
    if not processes:
        _load(model)
        yield from (measure_episode(*job) for job in jobs)
        return
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(processes, context, initializer=_load, initargs=(model,)) as pool:
        for job in as_completed([pool.submit(measure_episode, *job) for job in jobs]):
            yield job.result()


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog='python -m wristworld_ros.evaluation.studies.drift', description=__doc__)
    parser.add_argument('episodes', type=Path, help='Folder of held-out episodes.')
    parser.add_argument('--model', default='sim_tiny')
    parser.add_argument('--limit', type=int, default=6, help='Episodes, spread over the folder.')
    parser.add_argument('--frames', type=int, default=2000, help='Frames that a stream lasts, at least.')
    parser.add_argument('--bin', type=int, default=200, help='Frames of a row, about: whole round trips.')
    parser.add_argument('--steps', type=int, nargs='*', default=[1, 2, 4])
    parser.add_argument('--chunk', type=int, default=1)
    parser.add_argument('--history', type=int, default=4)
    parser.add_argument('--every', type=int, default=7, help='Chunks between the joins that are measured.')
    parser.add_argument('--after', type=int, default=40, help='Frames that the recovery is watched.')
    parser.add_argument('--processes', type=int, default=4, help='Of one thread each; 0 for this one alone.')
    args = parser.parse_args(argv)
    paths = list_episodes(args.episodes)
    if not paths:
        parser.error(f'There are no episodes in {args.episodes}; make some with `wristworld simulate`.')
    paths = paths[:: max(len(paths) // args.limit, 1)][: args.limit]
    settings = StreamSettings(model=args.model, chunk=args.chunk, history=args.history)
    # The longest first, so that the processes end together.
    jobs = [
        (args.model, path, replace(settings, steps=steps), args.frames, args.bin, args.every, args.after)
        for steps in sorted(args.steps, reverse=True)
        for path in paths
    ]
    found = list(tqdm(run(jobs, args.model, args.processes), total=len(jobs), desc='streams', unit='stream'))
    print('\n\n'.join('\n'.join(lines) for lines in tables(found, args.every)))


if __name__ == '__main__':
    main()
