"""The published files: which there are, where they are, what is in them, and which sizes their shapes imply.

What shapes do not say has the published value: the number of attention heads (by their published width), the layers that
the dense heads read, the length of the context. `overrides` of the same form as the configurations replace anything.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import isqrt, prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import read_json
from wristworld_ros.models.config import ModelError
from wristworld_ros.models.vggt import VGGT_1B
from wristworld_ros.models.wan import WRISTWORLD_1_3B, GeneratorConfig
from wristworld_ros.models.wan.checkpoints import CLIP_VIT_H, UMT5_XXL

Weights = Mapping[str, torch.Tensor]
WAN_REPOSITORY = 'Wan2.1-T2V-1.3B'
DOWNLOAD_AGAIN = 'download it again, as it may be truncated'
# Sections of a file of sizes (`read_overrides`).
SECTIONS = ('stage1', 'generator', 'anchor_encoder', 'autoencoder', 'text_encoder')
STAGE1_PREFIXES = {
    'camera': 'camera_head.', 'wrist': 'wrist_head.', 'depth': 'depth_head.', 'points': 'point_head.',
    'track': 'track_head.',
}  # fmt: skip
# Width of an attention head as published.
_WAN_HEAD = WRISTWORLD_1_3B['dim'] // WRISTWORLD_1_3B['num_heads']
_CLIP_HEAD = CLIP_VIT_H['dim'] // CLIP_VIT_H['num_heads']


@dataclass(frozen=True)
class Part:
    """One file (or folder) that a conversion reads. names: relative paths to look for, in order of preference."""

    what: str
    names: tuple[str, ...]
    option: str


PARTS = {
    'stage1': Part(
        'stage 1', ('VGGT/checkpoint.pt', 'checkpoint.pt', 'model.safetensors', 'model.pt'), '--stage1'
    ),
    'video': Part(
        'the video transformer',
        ('VideoModel/video_dit_lora.safetensors', 'video_dit_lora.safetensors', 'diffusion_pytorch_model.safetensors',
         'models/longlive_base.pt', 'longlive_base.pt', 'checkpoints/self_forcing_dmd.pt', 'self_forcing_dmd.pt',
         'checkpoints/self_forcing_sid.pt', 'self_forcing_sid.pt'),
        '--video',
    ),
    'lora': Part("the LoRA of a student's video transformer", ('models/lora.pt', 'lora.pt'), '--lora'),
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
        f"the text encoder's tokenizer (a folder of {WAN_REPOSITORY})",
        ('google/umt5-xxl', 'BaseModel/google/umt5-xxl', 'umt5-xxl'),
        '--tokenizer',
    ),
}  # fmt: skip


def find_part(part: str, folders: Sequence[Path], given: str | None = None) -> Path | None:
    """The path of a part: the one given, or the first of its names that is in one of the folders; None where none is.

    Args:
        part: A key of `PARTS`.
        folders: Where to look.
        given: Its path, where the user named it.

    Raises:
        ModelError: The given path does not exist.
    """
    if given is not None:
        path = Path(given).expanduser()
        if not path.exists():
            raise ModelError(f'{path} is missing', f'give the path of {PARTS[part].what} with {PARTS[part].option}')
        return path
    candidates = (folder / name for name in PARTS[part].names for folder in folders)
    return next((path for path in candidates if path.exists()), None)


def require_part(part: str, folders: Sequence[Path], given: str | None = None) -> Path:
    """`find_part`, or ModelError that says which file is missing."""
    path = find_part(part, folders, given)
    if path is None:
        name, searched = PARTS[part].names[0], ', '.join(str(folder) for folder in folders)
        other = {'stage1': 'stage2', 'tokenizer': None}.get(part, 'stage1')
        alone = f', or convert the other stage alone with --parts {other}' if other else ''
        raise ModelError(
            f'{name} ({PARTS[part].what}) is missing in {searched}',
            f'download it, name its folder, give another path with {PARTS[part].option}{alone}',
        )
    return path


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name, on the CPU, mapped from the file and read only when they are used.

    Args:
        path: safetensors, or a torch file, of which nothing but tensors and plain containers is accepted, so that no code
            in it can run. A checkpoint of a training run may hold them under `model` or `state_dict`, that of a student under
            `generator_ema`, which comes first, or `generator`, its LoRA under `generator_lora`.

    Raises:
        ModelError: The file is missing or cannot be read as such.
    """
    if not path.is_file():
        raise ModelError(f'{path} is not a file', 'give the checkpoint itself')
    with path.open('rb') as file:
        start = file.read(64)
    if start.startswith(b'version https://git-lfs'):
        raise ModelError(f'{path} is only a pointer of Git LFS', 'download the file itself (`git lfs pull`)')
    try:
        if path.suffix == '.safetensors':
            return load_file(path)
        # Files of old versions of torch are not archives and cannot be mapped.
        return _state_dict(_load_torch(path, mapped=start.startswith(b'PK')), path)
    except SafetensorError as error:
        raise ModelError(f'{path} cannot be read as safetensors ({error})', DOWNLOAD_AGAIN) from None


