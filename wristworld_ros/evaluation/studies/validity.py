"""Does validity tell good anchor sets from bad ones? `python -m wristworld_ros.evaluation.studies.validity EPISODES`.

The anchors of simulated episodes as they are, and spoilt in ways that happen to real rigs; and, where they are given, real
videos of a kind that the model has not learned. For each way: how well the agreement of the anchors and the confidence tell it from
the good sets (AUC), and the share that thresholds refuse. The thresholds of a model (`min_agreement`, `min_confidence` in its
`config.json`) are chosen with it on validation episodes, which are neither those of training nor those of the evaluation. And
whether confidence means something: its rank correlation with how right the objects are in the condition map, over all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wristworld_ros.data.anchor_sources import SynchronizedVideos
from wristworld_ros.data.formats.native import ROBOT, list_episodes, read_episode
from wristworld_ros.data.ground_truth import read_ground_truth
from wristworld_ros.evaluation.table import markdown
from wristworld_ros.pipeline import load_model
from wristworld_ros.pipeline.composite import filled
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
    """Collects agreement and confidence of every set by kind."""

    def __init__(self, model: str):
        self.model = load_model(model, 'cpu')
        self._step = ReconstructionStep(self.model)
        self.agreements: dict[str, list[float]] = {}
        self.confidences: dict[str, list[float]] = {}
        self.seconds: list[dict[str, float]] = []

    def add(self, kind: str, images: np.ndarray) -> Observation:
        self._step.reset()
        observation = self._step(AnchorSet(0, ('first', 'second'), np.ascontiguousarray(images)))
        self.agreements.setdefault(kind, []).append(observation.agreement)
        self.confidences.setdefault(kind, []).append(observation.confidence)
        self.seconds.append(observation.seconds)
        return observation

    def table(self, agreement: float, confidence: float) -> str:
        """Both figures of every kind, their AUC against the good sets, and the share that each threshold and both refuse."""
        heads = ['sets', 'count']
        for name, least in (('agreement', agreement), ('confidence', confidence)):
            heads += [f'median {name}', 'AUC', f'refused at {least:.3g}']
        rows = []
        for kind in self.agreements:
            row, refused = [kind, str(len(self.agreements[kind]))], np.zeros(len(self.agreements[kind]), bool)
            for values, least in ((self.agreements, agreement), (self.confidences, confidence)):
                good, found = np.array(values[GOOD]), np.array(values[kind])
                separation = '-' if kind == GOOD else f'{auc(_comparable(good), _comparable(found)):.2f}'
                refused |= found < least
                row += [f'{np.nanmedian(found):.3f}', separation, f'{(found < least).mean():.0%}']
            rows.append([*row, f'{refused.mean():.0%}'])
        return markdown([*heads, 'refused by either'], rows)


def _comparable(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def rank_correlation(one: list[float], other: list[float]) -> float:
    """Spearman's, over pairs of which both are known."""
    both = np.array([one, other])
    both = both[:, np.isfinite(both).all(0)]
    return float(np.corrcoef(*(np.argsort(np.argsort(x)) for x in both))[0, 1])


def object_psnr(image: np.ndarray, truth: np.ndarray, objects: np.ndarray) -> float:
    """PSNR over the pixels that show objects, dB; NaN where none do. uint8 [h, w, 3] and [h, w], see `CameraTrack`."""
    shown = (objects > 0) & (objects != ROBOT)
    if not shown.any():
        return float('nan')
    error = (image[shown].astype(float) - truth[shown]) / 255
    return float(-10 * np.log10(max((error**2).mean(), 1e-10)))


def main() -> None:
    """Print the table and how the agreement goes with the condition map's own error."""
    parser = argparse.ArgumentParser(prog='python -m wristworld_ros.evaluation.studies.validity', description=__doc__)
    parser.add_argument('episodes', type=Path, nargs='+', help='Folders of simulated episodes with two anchors.')
    parser.add_argument('--model', default='sim_tiny')
    parser.add_argument('--every', type=int, default=4, help='Take every n-th frame of an episode.')
    parser.add_argument('--agreement', type=float, default=0.88, help='Least agreement of a valid set.')
    parser.add_argument('--confidence', type=float, default=0.55, help='Least confidence of a valid set.')
    parser.add_argument(
        '--videos', type=Path, nargs='*', default=[], help='Pairs of real anchor videos, one after another.'
    )
    args = parser.parse_args()
    study, rng = Study(args.model), np.random.default_rng(0)
    hw = study.model.config.wrist_hw
    paths = [path for folder in args.episodes for path in list_episodes(folder)]
    right: list[
        float
    ] = []  # PSNR of the objects in the condition map, beside agreement and confidence of the same sets
    trust: dict[str, list[float]] = {'agreement': [], 'confidence': []}
    kinds: list[str] = []
    for i, path in enumerate(tqdm(paths, unit='episode')):
        truth = read_ground_truth(read_episode(path), hw, anchors=2)
        other = read_ground_truth(read_episode(paths[(i + 1) % len(paths)]), hw, anchors=2)
        for frame in range(0, len(truth), args.every):
            for kind, images in spoilt(truth.images[:, frame], other.images[:, min(frame, len(other) - 1)], rng):
                observation = study.add(kind, images)
                if truth.objects is not None:
                    shown = filled(observation.condition)
                    right.append(object_psnr(shown, truth.wrist[frame], truth.objects[frame]))
                    trust['agreement'].append(observation.agreement)
                    trust['confidence'].append(observation.confidence)
                    kinds.append(kind)
    for pair in zip(args.videos[::2], args.videos[1::2], strict=True):
        for i, (_, moment) in enumerate(SynchronizedVideos(pair)):
            if i % (2 * args.every) == 0:
                study.add(VIDEOS, np.stack(moment))
    print(study.table(args.agreement, args.confidence))
    good = np.array(kinds) == GOOD
    for name, values in trust.items():
        alone = rank_correlation(list(np.array(right)[good]), list(np.array(values)[good]))
        print(
            f'Rank correlation of {name} and PSNR of the objects: good sets {alone:.2f}, all {rank_correlation(right, values):.2f}'
        )
    seconds = {key: np.median([s[key] for s in study.seconds]) for key in ('stage1', 'condition')}
    print('Median time: ' + ', '.join(f'{key} {1000 * value:.1f} ms' for key, value in seconds.items()))


if __name__ == '__main__':
    main()
