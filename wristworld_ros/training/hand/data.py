"""Batches for the hand network: single anchor views of the hand, with the true pose of the wrist camera in them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from wristworld_ros.data.packed import PackedEpisode
from wristworld_ros.models.hand.network import STANDARD_MOUNT
from wristworld_ros.training.augmentation import color_table, recolor


@dataclass(frozen=True)
class HandSampling:
    """How samples are taken.

    wide: share of guesses that are wrong as stage 1's are, by up to `wide_deg`, `wide_m` across and `wide_distance` (a share of
    the distance); all others as calibrations are, by up to `near_deg`, `near_m` and `near_distance`. color: strength of
    recoloring.
    """

    batch: int = 48
    wide: float = 0.65
    wide_deg: float = 28.0
    wide_m: float = 0.14
    wide_distance: float = 0.15
    near_deg: float = 3.0
    near_m: float = 0.025
    near_distance: float = 0.04
    color: float = 1.0


class HandBatches(Dataset):
    """Batches by number, without end: rgb float32 [N, 3, H, W], 0 to 1; K [N, 3, 3]; T_anchor_wrist [N, 4, 4], true; guess, the
    same, wrong.

    Args:
        episodes: Packed ones.
        sampling: How samples are taken.
        seed: The same seed, process and number give the same batch.
        process: Rank of the training process.
        mount: T_hand_wrist of the wrist camera whose poses are wanted, metres.
    """

    def __init__(
        self,
        episodes: list[PackedEpisode],
        sampling: HandSampling,
        seed: int,
        process: int = 0,
        mount: tuple[tuple[float, ...], ...] = STANDARD_MOUNT,
    ):
        self._mount = np.array(mount)
        self.episodes, self.sampling, self.seed, self.process = episodes, sampling, seed, process

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return self.batch(self.sampling.batch, np.random.default_rng((self.seed, self.process, number)))

    def batch(self, size: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """A batch of a given size."""
        rgb, K, T, guess = (np.stack(x) for x in zip(*(self._sample(rng) for _ in range(size)), strict=True))
        return {
            'rgb': torch.from_numpy(rgb).movedim(-1, 1).float() / 255,
            'K': torch.from_numpy(K).float(),
            'T_anchor_wrist': torch.from_numpy(T).float(),
            'guess': torch.from_numpy(guess).float(),
        }

    def _sample(self, rng: np.random.Generator):
        s = self.sampling
        episode = self.episodes[int(rng.integers(len(self.episodes)))]
        t, view = int(rng.integers(episode.length)), int(rng.integers(len(episode.cameras['K'])))
        T = episode.cameras['T_camera_world'][view, t] @ np.linalg.inv(episode.remounted(self._mount)[t])
        wide = rng.random() < s.wide
        limits = (s.wide_deg, s.wide_m, s.wide_distance) if wide else (s.near_deg, s.near_m, s.near_distance)
        rgb = recolor(np.asarray(episode.rgb[view, t]), color_table(rng, s.color))
        return rgb, episode.cameras['K'][view, t], T, wrong_pose(T, *limits, rng)


def wrong_pose(T: np.ndarray, degrees: float, metres: float, share: float, rng: np.random.Generator) -> np.ndarray:
    """A pose [4, 4] turned about a random axis, moved across the view, and along it by a share of its distance; all uniform up
    to their limits."""
    axis = rng.standard_normal(3)
    turned = T.copy()
    turned[:3, :3] = cv2.Rodrigues(np.radians(degrees * rng.random()) * axis / np.linalg.norm(axis))[0] @ T[:3, :3]
    away = T[:3, 3] / np.linalg.norm(T[:3, 3])
    across = rng.standard_normal(3)
    across -= across @ away * away
    across *= metres * rng.random() / np.linalg.norm(across)
    turned[:3, 3] = T[:3, 3] * np.exp(rng.uniform(-1, 1) * share) + across
    return turned
