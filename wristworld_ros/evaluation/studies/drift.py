"""Does a long stream lose quality? Held-out episodes, thousands of frames: `python -m wristworld_ros.evaluation.studies.drift`.

An episode is played forward and backward, so that motion stays continuous and its content repeats: any loss is drift.
Stage 1 and condition maps do not depend on the stream's past and are computed once; stage 2 runs as it does live.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np

from wristworld_ros.data.formats.native import list_episodes, read_episode
from wristworld_ros.data.ground_truth import GroundTruth, read_ground_truth
from wristworld_ros.evaluation.metrics import frame_change, psnr, seam_ratio, sharpness, ssim
from wristworld_ros.evaluation.table import markdown
from wristworld_ros.pipeline import VirtualWrist, WristModel, load_model
from wristworld_ros.pipeline.observation import Observation
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.settings import StreamSettings

NOISE_FRAMES = 5  # anchor sets of noise that a disturbed stream starts with
# A disturbed stream has recovered when its PSNR is off by no more than this, dB. Ahead counts as off too: a disturbed
# history may raise PSNR by chance.
RECOVERED = 0.3
MEASURES = ('PSNR dB', 'SSIM', 'sharpness', 'change')


# What is measured


@dataclass(frozen=True)
class EpisodeRun:
    """An episode and the observation of each of its frames. noise: of anchor images that are noise."""

    truth: GroundTruth
    observations: list[Observation]
    noise: list[Observation]


@dataclass(frozen=True)
class Drift:
    """One episode at one number of steps.

    bin_frames: frames per bin. bins: float64 [bins, 4], `MEASURES` of each bin of a long stream. independent: [4], of the
    first bin without history. reanchored: [4], of the first bin of a stream that re-anchors. seams: [3], seam ratio at
    the frames where that stream starts again, of it, of the long stream and of the true video. recovery: float64
    [frames], PSNR of a stream after noise less that of an undisturbed one, dB.
    """

    steps: int
    bin_frames: int
    bins: np.ndarray
    independent: np.ndarray
    reanchored: np.ndarray
    seams: np.ndarray
    recovery: np.ndarray

    @property
    def loss(self) -> float:
        """PSNR of the last bin less that of the first, dB; below 0 quality was lost."""
        return float(self.bins[-1, 0] - self.bins[0, 0])

    @property
    def slope(self) -> float:
        """Slope of PSNR over the bins, dB in 1,000 frames; NaN for one bin."""
        if len(self.bins) < 2:
            return float('nan')
        return float(np.polyfit(np.arange(len(self.bins)) * self.bin_frames / 1000, self.bins[:, 0], 1)[0])

    @property
    def recovered(self) -> float:
        """Frames after which it is never again off by more than `RECOVERED`; NaN where it still is at the end."""
        off = np.flatnonzero(np.abs(self.recovery) > RECOVERED)
        last = off[-1] + 1 if len(off) else 0
        return float('nan') if last == len(self.recovery) else float(last)


def reconstruct_episode(model: WristModel, path: Path, settings: StreamSettings) -> EpisodeRun:
    """Observations of an episode's frames, from two anchors."""
    truth = read_ground_truth(read_episode(path), model.config.wrist_hw, anchors=2)
    random = np.random.default_rng(0)
    wrist = VirtualWrist(model, settings)

    def observe(frame: int, noise: bool = False) -> Observation:
        anchors = truth.anchor_set(frame)
        if noise:
            anchors = replace(anchors, images=random.integers(0, 256, anchors.images.shape, dtype=np.uint8))
        # One stream generates from them repeatedly, whatever their stamps are.
        return replace(wrist.reconstruct(anchors), starts_stream=False)

    count = len(truth)
    return EpisodeRun(
        truth, [observe(i) for i in range(count)], [observe(i, noise=True) for i in range(min(NOISE_FRAMES, count))]
    )


def round_trip(frames: int) -> list[int]:
    """Frame numbers forward and backward, each end once: 0 .. n - 1, n - 2 .. 1. Repeated, it never jumps."""
    return [*range(frames), *range(frames - 2, 0, -1)]


def bin_frames(frames: int, wanted: int) -> int:
    """The whole number of round trips nearest to `wanted` frames, at least one, in frames: all bins show the same."""
    trip = len(round_trip(frames))
    return max(round(wanted / trip), 1) * trip


def play(model: WristModel, observations: Iterable[Observation], settings: StreamSettings) -> Iterator[np.ndarray]:
    """The images uint8 [h, w, 3] that one new stream generates from observations."""
    wrist = VirtualWrist(model, settings)
    for observation in observations:
        yield from (frame.image for frame in wrist.generate(observation))


