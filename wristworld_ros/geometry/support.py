"""The level plane that objects stand on: where most points lie, or where two cameras agree."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

from wristworld_ros.types import Camera

_SWEEP = (-0.4, 0.4)  # metres over the robot's base within which a plane is looked for
_STEP = 0.01  # metres from height to height
_REACH_X, _REACH_Y, _CELL = (0.2, 0.9), (-0.5, 0.5), 0.01  # metres before the robot's base, and the grid there
_WINDOW = (7, 7)  # cells that are compared together
_GUESS = 0.2  # metres, standard deviation of a guess
_MOST = 3  # heights that come into question
_FLAT = 4.0  # grey levels squared: windows of less contrast say little
_BIN = 0.005  # metres
_AROUND = 1.2  # metres around the robot's base
_LEAST = 200  # points at a level, for it to be one


def support_height(points: np.ndarray) -> float | None:
    """Height of the most populated level around the robot.

    Args:
        points: float [N, 3], metres, in the robot's base frame, whose z axis points up. NaN is left out.

    Returns:
        Metres: the median of the points within a centimetre of the fullest level; None where no level has enough points.
    """
    near = np.linalg.norm(points[:, :2], axis=1) < _AROUND  # false for NaN
    heights = points[near, 2]
    heights = heights[np.isfinite(heights)]
    if len(heights) < _LEAST:
        return None
    level = np.floor(heights / _BIN).astype(np.int64)
    values, counts = np.unique(level, return_counts=True)
    fullest = int(values[counts.argmax()])
    if counts.max() < _LEAST:
        return None
    middle = (fullest + 0.5) * _BIN
    return float(np.median(heights[np.abs(heights - middle) <= 2 * _BIN]))


def lowest_over_support(points: np.ndarray) -> float:
    """Height of the lowest of the points [N, 3] where a plane is looked for, metres in the robot's base frame; infinite for none."""
    over = (points[:, 0] > _REACH_X[0]) & (points[:, 0] < _REACH_X[1]) & (np.abs(points[:, 1]) < _REACH_Y[1])
    return float(points[over, 2].min(initial=np.inf))


class SupportSearch:
    """Finds the height at which what two still cameras show of a level plane agrees best, over several sets of images.

    A sweep of planes over the robot's reach; what one set leaves open, as where the robot hides the table, others tell.
    """

    def __init__(self):
        self._sweep = np.arange(*_SWEEP, _STEP)
        self._scores = np.zeros(len(self._sweep))

    @property
    def evidence(self) -> float:
        """Agreement at the best height, summed over the sets: a set of a textured table gives 0.1 or more, one of a plain table 0.03."""
        return float(self._scores.max())

    def add(self, images: np.ndarray, anchors: tuple[Camera, ...], part: slice = slice(None)) -> None:
        """Take in a set.

        Args:
            images: uint8 [V, H, W, 3].
            anchors: V cameras of these images, in the robot's base frame, whose z axis points up.
            part: Of the sweep that this set is compared on; compare the same number of sets on each part.
        """
        if not len(self._sweep[part]):
            return  # before images are made ready for nothing
        grays = [cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1.0) for image in images]
        self._scores[part] += [_agreement(grays, anchors, float(height)) for height in self._sweep[part]]

    def heights(self, guess: float | None = None, ceiling: float = np.inf) -> list[float]:
        """Heights in that frame that come into question, metres, the likeliest first.

        Args:
            guess: Metres, from elsewhere, to within a decimetre; None for none.
            ceiling: Metres: the plane is not above it.

        Returns:
            Peaks of the agreement that are at least half as high as the highest, `_MOST` of them at most; empty where no two
            cameras have shown enough of a plane in common.
        """
        likely = 1.0 if guess is None else np.exp(-(((self._sweep - guess) / _GUESS) ** 2) / 2)
        return _peaks(self._sweep, self._scores * likely * (self._sweep <= ceiling))


def _peaks(heights: np.ndarray, scores: np.ndarray) -> list[float]:
    """Where scores have maxima, the highest first."""
    padded = np.concatenate([[-np.inf], scores, [-np.inf]])
    maxima = np.flatnonzero(
        (scores >= padded[:-2]) & (scores > padded[2:]) & (scores > 0) & (scores >= scores.max() / 2)
    )
    highest = maxima[np.argsort(-scores[maxima])][:_MOST]
    return [_between(heights, scores, int(peak)) for peak in highest]


def _between(heights: np.ndarray, scores: np.ndarray, best: int) -> float:
    """The height of a maximum, between heights by a parabola."""
    if not 0 < best < len(heights) - 1:
        return float(heights[best])
    low, middle, high = scores[best - 1 : best + 2]
    bend = low - 2 * middle + high
    shift = 0.5 * (low - high) / bend if bend < 0 else 0.0
    return float(heights[best] + shift * (heights[1] - heights[0]))


def _agreement(grays: list[np.ndarray], anchors: tuple[Camera, ...], height: float) -> float:
    """Correlation of pairs of cameras, mean over the robot's reach on a plane (0 where not both see it), -1 to 1."""
    seen = [_on_plane(gray, camera, height) for gray, camera in zip(grays, anchors, strict=True)]
    scores = []
    for (one, one_valid), (other, other_valid) in itertools.combinations(seen, 2):
        both = (one_valid & other_valid).astype(np.float32)
        count = cv2.blur(both, _WINDOW)
        full = count > 0.9
        if np.count_nonzero(full) < _LEAST:
            continue

        def mean(values: np.ndarray, both: np.ndarray = both, count: np.ndarray = count) -> np.ndarray:
            return cv2.blur(values * both, _WINDOW) / np.maximum(count, 1e-6)

        a, b = mean(one), mean(other)
        spread = np.sqrt(np.maximum((mean(one * one) - a * a) * (mean(other * other) - b * b), 0)) + _FLAT
        scores.append(float(((mean(one * other) - a * b) / spread)[full].sum() / full.size))
    return float(np.mean(scores)) if scores else 0.0


def _on_plane(gray: np.ndarray, camera: Camera, height: float) -> tuple[np.ndarray, np.ndarray]:
    """What an image shows of the robot's reach on a plane, [X, Y], and where it shows it."""
    T = camera.T_camera_world
    plane = camera.K @ np.column_stack([T[:3, 0], T[:3, 1], height * T[:3, 2] + T[:3, 3]])  # of (x, y, 1)
    x = np.arange(*_REACH_X, _CELL, dtype=np.float32)[:, None]
    y = np.arange(*_REACH_Y, _CELL, dtype=np.float32)
    u, v, depth = (a * x + b * y + c for a, b, c in plane.astype(np.float32))
    scale = 1 / np.maximum(depth, 1e-6)
    u, v = u * scale, v * scale
    rows, columns = gray.shape
    valid = (depth > 0.05) & (u >= 0) & (v >= 0) & (u < columns - 1) & (v < rows - 1)
    values = cv2.remap(gray.astype(np.float32), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return values, valid
