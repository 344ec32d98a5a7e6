"""Model directories read and written: weights go straight to their device, in the precision they will have there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from wristworld_ros.models.config import (
    AUTOENCODER,
    GENERATOR,
    STAGE1,
    TINY_DECODER,
    ModelConfig,
    ModelError,
    find_model,
)
from wristworld_ros.models.param_dtype import init_empty_weights, load_into
from wristworld_ros.models.state_dict import named_tensors
from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.autoencoders import Autoencoder, WanAutoencoder, autoencoder_from_config
from wristworld_ros.models.wan.tiny_decoder import TinyAutoencoder, tiny_decoder_for
from wristworld_ros.pipeline.model import WristModel


def choose_device(device: str) -> str:
    """`auto` becomes cuda where there is a GPU; ModelError when cuda is asked for and there is none."""
    if device == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cuda' and not torch.cuda.is_available():
        raise ModelError(
            'The device is cuda but torch sees no CUDA GPU here; use cpu or auto, or install a CUDA torch.'
        )
    return device


def choose_precision(config: ModelConfig, precision: str, device: str) -> torch.dtype:
    """What the big networks are held in. precision: of `StreamSettings`. device: cpu or cuda."""
    name = precision
    if precision == 'auto':
        name = config.precision if device == 'cuda' else 'float32'
    return {'float32': torch.float32, 'bfloat16': torch.bfloat16}[name]


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, mapped. ModelError when it is missing or cannot be read."""
    if not path.exists():
        raise ModelError(f'{path} is missing; copy it there from where the model came, or choose another model.')
    try:
        return load_file(path)
    except SafetensorError as e:
        raise ModelError(f'{path} cannot be read as safetensors ({e}); it may be truncated: copy it again.') from None


def _fill(module: nn.Module, targets: Mapping[str, torch.Tensor], path: Path, *form) -> None:
    """Fill a module from a file, strictly; targets and form as in `load_into`.

    Raises ModelError, one sentence: file, key, shape found, shape wanted, what to do.
    """
    try:
        load_into(module, targets, _read(path), str(path), *form)
    except ModelError:
        raise
    except ValueError as e:
        raise ModelError(str(e)) from None


def _stage1_files(stage1: ReconstructionModel) -> dict[str, dict[str, torch.Tensor]]:
    """Tensors of stage 1's weight file under the public checkpoints' names."""
    return {STAGE1: named_tensors(stage1)}


def _stage2_files(generator: WristGenerator, autoencoder: Autoencoder) -> dict[str, dict[str, torch.Tensor]]:
    """Tensors of stage 2's weight files under the public checkpoints' names; an autoencoder may have none."""
    files = {GENERATOR: generator.release_tensors(), AUTOENCODER: named_tensors(autoencoder)}
    return {name: tensors for name, tensors in files.items() if tensors}


def weight_files(
    stage1: ReconstructionModel, generator: WristGenerator, autoencoder: Autoencoder
) -> dict[str, dict[str, torch.Tensor]]:
    """Tensors of each weight file of a whole model under the public checkpoints' names."""
    return _stage1_files(stage1) | _stage2_files(generator, autoencoder)


def load_stage1(
    name_or_path: str, device: str = 'cpu', half: torch.dtype = torch.float32
) -> tuple[ModelConfig, ReconstructionModel]:
    """Stage 1 alone, in evaluation mode, of any model directory that has one; errors as in `load_model`.

    device: cpu or cuda. half: what the aggregator is held in; the heads are float32. A directory converted from VGGT's own weights gives a model without a wrist head: something to train from.
    """
    folder = find_model(name_or_path)
    config = ModelConfig.read(folder / 'config.json')
    if not config.stage1:
        raise ModelError(f'{folder} holds no stage 1; convert or train one.')
    with init_empty_weights():
        stage1 = ReconstructionModel.from_config(config.stage1)
    for name, tensors in _stage1_files(stage1).items():
        _fill(stage1, tensors, folder / name, half, stage1.allows_low_precision, device)
    return config, stage1.eval()


def load_stage2(
    name_or_path: str, device: str = 'cpu', half: torch.dtype = torch.float32
) -> tuple[ModelConfig, WristGenerator, Autoencoder]:
    """The generator and its autoencoder alone, in evaluation mode, of any model directory that has them; errors as in
    `load_model`. device: cpu or cuda. half: what transformer, vision tower and autoencoder are held in."""
    folder = find_model(name_or_path)
    config = ModelConfig.read(folder / 'config.json')
    if not config.generator:
        raise ModelError(f'{folder} holds no stage 2; convert or train one.')
    with init_empty_weights():
        generator = WristGenerator.from_config(config.generator)
        autoencoder = autoencoder_from_config(generator.settings.autoencoder)
    rules = {GENERATOR: (generator, generator.allows_low_precision), AUTOENCODER: (autoencoder, lambda name: True)}
    for name, tensors in _stage2_files(generator, autoencoder).items():
        module, rule = rules[name]
        _fill(module, tensors, folder / name, half, rule, device)
    return config, generator, autoencoder.eval()


