"""The weights of a model directory: there, whole, of this model, and under which licence. Nothing is loaded."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from wristworld_ros.apps.doctor.finding import Finding, error, from_error, ok, warning
from wristworld_ros.runtime.units import gib


@dataclass(frozen=True)
class Stored:
    """One tensor as the header of a safetensors file tells of it."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class CardRow:
    """What a model card says of one weight file; '' where it says nothing."""

    sha256: str = ''
    licence: str = ''


def read_header(path: Path) -> dict[str, Stored]:
    """Names, types and shapes in a safetensors file, from its header alone.

    Raises ValueError, one sentence, for a file that is none or is cut off.
    """
    again = 'copy it again from where the model came'
    with path.open('rb') as file:
        length = int.from_bytes(file.read(8), 'little')
        size = path.stat().st_size
        if not 2 <= length <= size - 8:
            raise ValueError(f'{path} is no safetensors file or is cut off ({size} bytes); {again}.')
        try:
            header = json.loads(file.read(length))
            header.pop('__metadata__', None)
            end = 8 + length + max((entry['data_offsets'][1] for entry in header.values()), default=0)
            tensors = {k: Stored(entry['dtype'], tuple(entry['shape'])) for k, entry in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise ValueError(f'{path} has no safetensors header ({type(e).__name__}); {again}.') from None
    if end != size:
        raise ValueError(f'{path} is {size} bytes long where its header tells of {end}; {again}.')
    return tensors


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def card_rows(text: str) -> dict[str, CardRow]:
    """The table of a model card with the columns file, sha256 and licence, by file name."""
    rows: dict[str, CardRow] = {}
    columns: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip().strip('`') for cell in line.strip().strip('|').split('|')]
        if not line.lstrip().startswith('|'):
            columns = []
        elif not columns:
            columns = [cell.lower() for cell in cells]
        elif 'file' in columns and len(cells) == len(columns):
            row = dict(zip(columns, cells))
            hashed = re.fullmatch('[0-9a-f]{64}', row.get('sha256', '').lower())
            rows[row['file']] = CardRow(hashed[0] if hashed else '', row.get('licence') or row.get('license') or '')
    return rows


def file_line(path: Path, stored: dict[str, Stored], hashed: str, row: CardRow, licence: str) -> Finding:
    """One weight file that fits: its size, parameters, hash and licence. licence: what `config.json` says."""
    types = ', '.join(sorted({s.dtype for s in stored.values()}))
    count = sum(math.prod(s.shape) for s in stored.values())
    said = row.licence or licence
    what = f'{path.name}: {count / 1e6:.1f} M parameters ({types}, {gib(path.stat().st_size)}), sha256 {hashed}'
    if row.sha256 and row.sha256 != hashed:
        return warning(
            f'{what}, while the card beside it says {row.sha256}',
            'copy the file again from where the model came, or write its new hash into the card if it was trained anew',
        )
    if not said or said.lower() in ('none', 'none stated', 'unknown'):
        return warning(f'{what}, no licence stated', 'ask its authors before you use it for more than a private trial')
    return ok(f'{what} ({"as its card says" if row.sha256 else "no card to compare with"}), licence {said}')


def weight_lines(name_or_path: str) -> tuple[list[Finding], dict[Path, dict[str, Stored]]]:
    """The lines of a model (a shipped one's name, or a directory), and the headers of its files that could be read."""
    from wristworld_ros.models.config import ModelConfig, find_model

    try:
        folder = find_model(name_or_path)
        config = ModelConfig.read(folder / 'config.json')
        wanted = _wanted(config)
    except ValueError as e:
        return [from_error(e)], {}
    card = folder / 'README.md'
    rows = card_rows(card.read_text(errors='replace')) if card.is_file() else {}
    lines, headers = [ok(f'Model {config.name} in {folder}')], {}
    for name, tensors in wanted.items():
        path = folder / name
        if not path.is_file():
            lines.append(
                error(f'{path} is missing', 'copy it there from where the model came, or choose another model')
            )
            continue
        try:
            headers[path] = read_header(path)
            _check_fit(tensors, headers[path], str(path))
        except (ValueError, OSError) as e:
            lines.append(from_error(e))
            continue
        lines.append(file_line(path, headers[path], sha256(path), rows.get(name, CardRow()), config.licence))
    return lines, headers


def _wanted(config) -> dict:
    """Tensors of each weight file as the networks of this configuration want them, without memory behind them."""
    import torch

    from wristworld_ros.models.config import TINY_DECODER
    from wristworld_ros.models.state_dict import named_tensors
    from wristworld_ros.models.vggt import ReconstructionModel
    from wristworld_ros.models.wan import WristGenerator
    from wristworld_ros.models.wan.autoencoders import autoencoder_from_config
    from wristworld_ros.models.wan.tiny_decoder import tiny_decoder_for
    from wristworld_ros.pipeline.model_directory import weight_files

    with torch.device('meta'):
        generator = WristGenerator.from_config(config.generator)
        autoencoder = autoencoder_from_config(generator.settings.autoencoder)
        files = weight_files(ReconstructionModel.from_config(config.stage1), generator, autoencoder)
        if config.tiny_decoder:
            files[TINY_DECODER] = named_tensors(tiny_decoder_for(autoencoder, **config.tiny_decoder))
        return files


def _check_fit(wanted: dict, stored: dict[str, Stored], source: str) -> None:
    """What loading would check: names and shapes. Tensors on the meta device have nothing but a shape to copy."""
    import torch

    from wristworld_ros.models.state_dict import load_strict

    load_strict(wanted, {k: torch.empty(s.shape, device='meta') for k, s in stored.items()}, source)
