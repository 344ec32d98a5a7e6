"""Stage 2 trained as published (`wristworld train generation`): flow matching on latents, with guidance's dropout and a noisy condition.

The published training loop was never released (arXiv 2510.07313): how timesteps are sampled, what is dropped and how noisy the
condition is are choices of ours, and keys of the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wristworld_ros.data.episode import DataSet
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import json_text
from wristworld_ros.models.wan import WRISTWORLD_1_3B, WristGenerator
from wristworld_ros.models.wan.autoencoders import Autoencoder, autoencoder_from_config
from wristworld_ros.models.wan.config import MINIATURE
from wristworld_ros.models.wan.sampling import add_noise, shifted_sigmas, solver
from wristworld_ros.pipeline.generate import to_pixels
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.model_directory import load_model
from wristworld_ros.pipeline.model_saving import save_model
from wristworld_ros.runtime.files import write_text
from wristworld_ros.training.checkpoint import WEIGHTS, write_weights
from wristworld_ros.training.config import FlowLosses, GenerationConfig
from wristworld_ros.training.config_reading import as_content
from wristworld_ros.training.monitor import film_strips
from wristworld_ros.training.parallel import join, process_count, rank
from wristworld_ros.training.part import need_samples, train_part
from wristworld_ros.training.schedules import trainer_config
from wristworld_ros.training.stage2.adapters import adapt, adapter_tensors, merged
from wristworld_ros.training.stage2.latents import (
    ClipEncoder,
    EncodedClips,
    list_clips,
    prepare_clips,
    weights_identity,
)
from wristworld_ros.training.trainer import Step, TrainerConfig, full_state_dict, start_from

NETWORKS: dict[str, dict[str, Any]] = {'wristworld_1_3b': WRISTWORLD_1_3B, 'miniature': MINIATURE}
MODEL, ADAPTER = 'model', 'adapter.safetensors'


class FlowClips(EncodedClips):
    """Batches of encoded clips with everything random about a sample: noise, timestep and what is left out.

    All of it follows from the seed and the sample's place alone, in however many processes it is taken.

    Args:
        folder: Of the shards.
        keys: Of the clips.
        losses: How timesteps are sampled, and what is left out how often.
        batch: Clips of one process.
        seed: Of everything.
        process: Rank of the training process.
        processes: How many there are.
    """

    def __init__(
        self,
        folder: Path,
        keys: list[str],
        losses: FlowLosses,
        batch: int,
        seed: int,
        process: int = 0,
        processes: int = 1,
    ):
        super().__init__(folder, keys, batch, seed, process, processes)
        self.losses = losses

    def _sample(self, position: int) -> dict[str, Tensor]:
        clip, rng = super()._sample(position), np.random.default_rng((self.seed, position))
        noise = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        losses = self.losses
        s = rng.uniform() if losses.timesteps == 'uniform' else 1 / (1 + np.exp(-rng.normal()))
        draws = {
            'sigma': losses.shift * s / (1 + (losses.shift - 1) * s),
            'condition_sigma': losses.condition_noise * rng.uniform(),
            'with_anchors': float(rng.uniform() >= losses.drop_anchors),
            'with_condition': float(rng.uniform() >= losses.drop_condition),
        }
        return clip | {
            'noise': torch.randn(clip['latents'].shape, generator=noise),
            'condition_noise': torch.randn(clip['condition'].shape, generator=noise),
        } | {name: torch.tensor(value, dtype=torch.float32) for name, value in draws.items()}  # fmt: skip


def flow_losses(generator: WristGenerator, batch: dict[str, Tensor], device: str) -> dict[str, Tensor]:
    """The mean squared error of the velocity, noise minus sample, and of the sample that it implies ("mse", for the log).

    Args:
        generator: That predicts velocities.
        batch: Of `FlowClips`.
        device: Where to compute.
    """
    batch = {name: value.to(device) for name, value in batch.items()}
    sigma, clean, noise = batch['sigma'], batch['latents'], batch['noise']
    noisy = add_noise(clean, noise, sigma)
    condition = add_noise(batch['condition'], batch['condition_noise'], batch['condition_sigma'])
    condition = condition * batch['with_condition'].view(-1, 1, 1, 1, 1)
    tokens = generator.anchor_tokens(batch['features'])
    whole = generator.context(None, tokens)
    bare = generator.context(_negative_text(generator), None).to(whole.dtype)
    context = torch.where(batch['with_anchors'].view(-1, 1, 1) > 0, whole, bare)
    velocity = generator.velocity(noisy, condition, 1000 * sigma, context).float()
    error = (velocity - (noise - clean)).square().flatten(1).mean(1)
    return {'total': error.mean(), 'mse': (error * sigma.square()).mean().detach()}


def _negative_text(generator: WristGenerator) -> Tensor:
    return generator.own_text(negative=generator.settings.text == 'stored')


@torch.no_grad()
def sample_clip_video(
    generator: WristGenerator, autoencoder: Autoencoder, clip: dict[str, Tensor], steps: int, seed: int = 0
) -> np.ndarray:
    """Generate an encoded clip's wrist video without guidance, uint8 [F, H, W, 3].

    Args:
        generator: In evaluation mode.
        autoencoder: That decodes.
        clip: Of `FlowClips.clip`.
        steps: Of sampling.
        seed: Of the noise.
    """
    device = generator.transformer.patch_embedding.weight.device
    clip = {name: value.to(device) for name, value in clip.items()}
    noise = torch.randn(clip['latents'].shape, generator=torch.Generator().manual_seed(seed)).to(device)
    context = generator.context(None, generator.anchor_tokens(clip['features']))
    velocity = generator.guided_velocity(clip['condition'], context)
    latents = solver('euler')(velocity, noise, shifted_sigmas(steps, generator.settings.shift, device))
    return to_pixels(autoencoder.decode(latents)).cpu().numpy()


@dataclass(frozen=True)
class FlowTraining:
    """What `train_part` is told of a run."""

    config: TrainerConfig
    seed: int
    workers: int
    start: Path | None = None


@dataclass(frozen=True)
class Networks:
    """generator: to train. autoencoder: of the videos. model: whose stage 1 makes condition maps, or None. weights: identity of all."""

    generator: WristGenerator
    autoencoder: Autoencoder
    model: WristModel | None
    weights: str


def load_networks(config: GenerationConfig, device: str) -> Networks:
    """The networks that a configuration names, before anything is adapted.

    Raises:
        UserError: The model cannot be loaded, or its generator does not predict velocities.
    """
    if config.model.model is not None:
        model = load_model(config.model.model, device)
        if model.generator.settings.prediction != 'velocity':
            raise UserError(
                f'{config.model.model} predicts samples, which flow matching in latents does not train',
                'train it by the recipe images',
            )
        return Networks(model.generator.float(), model.autoencoder, model, weights_identity(config.model.model))
    network = NETWORKS[config.model.network]
    if 'autoencoder' not in network:
        raise UserError(
            f'model.network is {config.model.network}, and model.model is none',
            'give the directory of the converted model',
        )
    generator = WristGenerator.from_config(network).to(device)
    return Networks(
        generator,
        autoencoder_from_config(network['autoencoder']),
        None,
        f'{config.model.network} {config.schedule.seed}',
    )


def train_flow(
    episodes: Path | DataSet,
    held_out: Path | DataSet | None,
    folder: Path,
    config: GenerationConfig,
    start: Path | None,
    device: str,
) -> WristGenerator:
    """Train the generator on recordings of any format.

    Leaves `folder/latents` (shards), `folder/config.json`, `folder/model.safetensors` with adapters merged, `folder/adapter.safetensors`
    of adapters alone, and `folder/model`, the model directory with them, where one was given.

    Args:
        episodes: Recordings to train on.
        held_out: Others to validate on; None for none.
        folder: Of the run, which continues where it was stopped.
        config: Checked already.
        start: Another run's folder or weights to begin with, after those of `config.model.model`.
        device: cpu or cuda.

    Raises:
        UserError: The recordings lack what clips need, the model does not fit, or training diverged.
    """
    schedule, latents = config.schedule, folder / 'latents'
    torch.manual_seed(schedule.seed)
    networks = load_networks(config, device)
    generator = networks.generator
    encoder = ClipEncoder(generator, networks.autoencoder, config.data, networks.weights, networks.model)
    place, parts = join(device), (rank(), process_count())
    keys = prepare_clips(list_clips(episodes, config.data), encoder, latents, *parts)
    held_keys = prepare_clips(list_clips(held_out, config.data), encoder, latents, *parts) if held_out else []
    place.wait_for_everyone()
    need_samples(keys)
    if networks.model is not None:
        networks.model.stage1.to('cpu')  # it has made its condition maps
    if rank() == 0:
        write_text(folder / 'training.json', json_text(as_content(config), indent=2))
    if start is not None:
        start_from(generator, start)
    adapt(generator, config.model)
    if schedule.gradient_checkpointing:
        generator.transformer.enable_gradient_checkpointing()
    held = FlowClips(latents, held_keys, config.losses, 1, 0) if held_keys else None
    shown = held or FlowClips(latents, keys, config.losses, 1, 0)

    def clips(_: WristGenerator) -> FlowClips:
        return FlowClips(latents, keys, config.losses, schedule.batch, schedule.seed, rank(), process_count())

    def losses(module: WristGenerator, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        return flow_losses(module, batch, device)

    def figures(module: WristGenerator, batch: dict[str, Tensor]) -> dict[str, float]:
        return {name: float(value) for name, value in flow_losses(module, batch, device).items()}

    def picture(module: WristGenerator) -> np.ndarray:
        return sample_picture(module.eval(), networks.autoencoder, shown.clip(0))

    run = FlowTraining(trainer_config(config), schedule.seed, schedule.workers)
    fixed = [held[i] for i in range(min(len(held), 16))] if held else []
    trained = train_part(
        lambda: generator, generator.settings.to_config(), clips, losses, fixed, figures, folder, run, device, picture,
    )  # fmt: skip
    _finish(trained, networks, config, folder)
    return trained


def _finish(generator: WristGenerator, networks: Networks, config: GenerationConfig, folder: Path) -> None:
    """Write merged weights, the adapters and the model directory."""
    state = full_state_dict(generator)
    if rank() != 0:
        return
    whole = merged(state, config.model)
    write_weights(folder / WEIGHTS, whole)
    if adapters := adapter_tensors(state):
        write_weights(folder / ADAPTER, adapters)
    if config.model.model is not None:
        model = load_model(config.model.model, 'cpu', 'float32')
        model.generator.load_state_dict(whole)
        save_model(model, folder / MODEL)


def sample_picture(generator: WristGenerator, autoencoder: Autoencoder, clip: dict[str, Tensor]) -> np.ndarray:
    """Condition, generated and true images of a clip, one above the other; see `film_strips`."""
    device = generator.transformer.patch_embedding.weight.device
    rows = [
        to_pixels(autoencoder.decode(clip['condition'].to(device))).cpu().numpy(),
        sample_clip_video(generator, autoencoder, clip, min(generator.settings.sampling_steps, 20)),
        to_pixels(autoencoder.decode(clip['latents'].to(device))).cpu().numpy(),
    ]
    return film_strips(rows)
