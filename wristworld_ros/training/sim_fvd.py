"""Training of the network of sim-FVD on simulated wrist videos (`wristworld train sim-fvd`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from wristworld_ros.data.formats.native import ROBOT, list_episodes, read_episode
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.sim_fvd import FRAMES, GRID, ORDERS, SIDE, ClipNetwork, clip_tensor
from wristworld_ros.pipeline.model_saving import save_weights
from wristworld_ros.training.parallel import rank
from wristworld_ros.training.part import train_part
from wristworld_ros.training.trainer import Step, TrainerConfig

WEIGHTS = 'sim_fvd.safetensors'


@dataclass(frozen=True)
class SimFvdTraining:
    """How it is trained. batch: clips of a step."""

    config: TrainerConfig = field(default_factory=lambda: TrainerConfig(average=0.98, warm_up=20, bf16=False))
    batch: int = 16
    seed: int = 0
    workers: int = 0
    start: Path | None = None


@dataclass(frozen=True)
class WristVideo:
    """A wrist video as the network sees it: float32 [3, T, 64, 64] in [-1, 1], and which cells show objects, float32 [T, 8, 8]."""

    frames: Tensor
    objects: Tensor


def read_videos(episodes: Path, limit: int | None = None) -> list[WristVideo]:
    """The wrist videos of a folder of simulated episodes, small.

    Raises:
        UserError: There are no episodes, or one has no wrist camera with objects, or fewer frames than a clip.
    """
    paths = list_episodes(episodes)[:limit]
    if not paths:
        raise UserError(f'{episodes} holds no episodes', 'record some with `wristworld simulate`')
    return [_read(path) for path in paths]


def _read(path: Path) -> WristVideo:
    episode = read_episode(path)
    wrists = [name for name in episode.names('wrist') if episode.camera(name).has_objects]
    if not wrists or len(episode) < FRAMES:
        raise UserError(
            f'Episode {path} has {len(episode)} frames and {"a" if wrists else "no"} wrist camera with objects',
            f'give simulated episodes of {FRAMES} frames or more, recorded with objects',
        )
    count = len(episode)
    labels = torch.from_numpy(episode.objects(wrists[0], count).astype(np.int64))
    shown = ((labels > 0) & (labels != ROBOT)).float()[:, None]
    cells = (F.adaptive_avg_pool2d(shown, GRID)[:, 0] > 0.25).float()
    return WristVideo(clip_tensor(episode.rgb(wrists[0], count)), cells)


class OrderedClips(Dataset):
    """Batches by number, without end: clips in one of four orders, mirrored and brightened at random.

    Args:
        videos: To take clips from.
        batch: Clips.
        seed: The same seed, process and number give the same batch.
        process: Rank of the training process.
    """

    def __init__(self, videos: list[WristVideo], batch: int, seed: int, process: int = 0):
        self.videos, self.batch, self.seed, self.process = videos, batch, seed, process

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, self.process, number))
        clips, orders, cells = zip(*(self._clip(rng) for _ in range(self.batch)), strict=True)
        return {'clips': torch.stack(clips), 'order': torch.tensor(orders), 'objects': torch.stack(cells)}

    def _clip(self, rng: np.random.Generator) -> tuple[Tensor, int, Tensor]:
        video = self.videos[rng.integers(len(self.videos))]
        start, order = int(rng.integers(video.frames.shape[1] - FRAMES + 1)), int(rng.integers(ORDERS))
        middle = FRAMES // 2
        index = [np.arange(FRAMES), np.arange(FRAMES)[::-1], rng.permutation(FRAMES), np.full(FRAMES, middle)][order]
        frames = torch.from_numpy(start + np.ascontiguousarray(index))
        clip, cells = video.frames[:, frames], video.objects[frames[middle]]
        if rng.random() < 0.5:
            clip, cells = clip.flip(-1), cells.flip(-1)
        return (clip * float(rng.uniform(0.7, 1.2))).clamp(-1, 1), order, cells


def clip_losses(network: ClipNetwork, batch: dict[str, Tensor], step: Step | None = None) -> dict[str, Tensor]:
    """Cross-entropy of the order and of the cells with objects; "total" is minimized."""
    device = network.order.weight.device
    order, objects = network(batch['clips'].to(device))
    terms = {
        'order': F.cross_entropy(order, batch['order'].to(device)),
        'objects': F.binary_cross_entropy_with_logits(objects, batch['objects'].to(device)),
    }
    return terms | {'total': terms['order'] + 2 * terms['objects']}


def train_sim_fvd(
    videos: list[WristVideo], held_out: list[WristVideo], folder: Path, run: SimFvdTraining, device: str = 'cpu'
) -> None:
    """Train the network; leaves `folder/sim_fvd.safetensors`.

    Args:
        videos: To train on.
        held_out: To validate on; may be empty.
        folder: Of the run, which continues where it was stopped.
        run: How.
        device: cpu or cuda.

    Raises:
        UserError: Training diverged.
    """
    fixed = [OrderedClips(held_out, 32, 1)[number] for number in range(2)] if held_out else []

    @torch.no_grad()
    def figures(network: ClipNetwork, batch: dict[str, Tensor]) -> dict[str, float]:
        order, objects = network(batch['clips'].to(device))
        right = (objects > 0).float().cpu() == batch['objects']
        return {
            'order': float((order.argmax(1).cpu() == batch['order']).float().mean()),
            'cells': float(right.float().mean()),
        }

    network = train_part(
        ClipNetwork, {'frames': FRAMES, 'side': SIDE}, lambda _: OrderedClips(videos, run.batch, run.seed, rank()), clip_losses,
        fixed, figures, folder, run, device,
    )  # fmt: skip
    if rank() == 0:
        save_weights(
            {name: t.detach().half().contiguous() for name, t in network.state_dict().items()}, folder / WEIGHTS
        )
