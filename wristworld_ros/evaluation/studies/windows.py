"""What windows and solvers cost in quality, measured on held-out episodes: `python -m wristworld_ros.evaluation.studies.windows`.

Two tables: PSNR by solver and steps, and the seam ratio of overlapping windows beside that of independent clips.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wristworld_ros.data.formats.native import list_episodes, read_episode
from wristworld_ros.data.ground_truth import GroundTruth, read_ground_truth
from wristworld_ros.evaluation.metrics import psnr, seam_ratio
from wristworld_ros.models.wan.sampling import SOLVERS
from wristworld_ros.models.wan.windows import joins
from wristworld_ros.pipeline import WristModel, load_model
from wristworld_ros.pipeline.offline import EncodedVideo, draw, watch, windows_for
from wristworld_ros.settings import WindowSettings


@dataclass(frozen=True)
class Measured:
    """An episode, what stage 1 sees in it, and the same in clips that know nothing of each other."""

    truth: GroundTruth
    seen: EncodedVideo
    clips: list[EncodedVideo]


def first_frames(model: WristModel, seen: EncodedVideo, frames: int) -> EncodedVideo:
    """The beginning of what was seen, `frames` video frames (1 + s n of them)."""
    latent = (frames - 1) // model.autoencoder.temporal_stride + 1
    return replace(
        seen,
        frames=seen.frames[:frames],
        condition_latents=None if seen.condition_latents is None else seen.condition_latents[:, :, :latent],
        features=None if seen.features is None else seen.features[:, :, :frames],
        latent_frames=latent,
    )


def video(model: WristModel, seen: EncodedVideo, settings: WindowSettings, windows=None, seed: int = 0) -> np.ndarray:
    """The generated wrist video, uint8 [T, h, w, 3]."""
    return np.stack(list(draw(model, seen, settings, seed, windows)))


def solver_table(
    model: WristModel, episodes: list[Measured], steps: list[int], settings: WindowSettings, frames: int, reference: int
) -> list[str]:
    """Markdown: mean PSNR (dB) over the first frames of the episodes, a row for each number of steps.

    Two columns a solver: against the true wrist video, and against what `reference` Euler steps make of the same noise,
    which is the solver's error alone.
    """

    def made(episode: Measured, count: int, solver: str) -> np.ndarray:
        return video(model, first_frames(model, episode.seen, frames), replace(settings, steps=count, solver=solver))

    fine = [made(e, reference, 'euler') for e in tqdm(episodes, desc=f'{reference} steps', unit='episode')]
    heads = [f'{solver}, against {what}' for solver in SOLVERS for what in ('the truth', f'{reference} Euler steps')]
    lines = ['| steps | ' + ' | '.join(heads) + ' |', '| --: |' + ' --: |' * len(heads)]
    for count in tqdm(steps, desc='solvers', unit='row'):
        cells = []
        for solver in SOLVERS:
            videos = [made(e, count, solver) for e in episodes]
            against = ([e.truth.wrist[:frames] for e in episodes], fine)
            cells += [np.mean([psnr(v, t).mean() for v, t in zip(videos, t, strict=True)]) for t in against]
        lines.append(f'| {count} | ' + ' | '.join(f'{cell:.2f}' for cell in cells) + ' |')
    return lines


def seam_table(
    model: WristModel, episodes: list[Measured], steps: list[int], settings: WindowSettings, seed: int = 0
) -> list[str]:
    """Markdown: mean seam ratio over episodes of overlapping windows and of independent clips as long, and PSNR.

    Independent clips have noise of their own, as in the published system. The true video's ratio at the same frames
    stands beside each: what of it is the scene's own motion.
    """
    stride = model.autoencoder.temporal_stride
    lines = ['| steps | how | seam ratio | true video there | PSNR dB |', '| --: | --- | --: | --: | --: |']
    for count in tqdm(steps, desc='seams', unit='row'):
        how = replace(settings, steps=count)
        rows: dict[str, list] = {'overlapping windows': [], 'independent clips': []}
        for e in episodes:
            windows = windows_for(model, e.seen, how)
            joined = video(model, e.seen, how, windows, seed)
            apart = np.concatenate([video(model, clip, how, seed=seed + i) for i, clip in enumerate(e.clips)])
            ends = np.cumsum([len(clip) for clip in e.clips])[:-1].tolist()
            found = [j for j in joins(windows, stride) if j < len(joined)]
            for name, made, at in (('overlapping windows', joined, found), ('independent clips', apart, ends)):
                true = e.truth.wrist
                rows[name].append((seam_ratio(made, at), seam_ratio(true, at), psnr(made, true).mean()))
        for name, values in rows.items():
            ratio, true, quality = np.mean(values, 0)
            lines.append(f'| {count} | {name} | {ratio:.2f} | {true:.2f} | {quality:.2f} |')
    return lines


def see(model: WristModel, path: Path, frames: int, settings: WindowSettings) -> Measured:
    """Stage 1 of an episode's first frames, of all together and of clips as long as a window."""
    truth = read_ground_truth(read_episode(path), model.config.wrist_hw, 2, frames)
    sets = [truth.anchor_set(i) for i in range(len(truth))]
    seen = watch(model, sets)
    latents = windows_for(model, seen, settings)[0].frames
    clip = 1 + model.autoencoder.temporal_stride * (latents - 1)
    return Measured(truth, seen, [watch(model, sets[i : i + clip]) for i in range(0, len(sets), clip)])


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog='python -m wristworld_ros.evaluation.studies.windows', description=__doc__)
    parser.add_argument('episodes', type=Path, help='Folder of held-out episodes.')
    parser.add_argument('--model', default='sim_tiny')
    parser.add_argument('--limit', type=int, default=3, help='Episodes in the table of solvers.')
    parser.add_argument('--frames', type=int, default=16, help='Frames of each.')
    parser.add_argument('--seam-limit', type=int, default=8, help='Episodes in the table of seams.')
    parser.add_argument('--seam-frames', type=int, default=60, help='Frames of each.')
    parser.add_argument('--window', type=int, default=0, help="Frames of a window; 0 takes the model's clip.")
    parser.add_argument('--overlap', type=int, default=0, help='0 takes a third of a window.')
    parser.add_argument('--shift', type=float, default=0.0, help="0 takes the model's.")
    parser.add_argument('--steps', type=int, nargs='*', default=[1, 2, 4, 8, 16])
    parser.add_argument('--reference', type=int, default=50, help='Euler steps that the solvers are compared with.')
    parser.add_argument('--seam-steps', type=int, nargs='*', default=[1, 4])
    args = parser.parse_args(argv)
    model = load_model(args.model, 'auto')
    settings = WindowSettings(window=args.window, overlap=args.overlap, shift=args.shift)
    paths = list_episodes(args.episodes)[: max(args.limit, args.seam_limit)]
    episodes = [see(model, p, args.seam_frames, settings) for p in tqdm(paths, desc='reconstruct', unit='episode')]
    if args.steps:
        rows = solver_table(model, episodes[: args.limit], args.steps, settings, args.frames, args.reference)
        print('\n'.join(rows), end='\n\n')
    if args.seam_steps:
        print('\n'.join(seam_table(model, episodes[: args.seam_limit], args.seam_steps, settings)))


if __name__ == '__main__':
    main()
