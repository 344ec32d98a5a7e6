"""Calibration without board and depth: a camera that stands still is found by the outline of the arm in many poses.

Cameras all round the arm are judged by how well the arm's motion explains that of tracked features; the best ones are then moved so
that the outline of the arm divides what changes between frames from what does not (`arm_motion`): along the normals of the
outline the best border is searched, and pose and focal length follow by robust Gauss-Newton steps. Halves of the frames that lead
to different cameras, and features that the arm does not explain, show that the answer is not to be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from wristworld_ros.errors import UserError
from wristworld_ros.robot.arm_motion import NEAREST, ChangeModel, FeatureMotion, Rendered, spread_frames
from wristworld_ros.robot.outline_search import ArmCamera, FocalSpread, distinct, search_cameras
from wristworld_ros.types import RobotPoints

LEAST_FRAMES = 6
FRAMES = 16  # that are used at most
COARSE, FINE = (106, 1500), (160, 4000)  # width of the images and surface points
COARSE_REACH, FINE_REACH = (6, 6, 5, 5, 4, 4, 3, 3), (6, 5, 4, 4, 3, 3, 2, 2)  # pixels, of each step
HOPS, SHAKE = 2, (8.0, 0.06)  # new starts near the best camera: degrees about the arm, metres
BORDER = 200  # points of an outline that are used
LEAST_EXPLAINED = 0.45
FOCALS = tuple(np.geomspace(0.35, 0.9, 10))  # widths of an image, of cameras whose intrinsics nobody knows
# Pixels of the image at the arm, between the answers of two halves of the frames, per 320 of its width.
MOST_APART = 12.0
LEAST_AHEAD = 0.03  # by which the answer is better than the next one
# Expected error: so many times the distance between the halves' answers, taken as so many pixels at least, because an outline
# that is half a pixel too wide all round misleads both alike. Of five simulated cameras four were nearer to the truth than
# that.
EXPECTED_PER_APART, LEAST_APART = 3.0, 1.5
FIX = 'record more poses in which much of the arm is in view, keep light, people and cables still, or give --guess'


@dataclass(frozen=True)
class OutlineFit:
    """A camera that was found.

    T_base_camera: float64 [4, 4], optical frame, metres. K: [3, 3], pixels.
    residual: mean distance between the outline and the border of what changes, pixels of the image.
    apart: how far two answers from half of the frames each lie apart, pixels of the image, median over the arm's surface;
    halves can agree by luck, or on the same mistake. apart_m: the same in metres at the arm's distance.
    explained: share of the features' motion that the arm explains, 0 to 1; NaN where none moves in steps that can be followed.
    score: of the outline and the features. ahead: how much better it is than the next different camera.
    frames: indices of the frames that were used. pixel_m: width of a pixel at the arm, metres.
    """

    T_base_camera: np.ndarray
    K: np.ndarray
    residual: float
    apart: float
    apart_m: float
    explained: float
    score: float
    ahead: float
    frames: tuple[int, ...]
    pixel_m: float

    @property
    def doubt(self) -> str:
        """Why the answer is not to be trusted, a clause; '' where it is."""
        if self.explained < LEAST_EXPLAINED:
            return f'the arm explains {self.explained:.0%} of the motion in the images; {LEAST_EXPLAINED:.0%} is needed'
        limit = MOST_APART * self.K[0, 2] / 160
        if self.apart > limit:
            return f'two halves of the frames place the arm {self.apart:.0f} pixels apart; {limit:.0f} is allowed'
        if self.ahead < LEAST_AHEAD:
            return 'another camera far from this one explains the images as well'
        return ''

    @property
    def expected_error(self) -> float:
        """Of a point at the arm, metres: a cautious multiple of `apart_m`, because halves that agree may share a mistake."""
        return EXPECTED_PER_APART * max(self.apart_m, LEAST_APART * self.pixel_m)

    @property
    def summary(self) -> str:
        """One line for a terminal."""
        return (
            f'{self.doubt or "trusted"}; {self.explained:.0%} of the motion explained, outline off by {self.residual:.1f} px, halves '
            f'{self.apart:.1f} px or {100 * self.apart_m:.1f} cm apart, {self.ahead:.2f} ahead of the next camera'
        )


@dataclass(frozen=True)
class CameraJudgement:
    """How a camera that somebody claims fits the arm in its images.

    explained: share of the features' motion that the arm explains from there, 0 to 1; NaN where none moves. residual: mean
    distance between the outline and the border of what changes, pixels of the image; infinite where the arm is out of view.
    shift: how far the outline pulls the camera, pixels of the image at the arm, median. shift_m: the same in metres at the
    arm's distance. K: [3, 3], pixels, as it was judged.
    """

    explained: float
    residual: float
    shift: float
    shift_m: float
    K: np.ndarray

    @property
    def doubt(self) -> str:
        """Why the camera is not to be believed, a clause; '' where it is."""
        if not np.isfinite(self.residual):
            return 'the arm is out of its view'
        if self.explained < LEAST_EXPLAINED:
            return f'the arm explains {self.explained:.0%} of the motion in its images; {LEAST_EXPLAINED:.0%} is needed'
        limit = MOST_APART * self.K[0, 2] / 160
        if self.shift > limit:
            return f'the outline of the arm pulls it by {self.shift:.0f} pixels; {limit:.0f} are allowed'
        return ''


def find_camera(
    images: np.ndarray,
    surfaces: Sequence[RobotPoints],
    K: np.ndarray,
    focal_error: float = 0.0,
    guess: np.ndarray | None = None,
    seed: int = 0,
) -> OutlineFit:
    """Find a camera by the arm in its images; `OutlineFit.doubt` says whether to trust it.

    Args:
        images: uint8 [T, H, W, 3], RGB, in the order they were taken.
        surfaces: T surfaces of the robot in its base frame at those times, with normals.
        K: Intrinsics, float64 [3, 3], pixels; no distortion.
        focal_error: Standard deviation of the focal length, as a share of it; 0 keeps it.
        guess: T_base_camera, float64 [4, 4], within about 30 cm and 20 degrees; None searches all round the arm.
        seed: Of the search.

    Raises:
        UserError: Fewer than 6 frames, an arm that hardly moves, or no motion in the images.
    """
    rng = np.random.default_rng(seed)
    points, normals = _surface_points(images, surfaces, rng)
    motion = FeatureMotion(images, points, normals)
    if motion.count < 3 * LEAST_FRAMES and guess is None:
        raise UserError(f'only {motion.count} features move in the images', FIX)
    frames = spread_frames(points, FRAMES)
    spread = FocalSpread(float(focal_error), K)
    starts = search_cameras(motion, K, images.shape[1:3], spread, guess, rng)
    coarse = ChangeModel(images[frames], points[frames][:, : COARSE[1]], min(COARSE[0], images.shape[2]))
    found = distinct([_refined(coarse, start, spread, COARSE_REACH, motion) for start in starts])
    fine = ChangeModel(images[frames], points[frames], min(FINE[0], images.shape[2]))
    found = distinct([_refined(fine, camera, spread, FINE_REACH, motion) for camera in found[:2]])
    for _ in range(HOPS):
        hop = ArmCamera(_shaken(found[0].T, points[frames], rng), found[0].K)
        found = distinct([_refined(fine, hop, spread, FINE_REACH[1::2], motion), *found])
    best = found[0]
    halves = [_half(images, points, frames[part::2], best, spread, motion, rng) for part in (0, 1)]
    apart, apart_m, pixel_m = _apart(halves[0], halves[1], points[frames], images.shape[1:3])
    return OutlineFit(
        np.linalg.inv(best.T), best.K, _residual(fine, best), apart, apart_m, motion.explained(best.T, best.K) if motion.count else np.nan,
        best.score, best.score - found[1].score if len(found) > 1 else np.inf, tuple(map(int, frames)), pixel_m,
    )  # fmt: skip


def judge_camera(
    images: np.ndarray, surfaces: Sequence[RobotPoints], T_base_camera: np.ndarray, K: np.ndarray | None, seed: int = 0
) -> CameraJudgement:
    """Judge a camera whose place is claimed, by the arm in its images.

    Args:
        images: uint8 [T, H, W, 3], RGB, in the order they were taken, of a camera that stands still.
        surfaces: T surfaces of the robot in its base frame at those times, with normals.
        T_base_camera: The claim, float64 [4, 4], optical frame, metres.
        K: Intrinsics, float64 [3, 3], pixels; None tries focal lengths and takes the one from which the arm explains most.
        seed: Of the choice of surface points.

    Raises:
        UserError: Fewer than 6 frames, or the surface has no normals.
    """
    rng = np.random.default_rng(seed)
    points, normals = _surface_points(images, surfaces, rng)
    motion, T = FeatureMotion(images, points, normals), np.linalg.inv(T_base_camera)
    height, width = images.shape[1:3]
    if K is None:
        tried = [_plain_intrinsics(focal * width, height, width) for focal in FOCALS]
        K = max(tried, key=lambda K: motion.explained(T, K))
    frames = spread_frames(points, FRAMES)
    model = ChangeModel(images[frames], points[frames], min(FINE[0], width))
    claim, spread = ArmCamera(T, K), FocalSpread(0.0, K)
    refined = _refined(model, claim, spread, FINE_REACH, motion)
    shift, shift_m, _ = _apart(claim, refined, points[frames], (height, width))
    explained = motion.explained(T, K) if motion.count else np.nan
    return CameraJudgement(explained, _residual(model, claim), shift, shift_m, K)


def _plain_intrinsics(focal: float, height: int, width: int) -> np.ndarray:
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def _surface_points(
    images: np.ndarray, surfaces: Sequence[RobotPoints], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points of the surface at each image and their normals, float64 [T, S, 3]."""
    if len(images) != len(surfaces):
        raise UserError(f'there are {len(surfaces)} arm poses for {len(images)} images', 'give one for each')
    if len(images) < LEAST_FRAMES:
        raise UserError(
            f'the arm is seen in {len(images)} images', f'record at least {LEAST_FRAMES}, better 15 or more'
        )
    if any(surface.normals is None for surface in surfaces):
        raise UserError('the surface of the robot has no normals', 'take it from RobotModel.surface')
    order = rng.permutation(len(surfaces[0].points))[: FINE[1]]
    points = np.stack([surface.points[order] for surface in surfaces]).astype(np.float64)
    normals = [surface.normals[order] for surface in surfaces if surface.normals is not None]
    return points, np.stack(normals).astype(np.float64)


