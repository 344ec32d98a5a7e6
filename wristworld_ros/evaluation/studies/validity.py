"""Does validity tell good anchor sets from bad ones? `python -m wristworld_ros.evaluation.studies.validity EPISODES`.

The anchors of simulated episodes as they are, and spoilt in ways that happen to real rigs; and, where they are given, real
clips of DROID's kind, which the model has not learned. For each way: how well the agreement of the anchors and the confidence tell it from
the good sets (AUC), and the share that thresholds refuse. The thresholds of a model (`min_agreement`, `min_confidence` in its
`config.json`) are chosen with it on validation episodes, which are neither those of training nor those of the evaluation. And
whether confidence means something: its rank correlation with how right the objects are in the condition map, over all of them (of
real clips, which have no masks, the whole image).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from wristworld_ros.data.formats.native import ROBOT, list_episodes, read_episode
from wristworld_ros.data.ground_truth import read_ground_truth
from wristworld_ros.data.real_clips import list_clips, read_clip
from wristworld_ros.evaluation.metrics import psnr
from wristworld_ros.evaluation.table import markdown
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.pipeline import load_model
from wristworld_ros.pipeline.composite import filled
from wristworld_ros.pipeline.observation import Observation
from wristworld_ros.pipeline.reconstruct import ReconstructionStep
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.types import AnchorSet

GOOD = 'as recorded'
CLIPS = 'real clips'
ALONE = ', one anchor alone'


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
    yield GOOD + ALONE, images[:1]
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
    """Collects agreement and confidence of every set by its kind, and how right its condition map is.

    kinds: of the sets. agreements, confidences: theirs, NaN where unknown. right: PSNR of the objects, dB, NaN where they are not known.
    """

    def __init__(self, model: str):
        self.model = load_model(model, 'cpu')
        self._step = ReconstructionStep(self.model)
        self.kinds: list[str] = []
        self.agreements: list[float] = []
        self.confidences: list[float] = []
        self.right: list[float] = []
        self.seconds: list[dict[str, float]] = []

    def add(self, kind: str, images: np.ndarray, right: Callable[[np.ndarray], float] | None = None) -> Observation:
        """Reconstruct a set by itself; `right` says how right the filled condition map is."""
        self._step.reset()
        names = ('first', 'second')[: len(images)]
        observation = self._step(AnchorSet(0, names, np.ascontiguousarray(images)))
        self.kinds.append(kind)
        self.agreements.append(observation.agreement)
        self.confidences.append(observation.confidence)
        self.right.append(np.nan if right is None else right(filled(observation.condition)))
        self.seconds.append(observation.seconds)
        return observation

    def table(self, agreement: float, confidence: float) -> str:
        """Both figures of every kind, their AUC against the good sets, and the share that each threshold and both refuse."""
        heads = ['sets', 'count']
        for name, least in (('agreement', agreement), ('confidence', confidence)):
            heads += [f'median {name}', 'AUC', f'refused at {least:.3g}']
        kinds, rows = np.array(self.kinds), []
        for kind in dict.fromkeys(self.kinds):
            these = kinds == kind
            row, refused = [kind, str(these.sum())], np.zeros(these.sum(), bool)
            for figures, least in ((self.agreements, agreement), (self.confidences, confidence)):
                values = np.array(figures)
                good, found = _known(values[kinds == GOOD]), _known(values[these])
                separation = '-' if kind == GOOD or not len(found) else f'{auc(good, found):.2f}'
                refused |= values[these] < least
                row += [
                    f'{np.median(found):.3f}' if len(found) else '-',
                    separation,
                    f'{(values[these] < least).mean():.0%}',
                ]
            rows.append([*row, f'{refused.mean():.0%}'])
        return markdown([*heads, 'refused by either'], rows)

    def correlations(self) -> str:
        """How agreement and confidence go with what is right."""
        good, lines = np.array(self.kinds) == GOOD, []
        for name, figures in (('agreement', self.agreements), ('confidence', self.confidences)):
            values, right = np.array(figures), np.array(self.right)
            alone, together = rank_correlation(right[good], values[good]), rank_correlation(right, values)
            lines.append(
                f'Rank correlation of {name} and PSNR of the objects: good sets {alone:.2f}, all {together:.2f}'
            )
        return '\n'.join(lines)


def _known(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, over pairs of which both are known."""
    both = np.isfinite(one) & np.isfinite(other)
    return float(spearmanr(one[both], other[both]).statistic)


