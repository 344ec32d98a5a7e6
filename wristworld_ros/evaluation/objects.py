"""What a wrist image is worth to a policy: whether the objects are in it, where they are, and how much of them is there.

All figures compare an image with the true one under the true masks of the objects. Distances are pixels of a wrist image
128 pixels wide and scale with the width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from wristworld_ros.data.formats.native import ROBOT

WIDTH = 128  # pixels of the wrist image that the lengths below are for
FOUND_WITHIN = 5.0  # pixels from its place
FOUND_CORRELATION = 0.5
SEARCH = 40  # pixels to either side
NEAR = 0.2  # metres from the wrist camera
_MARGIN = 2  # pixels of surroundings that belong to an object's template, so that its outline counts
_GAP = 3  # pixels from an object to its surroundings: its own outline, a little off, is not part of them
_RING = 10  # pixels from an object to where its surroundings end
_LEAST = 40  # pixels of an object that is looked for
_STATIC = 2  # grey levels: what changes less in the true video stands still
_STEP = 1e-6


@dataclass(frozen=True)
class ObjectFigures:
    """One object in one frame.

    shift: pixels (of 128) between where its true image fits best and where it belongs. correlation: how well, -1 to 1.
    projection, norm: of its colour difference from the surroundings on the true one, and that one squared.
    error: squared, summed over its pixels and channels; pixels: their number. distance: metres from the camera, NaN unknown.
    """

    shift: float
    correlation: float
    projection: float
    norm: float
    error: float
    pixels: int
    distance: float

    @property
    def found(self) -> bool:
        """Whether it is where it belongs."""
        return self.shift <= FOUND_WITHIN and self.correlation >= FOUND_CORRELATION


def object_figures(
    image: np.ndarray, truth: np.ndarray, objects: np.ndarray, depth: np.ndarray | None = None
) -> list[ObjectFigures]:
    """Every object of one frame that shows enough of itself.

    Args:
        image: uint8 [h, w, 3], what is judged.
        truth: uint8 [h, w, 3], the true wrist image.
        objects: uint8 [h, w]; see `CameraTrack.objects`.
        depth: float32 [h, w], metres, of the true wrist image, or None.
    """
    scale = truth.shape[1] / WIDTH
    found = []
    for label in np.unique(objects):
        mask = objects == label
        if label in (0, ROBOT) or mask.sum() < _LEAST * scale**2:
            continue
        shift, correlation = _best_place(image, truth, _grown(mask, _MARGIN * scale), SEARCH * scale)
        ring = _grown(mask, _RING * scale) & ~_grown(mask, _GAP * scale) & (objects == 0)
        projection, norm = _contrast(image, truth, mask, ring)
        error = float(((image[mask].astype(np.float64) - truth[mask]) ** 2).sum())
        near = (
            math.nan if depth is None or not (depth[mask] > 0).any() else float(np.median(depth[mask][depth[mask] > 0]))
        )
        found.append(ObjectFigures(shift / scale, correlation, projection, norm, error, int(mask.sum()), near))
    return found


def object_measures(
    images: np.ndarray, truth: np.ndarray, objects: np.ndarray, depth: np.ndarray | None = None
) -> dict[str, float]:
    """The objects of a clip.

    Args:
        images: uint8 [T, h, w, 3], what is judged.
        truth: uint8 [T, h, w, 3], the true wrist images.
        objects: uint8 [T, h, w]; see `CameraTrack.objects`.
        depth: float32 [T, h, w], metres, of the true wrist images, or None.

    Returns:
        found: share of objects whose true image is best found within 5 pixels of its place, correlated by 0.5 or more.
        contrast: share of the objects' colour difference from their surroundings that is there, in their places.
        object_psnr: dB, over the objects' pixels. shift: mean distance from the place, pixels of 128.
        object_sharpness: gradients at the objects relative to the true ones. flicker: mean change from frame to frame
        where the true video stands still, grey levels. found_near, found_far: nearer and farther than 0.2 m. Measures of
        which there is no object are missing.
    """
    maps = [None] * len(images) if depth is None else depth
    figures = [f for frame in zip(images, truth, objects, maps, strict=True) for f in object_figures(*frame)]
    measures = {'flicker': flicker(images, truth)}
    if not figures:
        return {key: value for key, value in measures.items() if math.isfinite(value)}
    mse = sum(f.error for f in figures) / (3 * sum(f.pixels for f in figures))
    measures |= {
        'found': float(np.mean([f.found for f in figures])),
        'shift': float(np.mean([f.shift for f in figures])),
        'contrast': sum(f.projection for f in figures) / max(sum(f.norm for f in figures), _STEP),
        'object_psnr': float(10 * np.log10(255**2 / max(mse, _STEP))),
        'object_sharpness': _sharpness(images, truth, objects),
    }
    for key, chosen in (
        ('found_near', [f.found for f in figures if f.distance < NEAR]),
        ('found_far', [f.found for f in figures if f.distance >= NEAR]),
    ):
        if chosen:
            measures[key] = float(np.mean(chosen))
    return {key: value for key, value in measures.items() if math.isfinite(value)}


def flicker(images: np.ndarray, truth: np.ndarray) -> float:
    """Mean change from frame to frame, grey levels, of pixels at which the true video [T, h, w, 3] stands still; NaN
    where there is none."""
    if len(images) < 2:
        return math.nan
    change, true = (np.abs(np.diff(v.astype(np.int16), axis=0)) for v in (images, truth))
    still = true.max(-1) <= _STATIC
    return float(change[still].mean()) if still.any() else math.nan


def _best_place(image: np.ndarray, truth: np.ndarray, mask: np.ndarray, reach: float) -> tuple[float, float]:
    """Where the true image under the mask correlates best with the image: distance from its place, pixels, and how well."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    reach = round(reach)
    first_row, first_column = max(0, top - reach), max(0, left - reach)
    window = image[first_row : bottom + reach, first_column : right + reach].astype(np.float32)
    template = truth[top:bottom, left:right].astype(np.float32)
    weight = mask[top:bottom, left:right].astype(np.float32)
    scores = cv2.matchTemplate(window, template, cv2.TM_CCOEFF_NORMED, mask=np.repeat(weight[..., None], 3, 2))
    scores = np.where(np.isfinite(scores) & (np.abs(scores) < 1.001), scores, -1.0)  # a window of one colour has none
    row, column = np.unravel_index(scores.argmax(), scores.shape)
    shift = math.hypot(row - (top - first_row), column - (left - first_column))
    return shift, float(scores[row, column])


def _contrast(image: np.ndarray, truth: np.ndarray, mask: np.ndarray, ring: np.ndarray) -> tuple[float, float]:
    """Projection of the colour difference between mask and ring on the true one, and that one squared."""
    if not ring.any():
        return 0.0, 0.0
    true = truth[mask].mean(0) - truth[ring].mean(0)
    own = image[mask].mean(0) - image[ring].mean(0)
    return float(own @ true), float(true @ true)


def _sharpness(images: np.ndarray, truth: np.ndarray, objects: np.ndarray) -> float:
    """Mean gradient at the objects relative to the true one; NaN where the truth has none."""
    near = np.stack([_grown((o > 0) & (o != ROBOT), 1) for o in objects])
    own, true = (_gradient(v)[near].sum() for v in (images, truth))
    return float(own / true) if true > 0 else math.nan


def _gradient(images: np.ndarray) -> np.ndarray:
    """Size of the gradient of grey images, [T, h, w]."""
    grey = images.astype(np.float32).mean(-1)
    return np.hypot(np.gradient(grey, axis=1), np.gradient(grey, axis=2))


def _grown(mask: np.ndarray, pixels: float) -> np.ndarray:
    size = 2 * max(1, round(pixels)) + 1
    return cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))) > 0