def _load_torch(path: Path, mapped: bool) -> Any:
    try:
        return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if refused := re.search(r'(?:GLOBAL|global) (\S+)', str(error)):
            name = refused[1].rstrip('.')
            raise ModelError(
                f'{path} holds more than tensors ({name}) and was not opened, since that could run code',
                'give the original file, or its tensors alone as safetensors',
            ) from None
        raise _unreadable(path, error) from None
    except Exception as error:  # a damaged file can raise almost anything in the reader
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ModelError:
    text = str(error).rpartition('WeightsUnpickler error: ')[2].strip() or type(error).__name__
    reason = text.splitlines()[0][:160].rstrip(' .')
    return ModelError(f'{path} cannot be read as a torch file ({reason})', DOWNLOAD_AGAIN)


def _state_dict(raw: Any, path: Path) -> dict[str, torch.Tensor]:
    for key in ('generator_ema', 'generator', 'generator_lora', 'model', 'state_dict', 'module'):
        if isinstance(raw, Mapping) and isinstance(raw.get(key), Mapping):
            raw = raw[key]
    tensors = {k: v for k, v in raw.items() if isinstance(v, torch.Tensor)} if isinstance(raw, Mapping) else {}
    if not tensors:
        raise ModelError(f'{path} holds no named tensors', 'give a checkpoint')
    if all(name.startswith('module.') for name in tensors):  # as DistributedDataParallel saves it
        tensors = {name.removeprefix('module.'): value for name, value in tensors.items()}
    return tensors


def read_overrides(path: str | None) -> dict[str, dict[str, Any]]:
    """A JSON file of sizes, section by section (`SECTIONS`); None gives none.

    Raises:
        ModelError: It is not such a file.
    """
    if path is None:
        return {}
    try:
        raw = read_json(Path(path).expanduser(), dict[str, dict[str, Any]], 'see docs/models.md for what --sizes takes')
    except UserError as error:
        raise ModelError(error.what, error.fix) from None
    if any(section not in SECTIONS for section in raw):
        raise ModelError(
            f'{path} holds something else than sections', f'write objects named {", ".join(SECTIONS)} only'
        )
    known = {f.name for f in fields(GeneratorConfig)}
    if unknown := sorted(set(raw.get('generator', {})) - known):
        raise ModelError(
            f'{path}: the generator has no setting {", ".join(unknown)}',
            f'use those it has: {", ".join(sorted(known))}',
        )
    return raw


