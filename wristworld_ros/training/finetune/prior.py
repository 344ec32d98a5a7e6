"""The mean wrist image of recordings, and how much the model's own condition maps are worth beside it: least squares, no training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from wristworld_ros.data.cache import cache_key
from wristworld_ros.pipeline.prior import WristPrior, brightness, light_of
from wristworld_ros.runtime.files import clear_leftovers, write_atomically
from wristworld_ros.types import ConditionMap

_KNOTS = 5  # of the weight over trust
_RIDGE = 1e-3  # of the mean diagonal: a trust that never occurs has no weight


def mean_image(videos: Iterable[np.ndarray]) -> np.ndarray:
    """The mean image of videos [T, h, w, 3], 0 to 255, each counting alike, uint8 [h, w, 3]."""
    mean = np.mean([video.mean(0, dtype=np.float64) for video in videos], axis=0)
    return np.rint(mean).clip(0, 255).astype(np.uint8)


def fit_prior(files: Sequence[Path]) -> WristPrior:
    """The mean image in the light of the anchors, and the weights that bring mean image and condition maps together closest to the true images.

    What the maps of an episode add is measured against the mean of the other episodes, as it will be of an unknown one.

    Args:
        files: Of `prepare_recordings`; each counts alike.
    """
    lights = [_lights(path) for path in files]
    light = float(np.mean([np.mean(each) for each in lights]))
    means = [
        _load(path, 'wrist').mean(0, dtype=np.float64) * brightness(light, float(np.mean(each)))
        for path, each in zip(files, lights, strict=True)
    ]
    gram, right = np.zeros((_KNOTS, _KNOTS)), np.zeros(_KNOTS)
    for place, path in enumerate(files):
        others = np.mean([mean for i, mean in enumerate(means) if i != place] or means, 0)
        lit = [np.minimum(others * brightness(each, light), 255) for each in lights[place]]
        matrix, vector = _normal_equations(path, lit)
        gram, right = gram + matrix, right + vector
    ridge = _RIDGE * np.trace(gram) / _KNOTS + 1e-9
    weights = np.clip(np.linalg.solve(gram + ridge * np.eye(_KNOTS), right), 0, 1)
    return WristPrior(torch.from_numpy(mean_image(m[None] for m in means)), tuple(float(w) for w in weights), light)


def _lights(path: Path) -> list[float]:
    """Of each frame's anchors, see `light_of`."""
    return [light_of(images) for images in np.swapaxes(_load(path, 'anchors'), 0, 1)]


def _normal_equations(path: Path, means: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Of the weights of one episode, per pixel: the hat functions of trust times what a map differs by from the mean image of its frame."""
    wrist, maps, depths, trusts = (_load(path, name) for name in ('wrist', 'condition', 'depth', 'trust'))
    gram, right, count = np.zeros((_KNOTS, _KNOTS)), np.zeros(_KNOTS), 0
    knots = np.linspace(0, 1, _KNOTS)
    for image, depth, trust in zip(maps, depths, trusts, strict=True):
        for frame, mean in enumerate(means):
            seen = depth[frame] > 0
            difference = (image[frame] - mean)[seen]
            wanted = (wrist[frame] - mean)[seen]
            hats = np.maximum(0, 1 - np.abs(trust[frame][seen][:, None] / 255 - knots) * (_KNOTS - 1))
            gram += (hats * (difference**2).sum(1)[:, None]).T @ hats
            right += hats.T @ (difference * wanted).sum(1)
            count += wrist[frame].size
    return gram / count, right / count


def with_prior(files: Sequence[Path], prior: WristPrior, folder: Path) -> list[Path]:
    """Files of `prepare_recordings` whose maps lie over the mean image, as the generator will be given them; those there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    targets = []
    for path in files:
        key = cache_key(path, weights=prior.weights, light=prior.light, image=prior.image.tolist())
        target = folder / f'{key}.npz'
        if not target.exists():
            _write_over(path, prior, target)
        targets.append(target)
    return targets


def _write_over(path: Path, prior: WristPrior, target: Path) -> None:
    with np.load(path) as f:
        arrays = {name: f[name] for name in f.files}
    for at in np.ndindex(arrays['depth'].shape[:2]):
        depth, trust = (torch.from_numpy(arrays[name][at]).float() for name in ('depth', 'trust'))
        condition = ConditionMap(torch.from_numpy(arrays['condition'][at]), depth, confidence=trust / 255)
        over = prior(condition, arrays['anchors'][:, at[1]])
        arrays['condition'][at], arrays['depth'][at] = over.image.numpy(), over.depth.numpy()
        arrays['trust'][at] = (255 * over.trust).round().to(torch.uint8).numpy()
    with write_atomically(target) as part:
        np.savez(part, **arrays)


def _load(path: Path, name: str) -> np.ndarray:
    with np.load(path) as f:
        return f[name]
