"""What few steps cost: a windowed teacher beside its causal student, `python -m wristworld_ros.evaluation.studies.students`.

Both generate from the same observations of held-out simulated episodes: the teacher whole videos in windows, the student as it
streams live. sim-FVD is not FVD: see `evaluation/sim_fvd.py`. Drift is that of `studies.drift`: an episode back and forth, PSNR of the
last frames less that of the first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from wristworld_ros.data.formats.native import list_episodes, read_episode
from wristworld_ros.data.ground_truth import GroundTruth, read_ground_truth
from wristworld_ros.evaluation.knowledge import KnowledgeLevel, known_sets, levels_from
from wristworld_ros.evaluation.metrics import psnr
from wristworld_ros.evaluation.objects import object_measures
from wristworld_ros.evaluation.sim_fvd import SimFvd
from wristworld_ros.evaluation.studies.drift import bin_frames, play, round_trip
from wristworld_ros.evaluation.table import markdown
from wristworld_ros.pipeline import VirtualWrist, WristModel, load_model
from wristworld_ros.pipeline.observation import Observation
from wristworld_ros.pipeline.offline import encode_observations, generate_video
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.settings import StreamSettings, WindowSettings

MEASURES = (('found', 2), ('contrast', 2), ('flicker', 1))  # of `object_measures`, and their digits
HEADS = ('model', 'steps', 'PSNR dB', 'found', 'contrast', 'flicker', 'sim-FVD', 'drift, dB')


@dataclass(frozen=True)
class Observed:
    """An episode and what a stream observed of it."""

    truth: GroundTruth
    observations: list[Observation]


@dataclass(frozen=True)
class Row:
    """What a row of the table is made of.

    videos: uint8 [T, h, w, 3], of each seed and episode. truths: the true ones beside them. drift: dB of each episode, none where a
    model has no stream.
    """

    name: str
    steps: str
    videos: list[np.ndarray]
    truths: list[GroundTruth]
    drift: list[float]

    def cells(self, distance: SimFvd | None) -> list[str]:
        """As text: means ± standard errors over episodes."""
        quality = [float(psnr(v, t.wrist).mean()) for v, t in zip(self.videos, self.truths, strict=True)]
        objects = [
            object_measures(v, t.wrist, t.objects, t.wrist_depth)
            for v, t in zip(self.videos, self.truths, strict=True)
            if t.objects is not None
        ]
        fvd = '-' if distance is None else f'{distance(self.videos, [t.wrist for t in self.truths]):.2f}'
        measures = [_spread([m[key] for m in objects if key in m], digits) for key, digits in MEASURES]
        drift = _spread(self.drift, 2, '+') if self.drift else '-'
        return [self.name, self.steps, _spread(quality, 2), *measures, fvd, drift]


def _spread(values: Sequence[float], digits: int, sign: str = '') -> str:
    if not values:
        return '-'
    text = f'{np.mean(values):{sign}.{digits}f}'
    return text + (f' ± {np.std(values, ddof=1) / len(values) ** 0.5:.{digits}f}' if len(values) > 1 else '')


def observe(model: WristModel, path: Path, level: KnowledgeLevel) -> Observed:
    """Observations of an episode from two anchors."""
    truth = read_ground_truth(read_episode(path), model.config.wrist_hw, anchors=2)
    wrist = VirtualWrist(model, StreamSettings(scene_memory=level.memory, refine_calibration=level.refine))
    # One stream plays them repeatedly, whatever their stamps are.
    observations = [replace(wrist.reconstruct(anchors), starts_stream=False) for anchors in known_sets(truth, level)]
    return Observed(truth, observations)


def teacher_row(model: WristModel, episodes: list[Observed], steps: int, window: int, seeds: int) -> Row:
    """A teacher's videos in overlapping windows."""
    settings, videos = WindowSettings(window=window, steps=steps, guidance=None), []
    for seed in range(seeds):
        for episode in ProgressBar(episodes, desc=f'teacher, {steps} steps', unit='episode', leave=False):
            encoded = encode_observations(model, episode.observations)
            videos.append(np.stack(list(generate_video(model, encoded, settings, seed))))
    return Row('teacher, windows', str(steps), videos, [e.truth for e in episodes] * seeds, [])


