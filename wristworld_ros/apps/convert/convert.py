"""The conversion from start to end: find and check the published files, then write a model directory with its card."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from wristworld_ros.apps.convert.settings import ConvertSettings
from wristworld_ros.apps.convert.sources import find_part, read_overrides, require_part
from wristworld_ros.apps.convert.stages import Source, Stage, convert_stage1, convert_stage2
from wristworld_ros.errors import UserError
from wristworld_ros.geometry.cloud import CloudSettings
from wristworld_ros.models.config import ModelConfig
from wristworld_ros.runtime.files import file_sha256, new_directory
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.setting import check

# The published system's condition map (arXiv 2510.07313): every point once, rendered at the size of stage 1's images.
CLOUD = CloudSettings(upsample=1, edge=0.0, radius=2, near=0.01, render_size=(294, 518))
# safetensors' names of dtypes that checkpoints use.
_DTYPES = {
    torch.float64: 'F64', torch.float32: 'F32', torch.float16: 'F16', torch.bfloat16: 'BF16', torch.int64: 'I64',
    torch.int32: 'I32', torch.int16: 'I16', torch.int8: 'I8', torch.uint8: 'U8', torch.bool: 'BOOL',
}  # fmt: skip
_PIECE = 1 << 24  # bytes written at once


@dataclass(frozen=True)
class Written:
    """A weight file of the model directory. size: bytes."""

    name: str
    size: int
    sha256: str


def convert_release(folders: Sequence[Path], settings: ConvertSettings, progress: bool = True) -> Path:
    """Write a model directory from the published files; returns its path.

    Everything is checked before anything is written, and the directory appears at the end, complete, or not at all.

    Args:
        folders: Where the files are, in the layout of WristWorld's repository, of VGGT-1B's or of Wan2.1's.
        settings: What is converted, and how.
        progress: Whether bars are shown.

    Raises:
        UserError: A file is missing or wrong (file, key, shape found, shape wanted), or the directory cannot be written.
    """
    check(settings)
    folders = [Path(folder).expanduser() for folder in folders]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f'{folder} is not a folder', 'give the one that the published files were downloaded to')
    if settings.wrist_width % 16 or settings.wrist_height % 16:
        raise UserError(
            f'The wrist image is {settings.wrist_width}x{settings.wrist_height} (width x height)',
            'give multiples of 16 for both',
        )
    overrides = read_overrides(settings.sizes)
    paths = _paths(folders, settings)
    out = Path(settings.out).expanduser().absolute()
    for path in paths.values():
        if path.absolute().is_relative_to(out):
            raise UserError(f'{path} is in {out}, which the conversion would replace', 'choose another --out')
    with new_directory(out, settings.force) as making:
        first = convert_stage1(paths['stage1'], settings, overrides) if 'stage1' in paths else Stage()
        second = convert_stage2(paths, folders, settings, overrides, progress) if 'video' in paths else Stage()
        _write(making, out.name, first, second, settings, progress)
    return out


def _paths(folders: Sequence[Path], settings: ConvertSettings) -> dict[str, Path]:
    """Part -> file, of all that the wanted stages need; ModelError for the first that is missing."""
    wanted = []
    if settings.parts != 'stage2':
        wanted.append('stage1')
    if settings.parts != 'stage1':
        wanted += ['video', 'vae', 'text_encoder', 'tokenizer']
    paths = {part: require_part(part, folders, getattr(settings, part)) for part in wanted}
    if 'video' in paths:
        beside = [paths['video'].parent] if 'longlive' in paths['video'].name.lower() else []
        optional = {'clip': find_part('clip', folders, settings.clip), 'lora': find_part('lora', beside, settings.lora)}
        paths |= {part: path for part, path in optional.items() if path is not None}
    return paths


def _write(folder: Path, name: str, first: Stage, second: Stage, settings: ConvertSettings, progress: bool) -> None:
    """Write weights, `config.json` and the card into an empty folder.

    Args:
        folder: Where.
        name: Of the model, unless the settings name it.
        first: Stage 1; empty where it is not converted.
        second: Stage 2, likewise.
        settings: Precision and sizes.
        progress: Whether a bar is shown.
    """
    dtype = None if settings.dtype == 'keep' else getattr(torch, settings.dtype)
    files, sources = first.files | second.files, first.sources + second.sources
    needed = sum(stored_bytes(tensors, dtype) for tensors in files.values())
    if (free := shutil.disk_usage(folder).free) < needed:
        raise UserError(
            f'{folder.parent} has {free / 1e9:.1f} GB free, and the model takes {needed / 1e9:.1f} GB',
            'free disk space, or give another --out or a smaller --dtype',
        )
    config = ModelConfig(
        name=settings.name or name,
        stage1=first.config,
        generator=second.config,
        anchor_width=settings.anchor_width,
        wrist_hw=(settings.wrist_height, settings.wrist_width),
        cloud=CLOUD,
        noise_share=0.0,
        precision='bfloat16',
        use_anchor_tokens=second.use_anchor_tokens,
        licence='; '.join(dict.fromkeys(words for source in sources for words in source.licence.split('; '))),
        untrained=tuple(first.untrained + second.untrained),
    )
    total = needed + sum(source.path.stat().st_size for source in sources)
    with ProgressBar(total=total, unit='B', unit_scale=True, disable=not progress) as bar:
        written = []
        for file, tensors in files.items():
            bar.set_description(f'write {file}')
            digest = write_tensors(folder / file, tensors, dtype, bar.update)
            written.append(Written(file, (folder / file).stat().st_size, digest))
        for source in sources:
            bar.set_description(f'hash {source.path.name}')
            source.sha256 = file_sha256(source.path, bar.update)
    config.write(folder / 'config.json')
    (folder / 'README.md').write_text(_card(config, sources, written, settings))


def _card(config: ModelConfig, sources: list[Source], written: list[Written], settings: ConvertSettings) -> str:
    """The model card as Markdown: what the model is made of, under which licences."""
    lines = [f'# {config.name}', '', 'Converted by `wristworld convert`; the weights are those of the files below.', '']
    lines += ['## Sources', '', '| file | part | licence | sha256 |', '| --- | --- | --- | --- |']
    lines += [f'| `{s.path.parent.name}/{s.path.name}` | {s.part} | {s.licence} | `{s.sha256}` |' for s in sources]
    lines += [
        '',
        'What is made from a file is under its licence: read it before you use or redistribute the model.',
        '',
    ]
    lines += ['## Files', '', '| file | size | sha256 |', '| --- | --- | --- |']
    lines += [f'| `{w.name}` | {w.size / 1e6:.1f} MB | `{w.sha256}` |' for w in written]
    lines += [
        '',
        f'Floating weights on disk: {"as in the source" if settings.dtype == "keep" else settings.dtype}.',
        '',
    ]
    if config.stage1:
        lines += [f'- Stage 1: heads {", ".join(config.stage1["heads"])}; anchor images {config.anchor_width} wide.']
    if config.generator:
        height, width = config.wrist_hw
        lines += [
            f'- Stage 2: wrist images {width}x{height}; prompt "{settings.prompt}", guidance '
            f'{config.generator["cfg_scale"]} against "{settings.negative_prompt}" (embeddings stored, no text encoder).'
        ]
    if config.untrained:
        lines += ['', f'**Not a wrist camera yet**: these parts are not trained: {", ".join(config.untrained)}.']
    if not (config.stage1 and config.generator):
        lines += ['', f'**One stage only** (stage {1 if config.stage1 else 2}): a wrist camera needs both.']
    return '\n'.join(lines) + '\n'


def stored_dtype(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype of a tensor on disk: its own, or the wanted one where it is floating."""
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def stored_bytes(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None) -> int:
    """Bytes that tensors take on disk."""
    return sum(t.numel() * stored_dtype(t, dtype).itemsize for t in tensors.values())


