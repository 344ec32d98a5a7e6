"""The statistics that LeRobot's formats want: of each feature in each episode, and of all episodes together.

Every image that is counted is counted whole, as a histogram, so that an episode of any length takes the same memory and the numbers
are exact. Of all episodes together the quantiles are the mean of the episodes' own, weighted by their counts, as lerobot has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

QUANTILES = {'q01': 0.01, 'q10': 0.10, 'q50': 0.50, 'q90': 0.90, 'q99': 0.99}
NAMES_V21 = ('min', 'max', 'mean', 'std', 'count')
NAMES = (*NAMES_V21, *QUANTILES)
_MOST_SAMPLES = 100  # images of an episode that count
_MOST_SIDE = 300  # pixels; larger images count with every second, third, ... pixel

Stats = dict[str, np.ndarray]


def vector_stats(values: np.ndarray) -> Stats:
    """Statistics of a column: values [T, N] or [T]; each is float64 [N], `count` int64 [1].

    What is not finite makes its entry's statistics NaN: a check says so.
    """
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    found = {'min': rows.min(0), 'max': rows.max(0), 'mean': rows.mean(0), 'std': rows.std(0)}
    found['count'] = np.array([len(rows)])
    return found | dict(zip(QUANTILES, np.quantile(rows, list(QUANTILES.values()), axis=0)))


def shaped_as_image(stats: Stats) -> Stats:
    """Statistics of a number in the shape of an image's, [3, 1, 1]; `count` as it is. lerobot 0.3, which reads v2.1, takes every feature with
    'image' in its name for one, and opens no set whose statistics of it have another shape."""
    return {
        name: value if name == 'count' else np.broadcast_to(value.reshape(1, 1, 1), (3, 1, 1)).copy()
        for name, value in stats.items()
    }


class HistogramStats:
    """Statistics of one camera's images in one episode, while they come.

    Args:
        values: float64 [L], what the levels of a pixel mean, rising: 0 to 1 for 256 levels of colour.
        channels: Of an image.
        frames: How many images the episode has.

    Attributes:
        chosen: Numbers of the images that are to be counted, evenly spread.
    """

    def __init__(self, values: np.ndarray, channels: int, frames: int):
        self.chosen = frozenset(np.linspace(0, frames - 1, min(frames, _MOST_SAMPLES)).round().astype(int).tolist())
        self._values, self._images = values, 0
        self._counts = np.zeros((channels, len(values)), np.int64)

    def add(self, image: np.ndarray) -> None:
        """Count an image of integer levels, [H, W] or [H, W, channels]."""
        step = -(-max(image.shape[:2]) // _MOST_SIDE)
        pixels = image[::step, ::step].reshape(-1, len(self._counts))
        for channel, counts in enumerate(self._counts):
            counts += np.bincount(pixels[:, channel], minlength=len(self._values))
        self._images += 1

    def result(self) -> Stats:
        """Each float64 [channels, 1, 1]; `count` int64 [1] is of images."""
        shares = self._counts / self._counts.sum(1, keepdims=True)
        reached = np.cumsum(shares, 1)
        mean = shares @ self._values
        found = {
            'min': np.array([self._values[np.flatnonzero(row)[0]] for row in shares]),
            'max': np.array([self._values[np.flatnonzero(row)[-1]] for row in shares]),
            'mean': mean,
            'std': np.sqrt(np.maximum((shares * (self._values - mean[:, None]) ** 2).sum(1), 0)),
        }
        for name, share in QUANTILES.items():
            places = (reached < share - 1e-12).sum(1).clip(max=len(self._values) - 1)
            found[name] = self._values[places]
        return {name: row.reshape(-1, 1, 1) for name, row in found.items()} | {'count': np.array([self._images])}


def combine(episodes: Sequence[Stats]) -> Stats:
    """Statistics of one feature in several episodes together."""
    counts = np.array([stats['count'][0] for stats in episodes], np.float64)
    shares = counts / counts.sum()

    def weighted(rows: np.ndarray) -> np.ndarray:
        return np.tensordot(shares, rows, axes=1)

    means = np.stack([stats['mean'] for stats in episodes])
    mean = weighted(means)
    spread = np.stack([stats['std'] for stats in episodes]) ** 2 + (means - mean) ** 2
    found = {
        'min': np.min([stats['min'] for stats in episodes], axis=0),
        'max': np.max([stats['max'] for stats in episodes], axis=0),
        'mean': mean,
        'std': np.sqrt(weighted(spread)),
        'count': np.array([int(counts.sum())]),
    }
    return found | {name: weighted(np.stack([stats[name] for stats in episodes])) for name in QUANTILES}


def as_lists(stats: Stats, names: Sequence[str] = NAMES) -> dict[str, Any]:
    """Statistics as JSON and Parquet hold them."""
    return {name: stats[name].tolist() for name in names}
