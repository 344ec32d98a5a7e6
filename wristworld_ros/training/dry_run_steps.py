"""One made step of every recipe, for `dry_run`: a network and a batch of the configured size on the meta device, and the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wristworld_ros.errors import UserError
from wristworld_ros.models.vggt import Matches, input_size
from wristworld_ros.models.wan import SIM_TINY, GeneratorConfig, WristGenerator, new_cache
from wristworld_ros.models.wan.autoencoders import autoencoder_from_config
from wristworld_ros.models.wan.config import SIM_BASE
from wristworld_ros.models.wan.tiny_decoder import tiny_decoder_for
from wristworld_ros.training.causal.clips import StoredClips, clip_shape
from wristworld_ros.training.causal.losses import ForcingLoss
from wristworld_ros.training.config import DecoderConfig, GenerationConfig, GenerationModel, ImagesConfig, Schedule
from wristworld_ros.training.config_causal import CausalConfig, CausalImagesConfig
from wristworld_ros.training.config_stage1 import GeometryConfig, ReconstructionConfig
from wristworld_ros.training.configured import WRIST_HW, images_training
from wristworld_ros.training.decoder.train import DecoderTraining, decoder_losses
from wristworld_ros.training.recipes import Config
from wristworld_ros.training.stage1.losses import Stage1Weights, stage1_losses
from wristworld_ros.training.stage1.published import build, published_losses
from wristworld_ros.training.stage2.adapters import adapt
from wristworld_ros.training.stage2.flow import NETWORKS, flow_losses
from wristworld_ros.training.stage2.train import ClipTrainer, uses_history
from wristworld_ros.training.trainer import Step

STUDENTS = {'sim_tiny': SIM_TINY, 'sim_base': SIM_BASE}
_HW = (180, 320)  # height and width of a recording, pixels, where nothing says them: DROID's


@dataclass(frozen=True)
class MadeStep:
    """A network and a made batch, both on the meta device, and its loss. teacher: a network beside it that is not trained. streaming:
    bytes that are held without gradients, before those of the step are computed."""

    module: nn.Module
    batch: Any
    losses: Callable[[Any, Any], Tensor]
    teacher: nn.Module | None = None
    streaming: int = 0


def made_step(config: Config) -> MadeStep:
    """The step of a configuration."""
    makers: dict[type, Callable] = {
        ReconstructionConfig: _reconstruction, GeometryConfig: _geometry, GenerationConfig: _generation, ImagesConfig: _images,
        CausalConfig: _causal, CausalImagesConfig: _causal_images, DecoderConfig: _decoder,
    }  # fmt: skip
    if type(config) not in makers:
        raise UserError(f'There is no dry run of {type(config).__name__}', 'leave out --dry-run')
    return makers[type(config)](config)


def _reconstruction(config: ReconstructionConfig) -> MadeStep:
    module = build(config)
    hw, batch, views = (
        input_size(_HW, config.data.width, module.config.patch_size),
        config.schedule.batch,
        config.data.anchors or 2,
    )
    count = views * config.losses.grid**2 // 2
    matches = Matches(
        torch.rand(count, 2), torch.rand(count, 2), torch.zeros(count, dtype=torch.long), torch.rand(count),
        torch.zeros(count, dtype=torch.long),
    )  # fmt: skip
    made = {
        'images': torch.rand(batch, views, 3, *hw), 'wrist': torch.rand(batch, 3, *hw), 'wrist_K': torch.eye(3).repeat(batch, 1, 1),
        'cameras': torch.rand(batch, views, 9), 'wrist_pose': torch.rand(batch, 9), 'matches': [matches] * batch,
    }  # fmt: skip
    return MadeStep(module, made, lambda m, batch: published_losses(m, batch, config.losses, 'cpu')['total'])


def _geometry(config: GeometryConfig) -> MadeStep:
    module, batch, hw = build(config), config.schedule.batch, (config.data.height, config.data.width)
    eye = torch.eye(4)
    made = {
        'rgb': torch.rand(batch, 2, 3, *hw), 'depth': torch.rand(batch, 2, *hw) + 0.5, 'K': torch.eye(3).repeat(batch, 2, 1, 1),
        'T_camera_anchor': eye.repeat(batch, 2, 1, 1), 'T_anchor_base': eye.repeat(batch, 1, 1), 'wrist_K': torch.eye(3).repeat(batch, 1, 1),
        'T_wrist_anchor': eye.repeat(batch, 1, 1), 'wrist_depth': torch.rand(batch, 128, 128) + 0.5,
    }  # fmt: skip
    heads = ('camera', 'wrist', 'depth', 'scene_coordinates')
    weights, patch = Stage1Weights(**vars(config.losses)), module.config.patch_size
    return MadeStep(
        module, made, lambda m, batch: stage1_losses(m(batch['rgb'], heads=heads), batch, weights, patch)['total']
    )


def _generation(config: GenerationConfig) -> MadeStep:
    generator, made = _adapted(config.model, config.schedule), _encoded_clips(config)
    made |= {'noise': made['latents'], 'condition_noise': made['condition']}
    for name in ('sigma', 'condition_sigma', 'with_anchors', 'with_condition'):
        made[name] = torch.rand(config.schedule.batch)
    return MadeStep(generator, made, lambda g, batch: flow_losses(g, batch, 'cpu')['total'])


def _without_encoder(network: dict[str, Any]) -> WristGenerator:
    """A generator whose anchor features are encoded before, and which has a text of its own."""
    generator = WristGenerator.from_config(
        network | {'text': 'learned'} if network.get('text', 'given') == 'given' else network
    )
    generator.anchor_encoder = None
    return generator


def _adapted(model: GenerationModel, schedule: Schedule) -> WristGenerator:
    """What is trained of it."""
    generator = _without_encoder(NETWORKS[model.network])
    adapt(generator, model)
    if schedule.gradient_checkpointing:
        generator.transformer.enable_gradient_checkpointing()
    return generator


def _encoded_clips(config: GenerationConfig | CausalConfig) -> dict[str, Tensor]:
    """A batch of `EncodedClips`."""
    network, data, batch = NETWORKS[config.model.network], config.data, config.schedule.batch
    s, (stride, time) = GeneratorConfig.from_config(network), _strides(network)
    shape = (math.ceil((data.frames - 1) / time) + 1, data.height // stride, data.width // stride)
    return {
        'latents': torch.rand(batch, s.latent_channels, *shape), 'condition': torch.rand(batch, s.condition_channels, *shape),
        'features': torch.rand(batch, data.anchors, data.frames, s.clip_dim),
    }  # fmt: skip


def _strides(network: dict[str, Any]) -> tuple[int, int]:
    """Of a network's autoencoder, in space and in time; Wan's where it names none."""
    return (network['autoencoder']['factor'], 1) if 'autoencoder' in network else (8, 4)


def _causal(config: CausalConfig) -> MadeStep:
    student, time = _adapted(config.model, config.schedule), _strides(NETWORKS[config.model.network])[1]
    encoder = StoredClips(student.settings.chunk_frames, time, 'cpu')
    return _student_step(
        config, student, _without_encoder(NETWORKS[config.model.network]), _encoded_clips(config), encoder
    )


def _causal_images(config: CausalImagesConfig) -> MadeStep:
    network = STUDENTS[config.model.network]
    student, teacher, batch = (
        WristGenerator.from_config(network),
        WristGenerator.from_config(network),
        config.schedule.batch,
    )
    s, factor = student.settings, network['autoencoder']['factor']
    frames, _ = clip_shape(student, 1, config.data.clip_chunks)
    hw = tuple(n // factor for n in WRIST_HW[config.model.network])
    made = {
        'latents': torch.rand(batch, s.latent_channels, frames, *hw), 'condition': torch.rand(batch, s.condition_channels, frames, *hw),
        'features': torch.rand(batch, 2, frames, s.clip_dim),
    }  # fmt: skip
    student.anchor_encoder.requires_grad_(False)
    return _student_step(config, student, teacher, made, StoredClips(s.chunk_frames, 1, 'cpu'))


def _student_step(
    config: CausalConfig | CausalImagesConfig,
    student: WristGenerator,
    teacher: WristGenerator,
    made: dict[str, Tensor],
    encoder: StoredClips,
) -> MadeStep:
    """A step of teacher forcing, whose pass with gradients is that of distillation too."""
    loss = ForcingLoss(encoder, 0.5, config.forcing.last_level, config.forcing.history_noise)
    dtype = torch.bfloat16 if config.schedule.precision == 'bf16' else torch.float32
    cache = new_cache(student, tuple(made['latents'].shape[-2:]), config.schedule.batch, dtype=dtype)
    return MadeStep(student, made, lambda g, batch: loss(g, batch, Step(0, 0.0))['total'], teacher, cache.nbytes)


def _images(config: ImagesConfig) -> MadeStep:
    run = images_training(config)
    hw = WRIST_HW[config.model.network]
    generator = WristGenerator.from_config(run.model)
    batch, frames, size = config.schedule.batch, config.data.frames, run.model['anchor_encoder']['image_size']
    made = {
        'condition': torch.zeros(batch, frames, *hw, 3, dtype=torch.uint8), 'depth': torch.rand(batch, frames, *hw),
        'trust': torch.rand(batch, frames, *hw), 'wrist': torch.rand(batch, 3, frames, *hw),
        'objects': torch.zeros(batch, frames, *hw, dtype=torch.uint8), 'anchors': torch.rand(batch, 2, frames, 3, size, size),
        'chunk': max(run.sampling.chunks),
    }  # fmt: skip
    # A step with history, where there are such, holds every chunk twice, clean and noisy.
    number = next((n for n in range(100) if uses_history(run, Step(n, 1.0))), 0)
    return MadeStep(generator, made, lambda g, batch: ClipTrainer(run, 'cpu')(g, batch, Step(number, 1.0))['total'])


def _decoder(config: DecoderConfig) -> MadeStep:
    decoder = tiny_decoder_for(autoencoder_from_config({'kind': 'wan'}), config.model.width, config.model.blocks)
    batch = config.schedule.batch
    made = {'latents': torch.rand(batch, 16, 5, 60, 104), 'target': torch.rand(batch, 3, 17, 480, 832)}
    run = DecoderTraining(edges=config.losses.edges, motion=config.losses.motion)
    return MadeStep(
        decoder, made, lambda d, clip: decoder_losses(d(clip['latents'])[0].float(), clip['target'], run)['total']
    )
