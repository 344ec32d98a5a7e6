"""A trained light decoder goes into its model's directory, and what it reaches into the model's card."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from wristworld_ros.models.config import TINY_DECODER, ModelConfig
from wristworld_ros.models.state_dict import named_tensors
from wristworld_ros.models.wan.tiny_decoder import TinyDecoder
from wristworld_ros.training.decoder.cost import DecodingCost

HEADING = '## Light decoder'


@dataclass(frozen=True)
class DecoderResult:
    """What a run came to. data: in words. start, loss: terms of `decoder_losses` on the held-out clips, untrained and
    trained. pictures: of `picture_figures`."""

    data: str
    steps: int
    clips: int
    held_out: int
    frames: int
    start: dict[str, float]
    loss: dict[str, float]
    pictures: dict[str, float]
    cost: DecodingCost


def stored(decoder: TinyDecoder) -> dict[str, torch.Tensor]:
    """The decoder's tensors as they go on disk, float16. Raises ValueError for one that is not finite."""
    tensors = {name: t.detach().to('cpu', torch.float16).contiguous() for name, t in named_tensors(decoder).items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f'{TINY_DECODER}: {name} is not finite; train again at a lower --learning-rate.')
    return tensors


def install(decoder: TinyDecoder, width: int, blocks: int, folder: Path, result: DecoderResult) -> str:
    """Write the weights, the configuration and the card's section; returns the weights' sha256.

    Each file is replaced as a whole, and in between `config.json` names no light decoder: what loads the model meanwhile
    finds the old one, none, or the new one, never a mixture.
    """
    config = ModelConfig.read(folder / 'config.json')
    tensors = stored(decoder)
    part = _part(folder / TINY_DECODER)
    try:
        save_file(tensors, part, metadata={'format': 'pt'})
        part.chmod(0o644)  # safetensors leaves it to its owner alone
        digest = hashlib.sha256(part.read_bytes()).hexdigest()
        if config.tiny_decoder:
            _write_config(replace(config, tiny_decoder={}), folder)
        os.replace(part, folder / TINY_DECODER)
    finally:
        part.unlink(missing_ok=True)
    _write_config(replace(config, tiny_decoder={'width': width, 'blocks': blocks}), folder)
    card = folder / 'README.md'
    text = card.read_text() if card.is_file() else f'# {config.name}\n'
    size = (folder / TINY_DECODER).stat().st_size
    _replace_text(card, with_section(text, section(result, width, blocks, digest, size)))
    return digest


def section(result: DecoderResult, width: int, blocks: int, digest: str, size: int) -> str:
    """The card's section as Markdown. size: bytes of the weights."""
    r, c, p = result, result.cost, result.pictures
    return '\n'.join(
        [
            HEADING,
            '',
            "Trained by `wristworld train tiny-decoder` on what this model's own autoencoder draws. "
            'The setting `decoder` chooses it (`light`).',
            '',
            '| file | size | sha256 |',
            '| --- | --- | --- |',
            f'| `{TINY_DECODER}` | {size / 1e6:.1f} MB | `{digest}` |',
            '',
            f'- Sizes: width {width}, {blocks} block{"s" * (blocks > 1)} a level.',
            f'- Data: {r.data}; {r.clips} clips of {r.frames} frames to train on, {r.held_out} held out, pictures '
            f'{c.hw[1]}x{c.hw[0]}. {r.steps} steps.',
            f'- Operations of a latent frame: full {c.full_operations / 1e9:.3g} G, light {c.tiny_operations / 1e9:.3g} G, '
            f'ratio {c.operations_ratio:.1f}.',
            f'- Time of a latent frame on {c.machine}: full {c.full_seconds * 1e3:.3g} ms, light '
            f'{c.tiny_seconds * 1e3:.3g} ms, ratio {c.time_ratio:.1f}.',
            '',
            'On the held-out clips, pictures in -1 to 1:',
            '',
            '| against the full decoder | untrained | trained |',
            '| --- | --- | --- |',
            f'| L1 | {r.start["l1"]:.4f} | {r.loss["l1"]:.4f} |',
            f'| L1 of edges | {r.start["edges"]:.4f} | {r.loss["edges"]:.4f} |',
            f'| L1 of changes between frames | {r.start["motion"]:.4f} | {r.loss["motion"]:.4f} |',
            '',
            '| PSNR, dB | light | full |',
            '| --- | --- | --- |',
            f'| against the full decoder | {p["tiny_full"]:.2f} | |',
            f'| against the recorded pictures | {p["tiny_original"]:.2f} | {p["full_original"]:.2f} |',
            '',
        ]
    )


def with_section(card: str, section: str) -> str:
    """A card with the section in the place of its older one, or at its end."""
    older = re.compile(rf'^{re.escape(HEADING)}\n.*?(?=^## |\Z)', re.MULTILINE | re.DOTALL)
    if older.search(card):
        after = '\n' if older.search(card).end() < len(card) else ''
        return older.sub(lambda _: section + after, card, count=1)
    return card.rstrip('\n') + '\n\n' + section


def _part(path: Path) -> Path:
    return path.with_name(f'.{path.name}.part')


def _replace_text(path: Path, text: str) -> None:
    part = _part(path)
    part.write_text(text)
    os.replace(part, path)


def _write_config(config: ModelConfig, folder: Path) -> None:
    part = _part(folder / 'config.json')
    config.write(part)
    os.replace(part, folder / 'config.json')
