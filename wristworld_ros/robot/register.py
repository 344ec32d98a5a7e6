"""Calibration without a board: where a depth camera is, from how it sees the arm in several poses.

What came nearer than the farthest depth that was ever measured at its pixel has moved: nearly all of that is the arm. Its points
are brought onto the robot's surface, of all poses at once, by robust point-to-plane steps (Chen and Medioni, 1991) whose reach
shrinks, from several starts around the guess. The surface is only what the camera can see of it from where it is thought to be,
or the near side would settle on the far one. The winner is the start whose points lie on the arm and which leaves no part of
the arm where the camera saw through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from wristworld_ros.errors import UserError
from wristworld_ros.robot.board import Intrinsics
from wristworld_ros.robot.hand_eye import point_error
from wristworld_ros.robot.surface import visible_points
from wristworld_ros.types import RobotPoints

LEAST_POSES = 3
MOVED = 0.04  # metres that a pixel must have come nearer, beside the noise of depth
NOISE = 0.02  # of depth, as a share of it
LEAST_POINTS = 300  # that moved, of all poses
LEAST_NEAR = 50  # within reach of the surface, for a step
LEAST_SEEN = 50  # that moved, of a pose, or it shows no arm
REACH = (0.25, 0.18, 0.12, 0.08, 0.05)  # metres, of the coarse steps
FINE = (0.04, 0.03, 0.02, 0.015, 0.012, 0.012)
TURN = 10.0  # degrees of the starts beside the guess
DOUBTFUL = 0.7  # sum of both parts of the misfit, above which poses all round the guess are searched
SEARCHED, KEPT = 300, 8  # poses that are tried then, and the best of them, which are refined
SHIFT = 0.28  # metres from the guess that they lie at most
ON_SURFACE = 0.025  # metres; a measured point that near to the surface is the arm
LEAST_ON_SURFACE, LITTLE_ON_SURFACE = 0.35, 0.6
MOST_SEEN_THROUGH = 0.35
COARSE_POINTS, FINE_POINTS = 500, 3000  # of a pose
COARSE_SURFACE = 10_000
SPACING = 0.005  # metres, of the surface points of `RobotModel`
MODEL_ERROR = 0.0005  # metres: meshes and joints are not better
AXES = ('x (right)', 'y (down)', 'z (forward)')


@dataclass(frozen=True)
class Registration:
    """A camera that was found.

    T_base_camera: float64 [4, 4], optical frame, metres. start: the guess it began from.
    covariance: float64 [6, 6] of rotation vector (radians) and translation (metres) in the camera's frame.
    residual: median distance of the arm's points to its surface, metres. pose_residuals: of each pose, [P].
    on_surface: share of what moved that lies on the arm. seen_through: share of the arm that the camera saw through.
    points: [P], measured points on the arm.
    center: float64 [3], middle of the arm's points in the camera's frame, metres.
    least_certain: the motion that the poses tell least of, in words. least_certain_mm: its standard deviation, at the arm.
    outliers: indices of poses that do not agree with the others. unseen: of those that show no arm.
    warnings: sentences on what is uncertain, each with what to do.
    """

    T_base_camera: np.ndarray
    start: np.ndarray
    covariance: np.ndarray
    residual: float
    pose_residuals: np.ndarray
    on_surface: float
    seen_through: float
    points: np.ndarray
    center: np.ndarray
    least_certain: str
    least_certain_mm: float
    outliers: tuple[int, ...]
    unseen: tuple[int, ...]
    warnings: tuple[str, ...]

    @property
    def expected_error(self) -> float:
        """Standard deviation of the place of a point in the middle of the arm's points, metres."""
        return point_error(self.covariance, self.center)


def register_arm(
    depth: np.ndarray, camera: Intrinsics, surfaces: Sequence[RobotPoints], guess: np.ndarray, seed: int = 0
) -> Registration:
    """Find a depth camera by the arm in its images.

    Args:
        depth: Float32 [P, H, W], metres along the optical axis, 0 where unknown.
        camera: Its intrinsics at that size.
        surfaces: P surfaces of the robot in its base frame at those times, with normals.
        guess: T_base_camera, float64 [4, 4], within about 10 cm and 10 degrees.
        seed: Of the choice of points.

    Raises:
        UserError: Fewer than 3 poses, an arm that did not move in view, or points that lie nowhere near its surface.
    """
    rng = np.random.default_rng(seed)
    views = _views(depth, camera, surfaces, rng)
    T = _best(_starts(guess, views), views)
    if sum(_misfit(T, views)) > DOUBTFUL:  # the arm may be hardly in view from the guess
        T = _best([T, *_searched(guess, views, rng)], views)
    return _judged(T, guess, views)


