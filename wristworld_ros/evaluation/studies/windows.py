"""What windows and solvers cost in quality, on held-out episodes: `python -m wristworld_ros.evaluation.studies.windows`.

Two tables: PSNR by solver and steps, and the seam ratio of overlapping windows beside that of independent clips.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wristworld_ros.data.formats.native import list_episodes, read_episode
from wristworld_ros.data.ground_truth import GroundTruth, read_ground_truth
from wristworld_ros.evaluation.metrics import psnr, seam_ratio
from wristworld_ros.evaluation.table import markdown
from wristworld_ros.models.wan.sampling import SOLVERS
from wristworld_ros.models.wan.windows import seam_frames
from wristworld_ros.pipeline import WristModel, load_model
from wristworld_ros.pipeline.offline import EncodedVideo, encode_video, generate_video, plan_for
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.settings import WindowSettings


@dataclass(frozen=True)
class EncodedEpisode:
    """An episode, stage 1 of the whole of it, and stage 1 of independent clips of it."""

    truth: GroundTruth
    whole: EncodedVideo
    clips: list[EncodedVideo]


def encode_episode(model: WristModel, path: Path, frames: int, settings: WindowSettings) -> EncodedEpisode:
    """Stage 1 of an episode's first frames, of all together and of clips as long as a window."""
    truth = read_ground_truth(read_episode(path), model.config.wrist_hw, anchors=2, frames=frames)
    sets = [truth.anchor_set(i) for i in range(len(truth))]
    whole = encode_video(model, sets)
    latents = plan_for(model, whole, settings)[0].frames
    clip = 1 + model.autoencoder.temporal_stride * (latents - 1)
    return EncodedEpisode(truth, whole, [encode_video(model, sets[i : i + clip]) for i in range(0, len(sets), clip)])


def first_frames(model: WristModel, encoded: EncodedVideo, frames: int) -> EncodedVideo:
    """The first `frames` video frames (1 + s n of them) of an encoded video."""
    latent = (frames - 1) // model.autoencoder.temporal_stride + 1
    return replace(
        encoded,
        frames=encoded.frames[:frames],
        condition_latents=None if encoded.condition_latents is None else encoded.condition_latents[:, :, :latent],
        features=None if encoded.features is None else encoded.features[:, :, :frames],
        latent_frames=latent,
    )


def video(
    model: WristModel, encoded: EncodedVideo, settings: WindowSettings, windows=None, seed: int = 0
) -> np.ndarray:
    """The generated wrist video, uint8 [T, h, w, 3]."""
    return np.stack(list(generate_video(model, encoded, settings, seed=seed, windows=windows)))


def solver_table(
    model: WristModel,
    episodes: list[EncodedEpisode],
    steps: list[int],
    settings: WindowSettings,
    frames: int,
    reference: int,
) -> str:
    """Markdown: mean PSNR (dB) over the first frames of the episodes, a row for each number of steps.

    Two columns per solver: against the true wrist video, and against what `reference` Euler steps generate from the same
    noise, which is the solver's error alone.
    """

    def generated(episode: EncodedEpisode, count: int, solver: str) -> np.ndarray:
        return video(model, first_frames(model, episode.whole, frames), replace(settings, steps=count, solver=solver))

    fine = [generated(e, reference, 'euler') for e in ProgressBar(episodes, desc=f'{reference} steps', unit='episode')]
    truth = [e.truth.wrist[:frames] for e in episodes]
    heads = [f'{solver}, against {what}' for solver in SOLVERS for what in ('the truth', f'{reference} Euler steps')]
    rows = []
    for count in ProgressBar(steps, desc='solvers', unit='row'):
        cells = []
        for solver in SOLVERS:
            videos = [generated(e, count, solver) for e in episodes]
            cells += [np.mean([psnr(v, t).mean() for v, t in zip(videos, ts, strict=True)]) for ts in (truth, fine)]
        rows.append([str(count), *(f'{cell:.2f}' for cell in cells)])
    return markdown(['steps', *heads], rows)


def seam_table(
    model: WristModel, episodes: list[EncodedEpisode], steps: list[int], settings: WindowSettings, seed: int = 0
) -> str:
    """Markdown: mean seam ratio over episodes of overlapping windows and of independent clips as long, and PSNR.

    Independent clips have noise of their own, as in the published system. The true video's ratio at the same frames
    stands beside each: how much of it is the scene's own motion.
    """
    stride = model.autoencoder.temporal_stride
    rows = []
    for count in ProgressBar(steps, desc='seams', unit='row'):
        sampled = replace(settings, steps=count)
        values: dict[str, list] = {'overlapping windows': [], 'independent clips': []}
        for e in episodes:
            windows = plan_for(model, e.whole, sampled)
            joined = video(model, e.whole, sampled, windows, seed)
            clips = [video(model, clip, sampled, seed=seed + i) for i, clip in enumerate(e.clips)]
            ends = np.cumsum([len(clip) for clip in clips])[:-1].tolist()
            found = [j for j in seam_frames(windows, stride) if j < len(joined)]
            truth = e.truth.wrist
            for name, images, at in (
                ('overlapping windows', joined, found),
                ('independent clips', np.concatenate(clips), ends),
            ):
                values[name].append((seam_ratio(images, at), seam_ratio(truth, at), psnr(images, truth).mean()))
        rows += [[str(count), name, *(f'{v:.2f}' for v in np.mean(found, 0))] for name, found in values.items()]
    return markdown(['steps', 'method', 'seam ratio', 'true video there', 'PSNR dB'], rows)


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog='python -m wristworld_ros.evaluation.studies.windows', description=__doc__)
    parser.add_argument('episodes', type=Path, help='Folder of held-out episodes.')
    parser.add_argument('--model', default='sim_tiny')
    parser.add_argument('--limit', type=int, default=3, help='Episodes in the table of solvers.')
    parser.add_argument('--frames', type=int, default=16, help='Frames of each.')
    parser.add_argument('--seam-limit', type=int, default=8, help='Episodes in the table of seams.')
    parser.add_argument('--seam-frames', type=int, default=60, help='Frames of each.')
    parser.add_argument('--window', type=int, help="Frames of a window. Default: the model's clip.")
    parser.add_argument('--overlap', type=int, help='Frames. Default: a third of a window.')
    parser.add_argument('--shift', type=float, help="Default: the model's own.")
    parser.add_argument('--steps', type=int, nargs='*', default=[1, 2, 4, 8, 16])
    parser.add_argument('--reference', type=int, default=50, help='Euler steps that the solvers are compared with.')
    parser.add_argument('--seam-steps', type=int, nargs='*', default=[1, 4])
    args = parser.parse_args(argv)
    model = load_model(args.model, 'auto')
    model.configure_process()
    settings = WindowSettings(window=args.window, overlap=args.overlap, shift=args.shift)
    paths = list_episodes(args.episodes)[: max(args.limit, args.seam_limit)]
    episodes = [
        encode_episode(model, p, args.seam_frames, settings)
        for p in ProgressBar(paths, desc='reconstruct', unit='episode')
    ]
    if args.steps:
        rows = solver_table(model, episodes[: args.limit], args.steps, settings, args.frames, args.reference)
        print(rows, end='\n\n')
    if args.seam_steps:
        print(seam_table(model, episodes[: args.seam_limit], args.seam_steps, settings))


if __name__ == '__main__':
    main()