def _refined(
    model: ChangeModel, start: ArmCamera, spread: FocalSpread, reaches, motion: FeatureMotion, last: bool = False
) -> ArmCamera:
    """The best camera on the way of Gauss-Newton steps from a start, or the last one."""
    T, K = start.T, start.K
    best = ArmCamera(T, K)
    for reach in (*reaches, 0):
        rendered = model.render(T, K)
        outline, gain = model.judge(rendered.mask)
        score = 10 * outline + 4 * motion.explained(T, K)
        if last or score > best.score:
            best = ArmCamera(T, K, score)
        borders = _borders(model, rendered, gain, reach) if reach else None
        if borders is None:
            break
        T, K = _stepped(T, K, model, spread, *borders)
        if not np.isfinite(T).all() or abs(spread.log(K)) > 5 * spread.share + 1e-6:
            break
    return best


def _borders(model: ChangeModel, rendered: Rendered, gain: np.ndarray, reach: int):
    """Points of the outline in the camera's frame [N, 3], normals [N, 2], how far the border of what changes lies outward [N], in
    the model's pixels, and weights [N]; None where the arm has no outline in view."""
    parts = []
    offsets = np.arange(-reach, reach + 1)
    kernel = np.ones((3, 3), np.uint8)
    for t in range(model.frames):
        mask = rendered.mask[t]
        y, x = np.nonzero(mask - cv2.erode(mask, kernel, borderValue=1))
        inside = (x > 1) & (y > 1) & (x < model.width - 2) & (y < model.height - 2)
        step = max(1, int(inside.sum()) // BORDER)
        y, x = y[inside][::step], x[inside][::step]
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.2)
        normal = -np.stack([cv2.Sobel(soft, cv2.CV_32F, 1, 0)[y, x], cv2.Sobel(soft, cv2.CV_32F, 0, 1)[y, x]], 1)
        length = np.linalg.norm(normal, axis=1)
        index = cv2.dilate(rendered.index[t].astype(np.float32), kernel)[y, x].astype(int)
        good = (length > 1e-3) & (index >= 0)
        y, x, index, normal = y[good], x[good], index[good], normal[good] / length[good][:, None]
        if not len(x):
            continue
        u = np.rint(x[:, None] + offsets * normal[:, :1]).astype(int).clip(0, model.width - 1)
        v = np.rint(y[:, None] + offsets * normal[:, 1:]).astype(int).clip(0, model.height - 1)
        total = np.cumsum(gain[t][v, u].clip(-3, 3), 1)
        total = total - total[:, reach : reach + 1] - 0.02 * np.abs(offsets)
        best = total.argmax(1)
        certain = total.max(1) - np.minimum(total[:, 0], total[:, -1])
        parts.append((rendered.local[t][index], normal, offsets[best].astype(float), np.clip(certain / 4, 0, 1)))
    return tuple(np.concatenate(values) for values in zip(*parts)) if parts else None