def object_psnr(image: np.ndarray, truth: np.ndarray, objects: np.ndarray) -> float:
    """PSNR over the pixels that show objects, dB; NaN where none do. uint8 [h, w, 3] and [h, w], see `CameraTrack`."""
    shown = (objects > 0) & (objects != ROBOT)
    return _image_psnr(image[shown][None], truth[shown][None]) if shown.any() else float('nan')


def _image_psnr(image: np.ndarray, truth: np.ndarray) -> float:
    return float(psnr(image[None], truth[None])[0])


def add_episodes(study: Study, paths: list[Path], every: int) -> None:
    """Add every n-th frame of simulated episodes, good and spoilt."""
    hw, rng = study.model.config.wrist_hw, np.random.default_rng(0)
    for i, path in enumerate(ProgressBar(paths, unit='episode')):
        truth = read_ground_truth(read_episode(path), hw, anchors=2)
        other = read_ground_truth(read_episode(paths[(i + 1) % len(paths)]), hw, anchors=2)
        for frame in range(0, len(truth), every):
            right = None
            if truth.objects is not None:
                right = partial(object_psnr, truth=truth.wrist[frame], objects=truth.objects[frame])
            for kind, images in spoilt(truth.images[:, frame], other.images[:, min(frame, len(other) - 1)], rng):
                study.add(kind, images, right)


def add_clips(study: Study, folder: Path, frames: int) -> None:
    """Add so many frames of each real clip, from both anchors and from the first alone."""
    height, width = study.model.config.wrist_hw
    for name in ProgressBar(list_clips(folder), unit='clip'):
        clip = read_clip(folder, name, frames)
        for frame in range(len(clip)):
            right = partial(_image_psnr, truth=resize_images(clip.wrist[frame][None], (height, width))[0])
            study.add(CLIPS, clip.images[:, frame], right)
            study.add(CLIPS + ALONE, clip.images[:1, frame], right)


def main() -> None:
    """Print the table and how agreement and confidence go with the condition map's own error."""
    parser = argparse.ArgumentParser(prog='python -m wristworld_ros.evaluation.studies.validity', description=__doc__)
    parser.add_argument('episodes', type=Path, nargs='+', help='Folders of simulated episodes with two anchors.')
    parser.add_argument('--model', default='sim_tiny')
    parser.add_argument('--every', type=int, default=4, help='Take every n-th frame of an episode.')
    parser.add_argument('--agreement', type=float, default=0.88, help='Least agreement of a valid set.')
    parser.add_argument('--confidence', type=float, default=0.55, help='Least confidence of a valid set.')
    parser.add_argument('--clips', type=Path, help="Folder of real clips of DROID's kind (docs/evaluation.md).")
    parser.add_argument('--frames', type=int, default=4, help='Of each real clip.')
    args = parser.parse_args()
    study = Study(args.model)
    add_episodes(study, [path for folder in args.episodes for path in list_episodes(folder)], args.every)
    if args.clips is not None:
        add_clips(study, args.clips, args.frames)
    print(study.table(args.agreement, args.confidence))
    print(study.correlations())
    seconds = {key: np.median([s[key] for s in study.seconds]) for key in ('stage1', 'condition')}
    print('Median time: ' + ', '.join(f'{key} {1000 * value:.1f} ms' for key, value in seconds.items()))


if __name__ == '__main__':
    main()
