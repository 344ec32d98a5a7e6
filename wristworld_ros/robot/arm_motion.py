"""What a camera that stands still shows of a moving arm: which pixels change between frames, and which features move how.

Two frames show the same colour at a pixel where neither has the arm; where one has it and the other has not, they nearly always
differ. `ChangeModel` holds, for every pixel and pair of frames, how likely its colours are in either case, so that the arm's outline
of any camera can be judged in all pairs of frames at once and no picture of the background is needed. `FeatureMotion` holds
where features went from one frame to the next; where they lie on the arm, they must go where its surface goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

NOISE = 6.0  # grey levels between two pictures of one thing
STRAY = 0.06  # share of pixels that change for other reasons: what is carried, people
SHADOW = 0.25  # the same of those whose brightness alone changes
ALIKE = 0.25  # share of pixels at which arm and background look alike
RANGE = 120.0  # grey levels
NEAREST = 0.05  # metres before a camera
PAIRS, FEATURES, SURFACE = 16, 14, 64  # of feature motion: pairs of frames, features in each, points of the surface
LEAST_MOTION, MOST_MOTION = 1.2, 45.0  # pixels of a feature that is followed
RETURN = 0.6  # pixels: followed there and back again it must arrive so near to its start
LEAST_SHIFT = 0.006  # metres that the faster quarter of the arm moves between two frames that are worth a pair
UNEXPLAINED = 0.03  # likelihood of a feature that moves for other reasons, against that of one exactly on the arm


@dataclass(frozen=True)
class Rendered:
    """The arm as a camera would see it in T frames. local: float64 [T, S, 3], surface points in the camera's frame, metres.
    index: int32 [T, h, w], a surface point that projects to the pixel, -1 where none. mask: uint8 [T, h, w]."""

    local: np.ndarray
    index: np.ndarray
    mask: np.ndarray


class ChangeModel:
    """Likelihood of outlines in T frames at one resolution.

    Args:
        images: uint8 [T, H, W, 3] of one camera that stands still.
        points: float64 [T, S, 3], the arm's surface at those times in its base, metres.
        width: Pixels to which the images are brought.
    """

    def __init__(self, images: np.ndarray, points: np.ndarray, width: int):
        height = round(width * images.shape[1] / images.shape[2])
        self.width, self.height, self.frames, self.points = width, height, len(images), points
        self.resize = np.diag([width / images.shape[2], height / images.shape[1], 1.0])
        self.resize[:2, 2] = (np.diag(self.resize)[:2] - 1) / 2
        small = [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images]
        colors = _same_exposure(np.stack(small).astype(np.float32)).reshape(len(images), -1, 3).transpose(1, 0, 2)
        still, passed, hidden = _log_likelihoods(*_differences(colors))
        itself = np.arange(self.frames)
        for table in (still, passed, hidden):
            table[:, itself, itself] = 0
        # Sum over pairs as a quadratic form of the mask: u'Su + 2 u'Pm + m'Hm with u = 1 - m, less its value at m = 0.
        self._linear = 2 * (passed - still).sum(2)  # [pixels, T]
        self._quadratic = still - 2 * passed + hidden
        self._norm = self.frames * (self.frames - 1)

    def render(self, T_camera_base: np.ndarray, K: np.ndarray) -> Rendered:
        """The arm from a camera; K [3, 3] in pixels of the original images."""
        K = self.resize @ K
        local = self.points @ T_camera_base[:3, :3].T + T_camera_base[:3, 3]
        z = np.maximum(local[..., 2], NEAREST)
        x = np.rint(K[0, 0] * local[..., 0] / z + K[0, 2]).astype(int)
        y = np.rint(K[1, 1] * local[..., 1] / z + K[1, 2]).astype(int)
        seen = (local[..., 2] > NEAREST) & (x >= 0) & (y >= 0) & (x < self.width) & (y < self.height)
        index = np.full((self.frames, self.height, self.width), -1, np.int32)
        frame, point = np.nonzero(seen)
        index[frame, y[seen], x[seen]] = point
        kernel = np.ones((3, 3), np.uint8)
        mask = np.stack([cv2.morphologyEx((i >= 0).astype(np.uint8), cv2.MORPH_CLOSE, kernel) for i in index])
        return Rendered(local, index, mask)

    def judge(self, mask: np.ndarray) -> tuple[float, np.ndarray]:
        """How much likelier an outline [T, h, w] is than none: nats a pixel and pair of frames; and what each pixel of each frame
        would add, were it (still) covered, float32 [T, h, w], nats a frame."""
        m = mask.reshape(self.frames, -1).T.astype(np.float32)
        pull = (self._quadratic @ m[:, :, None])[..., 0]
        score = float((m * (self._linear + pull)).sum()) / self._norm / len(m)
        gain = (self._linear + 2 * pull) / (self.frames - 1)
        return score, np.ascontiguousarray(gain.T).reshape(self.frames, self.height, self.width)


class FeatureMotion:
    """Features that moved between neighbouring frames, and points of the arm's surface at both times.

    Args:
        images: uint8 [T, H, W, 3].
        points, normals: float64 [T, S, 3], the arm's surface, base frame, metres.

    Attributes:
        count: How many features there are.
        middle: Median place of them, pixels, [2].
        moving: Mean of the surface points, weighted by how far they travel, base frame, metres.
    """

    def __init__(self, images: np.ndarray, points: np.ndarray, normals: np.ndarray):
        rng = np.random.default_rng(0)
        pairs = _followed(images, points, rng)
        chosen = _scattered(points[0], rng)
        gaps = np.linalg.norm(points[0][chosen][:, None] - points[0][chosen][None], axis=-1) + 9 * np.eye(len(chosen))
        self._spacing = float(np.median(gaps.min(1)))
        self._before = np.stack([points[t][chosen] for t, _ in pairs]) if pairs else np.zeros((0, 1, 3))
        self._after = np.stack([points[t + 1][chosen] for t, _ in pairs]) if pairs else np.zeros((0, 1, 3))
        self._normals = np.stack([normals[t][chosen] for t, _ in pairs]) if pairs else np.zeros((0, 1, 3))
        self._features = np.zeros((len(pairs), FEATURES, 4))
        self._weights = np.zeros((len(pairs), FEATURES))
        for i, (_, features) in enumerate(pairs):
            self._features[i, : len(features)], self._weights[i, : len(features)] = features, 1
        self.count = int(self._weights.sum())
        self.middle = np.median(self._features[self._weights > 0][:, :2], 0) if pairs else np.zeros(2)
        travel = points.std(0).sum(1)
        self.moving = (points.mean(0) * travel[:, None]).sum(0) / max(travel.sum(), 1e-9)

    def explained(self, T_camera_base: np.ndarray, K: np.ndarray) -> float:
        """How well the arm explains the features' motion from a camera, 0 to 1; K [3, 3], pixels."""
        if not self.count:
            return 0.0
        u, z = _projected(self._before, T_camera_base, K)
        v, _ = _projected(self._after, T_camera_base, K)
        center = -T_camera_base[:3, :3].T @ T_camera_base[:3, 3]
        facing = (((center - self._before) * self._normals).sum(-1) > 0) & (z > NEAREST)
        reach = np.clip(0.6 * self._spacing * K[0, 0] / np.maximum(z, 0.1), 2, 25)[:, None]
        place, motion = self._features[..., :2], self._features[..., 2:]
        slack = (1 + 0.12 * np.linalg.norm(motion, axis=-1))[..., None]
        apart = ((place[:, :, None] - u[:, None]) ** 2).sum(-1) / reach**2
        apart += ((motion[:, :, None] - (v - u)[:, None]) ** 2).sum(-1) / slack**2
        apart = np.where(facing[:, None], apart, 50.0).min(-1)
        gain = 1 - np.log(np.exp(-apart / 2) + UNEXPLAINED) / np.log(UNEXPLAINED)
        return float((gain * self._weights).sum() / self.count)


