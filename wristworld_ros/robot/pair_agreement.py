"""Whether what a recording says of two cameras beside the robot fits together: in their depth, or in features that both see.

No robot description is needed. It tells that one of two places is wrong, not which; the arm in their images does (`claims`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import cv2
import numpy as np

from wristworld_ros.data.episode import Episode
from wristworld_ros.data.poses import inverse
from wristworld_ros.robot.claims import claimed_cameras

_FRAMES = 4  # of an episode that are looked at
_WIDTH = 640  # pixels of images to which distances between features are told
_RATIO = 0.8  # of the nearest descriptor's distance to the next one's, at most
_LEAST_FEATURES = 25  # that two views may share by one epipolar geometry, to be told
_NEAR_PX = 1.5  # pixels of the image, of a feature to the epipolar line that the images themselves give
_MOST_PX = 3.0  # of images `_WIDTH` wide, that a claim may be off: 0.3 degrees of a camera with 60 degrees
_POINTS = 5000  # of a depth map
_SAME_SURFACE = 0.05  # metres, between two depths of one surface; farther, one hides the other
_LEAST_POINTS = 300  # that both cameras see
_MOST_M = 0.015  # metres, median distance of surfaces that fit together
_LEAST_SHARE = 0.3  # of the points of one that lie on the other's surfaces, where they fit together


@dataclass(frozen=True)
class PairAgreement:
    """How two cameras fit together.

    first, second: their names. by: what was compared. residual: median distance of what both see, of depth in metres between
    surfaces, of features in pixels (of images 640 wide) from where the other camera's place puts them; NaN where too little is
    seen by both. count: of points or features. share: of the depth points of one that lie on the other's surfaces; NaN for
    features.
    """

    first: str
    second: str
    by: Literal['depth', 'features']
    residual: float
    count: int
    share: float = np.nan

    @property
    def doubt(self) -> str:
        """Why one of the two is not to be believed, a clause; '' where both may be, or nothing can be told."""
        if np.isnan(self.residual):
            return ''
        if self.by == 'features':
            return f'more than {_MOST_PX:g} px apart' if self.residual > _MOST_PX else ''
        if self.share < _LEAST_SHARE:
            return f'less than {_LEAST_SHARE:.0%} of what one measures is where the other sees a surface'
        return f'their surfaces are more than {1000 * _MOST_M:g} mm apart' if self.residual > _MOST_M else ''

    @property
    def sentence(self) -> str:
        """One line for a terminal."""
        pair = f'{self.first} and {self.second}'
        if np.isnan(self.residual):
            return f'{pair}: too little is seen by both to compare them ({self.count} {"points" if self.by == "depth" else "features"})'
        if self.by == 'features':
            measured = f'{self.residual:.1f} px, {self.count} features'
        else:
            measured = (
                f'depth {1000 * self.residual:.0f} mm apart, {self.share:.0%} of {self.count} points on one surface'
            )
        return f'{pair}: {self.doubt or "agree"} ({measured})'


def check_pairs(episode: Episode) -> list[PairAgreement]:
    """Compare every two anchors that stand still and whose places are told or claimed: by depth where both have it, else by features.

    Where K is not known, two cameras are not compared.

    Raises:
        UserError: Images cannot be read.
    """
    places = claimed_cameras(episode)
    frames = np.unique(np.linspace(0, len(episode) - 1, _FRAMES).round().astype(int))
    known = {name: K for name in places if (K := episode.K(name)) is not None and np.isfinite(K).all()}
    views = {name: _View.of(episode, name, frames, K[frames[0]], inverse(places[name])) for name, K in known.items()}
    return [_compared(one, two) for one, two in combinations(views.values(), 2)]


@dataclass(frozen=True)
class _View:
    """A camera at some frames. images: uint8 [N, H, W, 3]. depth: float32 [N, H, W], metres, 0 where unknown, or None. K: [3, 3], pixels.
    T: camera from base [4, 4]. distortion: OpenCV's coefficients of the images."""

    name: str
    images: np.ndarray
    depth: np.ndarray | None
    K: np.ndarray
    T: np.ndarray
    distortion: np.ndarray

    @classmethod
    def of(cls, episode: Episode, name: str, frames: np.ndarray, K: np.ndarray, T: np.ndarray) -> _View:
        depth = episode.read_depth(name, frames) if episode.camera(name).has_depth else None
        bent = np.array((episode.meta.get('distortion') or {}).get(name, ()), np.float64)
        return cls(name, episode.read(name, frames), depth, K, T, bent)

    def straight(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels [N, 2] as a camera without distortion would see them."""
        if not len(self.distortion) or not len(pixels):
            return pixels
        return cv2.undistortPoints(pixels[:, None], self.K, self.distortion, P=self.K)[:, 0]


def _compared(one: _View, two: _View) -> PairAgreement:
    if one.depth is not None and two.depth is not None:
        return _by_depth(one, two)
    return _by_features(one, two)


def _by_depth(one: _View, two: _View) -> PairAgreement:
    """Points of each camera beside the surfaces of the other."""
    assert one.depth is not None and two.depth is not None
    gaps = [_gaps(a, b, n) for n in range(len(one.depth)) for a, b in ((one, two), (two, one))]
    off = np.concatenate(gaps)
    on_surface = off[off < _SAME_SURFACE]
    if len(off) < _LEAST_POINTS:
        return PairAgreement(one.name, two.name, 'depth', np.nan, len(off))
    residual = float(np.median(on_surface if len(on_surface) else off))
    return PairAgreement(one.name, two.name, 'depth', residual, len(off), len(on_surface) / len(off))


def _gaps(one: _View, two: _View, frame: int) -> np.ndarray:
    """Distances, metres [N], along the line of sight of the second camera, between points of the first and what the second sees there."""
    assert one.depth is not None and two.depth is not None
    rows, columns = np.nonzero(one.depth[frame])
    step = max(1, len(rows) // _POINTS)
    rows, columns = rows[::step], columns[::step]
    depth = one.depth[frame][rows, columns].astype(np.float64)
    pixels = one.straight(np.stack([columns, rows], 1).astype(np.float64))
    rays = np.concatenate([pixels, np.ones((len(pixels), 1))], 1) @ np.linalg.inv(one.K).T
    move = two.T @ inverse(one.T)
    points = (rays * depth[:, None]) @ move[:3, :3].T + move[:3, 3]
    points = points[points[:, 2] > 0.05]
    seen = (
        cv2.projectPoints(points[:, None], np.zeros(3), np.zeros(3), two.K, two.distortion)[0][:, 0]
        if len(points)
        else np.zeros((0, 2))
    )
    at = np.clip(np.rint(seen), -1, 1 << 20).astype(int)
    height, width = two.depth[frame].shape
    inside = (at >= 0).all(1) & (at[:, 0] < width) & (at[:, 1] < height)
    measured = two.depth[frame][at[inside, 1], at[inside, 0]]
    return np.abs(points[inside, 2] - measured)[measured > 0]


def _by_features(one: _View, two: _View) -> PairAgreement:
    """Features that the images by themselves bring into one epipolar geometry, beside that of the places."""
    pairs = [_matches(a, b) for a, b in zip(one.images, two.images, strict=True)]
    a, b = (one.straight(np.concatenate([p[0] for p in pairs])), two.straight(np.concatenate([p[1] for p in pairs])))
    if len(a) >= _LEAST_FEATURES:
        near = _NEAR_PX * max(one.images.shape[2], two.images.shape[2]) / _WIDTH
        F, chosen = cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, max(near, 0.5), 0.999, 5000)
        if F is not None:
            a, b = a[chosen[:, 0] > 0], b[chosen[:, 0] > 0]
    # A feature of what stands still is in every frame, and tells once.
    a, kept = np.unique(a.round(), axis=0, return_index=True)
    b = b[kept]
    if len(a) < _LEAST_FEATURES:
        return PairAgreement(one.name, two.name, 'features', np.nan, len(a))
    move = two.T @ inverse(one.T)
    x, y, z = move[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    F = np.linalg.inv(two.K).T @ cross @ move[:3, :3] @ np.linalg.inv(one.K)
    in_two = _line_distances(F, a, b) * _WIDTH / two.images.shape[2]
    in_one = _line_distances(F.T, b, a) * _WIDTH / one.images.shape[2]
    return PairAgreement(one.name, two.name, 'features', float(np.median(np.maximum(in_one, in_two))), len(a))


def _line_distances(F: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pixels [N] between features b [N, 2] and the epipolar lines of features a [N, 2]."""
    lines = np.concatenate([a, np.ones((len(a), 1))], 1) @ F.T
    return np.abs((lines[:, :2] * b).sum(1) + lines[:, 2]) / np.linalg.norm(lines[:, :2], axis=1)


def _matches(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places [N, 2] in two images of features that are each other's best match."""
    sift = cv2.SIFT_create(nfeatures=2000)
    (points, described), (others, theirs) = (
        sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None) for image in (one, two)
    )
    if described is None or theirs is None or min(len(described), len(theirs)) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2))
    matcher = cv2.BFMatcher()
    back = {match.queryIdx: match.trainIdx for match in matcher.match(theirs, described)}
    good = [
        best for best, next_best in matcher.knnMatch(described, theirs, k=2)
        if best.distance < _RATIO * next_best.distance and back[best.trainIdx] == best.queryIdx
    ]  # fmt: skip
    a = np.array([points[match.queryIdx].pt for match in good], np.float64).reshape(-1, 2)
    b = np.array([others[match.trainIdx].pt for match in good], np.float64).reshape(-1, 2)
    return a, b
