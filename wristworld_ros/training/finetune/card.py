"""The adapted model's directory: weights, mean wrist image, and a card that says what it learnt from and what that changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from wristworld_ros.data.images import write_image
from wristworld_ros.evaluation.baselines import MEAN_WRIST
from wristworld_ros.evaluation.table import EvaluationTable
from wristworld_ros.models.config import ModelConfig
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.model_saving import save_model
from wristworld_ros.runtime.files import write_text
from wristworld_ros.training.checkpoint import read_tensors
from wristworld_ros.training.finetune.recordings import Recording, Split
from wristworld_ros.training.finetune.settings import FinetuneSettings

CARD = 'README.md'


def write_weights(folder: Path, model: WristModel, mean: np.ndarray) -> dict[str, str]:
    """Write everything but the card; returns the sha256 of each weight file."""
    hashes = save_model(model, folder)
    write_image(folder / MEAN_WRIST, mean)
    return hashes


def write_card(
    folder: Path, settings: FinetuneSettings, source: ModelConfig, split: Split, what: list[str], table: EvaluationTable,
    hashes: Mapping[str, str], before: Path,
) -> None:  # fmt: skip
    """Write the card.

    Args:
        folder: The model directory.
        settings: Of the run.
        source: Configuration of the model that it started from.
        split: The episodes.
        what: Sentences about what was trained, a paragraph each.
        table: Of the held-out episodes.
        hashes: sha256 of each weight file.
        before: Directory of the model that it started from.
    """
    name = ModelConfig.read(folder / 'config.json').name
    changed = {file for file in hashes if not _same_weights(folder / file, before / file)}
    text = [
        f'# {name}', f'`{source.name}`, adapted to recordings by `wristworld finetune`.',
        '| file | sha256 | |\n| --- | --- | --- |\n'
        + '\n'.join(f'| `{f}` | `{d}` | {"adapted" if f in changed else "as before"} |' for f, d in hashes.items()),
        f'Licence: the model that it started from has {source.licence}. It has learnt from the recordings below, whose licence goes with '
        'it: state that one here before you pass it on.',
        '## Learnt from',
        f'Recordings in `{Path(settings.data).name}`, with the wrist camera as the truth. {len(split.adapt)} episodes: '
        f'{_names(split.adapt)}. Of these, {_names(split.validation)} chose when to stop.', *what,
        '## Measured',
        f'On {len(split.held_out)} episodes that nothing was learnt from or chosen by: {_names(split.held_out)}. '
        'Whether a frame is valid is judged by the thresholds of the model that it started from.', table.markdown(),
    ]  # fmt: skip
    write_text(folder / CARD, '\n\n'.join(text))


def _same_weights(one: Path, other: Path) -> bool:
    """Whether two files hold the same weights, in the precision of the first; their bytes may differ all the same."""
    if not other.exists():
        return False
    ours, theirs = read_tensors(one), read_tensors(other)
    return ours.keys() == theirs.keys() and all(torch.equal(t, theirs[name].to(t.dtype)) for name, t in ours.items())


def _names(recordings: Sequence[Recording]) -> str:
    return ', '.join(f'{r.name} ({len(r)} frames)' for r in recordings)