def _stepped(T, K, model: ChangeModel, spread: FocalSpread, points, normals, distances, weights):
    """Camera after one robust step. Rotation is about the middle of the outline's points."""
    focal = np.diag(model.resize @ K)[:2]
    x, y, z = points[:, 0], points[:, 1], np.maximum(points[:, 2], NEAREST)
    J = np.zeros((len(points), 2, 3))
    J[:, 0, 0], J[:, 0, 2] = focal[0] / z, -focal[0] * x / z**2
    J[:, 1, 1], J[:, 1, 2] = focal[1] / z, -focal[1] * y / z**2
    along = np.einsum('ni,nij->nj', normals, J)
    center = points.mean(0)
    zoom = (normals * np.stack([focal[0] * x / z, focal[1] * y / z], 1)).sum(1, keepdims=True)
    J = np.concatenate([np.cross(points - center, along), along, zoom], 1)
    stiff = 80 / max(spread.share, 1e-4) ** 2  # neighbouring points tell the same: some 80 of them are one
    step = np.zeros(7)
    for _ in range(4):
        robust = weights / np.maximum(1, np.abs(distances - J @ step) / 1.5)
        H, g = (J * robust[:, None]).T @ J, (J * robust[:, None]).T @ distances
        H[6, 6] += stiff
        g[6] -= stiff * spread.log(K)
        H += np.diag(1e-3 * np.diag(H)) + 1e-6 * np.trace(H[:6, :6]) / 6 * np.eye(7)
        step = np.linalg.solve(H, g)
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(step[:3]).as_matrix()
    move[:3, 3] = center - move[:3, :3] @ center + step[3:6]
    K = K.copy()
    if spread.share:  # else it is known exactly
        K[[0, 1], [0, 1]] *= np.exp(step[6])
    return move @ T, K


