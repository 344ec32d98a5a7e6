"""Causal few-step students in the layout that Self-Forcing (arXiv 2506.08009) and LongLive (arXiv 2509.22622) publish.

Their checkpoints hold Wan's transformer under `model.` inside `generator` or `generator_ema`, with the names of the wrappers of a
training run in between; LongLive has its long-video tuning beside it, as a LoRA in peft's names. How they are sampled is in none
of the files: that is stated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from wristworld_ros.apps.convert.sources import DOWNLOAD_AGAIN
from wristworld_ros.models.config import ModelError

Tensors = dict[str, torch.Tensor]

_MODEL = 'model.'
# Parts of names that wrappers of a training run leave in a checkpoint.
_WRAPPERS = ('_fsdp_wrapped_module.', '_checkpoint_wrapped_module.', '_orig_mod.')
_PEFT, _ADAPTER = 'base_model.model.', '.default.'
_DOWN, _UP = '.lora_A.weight', '.lora_B.weight'
# Four steps at 1000, 750, 500, 250, shifted by 5 as Wan's own schedule is: 5 s / (1 + 4 s).
_TIMESTEPS = [1000.0, 937.5, 2500 / 3, 625.0]


@dataclass(frozen=True)
class Student:
    """A published student.

    name: of the project. licence: of its weights. history_chunks, sink_chunks: as its own inference has them, in chunks of three
    latent frames. scale: of its LoRA, alpha over rank.
    """

    name: str
    licence: str
    history_chunks: int
    sink_chunks: int
    scale: float = 1.0

    @property
    def config(self) -> dict[str, Any]:
        """What of a generator's configuration is the student's own."""
        return {
            'chunk_frames': 3,
            'history_chunks': self.history_chunks,
            'sink_chunks': self.sink_chunks,
            'sampler': {'kind': 'renoise', 'timesteps': list(_TIMESTEPS)},
            'sampling_steps': len(_TIMESTEPS),
            'cfg_scale': 1.0,  # guidance was distilled into the weights
        }


# Attends to all of the 21 latent frames that it was trained on.
SELF_FORCING = Student('Self-Forcing', 'as stated by Self-Forcing (its repository: Apache-2.0)', 6, 0)
# Attends to 12 latent frames, the current three and the stream's first three among them.
LONGLIVE = Student('LongLive', 'as stated by LongLive (its repository: Apache-2.0)', 3, 1)


def is_student(weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether tensors are in that layout."""
    return any(_plain(name) == f'{_MODEL}patch_embedding.weight' for name in weights)


def student_of(file_name: str) -> Student:
    """Whose a file in that layout is; the layout itself is the same, so its name says it."""
    return LONGLIVE if 'longlive' in file_name.lower() else SELF_FORCING


def student_tensors(weights: Mapping[str, torch.Tensor], source: str) -> Tensors:
    """Tensors in that layout under Wan's own names; others, such as a wrist student's anchor projection, keep theirs.

    Args:
        weights: Name -> tensor, of `generator` or `generator_ema`.
        source: What to call them in an error.

    Raises:
        ModelError: Two names become one.
    """
    found: Tensors = {}
    for name, tensor in weights.items():
        plain = _plain(name).removeprefix(_MODEL)
        if plain in found:
            raise ModelError(f'{source}: key {name} is there twice, under several wrappers', DOWNLOAD_AGAIN)
        found[plain] = tensor
    return found


def add_lora(
    weights: Mapping[str, torch.Tensor], lora: Mapping[str, torch.Tensor], scale: float, source: str
) -> Tensors:
    """Weights with a LoRA added: W + scale * B A.

    Args:
        weights: Under Wan's own names.
        lora: Under peft's (`base_model.model.<layer>.lora_A.weight` [rank, in] and `lora_B.weight` [out, rank]).
        scale: Alpha over rank.
        source: What to call the LoRA in an error.

    Returns:
        All weights, those that the LoRA changes in their own dtype.

    Raises:
        ModelError: A half is missing, the layer is none of the model, or shapes do not fit.
    """
    halves = {_plain(name).removeprefix(_PEFT).replace(_ADAPTER, '.'): tensor for name, tensor in lora.items()}
    changed = dict(weights)
    for name, down in halves.items():
        layer = name.removesuffix(_DOWN)
        if name.endswith(_UP) and name.removesuffix(_UP) + _DOWN in halves:
            continue
        if layer == name or layer + _UP not in halves:
            raise ModelError(f'{source}: key {name} is no half of a LoRA, or its other half is missing', DOWNLOAD_AGAIN)
        key, up = f'{layer}.weight', halves[layer + _UP]
        if key not in weights:
            raise ModelError(
                f'{source}: key {name} changes {key}, which is not part of the model', 'give files of one model'
            )
        wanted = tuple(weights[key].shape)
        if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0] or (up.shape[0], down.shape[1]) != wanted:
            raise ModelError(
                f'{source}: key {name} has shape {list(down.shape)} and its other half {list(up.shape)}, and their product must '
                f'be {list(wanted)}',
                'give files of one model',
            )
        changed[key] = (weights[key].float() + scale * up.float() @ down.float()).to(weights[key].dtype)
    return changed


def _plain(name: str) -> str:
    """A name without wrappers."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, '')
    return name
