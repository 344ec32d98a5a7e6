"""Training of stage 1 on simulated episodes (`wristworld train stage1`)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from wristworld_ros.data.packed import PackedEpisode, packed_episodes
from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.vggt.presets import SIM_TINY
from wristworld_ros.training.parallel import rank
from wristworld_ros.training.stage1.data import Stage1Batches, Stage1Sampling, collate, sample_batch
from wristworld_ros.training.stage1.losses import Stage1Weights, stage1_losses
from wristworld_ros.training.trainer import TrainerConfig, train

HEADS = ('camera', 'wrist', 'depth', 'scene_coordinates')
PACKED_SIZE, WRIST_SIZE = (168, 126), (128, 128)  # width, height of the frames on disk; augmentation crops and resizes


@dataclass(frozen=True)
class Stage1Training:
    """One training run of stage 1.

    start: another run's last.pt to take the weights from. only: train this head alone and keep everything else as it
    is; empty trains all. A short last run of the wrist head on a trunk that stands still steadies it.
    """

    model: dict = field(default_factory=lambda: dict(SIM_TINY))
    sampling: Stage1Sampling = field(default_factory=Stage1Sampling)
    weights: Stage1Weights = field(default_factory=Stage1Weights)
    optimisation: TrainerConfig = field(default_factory=lambda: TrainerConfig(minutes=45))
    seed: int = 0
    workers: int = 1
    start: Path | None = None
    only: str = ''


def train_stage1(
    episodes: Path, held_out: list[PackedEpisode], folder: Path, run: Stage1Training, device: str = 'cpu'
) -> ReconstructionModel:
    """Train stage 1 and leave `folder/config.json` and `folder/model.pt` with the averaged weights (a plain state dict).

    episodes: folder of packed episodes; it may still be growing. Raises ValueError when it holds none.
    """
    if not packed_episodes(episodes):
        raise ValueError(f'{episodes} holds no packed episodes; make some with `wristworld simulate`.')
    torch.manual_seed(run.seed)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(run.model, indent=2))
    module = ReconstructionModel.from_config(run.model).to(device)
    if run.only:
        module.requires_grad_(False).get_submodule(f'{run.only}_head').requires_grad_(True)
    torch.manual_seed(run.seed + rank())  # equal weights, other dropout and noise in each process
    patch = run.model.get('patch_size', 14)

    def losses(module, batch, progress):
        batch = {k: v.to(device) for k, v in batch.items()}
        out = module(batch['rgb'], heads=HEADS)
        with torch.autocast(device, enabled=False):
            return stage1_losses(out, batch, run.weights, patch)

    loader = DataLoader(Stage1Batches(episodes, run.sampling, run.seed + rank()), batch_size=None, num_workers=run.workers,
                        prefetch_factor=4 if run.workers else None)  # fmt: skip
    fixed = _held_out_batches(held_out)

    @torch.no_grad()
    def validate(module):
        module.eval()
        terms = [losses(module, batch, 1.0) for batch in fixed]
        names = ('depth_log', 'points_m', 'second_m', 'wrist_m', 'wrist_deg', 'spc_px', 'tokens_m')
        return {f'val_{k}': float(np.mean([float(t[k]) for t in terms])) for k in names}

    average = train(module, loader, losses, run.optimisation, folder, validate if fixed else None, run.start)
    if rank() == 0:
        torch.save(average.state_dict(), folder / 'model.pt')
    return average


def finished_stage1(folder: Path) -> tuple[dict, ReconstructionModel]:
    """Configuration and model of a finished run, without what served its training alone."""
    config = json.loads((folder / 'config.json').read_text())
    config = {k: v for k, v in config.items() if k not in ('wrist_dropout', 'float32_heads')}
    model = ReconstructionModel.from_config(config).eval()
    model.load_state_dict(torch.load(folder / 'model.pt', weights_only=True))
    return config, model


def _held_out_batches(episodes: list[PackedEpisode], batches: int = 4, size: int = 24) -> list[dict[str, Tensor]]:
    """The same two-anchor samples at every validation, without augmentation."""
    if not episodes:
        return []
    plain = Stage1Sampling(zoom=(1.0, 1.0), roll=0.0, color=0.0)
    rng = np.random.default_rng(0)
    return [collate(sample_batch(episodes, 2, size, rng, plain)) for _ in range(batches)]
