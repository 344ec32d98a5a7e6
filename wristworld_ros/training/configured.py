"""What configurations mean to the trainings of the small model, of students and of tiny decoders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from wristworld_ros.models.vggt.config import SIM_BASE as STAGE1_BASE
from wristworld_ros.models.vggt.config import SIM_TINY as STAGE1_TINY
from wristworld_ros.models.wan.config import SIM_BASE as STAGE2_BASE
from wristworld_ros.models.wan.config import SIM_TINY as STAGE2_TINY
from wristworld_ros.training.causal.train import CausalTraining
from wristworld_ros.training.config import DecoderConfig, ImagesConfig
from wristworld_ros.training.config_causal import CausalConfig, CausalImagesConfig
from wristworld_ros.training.config_stage1 import GeometryConfig
from wristworld_ros.training.decoder.train import DecoderTraining
from wristworld_ros.training.schedules import trainer_config
from wristworld_ros.training.stage1.data import Stage1Sampling
from wristworld_ros.training.stage1.losses import Stage1Weights
from wristworld_ros.training.stage1.train import Stage1Training
from wristworld_ros.training.stage2.data import Stage2Sampling
from wristworld_ros.training.stage2.train import Stage2Training

# Of the small models, by name: height and width of wrist images, and width and height of anchors.
WRIST_HW = {'sim_tiny': (128, 128), 'sim_base': (224, 224)}
ANCHOR_SIZE = {'sim_tiny': (128, 96), 'sim_base': (320, 240)}


def geometry_training(config: GeometryConfig, start: Path | None = None) -> Stage1Training:
    """Stage 1 from scratch."""
    data = config.data
    heads = config.model.train
    sampling = Stage1Sampling(
        batch=config.schedule.batch, size=(data.width, data.height), azimuth=data.azimuth, zoom=(data.zoom_low, data.zoom_high),
        roll=float(np.deg2rad(data.roll)), color=data.color,
    )  # fmt: skip
    return Stage1Training(
        model=dict(STAGE1_TINY if config.model.network == 'sim_tiny' else STAGE1_BASE), sampling=sampling,
        weights=Stage1Weights(**vars(config.losses)), config=trainer_config(config), seed=config.schedule.seed,
        workers=config.schedule.workers, start=start or _path(config.model.weights), only=None if heads == ['all'] else heads[0],
    )  # fmt: skip


def images_training(config: ImagesConfig, start: Path | None = None) -> Stage2Training:
    """Stage 2 of the small model."""
    data = config.data
    sampling = Stage2Sampling(
        batch=config.schedule.batch, frames=data.frames, chunks=tuple(int(c) for c in data.chunks), color=data.color, mirror=data.mirror,
        permute=data.permute,
    )  # fmt: skip
    return Stage2Training(
        model=dict(STAGE2_TINY if config.model.network == 'sim_tiny' else STAGE2_BASE), sampling=sampling,
        config=trainer_config(config), **vars(config.losses), condition=config.model.condition,
        anchor_tokens=config.model.anchor_tokens, seed=config.schedule.seed, workers=config.schedule.workers,
        start=start or _path(config.model.weights),
    )  # fmt: skip


def causal_training(config: CausalConfig | CausalImagesConfig, model: str) -> CausalTraining:
    """A causal student of a teacher, given by name or directory."""
    schedule, forcing, distillation = config.schedule, config.forcing, config.distillation
    run = CausalTraining(
        model, config=trainer_config(config, 0), distillation=trainer_config(config, 1), last_level=forcing.last_level,
        history_noise=forcing.history_noise, timesteps=distillation.levels, substeps=distillation.substeps,
        guidance=distillation.guidance, gradient_checkpointing=schedule.gradient_checkpointing, seed=schedule.seed,
        workers=schedule.workers, sampling=Stage2Sampling(batch=schedule.batch),
    )  # fmt: skip
    if isinstance(config, CausalConfig):
        return replace(run, adapters=config.model)
    data = config.data
    sampling = Stage2Sampling(schedule.batch, color=data.color, mirror=data.mirror, permute=data.permute)
    return replace(run, sampling=sampling, clip_chunks=data.clip_chunks, maps=data.maps)


def decoder_training(config: DecoderConfig) -> DecoderTraining:
    """A tiny decoder."""
    run = DecoderTraining(
        config.model.width, config.model.blocks, edges=config.losses.edges, motion=config.losses.motion
    )
    schedule = config.schedule
    return replace(
        run, batch=schedule.batch, seed=schedule.seed, workers=schedule.workers, config=trainer_config(config)
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
