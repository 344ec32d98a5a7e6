"""The generator of a model of the published form adapts by low-rank adapters, for as long as it helps with other episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from wristworld_ros.data.episode import ChosenEpisodes
from wristworld_ros.input_files import json_text, read_json, read_json_lines
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.model_saving import save_model
from wristworld_ros.runtime.files import write_text
from wristworld_ros.training.checkpoint import read_weights, weights_file
from wristworld_ros.training.config import GenerationConfig
from wristworld_ros.training.config_reading import changed, default_config
from wristworld_ros.training.finetune.adapt import ADAPT, CHOICE, CHOOSE, Curve, best_stop
from wristworld_ros.training.finetune.recordings import Recording, Split
from wristworld_ros.training.finetune.settings import FinetuneSettings
from wristworld_ros.training.monitor import LOG
from wristworld_ros.training.stage2.flow import FlowClips, flow_losses, load_networks, train_flow
from wristworld_ros.training.stage2.latents import ClipEncoder, list_clips, prepare_clips

BASE = 'base'  # model directory with the adapted stage 1, which makes the condition videos
_FRAMES = 21  # of a clip at most


def adapt_published(model: WristModel, split: Split, folder: Path, settings: FinetuneSettings, device: str) -> tuple[WristGenerator, Curve]:  # fmt: skip
    """Choose how long to train, then train; both continue where they were stopped. The figures of the curve are negative flow losses.

    Args:
        model: To start from, with the stage 1 that it will have.
        split: The episodes.
        folder: Of the run.
        settings: How long, and how fast.
        device: cpu or cuda.

    Raises:
        UserError: An episode is shorter than a clip, the model does not fit, or training diverged.
    """
    if not (folder / BASE / 'config.json').exists():
        save_model(model, folder / BASE)
    config = flow_config(model, folder / BASE, split, settings, device)
    curve = _choose(split, folder, config, device)
    generator = WristGenerator.from_config(model.config.generator)
    generator.load_state_dict({name: value.float() for name, value in model.generator.state_dict().items()})
    if curve.best:
        if not weights_file(folder / ADAPT).exists():
            whole = changed(config, schedule={'steps': curve.best, 'minutes': None})
            train_flow(_chosen(split.adapt), None, folder / ADAPT, whole, None, device)
        read_weights(generator, folder / ADAPT)
    return generator.eval(), curve


def flow_config(
    model: WristModel, base: Path, split: Split, settings: FinetuneSettings, device: str
) -> GenerationConfig:
    """The published recipe with clips as long as the model and every episode allow."""
    s, stride = model.generator.settings, model.autoencoder.temporal_stride
    recordings = (*split.adapt, *split.held_out)
    views = min(s.max_views, *(len(r.episode.anchors()) for r in recordings))
    most = min(_FRAMES, s.max_frames, s.context_length // views, *(len(r.episode) for r in recordings))
    height, width = model.config.wrist_hw
    return changed(
        default_config(GenerationConfig),
        model={'model': str(base)},
        data={'width': width, 'height': height, 'frames': 1 + (most - 1) // stride * stride, 'anchors': views},
        losses={'shift': s.shift, 'drop_anchors': 0.1 if s.text == 'stored' else 0.0},
        schedule={
            'steps': settings.step_count, 'minutes': None if settings.minutes is None else settings.minutes / 2, 'batch': 1,
            'learning_rate': settings.learning_rate, 'schedule': 'constant', 'warm_up_share': 0.05, 'average': 0.98,
            'precision': 'bf16' if device == 'cuda' else 'float32', 'checkpoint_every': min(25, max(1, settings.step_count // 4)),
            'seed': settings.seed, 'workers': 0,
        },
    )  # fmt: skip


def _choose(split: Split, folder: Path, config: GenerationConfig, device: str) -> Curve:
    path = folder / CHOICE
    if path.exists():
        return read_json(path, Curve)
    train_flow(_chosen(split.training), _chosen(split.validation), folder / CHOOSE, config, None, device)
    lines, _ = read_json_lines(folder / CHOOSE / LOG, dict)
    checks = [(int(line['step']), -float(line['val_total'])) for line in lines if 'val_total' in line]
    curve = best_stop(-_loss_before(split, folder / CHOOSE / 'latents', config, device), None, checks)
    write_text(path, json_text(asdict(curve)))
    return curve


@torch.no_grad()
def _loss_before(split: Split, latents: Path, config: GenerationConfig, device: str) -> float:
    """The flow loss of the model as it was, on the same clips and noise as in the checks of the training."""
    networks = load_networks(config, device)
    encoder = ClipEncoder(networks.generator, networks.autoencoder, config.data, networks.weights, networks.model)
    keys = prepare_clips(list_clips(_chosen(split.validation), config.data), encoder, latents)
    clips = FlowClips(latents, keys, config.losses, 1, 0)
    generator = networks.generator.eval()
    return float(
        np.mean([float(flow_losses(generator, clips[i], device)['total']) for i in range(min(len(clips), 16))])
    )


def _chosen(recordings: Sequence[Recording]) -> ChosenEpisodes:
    return ChosenEpisodes(recordings[0].episode.path, [recording.episode for recording in recordings])