def distances_to_arm(
    depth: np.ndarray, camera: Intrinsics, surfaces: Sequence[RobotPoints], T_base_camera: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Distances [N] of what moved to the visible surface of the arm, with the camera at a place; metres, at most 0.1.

    Arguments and errors as of `register_arm`.
    """
    found = []
    for view in _views(depth, camera, surfaces, np.random.default_rng(seed)):
        visible = view.visible(T_base_camera, False)
        points = view.points @ T_base_camera[:3, :3].T + T_base_camera[:3, 3]
        if len(visible) and len(points):
            found.append(np.minimum(cKDTree(view.surface[visible]).query(points, distance_upper_bound=0.1)[0], 0.1))
        else:
            found.append(np.full(len(points), 0.1))
    return np.concatenate(found)


@dataclass(frozen=True)
class _View:
    """One pose. points: measured, float64 [N, 3], camera frame. surface, normals: [M, 3], base frame. depth: [H, W]."""

    points: np.ndarray
    surface: np.ndarray
    normals: np.ndarray
    depth: np.ndarray
    camera: Intrinsics

    def visible(self, T: np.ndarray, coarse: bool) -> np.ndarray:
        """Indices of the surface points that the camera at T_base_camera sees."""
        step = max(1, len(self.surface) // COARSE_SURFACE) if coarse else 1
        spacing = SPACING * step**0.5
        return visible_points(self.surface[::step], self.normals[::step], self.camera, T, spacing) * step


def moved_pixels(depth: np.ndarray) -> np.ndarray:
    """Pixels that show something nearer than was ever measured behind it, bool [P, H, W].

    A pixel with depth in one pose alone counts too: behind the arm there was nothing in reach of the sensor.
    """
    known = depth > 0
    farthest = depth.max(0)
    nearer = farthest - depth > MOVED + NOISE * farthest
    return known & (nearer | (known.sum(0) == 1))


def _views(depth, camera, surfaces, rng) -> list[_View]:
    if len(depth) != len(surfaces) or depth.shape[1:] != (camera.height, camera.width):
        raise UserError(
            f'there are {len(surfaces)} arm poses for depth {list(depth.shape)} of a camera of {camera.width}x{camera.height}',
            'give one depth image of that size per pose',
        )
    if len(depth) < LEAST_POSES:
        raise UserError(f'the arm is seen in {len(depth)} poses', f'record at least {LEAST_POSES}, better 5 to 10')
    moved, rays = moved_pixels(depth), _rays(camera)
    if moved.sum() < LEAST_POINTS:
        raise UserError(
            f'only {int(moved.sum())} pixels changed between the poses', 'move the arm farther, in view of the camera'
        )
    views = []
    for image, mask, surface in zip(depth, moved, surfaces):
        if surface.normals is None:
            raise UserError('the surface of the robot has no normals', 'take it from RobotModel.surface')
        points = rays[mask] * image[mask][:, None].astype(np.float64)
        points = points[rng.permutation(len(points))[:FINE_POINTS]]
        order = rng.permutation(len(surface.points))
        views.append(_View(
            points, surface.points[order].astype(np.float64), surface.normals[order].astype(np.float64), image, camera
        ))  # fmt: skip
    return views


def _rays(camera: Intrinsics) -> np.ndarray:
    """Float64 [H, W, 3], the point at z = 1 that each pixel shows."""
    y, x = np.mgrid[: camera.height, : camera.width].astype(np.float64)
    pixels = np.stack([x, y], -1).reshape(-1, 1, 2)
    distortion = camera.distortion if camera.distortion.size else None
    flat = cv2.undistortPoints(pixels, camera.K, distortion).reshape(camera.height, camera.width, 2)
    return np.concatenate([flat, np.ones((camera.height, camera.width, 1))], -1)


def _starts(guess: np.ndarray, views: list[_View]) -> list[np.ndarray]:
    """The guess, and the guess turned about the arm; each moved so that what was measured lies about the visible arm."""
    turns = [np.zeros(3)] + [sign * np.radians(TURN) * axis for axis in np.eye(3) for sign in (1, -1)]
    seen = np.concatenate([view.points for view in views]).mean(0)
    starts = []
    for turn in turns:
        T = guess.copy()
        T[:3, :3] = guess[:3, :3] @ Rotation.from_rotvec(turn).as_matrix()
        T[:3, 3] += (guess[:3, :3] - T[:3, :3]) @ seen
        for _ in range(2):
            shift = []
            for view in views:
                visible = view.visible(T, True)
                if len(visible) and len(view.points):
                    shift.append(view.surface[visible].mean(0) - (T[:3, :3] @ view.points.mean(0) + T[:3, 3]))
            if shift:
                T[:3, 3] += np.median(shift, 0)
        starts.append(T)
    return [guess, *starts]


def _searched(guess: np.ndarray, views: list[_View], rng: np.random.Generator) -> list[np.ndarray]:
    """The best of many poses about the guess, unrefined."""
    seen = _center(views)
    found = []
    for _ in range(SEARCHED):
        turn, shift = rng.normal(size=(2, 3))
        turn *= np.radians(1.3 * TURN) * rng.random() ** (1 / 3) / np.linalg.norm(turn)
        shift *= SHIFT * rng.random() ** (1 / 3) / np.linalg.norm(shift)
        T = guess.copy()
        T[:3, :3] = guess[:3, :3] @ Rotation.from_rotvec(turn).as_matrix()
        T[:3, 3] += (guess[:3, :3] - T[:3, :3]) @ seen + shift
        found.append(T)
    return sorted(found, key=lambda T: sum(_misfit(T, views)))[:KEPT]


def _best(starts: list[np.ndarray], views: list[_View]) -> np.ndarray:
    """The starts refined coarsely, the two best of them finely, and of these the better one."""
    coarse = [_refined(T, views, REACH, coarse=True) for T in starts]
    best = sorted(coarse, key=lambda T: sum(_misfit(T, views)))[:2]
    return min((_refined(T, views, FINE, coarse=False) for T in best), key=lambda T: sum(_misfit(T, views)))


def _refined(T: np.ndarray, views: list[_View], reaches: tuple[float, ...], coarse: bool) -> np.ndarray:
    """T_base_camera after steps with each reach; the visible surface is found again for each."""
    for reach in reaches:
        trees = _trees(T, views, coarse)
        for _ in range(3):
            H, g, distances = _normal_equations(T, views, trees, reach, COARSE_POINTS if coarse else FINE_POINTS)
            if sum(map(len, distances)) < LEAST_NEAR:
                break
            step = -np.linalg.solve(H.sum(0) + 1e-6 * np.trace(H.sum(0)) * np.eye(6), g.sum(0))
            T = _moved(T, step, views)
            if np.linalg.norm(step) < 1e-6:
                break
    return T


def _trees(T, views, coarse):
    found = []
    for view in views:
        visible = view.visible(T, coarse)
        found.append((cKDTree(view.surface[visible]), visible) if len(visible) > 20 and len(view.points) else None)
    return found


def _center(views: list[_View]) -> np.ndarray:
    """Middle of the measured points in the camera's frame: rotations are about it."""
    return np.concatenate([view.points for view in views]).mean(0)


def _moved(T: np.ndarray, step: np.ndarray, views: list[_View]) -> np.ndarray:
    center = T[:3, :3] @ _center(views) + T[:3, 3]
    R = Rotation.from_rotvec(step[:3]).as_matrix()
    T = T.copy()
    T[:3, :3] = R @ T[:3, :3]
    T[:3, 3] = R @ (T[:3, 3] - center) + center + step[3:]
    return T


def _normal_equations(T, views, trees, reach: float, count: int):
    """H [P, 6, 6] and g [P, 6] of each pose for a step of rotation about the middle and translation, in the base frame, and the
    signed distances to the surface, by pose. Tukey's weights: nothing beyond the reach counts."""
    center = T[:3, :3] @ _center(views) + T[:3, 3]
    H, g = np.zeros((len(views), 6, 6)), np.zeros((len(views), 6))
    distances = [np.zeros(0)] * len(views)
    for i, (view, tree) in enumerate(zip(views, trees)):
        if tree is None:
            continue
        points = view.points[:count] @ T[:3, :3].T + T[:3, 3]
        gap, index = tree[0].query(points, distance_upper_bound=reach)
        near = np.isfinite(gap)
        points, index = points[near], tree[1][index[near]]
        normals = view.normals[index]
        distances[i] = ((points - view.surface[index]) * normals).sum(1)
        weights = (1 - (gap[near] / reach) ** 2) ** 2
        J = np.concatenate([np.cross(points - center, normals), normals], 1)
        H[i], g[i] = (J * weights[:, None]).T @ J, J.T @ (weights * distances[i])
    return H, g, distances


def _misfit(T: np.ndarray, views: list[_View]) -> tuple[float, float]:
    """Share of measured points off the arm, graded by distance, and share of the arm that was seen through; 0 to 1 both."""
    off, through = [], []
    for view in views:
        visible = view.visible(T, True)
        if len(view.points):
            points = view.points[:COARSE_POINTS] @ T[:3, :3].T + T[:3, 3]
            gap = cKDTree(view.surface[visible]).query(points, distance_upper_bound=2 * ON_SURFACE)[0]
            off.append(np.minimum(gap / (2 * ON_SURFACE), 1).mean())  # infinite where nothing is near
        if len(visible):
            local = (view.surface[visible] - T[:3, 3]) @ T[:3, :3]
            x, y = np.rint(view.camera.project(local)).astype(int).T
            measured = view.depth[y.clip(0, view.camera.height - 1), x.clip(0, view.camera.width - 1)]
            known = measured > 0
            through.append((measured[known] > local[known, 2] + 2 * ON_SURFACE).mean() if known.any() else 0.0)
    return float(np.mean(off)), float(np.mean(through)) if through else 1.0


def _judged(T: np.ndarray, guess: np.ndarray, views: list[_View]) -> Registration:
    trees = _trees(T, views, False)
    H, g, distances = _normal_equations(T, views, trees, ON_SURFACE, FINE_POINTS)
    counts = np.array([len(view.points) for view in views])
    on = np.array([len(d) for d in distances])
    share, through = float(on.sum() / counts.sum()), _misfit(T, views)[1]
    if share < LEAST_ON_SURFACE or through > MOST_SEEN_THROUGH:
        raise UserError(
            f'what moved in the depth images does not fit the arm: {share:.0%} of it lies on its surface, and {through:.0%} of the '
            'arm was seen through',
            'give a guess within 10 cm and 10 degrees, check that joints and images belong together, and keep people out of view',
        )
    everything = np.concatenate(distances)
    residuals = np.array([np.median(np.abs(d)) if len(d) else np.nan for d in distances])
    covariance, name, least = _uncertainty(T, H, g, float(1.4826 * np.median(np.abs(everything))), views)
    shares = on / np.maximum(counts, 1)
    seen = counts >= LEAST_SEEN
    bad = seen & ((residuals > 2.5 * np.nanmedian(residuals[seen])) | (shares < 0.5 * np.median(shares[seen])))
    outliers = tuple(int(i) for i in np.flatnonzero(bad))
    return Registration(
        T, guess, covariance, float(np.median(np.abs(everything))), residuals, share, through, on, _center(views), name, least,
        outliers, tuple(int(i) for i in np.flatnonzero(~seen)), tuple(_warnings(int(seen.sum()), share, least, name)),
    )  # fmt: skip


def _uncertainty(T, H, g, sigma: float, views) -> tuple[np.ndarray, str, float]:
    """Covariance in the camera's frame, the least certain motion in words and its deviation at the arm in millimetres.

    Noise of single points averages out; what remains is what the poses say differently (joint offsets, errors of meshes and
    of depth that are the same all over an image): the jackknife, leaving out one pose after another, sees that.
    """
    total = H.sum(0) + 1e-9 * np.trace(H.sum(0)) * np.eye(6)
    steps = np.stack([-np.linalg.solve(total - h, g.sum(0) - part) for h, part in zip(H, g)])
    steps -= steps.mean(0)
    count = len(views)
    covariance = (count - 1) / count * steps.T @ steps + sigma**2 * np.linalg.inv(total)
    radius = float(np.sqrt(np.concatenate([v.points - _center(views) for v in views]).var(0).sum()))
    covariance += np.diag([(MODEL_ERROR / radius) ** 2] * 3 + [MODEL_ERROR**2] * 3)
    # Both to the camera's frame, rotation still about the middle of the arm.
    R = np.kron(np.eye(2), T[:3, :3].T)
    covariance = R @ covariance @ R.T
    scale = np.diag([radius] * 3 + [1.0] * 3)  # metres at the arm
    values, vectors = np.linalg.eigh(scale @ covariance @ scale)
    axis = int(np.argmax(np.abs(vectors[:, -1])))
    name = f'{"rotation about" if axis < 3 else "translation along"} its {AXES[axis % 3]} axis'
    x, y, z = _center(views)
    A = np.eye(6)
    A[3:, :3] = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return A @ covariance @ A.T, name, 1e3 * float(np.sqrt(values[-1]))


def _warnings(poses: int, share: float, least: float, name: str):
    if poses < 5:
        yield f'{poses} poses leave little to check them by; record 5 to 10'
    if share < LITTLE_ON_SURFACE:
        yield (
            f'only {share:.0%} of what moved lies on the arm; keep people and moving things out of view, and check that joints and '
            'images belong together'
        )
    if least > 5:
        yield f'{name} is known to {least:.0f} mm only; record poses with the arm stretched out in other directions'
