"""Training of the hand network (`wristworld train hand`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wristworld_ros.data.packed import PackedEpisode
from wristworld_ros.geometry import pose_error
from wristworld_ros.models.hand import HandConfig, HandNetwork, corrected, hand_crops, refine_pose
from wristworld_ros.training.hand.data import HandBatches, HandSampling
from wristworld_ros.training.parallel import rank
from wristworld_ros.training.part import need_samples, train_part
from wristworld_ros.training.trainer import Step, TrainerConfig

_ALONG = 0.4  # weight of errors along the view, which one image says little of


@dataclass(frozen=True)
class HandTraining:
    """One training run. start: another run's folder, or a file of weights, that this one begins with. second: share of the run after which guesses are
    corrected once without gradient before they are trained on, as the network will meet its own results."""

    model: HandConfig = field(default_factory=HandConfig)
    sampling: HandSampling = field(default_factory=HandSampling)
    config: TrainerConfig = field(
        default_factory=lambda: TrainerConfig(minutes=15, average=0.99, checkpoint_every=200, bf16=False)
    )
    second: float = 0.4
    seed: int = 0
    workers: int = 1
    start: Path | None = None


def points_around(like: Tensor) -> Tensor:
    """Corners of a box from the wrist camera to what it looks at, [8, 3], metres, in its frame: 20 cm wide, 30 cm deep."""
    side, ahead = like.new_tensor([-0.1, 0.1]), like.new_tensor([0.0, 0.3])
    return torch.cartesian_prod(side, side, ahead)


def point_errors(T: Tensor, truth: Tensor) -> Tensor:
    """How far points around the wrist are misplaced in an anchor: [N, 8, 3], metres along the anchor's axes."""
    points = points_around(T)
    return points @ (T[:, :3, :3] - truth[:, :3, :3]).mT + (T[:, :3, 3] - truth[:, :3, 3])[:, None]


def hand_losses(network: HandNetwork, batch: dict[str, Tensor], again: bool) -> dict[str, Tensor]:
    """Terms by name, "total", and measures for the log."""
    guess = batch['guess']
    if again:
        with torch.no_grad():
            guess, _ = refine_pose(network, batch['rgb'], batch['K'], guess, 1)
    crops = hand_crops(batch['rgb'], batch['K'], guess, network.config.size)
    correction = network(crops)
    error = point_errors(corrected(crops, correction), batch['T_anchor_wrist'])
    error = (crops.T_crop_anchor[:, None, :3, :3] @ error[..., None])[..., 0]
    size = (error * error.new_tensor([1, 1, _ALONG])).square().sum(-1).add(1e-8).sqrt().mean(-1)
    certain = size.detach() / correction.scale + correction.scale.log()
    before = point_errors(guess, batch['T_anchor_wrist']).norm(dim=-1).mean()
    return {
        'total': 20 * size.mean() + 0.02 * certain.mean(),
        'across_m': error[..., :2].norm(dim=-1).mean().detach(),
        'along_m': error[..., 2].abs().mean().detach(),
        'before_m': before.detach(),
    }


def train_hand(
    episodes: list[PackedEpisode], held_out: list[PackedEpisode], folder: Path, run: HandTraining, device: str = 'cpu'
) -> HandNetwork:
    """Train the hand network; leaves `folder/config.json` and `folder/model.safetensors` with the averaged weights.

    Args:
        episodes: To train on.
        held_out: To validate on; may be empty.
        folder: Of the run, which continues where it was stopped.
        run: What is trained, and how.
        device: cpu or cuda.

    Raises:
        UserError: There are no episodes, or training diverged.
    """
    need_samples(episodes)

    def losses(module: HandNetwork, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        again = step.progress > run.second and step.number % 2 == 1
        return hand_losses(module, {k: v.to(device) for k, v in batch.items()}, again)

    return train_part(
        lambda: HandNetwork(run.model), asdict(run.model), lambda _: HandBatches(episodes, run.sampling, run.seed, rank(), run.model.mount),
        losses, _held_out_batches(held_out, run), partial(_figures, device=device), Path(folder), run, device,
    )  # fmt: skip


def _figures(network: HandNetwork, batch: dict[str, Tensor], device: str) -> dict[str, float]:
    """Medians after three corrections: metres across the view and along it, and degrees."""
    batch = {k: v.to(device) for k, v in batch.items()}
    T, scale = refine_pose(network, batch['rgb'], batch['K'], batch['guess'])
    truth = batch['T_anchor_wrist']
    off = point_errors(T, truth).mean(1)
    away = truth[:, :3, 3] / truth[:, :3, 3].norm(dim=-1, keepdim=True)
    along = (off * away).sum(-1)
    degrees, _ = pose_error(T, truth)
    across = (off - along[:, None] * away).norm(dim=-1)
    return {
        'across_m': float(across.median()),
        'along_m': float(along.abs().median()),
        'deg': float(degrees.median()),
        'scale_m': float(scale.median()),
    }


def _held_out_batches(episodes: list[PackedEpisode], run: HandTraining, batches: int = 3) -> list[dict[str, Tensor]]:
    if not episodes:
        return []
    plain = HandBatches(episodes, replace(run.sampling, color=0.0, wide=1.0), 0, mount=run.model.mount)
    rng = np.random.default_rng(0)
    return [plain.batch(64, rng) for _ in range(batches)]
