"""Finished runs become one model directory."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.baselines import MEAN_WRIST
from wristworld_ros.input_files import Share, check_file, check_name, read_json
from wristworld_ros.models.config import Pose
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.pipeline.model_saving import save_model
from wristworld_ros.training.checkpoint import read_weights, weights_file
from wristworld_ros.training.parts import TrainedParts
from wristworld_ros.training.stage2.train import MOUNT

_FINISHED = 'give the folder of a finished `wristworld train stage2`'


@dataclass(frozen=True)
class _Run:
    """What is read of the `run.json` of a stage 2 run."""

    model: dict[str, Any]
    noise_share: Share
    condition: bool
    anchor_tokens: bool


def package_model(parts: TrainedParts, stage2: Path, folder: Path, name: str) -> dict[str, str]:
    """Write a model directory from the folders of finished runs.

    Beside the weights it holds the mean wrist image of the training set, a baseline of the evaluation.

    Args:
        parts: What reconstructs.
        stage2: Of `train_stage2`.
        folder: The model directory, made when missing.
        name: Of the model.

    Returns:
        File name of each weight file -> its sha256.

    Raises:
        UserError: One of the runs is not finished or damaged, or the name is no plain name.
    """
    check_name(name, '--name')
    for file in (stage2 / 'run.json', weights_file(stage2), stage2 / MEAN_WRIST):
        if not file.exists():
            raise UserError(f'{stage2} has no {file.name}', _FINISHED)
        check_file(file, _FINISHED)
    run2 = read_json(stage2 / 'run.json', _Run, _FINISHED)
    # Runs of earlier versions do not say it.
    mount = read_json(stage2 / MOUNT, Pose | None, _FINISHED) if (stage2 / MOUNT).exists() else None
    generator = WristGenerator.from_config(run2.model)
    read_weights(generator, stage2)
    model = parts.model(
        name, generator, run2.model, noise_share=run2.noise_share, use_condition=run2.condition,
        use_anchor_tokens=run2.anchor_tokens, mount=mount,
    )  # fmt: skip
    hashes = save_model(model, folder)
    shutil.copyfile(stage2 / MEAN_WRIST, folder / MEAN_WRIST)
    return hashes