def measure(video: np.ndarray, truth: np.ndarray) -> list[float]:
    """PSNR (dB), SSIM, sharpness and change from frame to frame (grey levels) of uint8 [N, h, w, 3]."""
    quality = (psnr(video, truth), ssim(video, truth))
    return [*(float(q.mean()) for q in quality), sharpness(video, truth), frame_change(video)]


def videos(model: WristModel, run: EpisodeRun, settings: StreamSettings, size: int, count: int) -> Iterator[np.ndarray]:
    """One long stream of round trips in pieces: `count` videos uint8 [size, h, w, 3]."""
    images = play(model, (run.observations[i] for i in cycle(round_trip(len(run.observations)))), settings)
    for _ in range(count):
        yield np.stack(list(islice(images, size)))


def truth_of(run: EpisodeRun, frames: int) -> np.ndarray:
    """The true wrist video of the round trips from the first on, uint8 [frames, h, w, 3]."""
    return run.truth.wrist[list(islice(cycle(round_trip(len(run.observations))), frames))]


def reanchored_frames(model: WristModel, settings: StreamSettings, every: int, frames: int) -> range:
    """Frames j < frames at which a stream that re-anchors every so many chunks starts again.

    The first chunk of an autoencoder that compresses time s to 1 is s - 1 frames shorter than the others.
    """
    stride = model.autoencoder.temporal_stride
    return range(every * settings.chunk * stride - stride + 1, frames, every * settings.chunk * stride)


def recovery(model: WristModel, run: EpisodeRun, settings: StreamSettings, frames: int) -> np.ndarray:
    """How far a stream is behind after it started with noise, dB [frames].

    PSNR of a stream whose first anchor images were noise, less that of one that had the episode from the start, that many
    frames after the noise. Both use the same noise of the sampler.
    """
    order = round_trip(len(run.observations))
    count = len(run.noise)
    after = list(islice(cycle(order), count, count + frames))

    def quality(first: list[Observation]) -> np.ndarray:
        later = islice(cycle(order), count, None)
        images = play(model, chain(first, (run.observations[i] for i in later)), settings)
        return psnr(np.stack(list(islice(images, count, count + frames))), run.truth.wrist[after])

    return quality(run.noise) - quality(run.observations[:count])


_model: dict[str, WristModel] = {}  # of a worker process


def _load(name: str) -> None:
    _model[name] = load_model(name, 'cpu')
    _model[name].configure_process(threads=1)


