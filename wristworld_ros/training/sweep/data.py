"""Batches for the plane sweep: anchors in any number and place, with the errors of calibrations, and the true wrist view."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from wristworld_ros.data.packed import PackedEpisode
from wristworld_ros.errors import UserError
from wristworld_ros.geometry import unproject_depth
from wristworld_ros.geometry.support import support_height
from wristworld_ros.training.augmentation import color_table, recolor


@dataclass(frozen=True)
class SweepSampling:
    """How samples are taken.

    views: anchors -> share of batches that have so many. exact: share of samples with exact cameras; wild: share with cameras as
    wrong as `wild_deg` and `wild_m`, such as predicted ones; all others are wrong by up to `rotation_deg` and `translation_m`.
    plane: error of the support plane's height, standard deviation in metres. color: strength of recoloring. permute: share of
    samples whose colour channels are permuted.
    """

    batch: int = 12
    views: dict[int, float] = field(default_factory=lambda: {1: 0.1, 2: 0.75, 3: 0.15})
    exact: float = 0.3
    wild: float = 0.2
    rotation_deg: float = 0.7
    translation_m: float = 0.007
    wild_deg: float = 3.0
    wild_m: float = 0.03
    plane: float = 0.008
    color: float = 1.0
    permute: float = 0.3


Sample = dict[str, np.ndarray]


def random_rigid(rng: np.random.Generator, degrees: float, metres: float) -> np.ndarray:
    """A rigid motion about a random axis and in a random direction, of sizes uniform up to the given ones, [4, 4]."""
    axis, direction = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 3)))
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.radians(degrees * rng.random()) * axis)[0]
    T[:3, 3] = metres * rng.random() * direction
    return T


def episode_support(episode: PackedEpisode) -> float:
    """Height of an episode's table in its base frame, metres, from what its anchors truly measured in the first frame.

    Raises:
        UserError: There is no level.
    """
    cameras = episode.cameras
    depth = torch.from_numpy(np.asarray(episode.depth[:, 0]).astype(np.float64) / 1000)
    points = unproject_depth(
        depth, torch.from_numpy(cameras['K'][:, 0]), torch.from_numpy(cameras['T_camera_world'][:, 0])
    ).numpy()
    height = support_height(points[(depth > 0).numpy()])
    if height is None:
        raise UserError(f'{episode.path} shows no plane that objects stand on', 'leave the episode out')
    return height


def sample_sweep(
    episode: PackedEpisode, support: float, views: int, rng: np.random.Generator, s: SweepSampling
) -> Sample:
    """One sample: `views` anchors of one frame and the wrist view.

    Returns:
        rgb uint8 [V, H, W, 3]; K [V, 3, 3]; T_anchor_wrist [V, 4, 4], as the calibration has it; wrist_K [3, 3]; T_wrist_world
        [4, 4]; plane [4], as it is believed to be; wrist uint8 [h, w, 3]; depth uint16 [h, w], millimetres; objects uint8 [h, w].
    """
    t, cameras = int(rng.integers(episode.length)), episode.cameras
    chosen = rng.choice(len(cameras['K']), min(views, len(cameras['K'])), replace=False)
    T_wrist = cameras['wrist_T_camera_world'][t]
    kind = rng.random()
    degrees, metres = s.rotation_deg, s.translation_m
    if kind < s.exact:
        degrees = metres = 0.0
    elif kind < s.exact + s.wild:
        degrees, metres = s.wild_deg, s.wild_m
    T = [random_rigid(rng, degrees, metres) @ cameras['T_camera_world'][v, t] @ np.linalg.inv(T_wrist) for v in chosen]
    table = color_table(rng, s.color)
    order = rng.permutation(3) if rng.random() < s.permute else np.arange(3)
    return {
        'rgb': np.stack([recolor(np.asarray(episode.rgb[v, t]), table) for v in chosen])[..., order],
        'K': cameras['K'][chosen, t],
        'T_anchor_wrist': np.stack(T),
        'wrist_K': cameras['wrist_K'][t],
        'T_wrist_world': T_wrist,
        'plane': np.array([0.0, 0.0, 1.0, support + s.plane * rng.standard_normal()]),
        'wrist': recolor(np.asarray(episode.wrist_rgb[t]), table)[..., order],
        'depth': np.asarray(episode.wrist_depth[t]),
        'objects': np.asarray(episode.wrist_objects[t]),
    }


def collate(samples: list[Sample]) -> dict[str, torch.Tensor]:
    """Stack samples: images become float32 [..., 3, H, W] in 0..1, depth float32 metres, matrices float32."""
    batch = {k: torch.from_numpy(np.stack([s[k] for s in samples])) for k in samples[0]}
    for name in ('rgb', 'wrist'):
        batch[name] = batch[name].movedim(-1, -3).float() / 255
    batch['depth'] = batch['depth'].float() / 1000
    return {k: v.float() if v.dtype == torch.float64 else v for k, v in batch.items()}


class SweepBatches(Dataset):
    """Collated batches by number, without end; all samples of a batch have the same number of anchors.

    Args:
        episodes: Packed ones.
        sampling: How samples are taken from them.
        seed: The same seed, process and number give the same batch.
        process: Rank of the training process.
    """

    def __init__(self, episodes: list[PackedEpisode], sampling: SweepSampling, seed: int, process: int = 0):
        self.episodes, self.sampling, self.seed, self.process = episodes, sampling, seed, process
        self._support = [episode_support(e) for e in episodes]
        shares = np.array(list(sampling.views.values()))
        self._counts, self._shares = list(sampling.views), shares / shares.sum()

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, self.process, number))
        views = int(rng.choice(self._counts, p=self._shares))
        return self.batch(views, self.sampling.batch, rng)

    def batch(self, views: int, size: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """A collated batch of a given size and number of anchors."""
        picks = rng.integers(len(self.episodes), size=size)
        return collate([sample_sweep(self.episodes[i], self._support[i], views, rng, self.sampling) for i in picks])
