"""Two finished runs become one model directory."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import torch

from wristworld_ros.models.config import ModelConfig
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.model_directory import save_model
from wristworld_ros.training.stage1.train import finished_stage1
from wristworld_ros.training.stage2.train import ANCHOR_WIDTH, CLOUD, WRIST_HW

MEAN_WRIST = 'mean_wrist.png'


def package_model(stage1: Path, stage2: Path, folder: Path, name: str) -> dict[str, str]:
    """Write a model directory from `train_stage1`'s and `train_stage2`'s folders; returns the hashes of its weights.

    Beside the weights it holds the mean wrist image of the training set, a baseline of the evaluation.
    """
    config1, first = finished_stage1(stage1)
    run2 = json.loads((stage2 / 'run.json').read_text())
    second = WristGenerator.from_config(run2['model'])
    second.load_state_dict(torch.load(stage2 / 'model.pt', weights_only=True))
    config = ModelConfig(
        name=name,
        stage1=config1,
        generator=run2['model'],
        anchor_width=ANCHOR_WIDTH,
        wrist_hw=WRIST_HW,
        cloud=CLOUD,
        noise_share=run2['noise_share'],
        use_condition=run2['condition'],
        use_anchor_tokens=run2['anchor_tokens'],
    )
    hashes = save_model(WristModel(config, first, second, 'cpu'), folder)
    mean = mean_wrist_image(sorted((stage1 / 'conditions').glob('[!.]*.npz')))
    cv2.imwrite(str(folder / MEAN_WRIST), mean[..., ::-1])
    return hashes


def mean_wrist_image(conditions: list[Path]) -> np.ndarray:
    """Mean over all wrist images of prepared episodes, uint8 [h, w, 3]."""
    total, count = 0.0, 0
    for path in conditions:
        with np.load(path) as f:
            total, count = total + f['wrist'].astype(np.float64).sum(0), count + len(f['wrist'])
    if not count:
        raise ValueError('There are no prepared episodes to average; train stage 2 first.')
    return (total / count).round().astype(np.uint8)
