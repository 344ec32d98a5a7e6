"""Batches for stage 1: images of anchors that stand elsewhere in every frame, with the geometry they should yield."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import IterableDataset

from wristworld_ros.data.packed import PackedEpisode, packed_episodes
from wristworld_ros.training.augmentation import color_table, recolor, zoom_and_roll


@dataclass(frozen=True)
class Stage1Sampling:
    """How views are drawn.

    size: (width, height) of the images. azimuth: views that stand farther round the workspace than this from the
    robot's front are left out, degrees. views: how often a batch has that many anchors. zoom, roll (radians), color:
    see `augmentation`.
    """

    batch: int = 16
    size: tuple[int, int] = (128, 96)
    azimuth: float = 62.0
    views: dict[int, float] = field(default_factory=lambda: {1: 0.15, 2: 0.75, 3: 0.1})
    zoom: tuple[float, float] = (0.9, 1.25)
    roll: float = np.deg2rad(4.0)
    color: float = 1.0


def _view(episode: PackedEpisode, view: int, t: int, rng, sampling: Stage1Sampling):
    cameras = episode.cameras
    zoom = np.exp(rng.uniform(*np.log(sampling.zoom)))
    rgb, depth, K, T = zoom_and_roll(
        np.asarray(episode.rgb[view, t]),
        np.asarray(episode.depth[view, t]),
        cameras['K'][view, t],
        cameras['T_camera_world'][view, t],
        zoom,
        rng.uniform(-sampling.roll, sampling.roll),
        sampling.size,
    )
    return recolor(rgb, color_table(rng, sampling.color)), depth, K, T


def draw(episode: PackedEpisode, views: int, rng: np.random.Generator, sampling: Stage1Sampling):
    """One sample: `views` anchors at one time, in random order; poses are relative to the first of them.

    None where so many usable views do not exist; otherwise a dict of

    rgb uint8 [V, H, W, 3]; depth uint16 [V, H, W] millimetres; K [V, 3, 3]; T_camera_anchor [V, 4, 4];
    T_anchor_base [4, 4]; wrist_K [3, 3]; T_wrist_anchor [4, 4]; wrist_depth uint16 [h, w].
    """
    t = int(rng.integers(episode.length))
    usable = np.flatnonzero(np.abs(episode.azimuth[:, t]) <= sampling.azimuth)
    if len(usable) < views:
        return None
    chosen = rng.choice(usable, views, replace=False)
    rgb, depth, K, T = (np.stack(x) for x in zip(*(_view(episode, v, t, rng, sampling) for v in chosen), strict=True))
    T_base_anchor = np.linalg.inv(T[0])
    return {
        'rgb': rgb,
        'depth': depth,
        'K': K,
        'T_camera_anchor': T @ T_base_anchor,
        'T_anchor_base': T[0],
        'wrist_K': episode.cameras['wrist_K'][t],
        'T_wrist_anchor': episode.cameras['wrist_T_camera_world'][t] @ T_base_anchor,
        'wrist_depth': np.asarray(episode.wrist_depth[t]),
    }


def collate(samples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Stack samples; images become float32 [B, V, 3, H, W] in [0, 1], depths float32 metres, matrices float32."""
    batch = {k: np.stack([s[k] for s in samples]) for k in samples[0]}
    out = {k: torch.from_numpy(v.astype(np.float32)) for k, v in batch.items() if k not in ('rgb',)}
    out['rgb'] = torch.from_numpy(batch['rgb']).permute(0, 1, 4, 2, 3).float() / 255
    out['depth'] = out['depth'] / 1000
    out['wrist_depth'] = out['wrist_depth'] / 1000
    return out


def sample_batch(episodes: list[PackedEpisode], views: int, size: int, rng, sampling: Stage1Sampling) -> list[dict]:
    """`size` samples of `views` anchors from episodes at random; ValueError where hardly any has so many."""
    samples = []
    for _ in range(50 * size):
        sample = draw(episodes[int(rng.integers(len(episodes)))], views, rng, sampling)
        if sample is not None:
            samples.append(sample)
            if len(samples) == size:
                return samples
    raise ValueError(f'Hardly any episode has {views} anchors within {sampling.azimuth} degrees of the front.')


class Stage1Batches(IterableDataset):
    """An endless stream of collated batches; all samples of a batch have the same number of views.

    The folder is looked through again every `rescan` batches, so training may start while episodes are still rendered.
    """

    def __init__(self, folder: Path, sampling: Stage1Sampling, seed: int, rescan: int = 200):
        self.folder, self.sampling, self.seed, self.rescan = folder, sampling, seed, rescan

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        numbers, shares = zip(*self.sampling.views.items(), strict=True)
        for count in itertools.count():
            if count % self.rescan == 0:
                episodes = packed_episodes(self.folder)
            views = int(rng.choice(numbers, p=shares))
            yield collate(sample_batch(episodes, views, self.sampling.batch, rng, self.sampling))
