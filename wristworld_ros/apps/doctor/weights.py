"""Checks of a model directory's weights: complete, of this model, hashed as its card says, under which licence.

Only the headers of the files are read, and their bytes hashed; no weight is loaded.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from wristworld_ros.apps.doctor.finding import Finding, error, from_error, ok, warning
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import check_file, convert, decode_json, read_bytes
from wristworld_ros.runtime.files import file_sha256
from wristworld_ros.runtime.machine import format_bytes

MAX_HEADER = 100_000_000  # bytes, as safetensors itself allows
COPY_AGAIN = 'copy it again from where the model came'


@dataclass(frozen=True)
class Stored:
    """One tensor as the header of a safetensors file describes it."""

    dtype: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    data_offsets: tuple[int, int] = field(default=(0, 0), compare=False)


@dataclass(frozen=True)
class CardRow:
    """What a model card says of one weight file; '' where it says nothing."""

    sha256: str = ''
    licence: str = ''


def read_header(path: Path) -> dict[str, Stored]:
    """Names, types and shapes in a safetensors file, from its header alone.

    Raises:
        UserError: It is not a safetensors file, or is truncated.
    """
    check_file(path, COPY_AGAIN)
    with path.open('rb') as file:
        length = int.from_bytes(file.read(8), 'little')
        size = path.stat().st_size
        if not 2 <= length <= min(size - 8, MAX_HEADER):
            raise UserError(f'{path} is not a safetensors file, or is truncated ({size} bytes)', COPY_AGAIN)
        raw = decode_json(file.read(length), dict[str, Any], f'The safetensors header of {path}', COPY_AGAIN)
    raw.pop('__metadata__', None)
    tensors = convert(raw, dict[str, Stored], f'The safetensors header of {path}', COPY_AGAIN)
    end = 8 + length + max((stored.data_offsets[1] for stored in tensors.values()), default=0)
    if end != size:
        raise UserError(f'{path} is {size} bytes long, and its header describes {end}', COPY_AGAIN)
    return tensors


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


def _file_finding(path: Path, stored: dict[str, Stored], hashed: str, row: CardRow, config_licence: str) -> Finding:
    """A weight file of this model: its parameters, size, hash and licence.

    Args:
        path: Of the file.
        stored: Its tensors.
        hashed: Its sha256.
        row: What the model card says of it.
        config_licence: What `config.json` says.
    """
    types = ', '.join(sorted({s.dtype for s in stored.values()}))
    count = sum(math.prod(s.shape) for s in stored.values())
    licence = row.licence or config_licence
    what = (
        f'{path.name}: {count / 1e6:.1f} M parameters ({types}, {format_bytes(path.stat().st_size)}), sha256 {hashed}'
    )
    if row.sha256 and row.sha256 != hashed:
        return warning(
            f'{what}, while the model card says {row.sha256}',
            f'{COPY_AGAIN}, or write the new hash into the card if the model was trained again',
        )
    if not licence or licence.lower() in ('none', 'none stated', 'unknown'):
        return warning(f'{what}, no licence stated', 'ask its authors before using it for more than a private trial')
    return ok(f'{what} ({"as its card says" if row.sha256 else "no card to compare with"}), licence {licence}')


def weight_findings(name_or_path: str) -> tuple[list[Finding], dict[Path, dict[str, Stored]]]:
    """Check the weights of a model.

    Args:
        name_or_path: A shipped model's name, or a model directory.

    Returns:
        The findings, and the headers of the files that could be read.

    Raises:
        ImportError: The networks cannot be imported.
    """
    from wristworld_ros.models.config import ModelConfig, building
    from wristworld_ros.pipeline.model_directory import find_model

    try:
        folder = find_model(name_or_path)
        config = ModelConfig.read(folder / 'config.json')
        with building(folder):
            wanted = _wanted_tensors(config)
        card = folder / 'README.md'
        rows = card_rows(read_bytes(card, COPY_AGAIN).decode(errors='replace')) if card.exists() else {}
    except UserError as e:
        return [from_error(e)], {}
    findings, headers = [ok(f'Model {config.name} in {folder}')], {}
    for name, tensors in wanted.items():
        path = folder / name
        if not path.exists():
            findings.append(
                error(f'{path} is missing', 'copy it there from where the model came, or choose another model')
            )
            continue
        try:
            headers[path] = read_header(path)
            _check_shapes(tensors, headers[path], str(path))
            hashed = file_sha256(path)
        except UserError as e:
            findings.append(from_error(e))
        except OSError as e:
            findings.append(error(f'{path} cannot be read ({e.strerror or e})', COPY_AGAIN))
        else:
            findings.append(_file_finding(path, headers[path], hashed, rows.get(name, CardRow()), config.licence))
    return findings, headers


def _wanted_tensors(config) -> dict:
    """The tensors of each weight file that the networks of a `ModelConfig` want, on the meta device (no memory)."""
    import torch

    from wristworld_ros.models.config import TINY_DECODER
    from wristworld_ros.models.state_dict import named_tensors
    from wristworld_ros.models.vggt import ReconstructionModel
    from wristworld_ros.models.wan import WristGenerator
    from wristworld_ros.models.wan.autoencoders import autoencoder_from_config
    from wristworld_ros.models.wan.tiny_decoder import tiny_decoder_for
    from wristworld_ros.pipeline.model_saving import weight_files

    with torch.device('meta'):
        generator = WristGenerator.from_config(config.generator)
        autoencoder = autoencoder_from_config(generator.settings.autoencoder)
        files = weight_files(ReconstructionModel.from_config(config.stage1), generator, autoencoder)
        if config.tiny_decoder:
            files[TINY_DECODER] = named_tensors(tiny_decoder_for(autoencoder, **config.tiny_decoder))
        return files


def _check_shapes(wanted: dict, stored: dict[str, Stored], source: str) -> None:
    """What loading would check: names and shapes. UserError names the first key that differs."""
    import torch

    from wristworld_ros.models.state_dict import check_shapes

    def described(tensor: Stored) -> torch.Tensor:
        return torch.empty(tensor.shape, dtype=torch.float32 if 'F' in tensor.dtype else torch.int8, device='meta')

    check_shapes(wanted, {name: described(tensor) for name, tensor in stored.items()}, source)
