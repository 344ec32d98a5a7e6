"""Batches for stage 1: images of anchors whose positions differ in every frame, with their true geometry."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset

from wristworld_ros.data.packed import PackedEpisode
from wristworld_ros.errors import UserError
from wristworld_ros.geometry import pose_error
from wristworld_ros.models.hand import STANDARD_MOUNT
from wristworld_ros.training.augmentation import color_table, recolor, zoom_and_roll

_SAME_DEG, _SAME_M = 5.0, 0.02  # within which a mount counts as the standard one
_FOV = 75.0  # degrees, vertical field of view of the standard wrist camera


@dataclass(frozen=True)
class Stage1Sampling:
    """How views are sampled.

    size: (width, height) of the images. azimuth: views farther round the workspace than this from the robot's front are
    left out, degrees. views: anchors -> share of batches that have so many; counts that no episode has are left out.
    zoom, roll (radians), color: see `augmentation`.
    """

    batch: int = 16
    size: tuple[int, int] = (128, 96)
    azimuth: float = 100.0
    views: dict[int, float] = field(default_factory=lambda: {1: 0.15, 2: 0.75, 3: 0.1})
    zoom: tuple[float, float] = (0.9, 1.25)
    roll: float = np.deg2rad(4.0)
    color: float = 1.0


Sample = dict[str, np.ndarray]


def usable_views(episode: PackedEpisode, sampling: Stage1Sampling) -> np.ndarray:
    """Which views are in front of the robot, bool [V, T]."""
    return np.abs(episode.azimuth) <= sampling.azimuth


def sample_views(
    episode: PackedEpisode, views: int, rng: np.random.Generator, sampling: Stage1Sampling
) -> Sample | None:
    """One sample: `views` anchors at one time, in random order; poses are relative to the first of them.

    Returns:
        None where there are not so many usable views at that time; otherwise rgb uint8 [V, H, W, 3], depth uint16
        [V, H, W] (millimetres), K [V, 3, 3], T_camera_anchor [V, 4, 4], T_anchor_base [4, 4], wrist_K [3, 3],
        T_wrist_anchor [4, 4], wrist_depth uint16 [h, w].
    """
    t = int(rng.integers(episode.length))
    usable = np.flatnonzero(usable_views(episode, sampling)[:, t])
    if len(usable) < views:
        return None
    chosen = rng.choice(usable, views, replace=False)
    found = [_augmented_view(episode, v, t, rng, sampling) for v in chosen]
    rgb, depth, K, T = (np.stack(x) for x in zip(*found, strict=True))
    T_base_anchor = np.linalg.inv(T[0])
    wrist_K, T_wrist, wrist_depth = _standard_wrist(episode, t)
    return {
        'rgb': rgb,
        'depth': depth,
        'K': K,
        'T_camera_anchor': T @ T_base_anchor,
        'T_anchor_base': T[0],
        'wrist_K': wrist_K,
        'T_wrist_anchor': T_wrist @ T_base_anchor,
        'wrist_depth': wrist_depth,
    }


def _standard_wrist(episode: PackedEpisode, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """K, T_camera_world and depth of the wrist camera, which anchors alone say only of one mount: where the recorded one is mounted
    otherwise, that of a camera at `STANDARD_MOUNT`, whose depth is not known (0)."""
    recorded, remounted = episode.cameras['wrist_T_camera_world'][t], episode.remounted(np.array(STANDARD_MOUNT))[t]
    K, depth = episode.cameras['wrist_K'][t], np.asarray(episode.wrist_depth[t])
    degrees, metres = pose_error(torch.from_numpy(recorded), torch.from_numpy(remounted))
    if degrees < _SAME_DEG and metres < _SAME_M:
        return K, recorded, depth
    height, width = depth.shape
    focal = height / 2 / np.tan(np.radians(_FOV) / 2)
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    return K, remounted, np.zeros_like(depth)


def _augmented_view(episode: PackedEpisode, view: int, t: int, rng: np.random.Generator, sampling: Stage1Sampling):
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


def collate(samples: list[Sample]) -> dict[str, torch.Tensor]:
    """Stack samples; images become float32 [B, V, 3, H, W] in [0, 1], depths float32 metres, matrices float32."""
    batch = {k: np.stack([s[k] for s in samples]) for k in samples[0]}
    out = {k: torch.from_numpy(v.astype(np.float32)) for k, v in batch.items() if k not in ('rgb',)}
    out['rgb'] = torch.from_numpy(batch['rgb']).permute(0, 1, 4, 2, 3).float() / 255
    out['depth'] = out['depth'] / 1000
    out['wrist_depth'] = out['wrist_depth'] / 1000
    return out


class Stage1Batches(Dataset):
    """Collated batches by number, without end; all samples of a batch have the same number of views.

    Args:
        episodes: Packed ones, of any numbers of views.
        sampling: How samples are taken from them.
        seed: The same seed, process and number give the same batch.
        process: Rank of the training process.

    Raises:
        UserError: No episode has a usable view.
    """

    def __init__(self, episodes: list[PackedEpisode], sampling: Stage1Sampling, seed: int, process: int = 0):
        self.sampling, self.seed, self.process = sampling, seed, process
        most = [int(usable_views(e, sampling).sum(0).max()) for e in episodes]
        self._episodes = {n: [e for e, m in zip(episodes, most, strict=True) if m >= n] for n in sampling.views}
        self._counts = [n for n in sampling.views if self._episodes[n]]
        if not self._counts:
            raise UserError(
                f'None of {len(episodes)} episodes has {min(sampling.views)} or more views within {sampling.azimuth:g} '
                "degrees of the robot's front",
                'give other episodes, or a larger Stage1Sampling.azimuth',
            )
        shares = np.array([sampling.views[n] for n in self._counts])
        self._shares = shares / shares.sum()

    @property
    def view_counts(self) -> list[int]:
        """Numbers of views that batches have."""
        return list(self._counts)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, self.process, number))
        views = int(rng.choice(self._counts, p=self._shares))
        return self.batch(views, self.sampling.batch, rng)

    def batch(self, views: int, size: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """A collated batch of a given size and number of views, which must be one of `view_counts`."""
        return collate([self._sample(views, rng) for _ in range(size)])

    def _sample(self, views: int, rng: np.random.Generator) -> Sample:
        episodes = self._episodes[views]
        for _ in range(1000):
            sample = sample_views(episodes[int(rng.integers(len(episodes)))], views, rng, self.sampling)
            if sample is not None:
                return sample
        raise UserError(
            f'Hardly any frame has {views} views within {self.sampling.azimuth:g} degrees of the front',
            'give other episodes, or a larger Stage1Sampling.azimuth',
        )
