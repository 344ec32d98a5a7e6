"""What windows and solvers cost in quality, measured on held-out episodes: `python -m wristworld_ros.evaluation.windows`.

Two tables: PSNR by solver and steps on one window, and the seam ratio of overlapping windows beside independent clips.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from wristworld_ros.episodes.format import list_episodes, read_episode
from wristworld_ros.evaluation.metrics import psnr, seam_ratio
from wristworld_ros.evaluation.truth import Truth, read_truth
from wristworld_ros.generation.sampling import SOLVERS
from wristworld_ros.generation.windows import Window, joins
from wristworld_ros.settings import WindowSettings
from wristworld_ros.streaming import WristModel, load_model
from wristworld_ros.streaming.windowed import SeenVideo, draw, watch, windows_for


def independent_clips(total: int, clip: int) -> tuple[Window, ...]:
    """Clips side by side that share nothing, the last one shorter: how the published system makes long videos."""
    starts = range(0, total, clip)
    return tuple(Window(a, min(clip, total - a), torch.ones(min(clip, total - a))) for a in starts)


def first_frames(model: WristModel, seen: SeenVideo, frames: int) -> SeenVideo:
    """The beginning of what was seen, `frames` video frames (1 + s n of them)."""
    latent = (frames - 1) // model.autoencoder.temporal_stride + 1
    return replace(
        seen,
        frames=seen.frames[:frames],
        condition_latents=None if seen.condition_latents is None else seen.condition_latents[:, :, :latent],
        features=None if seen.features is None else seen.features[:, :, :frames],
        latent_frames=latent,
    )


def video(model: WristModel, seen: SeenVideo, settings: WindowSettings, windows=None, seed: int = 0) -> np.ndarray:
    """The generated wrist video, uint8 [T, h, w, 3]."""
    return np.stack(list(draw(model, seen, settings, seed, windows)))


def solver_table(
    model: WristModel, episodes: list[tuple[Truth, SeenVideo]], steps: list[int], settings: WindowSettings, frames: int
) -> list[str]:
    """Markdown: mean PSNR (dB) over the first frames of the episodes, a row for each number of steps."""
    lines = ['| steps | ' + ' | '.join(SOLVERS) + ' |', '| --: |' + ' --: |' * len(SOLVERS)]
    for count in tqdm(steps, desc='solvers', unit='row'):
        cells = []
        for solver in SOLVERS:
            how = replace(settings, steps=count, solver=solver)
            values = [
                psnr(video(model, first_frames(model, seen, frames), how), truth.wrist[:frames]).mean()
                for truth, seen in episodes
            ]
            cells.append(f'{np.mean(values):.2f}')
        lines.append(f'| {count} | ' + ' | '.join(cells) + ' |')
    return lines


def seam_table(
    model: WristModel, episodes: list[tuple[Truth, SeenVideo]], steps: list[int], settings: WindowSettings
) -> list[str]:
    """Markdown: mean seam ratio over episodes of overlapping windows and of independent clips as long, and PSNR.

    The true video's ratio at the same frames stands beside each: what of it is the scene's own motion.
    """
    stride = model.autoencoder.temporal_stride
    lines = ['| steps | how | seam ratio | true video there | PSNR dB |', '| --: | --- | --: | --: | --: |']
    for count in tqdm(steps, desc='seams', unit='row'):
        how = replace(settings, steps=count)
        rows: dict[str, list] = {}
        for truth, seen in episodes:
            overlapped = windows_for(model, seen, how)
            apart = independent_clips(seen.latent_frames, overlapped[0].frames)
            for name, windows in (('overlapping windows', overlapped), ('independent clips', apart)):
                made = video(model, seen, how, windows)
                at = [j for j in joins(windows, stride) if j < len(made)]
                row = seam_ratio(made, at), seam_ratio(truth.wrist, at), psnr(made, truth.wrist).mean()
                rows.setdefault(name, []).append(row)
        for name, found in rows.items():
            ratio, true, quality = np.mean(found, 0)
            lines.append(f'| {count} | {name} | {ratio:.2f} | {true:.2f} | {quality:.2f} |')
    return lines


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog='python -m wristworld_ros.evaluation.windows', description=__doc__)
    parser.add_argument('episodes', type=Path, help='Folder of held-out episodes.')
    parser.add_argument('--model', default='sim_tiny')
    parser.add_argument('--limit', type=int, default=3, help='Episodes.')
    parser.add_argument('--frames', type=int, default=16, help='Frames an episode in the table of solvers.')
    parser.add_argument('--long-frames', type=int, default=60, help='Frames an episode in the table of seams.')
    parser.add_argument('--window', type=int, default=0, help="Frames of a window; 0 takes the model's clip.")
    parser.add_argument('--overlap', type=int, default=0, help='0 takes a third of a window.')
    parser.add_argument('--shift', type=float, default=0.0, help="0 takes the model's.")
    parser.add_argument('--steps', type=int, nargs='+', default=[1, 2, 4, 8, 16, 50])
    parser.add_argument('--seam-steps', type=int, nargs='+', default=[1, 4])
    args = parser.parse_args(argv)
    model = load_model(args.model, 'auto')
    settings = WindowSettings(window=args.window, overlap=args.overlap, shift=args.shift)
    episodes = []
    for path in tqdm(list_episodes(args.episodes)[: args.limit], desc='reconstruct', unit='episode'):
        truth = read_truth(read_episode(path), model.config.wrist_hw, 2, args.long_frames)
        episodes.append((truth, watch(model, (truth.anchor_set(i) for i in range(len(truth))))))
    tables = [solver_table(model, episodes, args.steps, settings, args.frames), []]
    tables.append(seam_table(model, episodes, args.seam_steps, settings))
    print('\n'.join(line for table in tables for line in (*table, '')))


if __name__ == '__main__':
    main()
