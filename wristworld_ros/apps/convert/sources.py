"""The release's files: which there are, where they lie, and what is in them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from wristworld_ros.pipeline import ModelError

WAN_REPOSITORY = 'Wan2.1-T2V-1.3B'


@dataclass(frozen=True)
class Part:
    """One file (or folder) that a conversion reads. names: relative paths it is looked for at, the best first."""

    what: str
    names: tuple[str, ...]
    option: str


PARTS = {
    'stage1': Part(
        'stage 1', ('VGGT/checkpoint.pt', 'checkpoint.pt', 'model.safetensors', 'model.pt'), '--stage1'
    ),
    'video': Part(
        'the video transformer',
        ('VideoModel/video_dit_lora.safetensors', 'video_dit_lora.safetensors', 'diffusion_pytorch_model.safetensors'),
        '--video',
    ),
    'vae': Part('the video autoencoder', ('BaseModel/Wan2.1_VAE.pth', 'Wan2.1_VAE.pth'), '--vae'),
    'clip': Part(
        'the vision tower',
        (
            'BaseModel/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth',
            'models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth',
        ),
        '--clip',
    ),
    'text_encoder': Part(
        'the text encoder',
        ('BaseModel/models_t5_umt5-xxl-enc-bf16.pth', 'models_t5_umt5-xxl-enc-bf16.pth'),
        '--text-encoder',
    ),
    'tokenizer': Part(
        f"the text encoder's tokenizer (a folder; {WAN_REPOSITORY} has it)",
        ('google/umt5-xxl', 'BaseModel/google/umt5-xxl', 'umt5-xxl'),
        '--tokenizer',
    ),
}  # fmt: skip


def find_part(part: str, folders: Sequence[Path], given: str = '') -> Path | None:
    """Where a part lies: what was given, or the best name that is in one of the folders; None when none is.

    part: a key of ``PARTS``. Raises ModelError when what was given is not there.
    """
    if given:
        path = Path(given).expanduser()
        if not path.exists():
            raise ModelError(f'{path} is missing; {PARTS[part].option} must be the path of {PARTS[part].what}.')
        return path
    places = (folder / name for name in PARTS[part].names for folder in folders)
    return next((place for place in places if place.exists()), None)


def need_part(part: str, folders: Sequence[Path], given: str = '') -> Path:
    """``find_part``, or ModelError that says which file is missing and what to do."""
    path = find_part(part, folders, given)
    if path is None:
        name, searched = PARTS[part].names[0], ', '.join(str(folder) for folder in folders)
        other = {'stage1': 'stage2', 'tokenizer': None}.get(part, 'stage1')
        alone = f', or convert the other stage alone with --parts {other}' if other else ''
        raise ModelError(
            f'{name} ({PARTS[part].what}) is missing in {searched}; download it, name its folder, give another name with '
            f'{PARTS[part].option}{alone}.'
        )
    return path


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name, mapped from the file and not read until they are used, on the CPU.

    path: safetensors, or a torch file, of which nothing but tensors and plain containers is accepted, so that no code
    in it can run. A checkpoint of a training run may hold them under `model` or `state_dict`. Raises ModelError, one
    sentence, when the file cannot be read as such.
    """
    if not path.is_file():
        raise ModelError(f'{path} is no file; give the checkpoint itself.')
    with path.open('rb') as file:
        start = file.read(64)
    if start.startswith(b'version https://git-lfs'):
        raise ModelError(f'{path} is only a pointer of Git LFS; download the file itself (`git lfs pull`).')
    try:
        if path.suffix == '.safetensors':
            return load_file(path)
        # Files of old versions of torch are no archives and cannot be mapped.
        return _state_dict(_load_torch(path, mapped=start.startswith(b'PK')), path)
    except SafetensorError as error:
        raise ModelError(
            f'{path} cannot be read as safetensors ({error}); it may be truncated: download it again.'
        ) from None


def _load_torch(path: Path, mapped: bool) -> Any:
    try:
        return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if refused := re.search(r'(?:GLOBAL|global) (\S+)', str(error)):
            raise ModelError(
                f'{path} holds more than tensors ({refused[1].rstrip(".")}) and was not opened, since that could run code; '
                'give the original file, or its tensors alone as safetensors.'
            ) from None
        raise _unreadable(path, error) from None
    except Exception as error:  # whatever a damaged file makes of the reader
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ModelError:
    text = str(error).rpartition('WeightsUnpickler error: ')[2].strip() or type(error).__name__
    reason = text.splitlines()[0][:160].rstrip(' .')
    return ModelError(f'{path} cannot be read as a torch file ({reason}); it may be truncated: download it again.')


def _state_dict(raw: Any, path: Path) -> dict[str, torch.Tensor]:
    for key in ('model', 'state_dict', 'module'):
        if isinstance(raw, Mapping) and isinstance(raw.get(key), Mapping):
            raw = raw[key]
    tensors = {k: v for k, v in raw.items() if isinstance(v, torch.Tensor)} if isinstance(raw, Mapping) else {}
    if not tensors:
        raise ModelError(f'{path} holds no tensors by name; give a checkpoint.')
    if all(name.startswith('module.') for name in tensors):  # as a model that trained on several GPUs saves itself
        tensors = {name.removeprefix('module.'): value for name, value in tensors.items()}
    return tensors