def measure_episode(
    name: str, path: Path, settings: StreamSettings, frames: int, wanted: int, every: int, after: int
) -> Drift:
    """All of one episode at one number of steps.

    Args:
        name: Of the model, which this process has loaded.
        path: Of the episode.
        settings: Of the stream.
        frames: Length of the long stream, about.
        wanted: Length of a bin, about.
        every: Chunks between re-anchorings.
        after: Frames over which recovery is measured.
    """
    assert settings.steps is not None
    model = _model[name]
    run = reconstruct_episode(model, path, settings)
    size = bin_frames(len(run.observations), wanted)
    truth = truth_of(run, size)
    pieces = videos(model, run, settings, size, -(-frames // size))
    first = next(pieces)
    bins = [measure(first, truth), *(measure(piece, truth) for piece in pieces)]
    (independent,) = videos(model, run, replace(settings, history=0), size, 1)
    (reanchored,) = videos(model, run, replace(settings, reanchor=every), size, 1)
    joins = reanchored_frames(model, settings, every, size)
    return Drift(
        steps=settings.steps,
        bin_frames=size,
        bins=np.array(bins),
        independent=np.array(measure(independent, truth)),
        seams=np.array([seam_ratio(v, joins) for v in (reanchored, first, truth)]),
        reanchored=np.array(measure(reanchored, truth)),
        recovery=recovery(model, run, settings, after),
    )


# The tables


def tables(found: Sequence[Drift], every: int) -> list[str]:
    """Markdown: quality over time, drift, re-anchoring every so many chunks, recovery; means over episodes."""
    groups = {steps: [d for d in found if d.steps == steps] for steps in sorted({d.steps for d in found})}
    return [time_table(groups), drift_table(groups), reanchor_table(groups, every), recovery_table(groups)]


def _spread(values: Sequence[float]) -> str:
    return f'{np.mean(values):+.3f} ± {np.std(values):.3f}'


def time_table(groups: dict[int, list[Drift]]) -> str:
    """A row per bin, four columns per number of steps; the last row is generated without history."""
    heads = ['frames', *(f'{m}, {n} step{"s" * (n > 1)}' for n in groups for m in MEASURES)]
    size = round(np.mean([d.bin_frames for ds in groups.values() for d in ds]))
    rows = []

    def cells(values: np.ndarray) -> list[str]:
        return [f'{v:.{digits}f}' for v, digits in zip(values, (2, 3, 2, 1), strict=True)]

    for i in range(min(len(d.bins) for ds in groups.values() for d in ds)):
        means = [np.mean([d.bins[i] for d in ds], axis=0) for ds in groups.values()]
        rows.append([f'{i * size} to {(i + 1) * size - 1}', *(c for mean in means for c in cells(mean))])
    independent = [np.mean([d.independent for d in ds], axis=0) for ds in groups.values()]
    rows.append(['without history', *(c for mean in independent for c in cells(mean))])
    return markdown(heads, rows)


def drift_table(groups: dict[int, list[Drift]]) -> str:
    """Last bin less first bin and slope of PSNR, mean ± standard deviation over episodes, and the worst episode."""
    heads = ('steps', 'drift, dB', 'worst episode, dB', 'slope, dB in 1,000 frames', 'sharpness, last less first')
    rows = []
    for steps, ds in groups.items():
        losses, slopes = [d.loss for d in ds], [d.slope for d in ds]
        sharper = [d.bins[-1, 2] - d.bins[0, 2] for d in ds]
        rows.append([str(steps), _spread(losses), f'{min(losses):+.3f}', _spread(slopes), _spread(sharper)])
    return markdown(heads, rows)


def reanchor_table(groups: dict[int, list[Drift]], every: int) -> str:
    """Whether re-anchoring shows: the change at its frames relative to that elsewhere, and what it costs."""
    heads = (
        'steps', f'seam ratio, every {every} chunks', 'same frames, never', 'same frames, true video',
        f'PSNR dB, every {every} chunks', 'never', 'without history', f'change, every {every} chunks', 'never',
        'without history',
    )  # fmt: skip
    rows = []
    for steps, ds in groups.items():
        seams = np.mean([d.seams for d in ds], axis=0)
        quality = np.mean([(d.reanchored, d.bins[0], d.independent) for d in ds], axis=0)
        rows.append([str(steps), *(f'{v:.2f}' for v in (*seams, *quality[:, 0], *quality[:, 3]))])
    return markdown(heads, rows)


def recovery_table(groups: dict[int, list[Drift]], at: Sequence[int] = (1, 2, 4, 8, 16, 32)) -> str:
    """Frames until a stream that started with noise has recovered, and how far off its PSNR is after so many, dB."""
    shown = [n for n in at if n <= min(len(d.recovery) for ds in groups.values() for d in ds)]
    heads = ['steps', 'frames to recover, mean', 'worst episode', *(f'off at frame {n}, dB' for n in shown)]
    rows = []
    for steps, ds in groups.items():
        frames = [d.recovered for d in ds]
        mean = np.mean([[abs(d.recovery[n - 1]) for n in shown] for d in ds], axis=0)
        rows.append([str(steps), f'{np.mean(frames):.1f}', f'{np.max(frames):.0f}', *(f'{v:.2f}' for v in mean)])
    return markdown(heads, rows)


# The command


def run_jobs(jobs: list[tuple], model: str, processes: int) -> Iterator[Drift]:
    """`measure_episode` of each job, as they end, in so many processes of one thread; 0 runs them in this process."""
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
    parser.add_argument('--frames', type=int, default=2000, help='Least length of a stream.')
    parser.add_argument('--bin', type=int, default=200, help='Frames of a row, about: whole round trips.')
    parser.add_argument('--steps', type=int, nargs='*', default=[1, 2, 4])
    parser.add_argument('--chunk', type=int, default=1)
    parser.add_argument('--history', type=int, default=4)
    parser.add_argument('--every', type=int, default=7, help='Chunks between the joins that are measured.')
    parser.add_argument('--after', type=int, default=40, help='Frames over which recovery is measured.')
    parser.add_argument('--processes', type=int, default=4, help='Of one thread each; 0 runs everything in this one.')
    args = parser.parse_args(argv)
    paths = list_episodes(args.episodes)
    if not paths:
        parser.error(f'there are no episodes in {args.episodes}; record some with `wristworld simulate`')
    paths = paths[:: max(len(paths) // args.limit, 1)][: args.limit]
    settings = StreamSettings(model=args.model, chunk=args.chunk, history=args.history)
    # The longest first, so that the processes end together.
    jobs = [
        (args.model, path, replace(settings, steps=steps), args.frames, args.bin, args.every, args.after)
        for steps in sorted(args.steps, reverse=True)
        for path in paths
    ]
    found = list(
        ProgressBar(run_jobs(jobs, args.model, args.processes), total=len(jobs), desc='streams', unit='stream')
    )
    print('\n\n'.join(tables(found, args.every)))


if __name__ == '__main__':
    main()
