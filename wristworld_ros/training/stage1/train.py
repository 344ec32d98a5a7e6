"""Training of stage 1 on simulated episodes (`wristworld train stage1`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wristworld_ros.data.packed import PackedEpisode
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import read_json
from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.vggt.config import SIM_TINY
from wristworld_ros.training.checkpoint import read_weights, weights_file
from wristworld_ros.training.parallel import rank
from wristworld_ros.training.part import need_samples, train_part
from wristworld_ros.training.stage1.data import Stage1Batches, Stage1Sampling
from wristworld_ros.training.stage1.losses import Stage1Weights, stage1_losses
from wristworld_ros.training.trainer import Step, TrainerConfig

HEADS = ('camera', 'wrist', 'depth', 'scene_coordinates')
PACKED_SIZE, WRIST_SIZE = (168, 126), (128, 128)  # width, height of the frames on disk; augmentation crops and resizes


FIGURES = ('depth_log', 'points_m', 'second_m', 'wrist_m', 'wrist_deg', 'spc_px', 'tokens_m')


@dataclass(frozen=True)
class Stage1Training:
    """One training run of stage 1.

    start: another run's folder, or a file of weights, that this one begins with. only: train this head alone and keep
    everything else as it is; None trains all. A short last run of the wrist head on a frozen trunk steadies it.
    """

    model: dict = field(default_factory=lambda: dict(SIM_TINY))
    sampling: Stage1Sampling = field(default_factory=Stage1Sampling)
    weights: Stage1Weights = field(default_factory=Stage1Weights)
    config: TrainerConfig = field(default_factory=lambda: TrainerConfig(minutes=45))
    seed: int = 0
    workers: int = 1
    start: Path | None = None
    only: str | None = None


def train_stage1(
    episodes: list[PackedEpisode],
    held_out: list[PackedEpisode],
    folder: Path,
    run: Stage1Training,
    device: str = 'cpu',
) -> ReconstructionModel:
    """Train stage 1; leaves `folder/config.json` and `folder/model.safetensors` with the averaged weights.

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
    patch = run.model.get('patch_size', 14)

    def build() -> ReconstructionModel:
        module = ReconstructionModel.from_config(run.model)
        if run.only:
            module.requires_grad_(False).get_submodule(f'{run.only}_head').requires_grad_(True)
        return module

    def losses(module: ReconstructionModel, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        batch = {k: v.to(device) for k, v in batch.items()}
        out = module(batch['rgb'], heads=HEADS)
        with torch.autocast(device, enabled=False):
            return stage1_losses(out, batch, run.weights, patch)

    def figures(module: ReconstructionModel, batch: dict[str, Tensor]) -> dict[str, float]:
        terms = losses(module, batch, Step(0, 1.0))
        return {name: float(terms[name]) for name in FIGURES}

    return train_part(
        build, run.model, lambda _: Stage1Batches(episodes, run.sampling, run.seed, rank()), losses,
        _held_out_batches(held_out), figures, Path(folder), run, device,
    )  # fmt: skip


def finished_stage1(folder: Path) -> tuple[dict, ReconstructionModel]:
    """Configuration and model of a finished run, without what served its training alone.

    Raises:
        UserError: The run is not finished.
    """
    if not weights_file(folder).exists():
        raise UserError(
            f'{folder} has no {weights_file(folder).name}', 'give the folder of a finished `wristworld train stage1`'
        )
    config = read_json(
        folder / 'config.json', dict[str, Any], 'give the folder of a finished `wristworld train stage1`'
    )
    config = {k: v for k, v in config.items() if k not in ('wrist_dropout', 'float32_heads')}
    model = ReconstructionModel.from_config(config).eval()
    read_weights(model, folder)
    return config, model


def _held_out_batches(episodes: list[PackedEpisode], batches: int = 4, size: int = 24) -> list[dict[str, Tensor]]:
    """The same samples at every validation, without augmentation: of two anchors where there are two."""
    if not episodes:
        return []
    plain = Stage1Batches(episodes, Stage1Sampling(zoom=(1.0, 1.0), roll=0.0, color=0.0, views={1: 0.5, 2: 0.5}), 0)
    rng = np.random.default_rng(0)
    return [plain.batch(max(plain.view_counts), size, rng) for _ in range(batches)]
