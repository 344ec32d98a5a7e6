"""What every training of a network has around its losses: its folder, its configuration, its validation and its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import json_text
from wristworld_ros.runtime.files import write_text
from wristworld_ros.training.checkpoint import WEIGHTS, write_weights
from wristworld_ros.training.parallel import rank
from wristworld_ros.training.trainer import Losses, TrainerConfig, full_state_dict, train

Network = TypeVar('Network', bound=nn.Module)


class PartTraining(Protocol):
    """What all trainings are told. start: another run's folder, or a file of weights, that this one begins with."""

    @property
    def config(self) -> TrainerConfig: ...
    @property
    def seed(self) -> int: ...
    @property
    def workers(self) -> int: ...
    @property
    def start(self) -> Path | None: ...


def need_samples(samples: Sequence) -> None:
    """Raise UserError where there is nothing to train on."""
    if not samples:
        raise UserError('There are no episodes to train on', 'record some with `wristworld simulate`')


def note_run(folder: Path, run: Any) -> None:
    """Write how a network is trained into its run's `run.json`. run: a dataclass with `start`, see `PartTraining`."""
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        record = asdict(run) | {'start': None if run.start is None else str(run.start)}
        write_text(folder / 'run.json', json_text(record, indent=2))


def train_part(
    build: Callable[[], Network],
    config: Mapping[str, Any],
    batches: Callable[[Network], Dataset],
    losses: Losses,
    fixed: Sequence[Any],
    figures: Callable[[Network, Any], Mapping[str, float]],
    folder: Path,
    run: PartTraining,
    device: str,
    picture: Callable[[Network], np.ndarray] | None = None,
) -> Network:
    """Train a network; leaves `folder/config.json` and `folder/model.safetensors` with the averaged weights.

    Args:
        build: The network with its initial weights, which are the same in each process.
        config: Of the network, for config.json.
        batches: Of the built network, by number, for this process; see `trainer.train`.
        losses: See `trainer.train`.
        fixed: Batches to validate on; may be empty.
        figures: Of the averaged network, in evaluation mode, and one of them, by name; their means go into the log.
        folder: Of the run, which continues where it was stopped.
        run: How it is trained.
        device: cpu or cuda.
        picture: A sample of the averaged network; see `trainer.train`.

    Raises:
        UserError: Training diverged.
    """
    torch.manual_seed(run.seed)
    folder.mkdir(parents=True, exist_ok=True)
    if rank() == 0:
        write_text(folder / 'config.json', json_text(config, indent=2))
    network = build().to(device)

    @torch.no_grad()
    def validate(module: Network) -> dict[str, float]:
        module.eval()
        torch.manual_seed(0)
        found = [figures(module, batch) for batch in fixed]
        return {f'val_{name}': float(np.mean([float(f[name]) for f in found])) for name in found[0]}

    average = train(
        network, batches(network), losses, run.config, folder, seed=run.seed, workers=run.workers,
        validate=validate if fixed else None, picture=picture, start=run.start,
    )  # fmt: skip
    weights = full_state_dict(average)
    if rank() == 0:
        write_weights(folder / WEIGHTS, weights)
    return average