def write_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    dtype: torch.dtype | None = None,
    on_bytes: Callable[[int], object] = lambda count: None,
) -> str:
    """Write a safetensors file; memory holds one tensor at a time (the library's own writer holds them all).

    Args:
        path: Of a new file.
        tensors: Name -> tensor on the CPU, possibly mapped from a file.
        dtype: Of floating tensors on disk; None leaves each as it is.
        on_bytes: Told the number of bytes as they are written.

    Returns:
        The file's sha256.

    Raises:
        UserError: A tensor is not finite in its dtype on disk, or of a dtype that the format does not have.
    """
    header, ordered, end = {'__metadata__': {'format': 'pt'}}, [], 0
    # The format requires aligned tensors without gaps: widest first.
    for name in sorted(tensors, key=lambda n: (-stored_dtype(tensors[n], dtype).itemsize, n)):
        tensor, kind = tensors[name], stored_dtype(tensors[name], dtype)
        if kind not in _DTYPES:
            raise UserError(f'{path.name}: {name} is {tensor.dtype}, which cannot be stored', 'choose another --dtype')
        start, end = end, end + tensor.numel() * kind.itemsize
        header[name] = {'dtype': _DTYPES[kind], 'shape': list(tensor.shape), 'data_offsets': [start, end]}
        ordered.append((name, tensor, kind))
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open('xb') as file:
        for part in (len(text).to_bytes(8, 'little'), text):
            file.write(part)
            digest.update(part)
        for name, tensor, kind in ordered:
            tensor = tensor.detach().to(kind)
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise UserError(
                    f'{path.name}: {name} is not finite as {kind}', 'choose another --dtype, or download its file again'
                )
            data = memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
            for at in range(0, len(data), _PIECE):
                piece = data[at : at + _PIECE]
                file.write(piece)
                digest.update(piece)
                on_bytes(len(piece))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