def stage1_config(weights: Weights, source: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `ReconstructionConfig`; ModelError names a key that is missing or has another shape."""
    shape = _Shapes(weights, source)
    dim = shape('aggregator.camera_token', 4)[-1]
    head = shape('aggregator.frame_blocks.0.attn.q_norm.weight', 1)[0]
    patch = shape('aggregator.patch_embed.patch_embed.proj.weight', 4)[-1]
    depth = shape.count(r'aggregator\.frame_blocks\.(\d+)\.')
    config: dict[str, Any] = {
        'img_size': isqrt(shape('aggregator.patch_embed.pos_embed', 3)[1] - 1) * patch,
        'patch_size': patch,
        'embed_dim': dim,
        'depth': depth,
        'num_heads': max(dim // head, 1),
        'patch_embed_depth': shape.count(r'aggregator\.patch_embed\.blocks\.(\d+)\.'),
        'heads': [h for h, prefix in STAGE1_PREFIXES.items() if any(name.startswith(prefix) for name in weights)],
    }
    if depth == VGGT_1B['depth']:
        config['dpt_layers'] = VGGT_1B['dpt_layers']
    for prefix in ('camera_head.', 'wrist_head.'):
        if f'{prefix}token_norm.weight' in weights:
            config['camera_trunk_depth'] = shape.count(re.escape(prefix) + r'trunk\.(\d+)\.')
    for prefix in ('point_head.', 'depth_head.'):
        if f'{prefix}scratch.layer1_rn.weight' in weights:
            config['dpt_features'] = shape(f'{prefix}scratch.layer1_rn.weight', 4)[0]
            config['dpt_out_channels'] = [shape(f'{prefix}projects.{i}.weight', 4)[0] for i in range(4)]
    if 'track' in config['heads']:
        tracker = 'track_head.tracker.'
        cells = shape(f'{tracker}corr_mlp.fc1.weight', 2)[1]  # levels * (2 * radius + 1)^2
        radius = next(r for r in range(VGGT_1B['track_corr_radius'], -1, -1) if cells % (2 * r + 1) ** 2 == 0)
        config |= {
            'track_features': shape(f'{tracker}fmap_norm.weight', 1)[0],
            'track_hidden': shape(f'{tracker}updateformer.input_transform.weight', 2)[0],
            'track_corr_radius': radius,
            'track_corr_levels': cells // (2 * radius + 1) ** 2,
        }
    return config | dict(overrides)


def generator_config(weights: Weights, source: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `GeneratorConfig` except for the parts other than the transformer; errors as above.

    Args:
        weights: Under the published checkpoint's names.
        source: What to call them in an error.
        overrides: Replace anything.
    """
    shape, wan = _Shapes(weights, source), 'denoising_model.'
    dim, channels, *patch = shape(f'{wan}patch_embedding.weight', 5)
    config = WRISTWORLD_1_3B | {
        'dim': dim,
        'in_channels': channels,
        'patch_size': patch,
        'out_channels': shape(f'{wan}head.head.weight', 2)[0] // prod(patch),
        'ffn_dim': shape(f'{wan}blocks.0.ffn.0.weight', 2)[0],
        'text_dim': shape(f'{wan}text_embedding.0.weight', 2)[1],
        'freq_dim': shape(f'{wan}time_embedding.0.weight', 2)[1],
        'num_heads': _heads(dim, _WAN_HEAD, 'generator', source, overrides),
        'num_layers': shape.count(re.escape(wan) + r'blocks\.(\d+)\.'),
        'clip_dim': shape('ext_proj.0.weight', 2)[1],
        'clip_hidden': shape('ext_proj.0.weight', 2)[0],
        'max_frames': shape('temporal_embed.weight', 2)[0],
        'max_views': shape('view_embed.weight', 2)[0],
    }
    return config | dict(overrides)


def clip_config(weights: Weights, source: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration of the vision tower, for `models.wan.checkpoints.clip_tensors`; errors as above."""
    shape = _Shapes(weights, source)
    dim, _, patch, _ = shape('visual.patch_embedding.weight', 4)
    config = {
        'image_size': isqrt(shape('visual.pos_embedding', 3)[1] - 1) * patch,
        'dim': dim,
        'num_heads': _heads(dim, _CLIP_HEAD, 'anchor_encoder', source, overrides),
        'num_layers': shape.count(r'visual\.transformer\.(\d+)\.'),
        'out_dim': shape('visual.head', 2)[1],
        'patch_size': patch,
        'mlp_ratio': shape('visual.transformer.0.mlp.0.weight', 2)[0] / dim,
        'resize': 'bicubic',
    }
    return config | dict(overrides)


def vae_config(weights: Weights, source: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration of the video autoencoder, for `autoencoder_from_config` and `vae_tensors`; errors as above."""
    shape = _Shapes(weights, source)
    config = {'kind': 'wan', 'dim': shape('encoder.conv1.weight', 5)[0], 'z_dim': shape('decoder.conv1.weight', 5)[1]}
    return config | dict(overrides)


def text_config(weights: Weights, source: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration of the text encoder, for `models.wan.checkpoints.text_encoder_from_release`; errors as above."""
    shape = _Shapes(weights, source)
    vocab, dim = shape('token_embedding.weight', 2)
    config = UMT5_XXL | {
        'vocab': vocab,
        'dim': dim,
        'dim_attn': shape('blocks.0.attn.q.weight', 2)[0],
        'dim_ffn': shape('blocks.0.ffn.gate.0.weight', 2)[0],
        'num_heads': shape('blocks.0.pos_embedding.embedding.weight', 2)[1],
        'num_layers': shape.count(r'blocks\.(\d+)\.'),
    }
    return config | dict(overrides)


def _heads(dim: int, published: int, section: str, source: str, overrides: Mapping[str, Any]) -> int:
    """Attention heads of the published width; where that does not divide the channels, only the user knows."""
    if dim % published and 'num_heads' not in overrides:
        raise ModelError(
            f'{source}: {dim} channels are not a multiple of {published}, the published width of an attention head',
            f'state num_heads under {section} in a file for --sizes',
        )
    return max(dim // published, 1)


class _Shapes:
    """Shapes of a checkpoint's tensors; one that is missing or has other dimensions is a ModelError."""

    def __init__(self, weights: Weights, source: str):
        self.weights, self.source = weights, source

    def __call__(self, name: str, dimensions: int) -> tuple[int, ...]:
        if name not in self.weights:
            first = next(iter(self.weights), 'nothing')
            raise ModelError(
                f'{self.source}: key {name} is missing (wanted a tensor of {dimensions} dimensions; the first key found '
                f'is {first})',
                'check that it is the right file, and complete',
            )
        shape = tuple(self.weights[name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise ModelError(
                f'{self.source}: key {name} has shape {list(shape)}, wanted {dimensions} dimensions',
                'check that it is the right file',
            )
        return shape

    def count(self, pattern: str) -> int:
        """One more than the largest number at the pattern's group in the names, or 1; a missing key is reported later."""
        found = (re.match(pattern, name) for name in self.weights)
        return max((int(match[1]) + 1 for match in found if match), default=1)