def load_autoencoder(name_or_path: str) -> tuple[ModelConfig, Autoencoder]:
    """The autoencoder alone, in evaluation mode on the CPU, of any model directory that has a stage 2; errors as in
    `load_model`."""
    folder = find_model(name_or_path)
    config = ModelConfig.read(folder / 'config.json')
    if not config.generator:
        raise ModelError(f'{folder} holds no stage 2 and so no autoencoder; convert or train one.')
    autoencoder = autoencoder_from_config(config.generator['autoencoder'])
    if tensors := named_tensors(autoencoder):
        _fill(autoencoder, tensors, folder / AUTOENCODER)
    return config, autoencoder.eval()


def read_tiny_decoder(
    folder: Path, config: ModelConfig, autoencoder: Autoencoder, half: torch.dtype = torch.float32, device: str = 'cpu'
) -> TinyAutoencoder:
    """The autoencoder with the light decoder of its directory beside its own, which it still holds.

    half: what the light one is held in. Raises ModelError where there is none.
    """
    if not isinstance(autoencoder, WanAutoencoder):
        raise ModelError(
            f'{folder} has no video autoencoder (its latents are the pixels themselves), so there is no light decoder of '
            'it; use decoder full.'
        )
    if not config.tiny_decoder:
        raise ModelError(
            f'{folder} has no {TINY_DECODER}; make it with `wristworld train tiny-decoder EPISODES --model {folder}`, or '
            'use decoder full.'
        )
    try:
        light = tiny_decoder_for(autoencoder, **config.tiny_decoder)
    except (TypeError, ValueError) as e:
        raise ModelError(f'{folder / "config.json"} does not describe a light decoder ({e}); train it anew.') from None
    _fill(light, named_tensors(light), folder / TINY_DECODER, half, lambda name: True, device)
    return TinyAutoencoder(autoencoder, light.eval())


def load_model(
    name_or_path: str = 'sim_tiny', device: str = 'auto', precision: str = 'auto', decoder: str = 'full'
) -> WristModel:
    """Load a model by the name of one that ships with the package or by its directory.

    device, precision, decoder: as in `StreamSettings`. Raises ModelError, one sentence, for whatever is missing or does
    not fit.
    """
    device = choose_device(device)
    if decoder not in ('full', 'tiny'):
        raise ModelError(f'The decoder is {decoder!r}; it is full or light.')
    folder = find_model(name_or_path)
    config = ModelConfig.read(folder / 'config.json')
    if config.untrained:
        raise ModelError(
            f'{folder} cannot run, for these parts of it were never trained: {", ".join(config.untrained)}; train them '
            '(load_stage1 and load_stage2 give what is there), or convert weights that have them.'
        )
    if not (config.stage1 and config.generator):
        there = 'stage 1' if config.stage1 else 'stage 2'
        raise ModelError(f'{folder} holds {there} alone; a wrist camera needs both: convert them into one directory.')
    half = choose_precision(config, precision, device)
    _, stage1 = load_stage1(str(folder), device, half)
    _, generator, autoencoder = load_stage2(str(folder), device, half)
    model = WristModel(config, stage1, generator, device, autoencoder)
    if decoder == 'tiny' or config.tiny_decoder:
        light = read_tiny_decoder(folder, config, autoencoder, half, device)
        model.tiny_autoencoder = light.requires_grad_(False).to(model.device)
    if decoder == 'tiny':
        model.use_tiny_decoder()
    return model


def save_model(model: WristModel, folder: Path, half: bool = True) -> dict[str, str]:
    """Write a model directory; returns the sha256 of each weight file. half: store float16.

    Without its light decoder, which belongs to the weights of the directory that it was trained in. Raises ValueError for
    a model that was loaded with the light one, whose own decoder is gone."""
    if isinstance(model.autoencoder, TinyAutoencoder):
        raise ValueError('A model with its light decoder has no decoder of its own to save; load it with decoder full.')
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    replace(model.config, tiny_decoder={}).write(folder / 'config.json')
    hashes = {}
    for name, tensors in weight_files(model.stage1, model.generator, model.autoencoder).items():
        dtype = torch.float16 if half else torch.float32
        stored = {k: v.detach().to('cpu', dtype).contiguous().clone() for k, v in tensors.items()}
        for key, tensor in stored.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(
                    f'{folder / name}: {key} is not finite as {dtype}; save an earlier state, or half=False.'
                )
        save_file(stored, folder / name, metadata={'format': 'pt'})
        (folder / name).chmod(0o644)  # safetensors leaves it to its owner alone
        hashes[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return hashes
