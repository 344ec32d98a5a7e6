"""Model directories written: configuration, weight files and the mean wrist image, each whole or not at all."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from wristworld_ros.data.images import write_image
from wristworld_ros.errors import UserError
from wristworld_ros.models.config import AUTOENCODER, GENERATOR, HAND, PRIOR, STAGE1, SWEEP
from wristworld_ros.models.hand import HandNetwork
from wristworld_ros.models.state_dict import named_tensors
from wristworld_ros.models.sweep import SweepNetwork
from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.autoencoders import Autoencoder
from wristworld_ros.models.wan.tiny_decoder import TinyAutoencoder
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.runtime.files import file_sha256, write_atomically

Tensors = dict[str, torch.Tensor]


def weight_files(
    stage1: ReconstructionModel,
    generator: WristGenerator,
    autoencoder: Autoencoder,
    sweep: SweepNetwork | None = None,
    hand: HandNetwork | None = None,
) -> dict[str, Tensors]:
    """Tensors of each weight file of a whole model under the public checkpoints' names; an autoencoder may have none."""
    files = {
        SWEEP: named_tensors(sweep) if sweep is not None else {},
        HAND: named_tensors(hand) if hand is not None else {},
        STAGE1: named_tensors(stage1),
        GENERATOR: generator.release_tensors(),
        AUTOENCODER: named_tensors(autoencoder),
    }
    return {name: tensors for name, tensors in files.items() if tensors}


def save_model(model: WristModel, folder: Path, dtype: torch.dtype = torch.float16) -> dict[str, str]:
    """Write a model directory.

    It gets no tiny decoder, which belongs to the weights of the directory that it was trained in.

    Args:
        model: The model.
        folder: Made when missing.
        dtype: What weights are stored in.

    Returns:
        The sha256 of each weight file.

    Raises:
        UserError: A weight is not finite in that dtype, or the model was loaded with its tiny decoder alone.
    """
    if isinstance(model.autoencoder, TinyAutoencoder):
        raise UserError(
            'A model that was loaded with its tiny decoder has no full decoder to save', 'load it with decoder full'
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    replace(model.config, tiny_decoder={}).write(folder / 'config.json')
    if model.prior is not None:
        write_image(folder / PRIOR, model.prior.image.cpu().numpy())
    hashes = {}
    for name, tensors in weight_files(*model.networks, model.sweep, model.hand).items():
        with write_atomically(folder / name) as part:
            save_weights(stored_tensors(tensors, dtype, folder / name), part)
        (folder / name).chmod(0o644)  # safetensors makes files that only their owner can read
        hashes[name] = file_sha256(folder / name)
    return hashes


def save_weights(tensors: Tensors, path: Path) -> None:
    """Write a safetensors file; OSError where the disk refuses it."""
    try:
        save_file(tensors, path, metadata={'format': 'pt'})
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from error


def stored_tensors(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype, path: Path) -> Tensors:
    """Tensors as they go into a file; UserError for one that is not finite in its dtype there."""
    stored = {k: v.detach().to('cpu', dtype).contiguous().clone() for k, v in tensors.items()}
    for key, tensor in stored.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f'{path}: {key} is not finite as {dtype}', 'save an earlier state, or store float32')
    return stored