def spread_frames(points: np.ndarray, count: int) -> np.ndarray:
    """Indices of the frames whose arm poses differ most, in order. points: [T, S, 3]."""
    flat = points[:, :: max(1, points.shape[1] // 200)].reshape(len(points), -1)
    chosen = [int(((flat - flat.mean(0)) ** 2).sum(1).argmax())]
    distance = ((flat - flat[chosen[0]]) ** 2).sum(1)
    while len(chosen) < min(count, len(flat)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((flat - flat[chosen[-1]]) ** 2).sum(1))
    return np.sort(chosen)


def _projected(points: np.ndarray, T: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [..., 2] and depths [...] of points."""
    local = points @ T[:3, :3].T + T[:3, 3]
    z = np.maximum(local[..., 2:], NEAREST)
    return local[..., :2] / z * [K[0, 0], K[1, 1]] + [K[0, 2], K[1, 2]], local[..., 2]


def _same_exposure(images: np.ndarray) -> np.ndarray:
    """Images whose brightness and white balance follow the arm's motion, brought to those of their median."""
    middle = np.median(images, 0)
    gains = np.median(((images + 8) / (middle + 8)).reshape(len(images), -1, 3), 1)
    return (images + 8) / gains[:, None, None] - 8


def _differences(colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the colours [pixels, T, 3] of every pair of frames, float32 [pixels, T, T]: grey levels a channel; and what is left of them
    where brightness is allowed to differ."""
    squares = (colors**2).sum(2)
    products = colors @ colors.transpose(0, 2, 1)
    distance = np.maximum(squares[:, :, None] + squares[:, None] - 2 * products, 0)
    left = np.maximum(squares[:, :, None] - products**2 / np.maximum(squares[:, None], 1), 0)
    return np.sqrt(distance / 3), np.sqrt(np.maximum(left, left.transpose(0, 2, 1)) / 3)


def _log_likelihoods(distance: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a difference of colours where neither frame has the arm, where one has it, and where both have it."""
    same, shaded = (np.exp(-0.5 * (d / NOISE) ** 2) for d in (distance, left))
    same /= NOISE * 1.2533
    other = 1 / RANGE
    still = (1 - STRAY - SHADOW) * same + (STRAY + SHADOW * shaded) * other
    return np.log(still), np.log(ALIKE * same + (1 - ALIKE) * other), np.log((same + other) / 2)


def _scattered(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices of points far from each other, [SURFACE]."""
    few = rng.permutation(len(points))[:2000]
    chosen = [0]
    distance = ((points[few] - points[few[0]]) ** 2).sum(1)
    while len(chosen) < min(SURFACE, len(few)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((points[few] - points[few[chosen[-1]]]) ** 2).sum(1))
    return few[chosen]


def _followed(images: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> list[tuple[int, np.ndarray]]:
    """Pairs of a frame and the next one, with features that moved: x, y, dx, dy, float32 [N, 4], pixels."""
    shift = np.quantile(np.linalg.norm(np.diff(points[:, ::10], axis=0), axis=-1), 0.75, axis=1)
    levels = cv2.createCLAHE(2.0, (8, 8))
    found: list[tuple[int, np.ndarray]] = []
    for t in np.argsort(-shift):
        if len(found) == PAIRS or shift[t] < LEAST_SHIFT:
            break
        first, second = (levels.apply(cv2.cvtColor(images[i], cv2.COLOR_RGB2GRAY)) for i in (t, t + 1))
        changed = (cv2.blur(cv2.absdiff(first, second), (3, 3)) > 10).astype(np.uint8)
        area = 255 * cv2.dilate(changed, np.ones((7, 7), np.uint8))
        corners = cv2.goodFeaturesToTrack(first, 120, 0.01, 4, mask=area)
        if corners is None:
            continue
        corners = corners.reshape(-1, 1, 2)
        there, ok, _ = cv2.calcOpticalFlowPyrLK(first, second, corners, None, winSize=(13, 13), maxLevel=3)  # type: ignore[call-overload]
        back, ok_back, _ = cv2.calcOpticalFlowPyrLK(second, first, there, None, winSize=(13, 13), maxLevel=3)  # type: ignore[call-overload]
        motion = (there - corners).reshape(-1, 2)
        length, missed = np.linalg.norm(motion, axis=1), np.linalg.norm((back - corners).reshape(-1, 2), axis=1)
        good = (ok.ravel() > 0) & (ok_back.ravel() > 0) & (missed < RETURN)
        good &= (length > LEAST_MOTION) & (length < MOST_MOTION)
        if good.sum() >= 3:
            features = np.concatenate([corners.reshape(-1, 2), motion], 1)[good]
            found.append((int(t), features[rng.permutation(len(features))[:FEATURES]]))
    return found
