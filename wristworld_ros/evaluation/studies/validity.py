"""Does validity tell good anchor sets from bad ones? `python -m wristworld_ros.evaluation.studies.validity EPISODES`.

The anchors of simulated episodes as they are, and spoilt in ways that happen to real rigs; and, where they are given, real
videos of a kind that the model has not learned. For each way: how well the agreement of the anchors' clouds tells it from
the good sets (AUC), and the share that a threshold refuses. The threshold of a model (`min_agreement` in its
`config.json`) is chosen with it on validation episodes, which are neither those of training nor those of the evaluation.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wristworld_ros.data.anchor_sources import SynchronizedVideos
from wristworld_ros.data.formats.native import list_episodes, read_episode
from wristworld_ros.data.ground_truth import read_ground_truth
from wristworld_ros.evaluation.metrics import psnr
from wristworld_ros.evaluation.table import markdown
from wristworld_ros.pipeline import load_model
from wristworld_ros.pipeline.observation import Observation
from wristworld_ros.pipeline.reconstruct import ReconstructionStep
from wristworld_ros.types import AnchorSet

GOOD = 'as recorded'
VIDEOS = 'real videos'


def spoilt(images: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Every kind of set that is made of one good one.

    Args:
        images: uint8 [2, H, W, 3], of two anchors.
        others: The same of another scene.
        rng: For noise.

    Yields:
        The kind, and its images.
    """
    first, second = images
    noise = rng.integers(0, 256, images.shape, dtype=np.uint8)
    yield GOOD, images
    yield 'anchors in the other order', images[::-1]
    yield 'second anchor of another scene', np.stack([first, others[1]])
    yield 'upside down', images[:, ::-1, ::-1]
    yield 'second anchor upside down', np.stack([first, second[::-1, ::-1]])
    yield 'mirrored', images[:, :, ::-1]
    yield 'second anchor black', np.stack([first, np.zeros_like(second)])
    yield 'second anchor noise', np.stack([first, noise[1]])
    yield 'both anchors noise', noise


def auc(good: np.ndarray, bad: np.ndarray) -> float:
    """Probability that a good set has the higher figure than a bad one; half for equal ones."""
    return float(((good[:, None] > bad).mean() + (good[:, None] >= bad).mean()) / 2)


class Study:
    """Collects the agreement of every set by kind, and how right the good ones' condition maps are."""

    def __init__(self, model: str):
        self.model = load_model(model, 'cpu')
        self._step = ReconstructionStep(self.model)
        self.agreements: dict[str, list[float]] = {}
        self.seconds: list[dict[str, float]] = []

    def add(self, kind: str, images: np.ndarray) -> Observation:
        observation = self._step(AnchorSet(0, ('first', 'second'), np.ascontiguousarray(images)))
        self.agreements.setdefault(kind, []).append(observation.agreement)
        self.seconds.append(observation.seconds)
        return observation

    def table(self, thresholds: list[float]) -> str:
        """AUC of every kind against the good sets, and the share that each threshold refuses."""
        good = _comparable(self.agreements[GOOD])
        heads = ['sets', 'count', 'median agreement', 'AUC', *(f'refused at {t:.3g}' for t in thresholds)]
        rows = []
        for kind, values in self.agreements.items():
            found = _comparable(values)
            separation = '-' if kind == GOOD else f'{auc(good, found):.2f}'
            refused = [f'{(found < t).sum() / len(values):.0%}' for t in thresholds]
            rows.append([kind, str(len(values)), f'{np.median(found):.3f}', separation, *refused])
        return markdown(heads, rows)


def _comparable(values: list[float]) -> np.ndarray:
    found = np.array(values)
    return found[np.isfinite(found)]


def main() -> None:
    """Print the table and how the agreement goes with the condition map's own error."""
    parser = argparse.ArgumentParser(prog='python -m wristworld_ros.evaluation.studies.validity', description=__doc__)
    parser.add_argument('episodes', type=Path, nargs='+', help='Folders of simulated episodes with two anchors.')
    parser.add_argument('--model', default='sim_tiny')
    parser.add_argument('--every', type=int, default=4, help='Take every n-th frame of an episode.')
    parser.add_argument('--thresholds', default='0.86,0.87,0.88,0.89,0.9')
    parser.add_argument(
        '--videos', type=Path, nargs='*', default=[], help='Pairs of real anchor videos, one after another.'
    )
    args = parser.parse_args()
    study, rng = Study(args.model), np.random.default_rng(0)
    hw = study.model.config.wrist_hw
    paths = [path for folder in args.episodes for path in list_episodes(folder)]
    errors, agreements = [], []
    for i, path in enumerate(tqdm(paths, unit='episode')):
        truth = read_ground_truth(read_episode(path), hw, anchors=2)
        other = read_ground_truth(read_episode(paths[(i + 1) % len(paths)]), hw, anchors=2)
        for frame in range(0, len(truth), args.every):
            for kind, images in spoilt(truth.images[:, frame], other.images[:, min(frame, len(other) - 1)], rng):
                observation = study.add(kind, images)
                if kind == GOOD:
                    errors.append(psnr(observation.condition.image.numpy()[None], truth.wrist[frame : frame + 1])[0])
                    agreements.append(observation.agreement)
    for pair in zip(args.videos[::2], args.videos[1::2], strict=True):
        for i, (_, moment) in enumerate(SynchronizedVideos(pair)):
            if i % (2 * args.every) == 0:
                study.add(VIDEOS, np.stack(moment))
    print(study.table([float(t) for t in args.thresholds.split(',')]))
    found, dB = np.array(agreements), np.array(errors)
    for threshold in (float(t) for t in args.thresholds.split(',')):
        refused = found < threshold
        means = [f'{dB[part].mean():.1f} dB' if part.any() else '-' for part in (refused, ~refused)]
        print(f'Condition maps of good sets at {threshold:.3g}: refused {means[0]}, accepted {means[1]}')
    ranks = np.stack([np.argsort(np.argsort(x)) for x in (errors, agreements)])
    correlation = np.asarray(np.corrcoef(ranks))[0, 1]
    print(f'\nRank correlation of agreement and PSNR of the condition map, good sets: {correlation:.2f}')
    seconds = {key: np.median([s[key] for s in study.seconds]) for key in ('stage1', 'condition')}
    print('Median time: ' + ', '.join(f'{key} {1000 * value:.1f} ms' for key, value in seconds.items()))


if __name__ == '__main__':
    main()
