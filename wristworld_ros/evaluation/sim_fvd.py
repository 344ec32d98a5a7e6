"""sim-FVD: a Fréchet distance of videos by a small network of this project, trained on simulated wrist clips.

It is not FVD, which needs weights of I3D that are not part of this package (`metrics.fvd_from`). The network knows the simulator's wrist
view, its objects and its motion, and nothing else: compare figures within one table of simulated videos, made with one file of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.foreign_weights import read_weights
from wristworld_ros.evaluation.metrics import frechet_distance
from wristworld_ros.models.state_dict import load_strict, named_tensors

FRAMES, SIDE, GRID = 8, 64, 8  # of a clip, pixels of its frames, cells of the map of objects
STRIDE = 4  # frames from clip to clip, so that short videos give enough of them
ORDERS = 4  # as it was, backward, shuffled, one frame repeated
FEATURES = 32


class _Layer(nn.Module):
    """3-D convolution, group normalization, SiLU."""

    def __init__(self, channels: int, out: int, stride: tuple[int, int, int]):
        super().__init__()
        self.conv = nn.Conv3d(channels, out, 3, stride, 1, bias=False)
        self.norm = nn.GroupNorm(8, out)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.conv(x)))


class ClipNetwork(nn.Module):
    """What it was trained to say of a clip, float [B, 3, 8, 64, 64] in [-1, 1], and the features that are compared.

    It says in which of four orders the frames are, which takes motion, and in which cells of the middle frame objects are, which takes
    appearance.
    """

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            _Layer(3, 16, (1, 2, 2)), _Layer(16, 32, (1, 2, 2)), _Layer(32, 64, (2, 2, 2)), _Layer(64, 64, (2, 1, 1))
        )  # fmt: skip
        self.objects = nn.Conv2d(64, 1, 1)
        self.project = nn.Linear(64, FEATURES)
        self.order = nn.Linear(FEATURES, ORDERS)

    def features(self, clips: Tensor) -> Tensor:
        """[B, FEATURES]."""
        return self.project(self.layers(clips).mean((2, 3, 4)))

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the order [B, ORDERS], and of objects [B, GRID, GRID]."""
        maps = self.layers(clips)
        order = self.order(F.silu(self.project(maps.mean((2, 3, 4)))))
        return order, self.objects(maps.mean(2))[:, 0]


def clip_tensor(video: np.ndarray) -> Tensor:
    """A video uint8 [T, h, w, 3] as the network takes it, float32 [3, T, 64, 64]."""
    frames = torch.from_numpy(np.ascontiguousarray(video)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.interpolate(frames, (SIDE, SIDE), mode='area').transpose(0, 1)


class SimFvd:
    """The distance of two lists of videos.

    Args:
        path: Its weights, as `wristworld train sim-fvd` leaves them.

    Raises:
        UserError: There are none, or they are of another network.
    """

    def __init__(self, path: str | Path):
        self.network = ClipNetwork().eval()
        load_strict(named_tensors(self.network), read_weights(str(path), 'sim-FVD'), str(path))

    @torch.inference_mode()
    def __call__(self, videos: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
        """The distance of videos uint8 [T, h, w, 3] from true ones; UserError where they give fewer than two clips."""
        return frechet_distance(self._features(videos), self._features(truth))

    def _features(self, videos: Sequence[np.ndarray]) -> np.ndarray:
        clips = [
            tensor[:, i : i + FRAMES]
            for tensor in map(clip_tensor, videos)
            for i in range(0, tensor.shape[1] - FRAMES + 1, STRIDE)
        ]
        if len(clips) < 2:
            raise UserError(
                f'sim-FVD needs two clips of {FRAMES} frames or more, and the episodes give {len(clips)}',
                'evaluate more or longer episodes',
            )
        return np.concatenate([self.network.features(clip[None]).double().numpy() for clip in clips])
