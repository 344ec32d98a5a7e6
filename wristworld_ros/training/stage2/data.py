"""Clips for stage 2: wrist video, condition maps of predicted geometry, small anchor images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import IterableDataset

from wristworld_ros.training.augmentation import color_table, recolor


@dataclass(frozen=True)
class Stage2Sampling:
    """batch: clips. frames: a clip's length. chunks: lengths that are drawn, each dividing `frames`. color: strength of
    recolouring. mirror: share of clips of which all pictures are turned left to right; hand and scenes have no handedness.
    """

    batch: int = 3
    frames: int = 8
    chunks: tuple[int, ...] = (1, 2, 4)
    color: float = 1.0
    mirror: float = 0.5


def sample_clip(
    path: Path, views: int, frames: int, rng: np.random.Generator, color: float = 0.0, mirror: float = 0.0
) -> dict[str, np.ndarray]:
    """A random run of frames out of one prepared episode, all its pictures recoloured and perhaps mirrored alike.

    condition uint8 [T, h, w, 3]; depth float16 [T, h, w]; wrist uint8 [T, h, w, 3]; anchors uint8 [views, T, s, s, 3].
    """
    with np.load(path) as f:
        if len(f['wrist']) < frames:
            raise ValueError(f'{path} has {len(f["wrist"])} frames; training clips take {frames}: leave it out.')
        start = int(rng.integers(len(f['wrist']) - frames + 1))
        part = slice(start, start + frames)
        clip = {name: f[name][part] for name in ('condition', 'depth', 'wrist')}
        clip['anchors'] = f['anchors'][:views, part]
    if color:
        table = color_table(rng, color)
        for name in ('condition', 'wrist', 'anchors'):
            clip[name] = recolor(clip[name], table)
    if rng.random() < mirror:
        width = {'condition': 2, 'depth': 2, 'wrist': 2, 'anchors': 3}
        clip = {name: np.flip(values, width[name]) for name, values in clip.items()}
    return clip


class Stage2Clips(IterableDataset):
    """An endless stream of batches of clips, with the chunk length that the batch is trained at under 'chunk'."""

    def __init__(self, paths: list[Path], sampling: Stage2Sampling, seed: int):
        self.paths, self.sampling, self.seed = paths, sampling, seed
        self._views = {p: _view_count(p) for p in paths}

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        s = self.sampling
        while True:
            picks = [self.paths[i] for i in rng.integers(len(self.paths), size=s.batch)]
            views = min(self._views[p] for p in picks)
            clips = [sample_clip(p, views, s.frames, rng, s.color, s.mirror) for p in picks]
            yield collate_clips(clips) | {'chunk': int(rng.choice(s.chunks))}


def collate_clips(clips: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """condition uint8 [B, T, h, w, 3]; depth float32 [B, T, h, w]; wrist float32 [B, 3, T, h, w] in [-1, 1];
    anchors float32 [B, V, T, 3, s, s] in [0, 1]."""
    stacked = {k: torch.from_numpy(np.stack([c[k] for c in clips])) for k in clips[0]}
    return {
        'condition': stacked['condition'],
        'depth': stacked['depth'].float(),
        'wrist': stacked['wrist'].permute(0, 4, 1, 2, 3).float() / 127.5 - 1,
        'anchors': stacked['anchors'].permute(0, 1, 2, 5, 3, 4).float() / 255,
    }


def _view_count(path: Path) -> int:
    with np.load(path) as f:
        return len(f['anchors'])
