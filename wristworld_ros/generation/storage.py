"""A generator as a directory: ``config.json`` and ``generator.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .generator import WristGenerator

CONFIG_FILE = 'config.json'
WEIGHTS_FILE = 'generator.safetensors'


def save_generator(gen: WristGenerator, directory: str | Path, half: bool = True) -> None:
    """Write a generator; its weights get the released checkpoint's names.

    directory: made when missing; files of the same names are replaced. half: store float16 (float32 otherwise).
    Raises ValueError when a weight is not finite or does not fit into float16.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if half else torch.float32
    tensors = {name: t.detach().to('cpu', dtype).contiguous().clone() for name, t in gen.release_tensors().items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(
                f'{directory}: weight {name} is not finite as {dtype}; save an earlier state, or half=False.'
            )
    save_file(tensors, directory / WEIGHTS_FILE, metadata={'format': 'pt'})
    (directory / CONFIG_FILE).write_text(json.dumps(gen.settings.to_config(), indent=2) + '\n')


def load_generator(directory: str | Path, device: torch.device | str = 'cpu') -> WristGenerator:
    """Read what ``save_generator`` wrote, as float32 and in evaluation mode.

    Raises ValueError, one sentence: which file, which key, shape found, shape wanted, what to do. FileNotFoundError
    names the file that is missing.
    """
    config_path, weights_path = Path(directory) / CONFIG_FILE, Path(directory) / WEIGHTS_FILE
    for path in (config_path, weights_path):
        if not path.is_file():
            raise FileNotFoundError(f'{path} is missing; give a directory that save_generator wrote.')
    try:
        gen = WristGenerator.from_config(json.loads(config_path.read_text()))
        weights = load_file(weights_path)
    except json.JSONDecodeError as error:
        raise ValueError(f'{config_path} is not JSON ({error}); copy the model again.') from error
    except SafetensorError as error:
        raise ValueError(f'{weights_path} cannot be read ({error}); copy the model again.') from error
    gen.load_release_state_dict(weights, str(weights_path))
    return gen.to(device)
