"""The page of a run: what the new camera shows, how far it is to be trusted, and which episodes somebody should look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wristworld_ros.apps.augment.result import EpisodeResult
from wristworld_ros.data.episode import DataSet
from wristworld_ros.data.images import data_uri
from wristworld_ros.errors import UserError, require_package
from wristworld_ros.geometry.images import resize_images

_COLUMNS, _HEIGHT, _GAP = 8, 96, 4  # of a contact sheet: images, and pixels
_PAPER = 255
_SUSPECTS = 20  # episodes that are listed at most
_LEAST_VALID = 0.5  # share of valid frames below which an episode is listed
_LARGEST_STEP = 0.15  # metres between two frames: farther than an arm moves
_STEPS = 0.3  # metres, the end of their histogram
_BINS = 10


@dataclass(frozen=True)
class _Histogram:
    """title: of what. counts: of episodes, in `_BINS` equal parts from 0 to the end. told: of all episodes, for the caption.
    end: the right end of the axis. mean: over all frames, of what is said of each."""

    title: str
    counts: list[int]
    told: str
    end: str = '1'
    mean: float | None = None

    @property
    def bars(self) -> list[tuple[int, float, int]]:
        """Place, height (0 to 1) and count of each bar."""
        most = max(self.counts) or 1
        return [(place, count / most, count) for place, count in enumerate(self.counts)]


def require_page_packages() -> None:
    """Raise MissingPackageError where a library that the page needs is not installed."""
    require_package('jinja2', 'view', 'The page of the run (--no-page leaves it out)')


def write_page(
    path: Path, data: DataSet, name: str, camera: str, run: dict[str, Any], results: Sequence[EpisodeResult]
) -> None:
    """Write the page, one file with its images in it; the same results give the same bytes.

    Args:
        path: The file; its folder exists.
        data: The new set.
        name: What the page calls it.
        camera: The new camera in it.
        run: Of `identity.run_identity`.
        results: Of all episodes, in order.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    frames = sum(one.frames for one in results)
    statuses = Counter[str]()
    for one in results:
        statuses.update(one.statuses)
    text = environment.get_template('page.html.j2').render(
        run=run, name=name, key=camera, episodes=len(results), frames=frames,
        valid=sum(one.valid for one in results) / max(frames, 1), statuses=statuses.most_common(),
        histograms=_histograms(results), sheets=_sheets(data, run['settings']['anchors'][0], camera, results), suspects=suspects(results)[:_SUSPECTS],
        more=max(len(suspects(results)) - _SUSPECTS, 0),
    )  # fmt: skip
    path.write_text(text)


def suspects(results: Sequence[EpisodeResult]) -> list[tuple[EpisodeResult, str]]:
    """Episodes that somebody should look at, the worst first, and why, a sentence each."""
    found = []
    for one in results:
        share = one.valid / max(one.frames, 1)
        if one.problem:
            found.append((0, 0.0, one, f'It is black: {one.problem}'))
        elif share < _LEAST_VALID:
            why = max((name for name in one.statuses if name != 'VALID'), key=lambda name: one.statuses[name])
            found.append((1, share, one, f'{share:.0%} of its frames are valid; of the others most are {why}.'))
        elif one.doubts:
            found.append((2, 0.0, one, f'Calibration was not used: {"; ".join(one.doubts)}.'))
        elif one.step > _LARGEST_STEP:
            found.append((3, -one.step, one, f'Its camera moves {one.step:.2f} m between two frames.'))
    return [(one, why) for _, _, one, why in sorted(found, key=lambda entry: (*entry[:2], entry[2].episode))]


def _histograms(results: Sequence[EpisodeResult]) -> list[_Histogram]:
    frames = np.array([one.frames for one in results], np.float64)
    found = []
    for title, values in (
        ('valid frames', [one.valid / max(one.frames, 1) for one in results]),
        ('confidence', [one.confidence for one in results]),
        ('coverage', [one.coverage for one in results]),
    ):
        counts, _ = np.histogram(np.clip(values, 0, 1), _BINS, (0, 1))
        mean = float(np.average(values, weights=np.maximum(frames, 1)))
        found.append(_Histogram(title, counts.tolist(), f'mean {mean:.2f}', mean=mean))
    steps = [one.step for one in results]
    counts, _ = np.histogram(np.clip(steps, 0, _STEPS), _BINS, (0, _STEPS))
    told = f'at most {100 * max(steps):.0f} cm; an arm moves {100 * _LARGEST_STEP:.0f} cm or less'
    found.append(
        _Histogram('farthest move between two frames', counts.tolist(), told, f'{100 * _STEPS:.0f} cm and more')
    )
    return found


def _sheets(data: DataSet, anchor: str, camera: str, results: Sequence[EpisodeResult]) -> list[tuple[str, str]]:
    """Captions and images of the episodes of best, median and worst confidence; each once."""
    order = sorted(range(len(results)), key=lambda place: (-results[place].confidence, place))
    found: dict[int, tuple[str, str]] = {}
    for word, place in (('Best', order[0]), ('Median', order[len(order) // 2]), ('Worst', order[-1])):
        one = results[place]
        if place not in found:
            caption = (
                f'{word}: episode {one.episode}, confidence {one.confidence:.2f}, coverage {one.coverage:.0%}, '
                f'{one.valid} of {one.frames} frames valid'
            )
            found[place] = caption, data_uri(_sheet(data, place, anchor, camera))
    return list(found.values())


def _sheet(data: DataSet, place: int, anchor: str, camera: str) -> np.ndarray:
    """A row of images of the first anchor, one of the new camera, and one of each real wrist camera; where one cannot be read, it is left out."""
    rows: list[np.ndarray] = []
    try:
        episode = data.episode(place)
    except UserError:
        return np.full((_HEIGHT, _HEIGHT, 3), _PAPER, np.uint8)
    for key in (anchor, camera, *(name for name in episode.names('wrist') if name not in (anchor, camera))):
        try:
            images = episode.read(key, np.linspace(0, len(episode) - 1, _COLUMNS).round().astype(int))
        except UserError:
            continue
        width = max(round(images.shape[2] * _HEIGHT / images.shape[1]), 1)
        rows.append(resize_images(images, (_HEIGHT, width)))
    if not rows:
        return np.full((_HEIGHT, _HEIGHT, 3), _PAPER, np.uint8)
    # One width for all rows, so that what is one moment stands in one column.
    cell = max(row.shape[2] for row in rows) + _GAP
    strips = [
        np.pad(row, ((0, 0), (0, _GAP), (0, cell - row.shape[2]), (0, 0)), constant_values=_PAPER) for row in rows
    ]
    return np.concatenate([np.concatenate(list(strip), axis=1) for strip in strips])
