"""The card (README.md) of a converted model: what it is made of, under which licences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wristworld_ros.apps.convert.settings import ConvertSettings
from wristworld_ros.pipeline import ModelConfig


@dataclass
class Source:
    """A file that was converted. licence: in words; sha256: of the whole file, '' until it is known."""

    path: Path
    part: str
    licence: str
    sha256: str = ''


@dataclass(frozen=True)
class Written:
    """A weight file of the model directory. size: bytes."""

    name: str
    size: int
    sha256: str


def card(config: ModelConfig, sources: list[Source], written: list[Written], settings: ConvertSettings) -> str:
    """The card as Markdown."""
    lines = [f'# {config.name}', '', 'Converted by `wristworld convert`; the weights are those of the files below.', '']
    lines += ['## Sources', '', '| file | part | licence | sha256 |', '| --- | --- | --- | --- |']
    lines += [f'| `{s.path.parent.name}/{s.path.name}` | {s.part} | {s.licence} | `{s.sha256}` |' for s in sources]
    lines += ['', 'What is made from a file stands under its licence: read it before you use or pass on the model.', '']
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
        lines += ['', f'**Not a wrist camera yet**: never trained are {", ".join(config.untrained)}.']
    if not (config.stage1 and config.generator):
        lines += ['', f'**One stage alone** (stage {1 if config.stage1 else 2}): a wrist camera needs both.']
    return '\n'.join(lines) + '\n'
