"""Condition maps of recordings, made by the model's own stage 1 as a stream would make them: what the generator adapts on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from wristworld_ros.data.cache import cache_key
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.reconstruct import ReconstructionStep
from wristworld_ros.runtime.files import clear_leftovers, write_atomically
from wristworld_ros.training.augmentation import zoom_and_roll
from wristworld_ros.training.finetune.recordings import Recording
from wristworld_ros.types import AnchorSet, ConditionMap


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
    for recording in tqdm(recordings, desc='condition maps', unit='episode'):
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
    maps = [_maps(model, recording.sets(truth, level, int(rng.integers(1 << 30)))) for level in levels]
    maps += [_maps(model, _moved(plain, settings, rng)) for _ in range(settings.maps - len(maps))]
    image, depth, trust = (np.stack(parts) for parts in zip(*maps, strict=True))
    encoder = model.generator.settings.anchor_encoder
    size = encoder['image_size'] if encoder else 32
    with write_atomically(target) as part:
        np.savez(
            part,
            condition=image,
            depth=depth,
            trust=trust,
            anchors=np.stack([resize_images(frames, (size, size)) for frames in truth.images]),
            wrist=truth.wrist,
            objects=np.zeros(truth.wrist.shape[:3], np.uint8) if truth.objects is None else truth.objects,
        )


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


@torch.inference_mode()
def _maps(model: WristModel, sets: list[AnchorSet]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8 [T, h, w, 3], float16 [T, h, w], uint8 [T, h, w]: image, depth and trust as the generator will be given them."""
    step = ReconstructionStep(model)
    maps = [step(anchors).condition for anchors in sets]

    def trust(m: ConditionMap) -> torch.Tensor:
        return m.trust if model.generator.settings.condition_confidence else (m.depth > 0).float()

    return (
        np.stack([m.image.cpu().numpy() for m in maps]),
        np.stack([m.depth.cpu().numpy().astype(np.float16) for m in maps]),
        np.stack([(255 * trust(m)).round().clamp(0, 255).to(torch.uint8).cpu().numpy() for m in maps]),
    )
