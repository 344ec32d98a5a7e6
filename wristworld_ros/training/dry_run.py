"""`wristworld train STAGE --config FILE --dry-run`: one step without any memory for it, and what the real one would need.

The step runs on tensors that have a shape and no values (torch's fake tensors, whose kernels are those of the meta device), with made
samples of the configured size. Counted are parameters, gradients, optimizer state and average, all float32, and every tensor that
autograd keeps for the backward pass. What a GPU's allocator, its kernels' work space and DDP's buckets take comes on top: `_SPARE`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.table import markdown
from wristworld_ros.models.vggt import Matches, input_size
from wristworld_ros.models.vggt.aggregator import imagenet_statistics
from wristworld_ros.models.vggt.dense_head import uv_embedding
from wristworld_ros.models.vggt.layers import rotary_tables
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.anchor_encoder import clip_statistics
from wristworld_ros.models.wan.autoencoders import autoencoder_from_config
from wristworld_ros.models.wan.tiny_decoder import tiny_decoder_for
from wristworld_ros.training.config import (
    Config,
    DecoderConfig,
    GenerationConfig,
    GeometryConfig,
    ImagesConfig,
    ReconstructionConfig,
)
from wristworld_ros.training.configured import WRIST_HW, images_training
from wristworld_ros.training.decoder.train import DecoderTraining, decoder_losses
from wristworld_ros.training.optimizers import make_optimizers
from wristworld_ros.training.schedules import trainer_config
from wristworld_ros.training.stage1.losses import Stage1Weights, stage1_losses
from wristworld_ros.training.stage1.published import build, published_losses
from wristworld_ros.training.stage2.adapters import adapt
from wristworld_ros.training.stage2.flow import NETWORKS, flow_losses
from wristworld_ros.training.stage2.train import ClipTrainer
from wristworld_ros.training.trainer import Step

GPUS = (1, 2, 4, 8)
_SPARE = 1.15
_SECONDS_A_DAY = 86_400
_HW = (180, 320)  # height and width of a recording, pixels, where nothing says them: DROID's


# A network and a made batch, both on the meta device, and its loss.
_Step = tuple[nn.Module, Any, Callable[[Any, Any], Tensor]]


@dataclass(frozen=True)
class Estimate:
    """What one process needs. Bytes, but `trained` and `all`, which count parameters."""

    trained: int
    all: int
    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    largest_layer: int

    def memory(self, processes: int, sharded: bool) -> int:
        """Bytes that a GPU needs when so many share the work."""
        state = self.weights + self.gradients + self.optimizer + self.average
        if sharded and processes > 1:
            state = state // processes + self.largest_layer
        return int(_SPARE * (state + self.activations))


def estimate(config: Config) -> Estimate:
    """Run one step of a configuration on fake tensors.

    Raises:
        UserError: The configuration's parts do not fit together.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of what only matters for tensors with memory
            return _estimate(config)
    finally:  # what the networks keep for the process must not be fake tensors
        for kept in (imagenet_statistics, clip_statistics, rotary_tables, uv_embedding):
            kept.cache_clear()