def student_row(
    model: WristModel,
    episodes: list[Observed],
    settings: StreamSettings,
    seeds: int,
    drifting: list[Observed],
    frames: int,
) -> Row:
    """A student's videos as it streams, and its drift on some episodes over so many frames."""
    videos = [
        stream(model, episode, replace(settings, seed=seed), len(episode.truth))
        for seed in range(seeds)
        for episode in ProgressBar(episodes, desc=f'student, {settings.steps} steps', unit='episode', leave=False)
    ]
    drift = [episode_drift(model, episode, settings, frames) for episode in drifting]
    return Row('student, stream', str(settings.steps), videos, [e.truth for e in episodes] * seeds, drift)


def stream(model: WristModel, episode: Observed, settings: StreamSettings, frames: int) -> np.ndarray:
    """So many frames of one stream that plays an episode forward and back, uint8 [frames, h, w, 3]."""
    trips = cycle(round_trip(len(episode.observations)))
    return np.stack(list(islice(play(model, (episode.observations[i] for i in trips), settings), frames)))


def episode_drift(model: WristModel, episode: Observed, settings: StreamSettings, frames: int) -> float:
    """PSNR of the last round trips of a long stream less that of the first, dB."""
    count = len(episode.observations)
    size = bin_frames(count, min(200, frames))
    total = max(-(-frames // size), 2) * size
    order = list(islice(cycle(round_trip(count)), size))
    truth = episode.truth.wrist[order]
    video = stream(model, episode, settings, total)
    first, last = (float(psnr(part, truth).mean()) for part in (video[:size], video[-size:]))
    return last - first


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog='python -m wristworld_ros.evaluation.studies.students', description=__doc__)
    parser.add_argument('episodes', type=Path, help='Folder of held-out simulated episodes.')
    parser.add_argument('--teacher', default='sim_tiny', help='Name or directory of the windowed teacher.')
    parser.add_argument('--student', required=True, help='Directory of the student (`wristworld train causal`).')
    parser.add_argument('--knowledge', default='rgb', help='What the stream is told beside images.')
    parser.add_argument('--teacher-steps', type=int, nargs='*', default=[50, 8, 4])
    parser.add_argument('--student-steps', type=int, nargs='*', default=[4, 2, 1])
    parser.add_argument('--window', type=int, default=8, help="Frames of the teacher's windows.")
    parser.add_argument('--chunk', type=int, default=1)
    parser.add_argument('--history', type=int, default=4)
    parser.add_argument('--limit', type=int, help='Episodes at most.')
    parser.add_argument('--seeds', type=int, default=1)
    parser.add_argument(
        '--frames', type=int, default=2000, help='Of the streams whose drift is measured; 0 measures none.'
    )
    parser.add_argument('--drift-episodes', type=int, default=2, help='How many episodes drift is measured on.')
    parser.add_argument('--sim-fvd', type=Path, help='Weights of sim-FVD, which is left out otherwise.')
    args = parser.parse_args(argv)
    paths = list_episodes(args.episodes)[: args.limit]
    if not paths:
        parser.error(f'there are no episodes in {args.episodes}; record some with `wristworld simulate`')
    (level,) = levels_from(args.knowledge)
    distance = SimFvd(args.sim_fvd) if args.sim_fvd else None
    teacher, student = load_model(args.teacher), load_model(args.student)
    teacher.configure_process()
    episodes = [observe(teacher, path, level) for path in ProgressBar(paths, desc='reconstruct', unit='episode')]
    rows = [teacher_row(teacher, episodes, n, args.window, args.seeds).cells(distance) for n in args.teacher_steps]
    drifting = episodes[: args.drift_episodes if args.frames else 0]
    for n in args.student_steps:
        settings = StreamSettings(chunk=args.chunk, history=args.history, steps=n, guidance=None)
        rows.append(student_row(student, episodes, settings, args.seeds, drifting, args.frames).cells(distance))
    true = [e.truth for e in episodes]
    rows.append(Row('true video', '-', [t.wrist for t in true], true, []).cells(distance))
    print(f'\n{markdown(HEADS, rows)}')


if __name__ == '__main__':
    main()
