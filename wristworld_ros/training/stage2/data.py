"""Clips for stage 2: wrist video with its objects, condition maps of one quality, small anchor images."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from wristworld_ros.errors import UserError
from wristworld_ros.training.augmentation import color_table, recolor


@dataclass(frozen=True)
class Stage2Sampling:
    """How clips are sampled.

    batch: clips. frames: a clip's length. chunks: lengths that are chosen from, each dividing `frames`. color: strength
    of recoloring. mirror: share of clips whose images are all mirrored left to right; hand and scenes have no handedness.
    permute: share of clips whose colour channels are permuted.
    """

    batch: int = 3
    frames: int = 8
    chunks: tuple[int, ...] = (1, 2, 4)
    color: float = 1.0
    mirror: float = 0.5
    permute: float = 0.3


def sample_clip(
    path: Path,
    views: int,
    frames: int,
    rng: np.random.Generator,
    color: float = 0.0,
    mirror: float = 0.0,
    permute: float = 0.0,
) -> dict[str, np.ndarray]:
    """A random run of frames out of one prepared episode, all its images recolored and perhaps mirrored alike.

    Args:
        path: A file of `prepare_conditions`.
        views: How many of its anchors, the first ones.
        frames: Length of the clip.
        rng: Source of all choices.
        color: Strength of recoloring.
        mirror: Probability of mirroring.
        permute: Probability of permuted colour channels.

    Returns:
        condition uint8 [T, h, w, 3]; depth float16 [T, h, w]; trust uint8 [T, h, w]; wrist uint8 [T, h, w, 3]; objects uint8
        [T, h, w]; anchors uint8 [views, T, s, s, 3].

    Raises:
        UserError: The episode is shorter than a clip.
    """
    with np.load(path) as f:
        if len(f['wrist']) < frames:
            raise UserError(
                f'{path} has {len(f["wrist"])} frames, and training clips take {frames}', 'leave its episode out'
            )
        start = int(rng.integers(len(f['wrist']) - frames + 1))
        part = slice(start, start + frames)
        quality = int(rng.integers(len(f['condition'])))
        clip = {name: f[name][quality, part] for name in ('condition', 'depth', 'trust')}
        clip |= {name: f[name][part] for name in ('wrist', 'objects')}
        clip['anchors'] = f['anchors'][:views, part]
    if color:
        table = color_table(rng, color)
        for name in ('condition', 'wrist', 'anchors'):
            clip[name] = recolor(clip[name], table)
    if rng.random() < mirror:
        clip = {name: np.flip(values, 3 if name == 'anchors' else 2) for name, values in clip.items()}
    if rng.random() < permute:
        order = rng.permutation(3)
        clip |= {name: clip[name][..., order] for name in ('condition', 'wrist', 'anchors')}
    return clip


class Stage2Clips(Dataset):
    """Batches of clips by number, without end; the chunk length that a batch is trained at is under 'chunk'.

    Args:
        paths: Files of `prepare_conditions`, of any numbers of views; a batch has as many as all its clips have.
        sampling: How clips are sampled.
        seed: The same seed, process and number give the same batch.
        process: Rank of the training process.
        max_views: Views that the generator takes; further ones are left out. None takes all.
    """

    def __init__(
        self, paths: list[Path], sampling: Stage2Sampling, seed: int, process: int = 0, max_views: int | None = None
    ):
        self.paths, self.sampling, self.seed, self.process = paths, sampling, seed, process
        self._views = {p: min(_view_count(p), max_views or sys.maxsize) for p in paths}

    def __getitem__(self, number: int) -> dict[str, torch.Tensor | int]:
        rng = np.random.default_rng((self.seed, self.process, number))
        s = self.sampling
        picks = [self.paths[i] for i in rng.integers(len(self.paths), size=s.batch)]
        views = min(self._views[p] for p in picks)
        clips = [sample_clip(p, views, s.frames, rng, s.color, s.mirror, s.permute) for p in picks]
        return collate_clips(clips) | {'chunk': int(rng.choice(s.chunks))}


def collate_clips(clips: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """condition uint8 [B, T, h, w, 3]; depth float32 [B, T, h, w]; trust float32 [B, T, h, w] in [0, 1]; wrist float32
    [B, 3, T, h, w] in [-1, 1]; objects uint8 [B, T, h, w]; anchors float32 [B, V, T, 3, s, s] in [0, 1]."""
    stacked = {k: torch.from_numpy(np.stack([c[k] for c in clips])) for k in clips[0]}
    return {
        'condition': stacked['condition'],
        'depth': stacked['depth'].float(),
        'trust': stacked['trust'].float() / 255,
        'objects': stacked['objects'],
        'wrist': stacked['wrist'].permute(0, 4, 1, 2, 3).float() / 127.5 - 1,
        'anchors': stacked['anchors'].permute(0, 1, 2, 5, 3, 4).float() / 255,
    }


def _view_count(path: Path) -> int:
    with np.load(path) as f:
        return len(f['anchors'])