def _estimate(config: Config) -> Estimate:
    schedule = config.schedule
    with torch.device('meta'):
        module, made, losses = _step(config)
    with FakeTensorMode(allow_non_fake_inputs=True):
        module.to_empty(device='cpu').train()
        batch = _on_cpu(made)
        kept: dict[int, Tensor] = {}
        own = {p.untyped_storage()._cdata for p in module.parameters()}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = tensor
            return tensor

        # A GPU's attention keeps no matrix of scores; neither does this one.
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast('cpu', torch.bfloat16, enabled=schedule.precision == 'bf16'),
            sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]),
        ):
            total = losses(module, batch)
        activations = sum(t.untyped_storage().nbytes() for t in kept.values())
        total.backward()
        optimizers = make_optimizers(module, trainer_config(config))
        for optimizer in optimizers:
            if isinstance(optimizer, torch.optim.Optimizer):
                optimizer.step()
    parameters = list(module.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    moments = sum(
        (1 if not isinstance(optimizer, torch.optim.Optimizer) else 2) * sum(p.numel() for g in optimizer.param_groups for p in g['params'])
        for optimizer in optimizers
    )  # fmt: skip
    every = sum(p.numel() for p in parameters)
    return Estimate(
        trained,
        every,
        4 * every,
        4 * trained,
        4 * moments,
        4 * trained,
        activations,
        4 * max(_layer_sizes(module), default=0),
    )


def report(config: Config, rate: float | None = None) -> str:
    """The text that `--dry-run` prints.

    Args:
        config: Of any stage.
        rate: Steps a second of one process, as measured; None leaves out the days.
    """
    found, schedule = estimate(config), config.schedule
    parts = (
        ('weights', found.weights), ('gradients', found.gradients), ('optimizer', found.optimizer), ('average', found.average),
        ('activations', found.activations),
    )  # fmt: skip
    lines = [
        f'Trained: {found.trained / 1e6:.2f} M of {found.all / 1e6:.2f} M parameters.',
        'One process, one pass: ' + ', '.join(f'{name} {size / 2**30:.2f} GiB' for name, size in parts) + '.',
        f'Estimates of memory hold {_SPARE - 1:.0%} beside these sums.',
        '',
    ]
    rows = []
    for count in GPUS:
        samples = count * schedule.batch * schedule.accumulate
        rows.append(
            (
                str(count),
                f'{found.memory(count, False) / 2**30:.1f}',
                f'{found.memory(count, True) / 2**30:.1f}',
                str(samples),
                *_days(rate, config, count),
            )
        )
    header = ('GPUs', 'GiB each, sharding none', 'GiB each, sharding full', 'samples a step')
    lines.append(markdown(header if rate is None else (*header, 'steps a day', 'samples a day', 'days'), rows))
    if rate is not None:
        lines.append(f'\nAt {rate:g} steps a second of one process; communication between processes comes on top.')
    return '\n'.join(lines)


def _days(rate: float | None, config: Config, count: int) -> tuple[str, ...]:
    if rate is None:
        return ()
    schedule, steps = config.schedule, rate * _SECONDS_A_DAY
    days = schedule.minutes / 1440 if schedule.minutes is not None else schedule.steps / steps
    return f'{steps:.0f}', f'{steps * schedule.batch * schedule.accumulate * count:.0f}', f'{days:.2f}'


def _layer_sizes(module: nn.Module) -> list[int]:
    """Parameters of the largest unit that sharding gathers."""
    return [
        sum(p.numel() for p in layer.parameters())
        for child in module.modules()
        if isinstance(child, nn.ModuleList)
        for layer in child
    ]


def _step(config: Config) -> _Step:
    """The step of a configuration."""
    makers: dict[type, Callable] = {
        ReconstructionConfig: _reconstruction, GeometryConfig: _geometry, GenerationConfig: _generation, ImagesConfig: _images,
        DecoderConfig: _decoder,
    }  # fmt: skip
    if type(config) not in makers:
        raise UserError(f'There is no dry run of {type(config).__name__}', 'leave out --dry-run')
    return makers[type(config)](config)


def _on_cpu(value: Any) -> Any:
    """Tensors on the meta device as tensors without values on the CPU."""
    if isinstance(value, Tensor):
        return torch.empty_like(value, device='cpu')
    if isinstance(value, dict):
        return {key: _on_cpu(entry) for key, entry in value.items()}
    if isinstance(value, Matches):
        return Matches(**{key: _on_cpu(entry) for key, entry in vars(value).items()})
    return [_on_cpu(entry) for entry in value] if isinstance(value, list) else value


def _reconstruction(config: ReconstructionConfig) -> _Step:
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
    return module, made, lambda m, batch: published_losses(m, batch, config.losses, 'cpu')['total']


def _geometry(config: GeometryConfig) -> _Step:
    module, batch, hw = build(config), config.schedule.batch, (config.data.height, config.data.width)
    eye = torch.eye(4)
    made = {
        'rgb': torch.rand(batch, 2, 3, *hw), 'depth': torch.rand(batch, 2, *hw) + 0.5, 'K': torch.eye(3).repeat(batch, 2, 1, 1),
        'T_camera_anchor': eye.repeat(batch, 2, 1, 1), 'T_anchor_base': eye.repeat(batch, 1, 1), 'wrist_K': torch.eye(3).repeat(batch, 1, 1),
        'T_wrist_anchor': eye.repeat(batch, 1, 1), 'wrist_depth': torch.rand(batch, 128, 128) + 0.5,
    }  # fmt: skip
    heads = ('camera', 'wrist', 'depth', 'scene_coordinates')
    weights, patch = Stage1Weights(**vars(config.losses)), module.config.patch_size
    return module, made, lambda m, batch: stage1_losses(m(batch['rgb'], heads=heads), batch, weights, patch)['total']


def _generation(config: GenerationConfig) -> _Step:
    network, data, batch = NETWORKS[config.model.network], config.data, config.schedule.batch
    generator = WristGenerator.from_config(
        network | {'text': 'learned'} if network.get('text', 'given') == 'given' else network
    )
    generator.anchor_encoder = None  # features are encoded before
    adapt(generator, config.model)
    if config.schedule.gradient_checkpointing:
        generator.transformer.enable_gradient_checkpointing()
    wan = 'autoencoder' not in network
    stride, time = (8, 4) if wan else (network['autoencoder']['factor'], 1)
    s, shape = (
        generator.settings,
        (math.ceil((data.frames - 1) / time) + 1, data.height // stride, data.width // stride),
    )

    def rand(*size: int) -> Tensor:
        return torch.rand(batch, *size)

    made: dict[str, Any] = {
        'latents': rand(s.latent_channels, *shape), 'noise': rand(s.latent_channels, *shape),
        'condition': rand(s.condition_channels, *shape), 'condition_noise': rand(s.condition_channels, *shape),
        'features': rand(data.anchors, data.frames, s.clip_dim), 'sigma': rand(), 'condition_sigma': rand(),
        'with_anchors': rand(), 'with_condition': rand(),
    }  # fmt: skip
    return generator, made, lambda g, batch: flow_losses(g, batch, 'cpu')['total']


def _images(config: ImagesConfig) -> _Step:
    run = images_training(config)
    hw = WRIST_HW[config.model.network]
    generator = WristGenerator.from_config(run.model)
    # A step with history holds every chunk twice, clean and noisy; its masks need values, so here clips stand in for them.
    passes = 2 if run.history else 1
    batch, frames, size = passes * config.schedule.batch, config.data.frames, run.model['anchor_encoder']['image_size']
    made = {
        'condition': torch.zeros(batch, frames, *hw, 3, dtype=torch.uint8), 'depth': torch.rand(batch, frames, *hw),
        'trust': torch.rand(batch, frames, *hw), 'wrist': torch.rand(batch, 3, frames, *hw),
        'objects': torch.zeros(batch, frames, *hw, dtype=torch.uint8), 'anchors': torch.rand(batch, 2, frames, 3, size, size),
        'chunk': max(run.sampling.chunks),
    }  # fmt: skip
    return generator, made, lambda g, batch: ClipTrainer(run, 'cpu')(g, batch, Step(0, 0.0))['total']


def _decoder(config: DecoderConfig) -> _Step:
    decoder = tiny_decoder_for(autoencoder_from_config({'kind': 'wan'}), config.model.width, config.model.blocks)
    batch = config.schedule.batch
    made = {'latents': torch.rand(batch, 16, 5, 60, 104), 'target': torch.rand(batch, 3, 17, 480, 832)}
    run = DecoderTraining(edges=config.losses.edges, motion=config.losses.motion)
    return decoder, made, lambda d, clip: decoder_losses(d(clip['latents'])[0].float(), clip['target'], run)['total']