def _shaken(T: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A camera turned about the middle of the arm and moved, by about `SHAKE`."""
    turn, shift = rng.normal(size=(2, 3)) / 3**0.5
    center = T[:3, :3] @ points.reshape(-1, 3).mean(0) + T[:3, 3]
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(np.radians(SHAKE[0]) * turn).as_matrix()
    move[:3, 3] = center - move[:3, :3] @ center + SHAKE[1] * shift
    return move @ T


def _half(
    images, points, frames, best: ArmCamera, spread: FocalSpread, motion: FeatureMotion, rng: np.random.Generator
) -> ArmCamera:
    """The answer of some of the frames alone, from a start near the answer of all."""
    start = ArmCamera(_shaken(best.T, points[frames], rng), best.K)
    model = ChangeModel(images[frames], points[frames][:, : COARSE[1]], min(COARSE[0], images.shape[2]))
    return _refined(model, start, spread, COARSE_REACH, motion, last=True)


def _apart(a: ArmCamera, b: ArmCamera, points: np.ndarray, hw: tuple[int, int]) -> tuple[float, float, float]:
    """Median distance between where two cameras show the arm, pixels; the same in metres at the arm; and a pixel there, metres."""
    places, depths = [], []
    for camera in (a, b):
        local = points[:, ::20].reshape(-1, 3) @ camera.T[:3, :3].T + camera.T[:3, 3]
        z = np.maximum(local[:, 2], NEAREST)
        places.append(local[:, :2] / z[:, None] * np.diag(camera.K)[:2] + camera.K[:2, 2])
        depths.append(z)
    seen = (places[0] > 0).all(1) & (places[0] < [hw[1], hw[0]]).all(1)
    if not seen.any():
        return np.inf, np.inf, np.inf
    distance = np.linalg.norm(places[0] - places[1], axis=1)[seen]
    pixel = depths[0][seen] / a.K[0, 0]
    return float(np.median(distance)), float(np.median(distance * pixel)), float(np.median(pixel))


def _residual(model: ChangeModel, camera: ArmCamera) -> float:
    """Weighted mean distance of the outline from the border of what changes, pixels of the original images."""
    rendered = model.render(camera.T, camera.K)
    borders = _borders(model, rendered, model.judge(rendered.mask)[1], 6)
    if borders is None or not borders[3].any():
        return np.inf
    return float((np.abs(borders[2]) * borders[3]).sum() / borders[3].sum() / model.resize[0, 0])
