"""Condition maps of recordings, made by the model's own stage 1 as a stream would make them: what the generator adapts on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wristworld_ros.data.cache import cache_key
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.reconstruct import ReconstructionStep
from wristworld_ros.runtime.files import clear_leftovers
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.training.augmentation import zoom_and_roll
from wristworld_ros.training.finetune.recordings import Recording
from wristworld_ros.training.stage2.conditions import stacked_maps, write_conditions
from wristworld_ros.types import AnchorSet


@dataclass(frozen=True)
class MapSettings:
    """How condition maps are made.

    maps: of each frame at least: one of each level that is known, then of images alone again with anchors in another order, zoomed and
    rolled, so that the errors of the geometry differ. zoom: largest factor. roll: largest angle, degrees.
    """

    maps: int = 2
    zoom: float = 1.2
    roll: float = 4.0


def prepare_recordings(
    model: WristModel, recordings: Sequence[Recording], folder: Path, weights: str, settings: MapSettings = MapSettings()
) -> list[Path]:  # fmt: skip
    """Write one .npz per recording, with the keys of `stage2.conditions.prepare_conditions`; those that are there are kept.

    Args:
        model: Whose stage 1, hand network and plane sweep run.
        recordings: In order.
        folder: Where the files go.
        weights: Changes with whatever of the model makes maps.
        settings: How they are made.

    Raises:
        UserError: A recording cannot be decoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    targets = []
    for recording in ProgressBar(recordings, desc='condition maps', unit='episode'):
        key = cache_key(
            recording.episode.path, content=recording.content, weights=weights, settings=settings, robot=recording.robot,
            levels=recording.levels,
        )  # fmt: skip
        target = folder / f'{key}.npz'
        if not target.exists():
            _prepare(model, recording, target, settings)
        targets.append(target)
    return targets


def _prepare(model: WristModel, recording: Recording, target: Path, settings: MapSettings) -> None:
    truth = recording.truth(model.config.wrist_hw)
    rng = np.random.default_rng(int(target.stem, 16))
    levels = recording.levels
    plain = recording.sets(truth, levels[0])
    maps = [
        stacked_maps(ReconstructionStep(model), recording.sets(truth, level, int(rng.integers(1 << 30))))
        for level in levels
    ]
    maps += [
        stacked_maps(ReconstructionStep(model), _moved(plain, settings, rng)) for _ in range(settings.maps - len(maps))
    ]
    encoder = model.generator.settings.anchor_encoder
    write_conditions(target, maps, truth, encoder['image_size'] if encoder else 32)


def _moved(sets: list[AnchorSet], settings: MapSettings, rng: np.random.Generator) -> list[AnchorSet]:
    """Sets of images alone with the anchors in random order, each zoomed and rolled by amounts that stay for the episode."""
    height, width = sets[0].images.shape[1:3]
    order = rng.permutation(len(sets[0].names))
    amounts = [(rng.uniform(1, settings.zoom), np.radians(rng.uniform(-settings.roll, settings.roll))) for _ in order]
    K = np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1.0]])
    no_depth = np.zeros((height, width), np.float32)

    def moved(anchors: AnchorSet) -> AnchorSet:
        images = [
            zoom_and_roll(anchors.images[view], no_depth, K, np.eye(4), zoom, roll, (width, height))[0]
            for view, (zoom, roll) in zip(order, amounts, strict=True)
        ]
        return replace(anchors, names=tuple(anchors.names[view] for view in order), images=np.stack(images))

    return [moved(anchors) for anchors in sets]
