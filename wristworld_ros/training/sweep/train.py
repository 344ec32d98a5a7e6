"""Training of the plane sweep (`wristworld train sweep`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wristworld_ros.data.packed import PackedEpisode
from wristworld_ros.models.sweep import SweepConfig, SweepNetwork
from wristworld_ros.training.parallel import rank
from wristworld_ros.training.part import need_samples, train_part
from wristworld_ros.training.sweep.data import SweepBatches, SweepSampling
from wristworld_ros.training.sweep.losses import SweepWeights, predict, sweep_losses
from wristworld_ros.training.trainer import Step, TrainerConfig

PACKED_SIZE = (224, 168)  # width, height of the anchors on disk and at the network
FIGURES = ('total', 'color', 'plane', 'object_l1', 'table_l1', 'object_depth_m')


@dataclass(frozen=True)
class SweepTraining:
    """One training run. start: another run's folder, or a file of weights, that this one begins with."""

    model: SweepConfig = field(default_factory=SweepConfig)
    sampling: SweepSampling = field(default_factory=SweepSampling)
    weights: SweepWeights = field(default_factory=SweepWeights)
    config: TrainerConfig = field(default_factory=lambda: TrainerConfig(minutes=45, average=0.99, checkpoint_every=200))
    seed: int = 0
    workers: int = 1
    start: Path | None = None


def train_sweep(
    episodes: list[PackedEpisode], held_out: list[PackedEpisode], folder: Path, run: SweepTraining, device: str = 'cpu'
) -> SweepNetwork:
    """Train the sweep; leaves `folder/config.json` and `folder/model.safetensors` with the averaged weights.

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

    def losses(module: SweepNetwork, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        batch = {k: v.to(device) for k, v in batch.items()}
        out = predict(module, batch)
        with torch.autocast(device, enabled=False):
            return sweep_losses(module, batch, run.weights, out)

    def figures(module: SweepNetwork, batch: dict[str, Tensor]) -> dict[str, float]:
        terms = losses(module, batch, Step(0, 1.0))
        return {name: float(terms[name]) for name in FIGURES}

    return train_part(
        lambda: SweepNetwork(run.model), asdict(run.model), lambda _: SweepBatches(episodes, run.sampling, run.seed, rank()),
        losses, _held_out_batches(held_out, run.sampling), figures, Path(folder), run, device,
    )  # fmt: skip


def _held_out_batches(
    episodes: list[PackedEpisode], sampling: SweepSampling, batches: int = 4
) -> list[dict[str, Tensor]]:
    """The same samples of two anchors at every validation, with exact cameras and without recoloring."""
    if not episodes:
        return []
    plain = SweepBatches(episodes, replace(sampling, exact=1.0, color=0.0, permute=0.0, plane=0.0), 0)
    rng = np.random.default_rng(0)
    return [plain.batch(2, 16, rng) for _ in range(batches)]
