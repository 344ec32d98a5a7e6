"""The published model at full size with random weights: the time and memory of the real one, without a download."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from wristworld_ros.apps.convert.convert import CLOUD
from wristworld_ros.geometry.cloud import CloudSettings
from wristworld_ros.models.config import ModelConfig, ModelError
from wristworld_ros.models.state_dict import cast_params
from wristworld_ros.models.vggt import VGGT_1B, ReconstructionModel
from wristworld_ros.models.wan import WRISTWORLD_1_3B, WristGenerator
from wristworld_ros.models.wan.autoencoders import Autoencoder, WanAutoencoder, autoencoder_from_config
from wristworld_ros.models.wan.checkpoints import CLIP_VIT_H, WAN_VAE
from wristworld_ros.models.wan.tiny_decoder import TinyAutoencoder, tiny_decoder_for
from wristworld_ros.pipeline.memory_check import check_estimate
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.runtime.memory_estimate import estimate_memory
from wristworld_ros.settings import StreamSettings

PREFIX = 'random:'
# name -> configurations of stage 1 and of the generator.
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    'wristworld_1_3b': (
        VGGT_1B | {'heads': ['camera', 'wrist', 'points']},
        WRISTWORLD_1_3B
        | {
            'anchor_encoder': CLIP_VIT_H | {'resize': 'bicubic'},
            'autoencoder': {'kind': 'wan', **WAN_VAE},
            'text': 'stored',
        },
    )
}
_BLOCK = 2**20 - 3  # a prime, so that no two rows of a matrix are the same


def is_random(name: str) -> bool:
    """Whether a model's name asks for random weights."""
    return name.startswith(PREFIX)


def random_model(
    name: str, device: str, dtype: torch.dtype, anchor_width: int = 518, wrist_hw: tuple[int, int] = (480, 832)
) -> WristModel:
    """A model of published size, its weights created on their device and in their precision.

    Args:
        name: `random:wristworld_1_3b`.
        device: As in 'cpu' or 'cuda'.
        dtype: Of aggregator, transformer, vision tower and autoencoder; the heads of stage 1 are float32 as published, and
            so is what the transformer's library keeps in float32.
        anchor_width: Pixels.
        wrist_hw: Pixels.

    Raises:
        ModelError: There is no such random model, or (before anything is created) the free memory cannot suffice.
    """
    size = name.removeprefix(PREFIX)
    if not is_random(name) or size not in SIZES:
        raise ModelError(f'There is no random model {name!r}', f'use {", ".join(PREFIX + known for known in SIZES)}')
    return build(size, *SIZES[size], CLOUD, device, dtype, anchor_width, wrist_hw)


def build(
    name: str, stage1_config: dict[str, Any], generator_config: dict[str, Any], cloud: CloudSettings, device: str,
    dtype: torch.dtype, anchor_width: int, wrist_hw: tuple[int, int],
) -> WristModel:  # fmt: skip
    """`random_model` of any configuration."""
    with torch.device('meta'):  # no memory is taken before precisions are known
        stage1 = ReconstructionModel.from_config(stage1_config)
        generator = WristGenerator.from_config(generator_config)
        autoencoder = autoencoder_from_config(generator.settings.autoencoder)
    networks = stage1, generator, autoencoder
    for network in networks:
        cast_params(network, lambda parameter, network=network: network.param_dtype(parameter, dtype))
    config = ModelConfig(
        name=f'{PREFIX}{name}', stage1=stage1_config, generator=generator.settings.to_config(),
        anchor_width=anchor_width, wrist_hw=tuple(wrist_hw), cloud=cloud, licence='none: random weights',
    )  # fmt: skip
    check_estimate(config.name, estimate_memory(config, StreamSettings(), 2, param_bytes=dtype.itemsize), device)
    for network in networks:
        network.requires_grad_(False).to_empty(device=device)
        _fill(network)
    _face_the_points(stage1)
    model = WristModel(config, stage1, generator, device, autoencoder)
    if isinstance(autoencoder, WanAutoencoder):
        tiny = tiny_decoder_for(autoencoder).to(device, dtype)
        model.tiny_autoencoder = TinyAutoencoder(autoencoder, tiny).eval().requires_grad_(False)
    return model


def resized(model: WristModel, wrist_hw: tuple[int, int]) -> WristModel:
    """The same networks (no copy) for another wrist size, pixels."""
    return _like(model, model.autoencoder, wrist_hw)


def with_tiny_decoder(model: WristModel) -> WristModel:
    """The same networks with the tiny decoder in place of the full one, whose weights stay."""
    assert model.tiny_autoencoder is not None
    return _like(model, model.tiny_autoencoder, model.config.wrist_hw)


def _like(model: WristModel, autoencoder: Autoencoder, wrist_hw: tuple[int, int]) -> WristModel:
    config = replace(model.config, wrist_hw=tuple(wrist_hw))
    other = WristModel(config, model.stage1, model.generator, str(model.device), autoencoder)
    other.tiny_autoencoder = model.tiny_autoencoder
    return other


@torch.no_grad()
def _fill(network: nn.Module, seed: int = 0) -> None:
    """Random weights that keep activations finite at any depth: norms 1, biases 0, matrices scaled by their inputs."""
    block = torch.randn(_BLOCK, generator=torch.Generator().manual_seed(seed))
    for name, parameter in network.named_parameters():
        if name.endswith('bias'):
            parameter.zero_()
        elif name.endswith('gamma') or (parameter.ndim == 1 and name.endswith('weight')):
            parameter.fill_(1.0)
        else:
            _repeat(parameter, block * (0.5 / parameter[0].numel() ** 0.5))
    for name, buffer in network.named_buffers():
        _fill_buffer(network, name, buffer, block)


def _fill_buffer(network: nn.Module, name: str, buffer: torch.Tensor, block: torch.Tensor) -> None:
    last = name.rsplit('.', 1)[-1]
    if last == 'position_ids':
        buffer.copy_(torch.arange(buffer.shape[-1], device=buffer.device).expand_as(buffer))
    elif last in ('latents_mean', 'latents_std'):
        buffer.copy_(torch.tensor(getattr(network.vae.config, last)).view_as(buffer))
    elif last.endswith('text_context'):
        _repeat(buffer, 0.02 * block)
    else:
        raise ValueError(f'{name} of {type(network).__name__} is a buffer without a rule for random models.')


def _repeat(target: torch.Tensor, block: torch.Tensor) -> None:
    """Fill a tensor with repetitions of a block: as fast as memory, where sampling billions of numbers takes minutes."""
    flat = target.view(-1)
    block = block[: len(flat)].to(flat)
    for start in range(0, len(flat), len(block)):
        part = flat[start : start + len(block)]
        part.copy_(block[: len(part)])


@torch.no_grad()
def _face_the_points(stage1: ReconstructionModel) -> None:
    """The identity rotation, fields of view of one radian, and the wrist camera a metre in front of scattered points."""
    for head in (stage1.camera_head, stage1.wrist_head):
        head.pose_branch.fc2.weight.mul_(0.01)
        head.pose_branch.fc2.bias[6:] = 0.25
    stage1.wrist_head.pose_branch.fc2.bias[2] = 0.25
    stage1.point_head.scratch.output_conv2[-1].weight[:3].mul_(30)
