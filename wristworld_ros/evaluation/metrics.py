"""Metrics of wrist videos, wrist poses and clouds. Numpy in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wristworld_ros.errors import UserError, require_package
from wristworld_ros.evaluation.foreign_weights import read_weights
from wristworld_ros.evaluation.i3d import I3d
from wristworld_ros.evaluation.lpips import Lpips
from wristworld_ros.geometry import align_cameras, camera_centre, pose_error, project, unproject_depth

_BATCH = 64


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each frame, dB, at most 100. images, truth: uint8 [N, H, W, 3]. Returns [N]."""
    _same(images, truth)
    error = ((images.astype(np.float32) - truth.astype(np.float32)) ** 2).mean((1, 2, 3), dtype=np.float64)
    return np.minimum(10 * np.log10(255.0**2 / np.maximum(error, 1e-12)), 100.0)


def ssim(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity of each frame (Wang et al. 2004: 11x11 Gaussian, sigma 1.5, mean of the colours).

    By scikit-image, over the pixels whose window lies inside the image, as originally published. torchmetrics gives the
    same there (a test compares them) and takes ten times as long.
    images, truth: uint8 [N, H, W, 3], at least 11 pixels a side. Returns [N].
    Raises MissingPackageError, with the install command, where scikit-image is missing.
    """
    _same(images, truth)
    require_package('skimage', 'train', 'SSIM')
    from skimage.metrics import structural_similarity

    options = {
        'channel_axis': -1,
        'data_range': 255,
        'gaussian_weights': True,
        'sigma': 1.5,
        'use_sample_covariance': False,
    }
    return np.array([structural_similarity(one, two, **options) for one, two in zip(images, truth)], np.float64)


def gradient(images: np.ndarray) -> float:
    """Mean gradient magnitude of the grey image, grey levels a pixel. images: uint8 [N, H, W, 3]."""
    grey = images.astype(np.float32).mean(-1)
    dx, dy = grey[:, :-1, 1:] - grey[:, :-1, :-1], grey[:, 1:, :-1] - grey[:, :-1, :-1]
    return float(np.sqrt(dx**2 + dy**2).mean())


def sharpness(images: np.ndarray, truth: np.ndarray) -> float:
    """Mean gradient magnitude relative to the true frames': 1 is as sharp as the truth, 0 is flat."""
    _same(images, truth)
    return gradient(images) / max(gradient(truth), 1e-6)


def frame_change(images: np.ndarray) -> float:
    """Mean absolute change from frame to frame, grey levels (0 to 255); NaN for fewer than two frames."""
    if len(images) < 2:
        return float('nan')
    return float(np.abs(np.diff(images.astype(np.int16), axis=0)).mean())


def seam_ratio(images: np.ndarray, joins: Sequence[int]) -> float:
    """How much more a video changes at its joins than elsewhere: 1 means that no seam shows, and up to 1.2 is acceptable.

    Mean absolute change from frame j - 1 to j over the joins j, divided by that over all other frames. A ratio well
    below 1 means a blur or a standstill at the joins, which is just as bad.

    Args:
        images: uint8 [N, H, W, 3].
        joins: Frame numbers, 1 to N - 1, as `models.wan.windows.seam_frames` gives them.

    Returns:
        The ratio; NaN where there is no join, or nothing but joins.
    """
    joins = sorted(set(joins))
    if joins and not (joins[0] >= 1 and joins[-1] < len(images)):
        raise ValueError(f'Joins are {joins} in a video of {len(images)} frames; give 1 to {len(images) - 1}.')
    change = np.abs(np.diff(images.astype(np.int16), axis=0)).mean((1, 2, 3))
    at = np.zeros(len(change), bool)
    at[np.asarray(joins, int) - 1] = True
    if not at.any() or at.all():
        return float('nan')
    return float(change[at].mean() / max(change[~at].mean(), 1e-6))


@dataclass(frozen=True)
class WristPoseErrors:
    """How far the wrist camera of each of T frames is off, float64 [T] each, and the scale of the whole episode.

    rotation_deg, position_m: in the first anchor's frame and in the model's own scale, as TF publishes it.
    aligned_rotation_deg, aligned_position_m: after one similarity that fits the anchors alone, never the wrist.
    scale_error: own length / true length - 1, by the distances between the anchors; NaN for a single anchor.
    """

    rotation_deg: np.ndarray
    position_m: np.ndarray
    aligned_rotation_deg: np.ndarray
    aligned_position_m: np.ndarray
    scale_error: float


def wrist_pose_errors(
    own_anchors: np.ndarray, own_wrists: np.ndarray, true_anchors: np.ndarray, true_wrists: np.ndarray
) -> WristPoseErrors:
    """Wrist pose errors of an episode.

    The wrist has no part in any alignment, which would hide its own error: one fitted to it as well turns a wrong scale
    into an error of zero.

    Args:
        own_anchors: Camera-from-world [T, V, 4, 4] of the model's anchors; any world, another one in each frame if need be.
        own_wrists: Camera-from-world [T, 4, 4] of the model's wrist camera, in the same worlds.
        true_anchors: The true anchors, camera-from-world [T, V, 4, 4], metres.
        true_wrists: The true wrist camera, [T, 4, 4].
    """
    anchors, wrists = _in_first_anchor(own_anchors, own_wrists)
    anchors_truth, wrists_truth = _in_first_anchor(true_anchors, true_wrists)
    fit = align_cameras(anchors.reshape(-1, 4, 4), anchors_truth.reshape(-1, 4, 4))
    degrees, metres = pose_error(wrists, wrists_truth)
    aligned_degrees, aligned_metres = pose_error(fit.cameras(wrists), wrists_truth)
    own_length, true_length = (camera_centre(T).norm(dim=-1).sum() for T in (anchors, anchors_truth))
    scale_error = float(own_length / true_length - 1) if true_length > 1e-6 else float('nan')
    return WristPoseErrors(
        degrees.numpy(), metres.numpy(), aligned_degrees.numpy(), aligned_metres.numpy(), scale_error
    )


def _in_first_anchor(anchors: np.ndarray, wrists: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Camera-from-world poses [T, V, 4, 4] and [T, 4, 4] as camera-from-first-anchor, float64."""
    T_anchor, T_wrist = (torch.from_numpy(np.asarray(T, np.float64)) for T in (anchors, wrists))
    T_world_first = torch.linalg.inv(T_anchor[:, 0])
    return T_anchor @ T_world_first[:, None], T_wrist @ T_world_first


def own_cloud_errors(
    own_points: np.ndarray,
    own_K: np.ndarray,
    own_T_wrist_world: np.ndarray,
    anchor_depth: np.ndarray,
    anchor_K: np.ndarray,
    T_anchor_world: np.ndarray,
    wrist_depth: np.ndarray,
    wrist_K: np.ndarray,
    T_wrist_world: np.ndarray,
    stride: int = 8,
    tolerance: float = 0.015,
) -> np.ndarray:
    """How far the model's points, projected by its own wrist camera, are from where the true wrist camera sees them.

    A grid of the true wrist's pixels is unprojected by the true depth and projected into each anchor; where the anchor
    truly sees that point (depths agree within `tolerance`, metres), the model's point of that anchor pixel is projected
    by the model's wrist camera. Its distance from the grid pixel is the error of the condition map, in wrist pixels.

    Args:
        own_points: float [V, h, w, 3], the model's world, at any resolution.
        own_K: [3, 3], pixels of an image of the size of `wrist_depth`.
        own_T_wrist_world: [4, 4].
        anchor_depth: float [V, H, W], metres, 0 unknown.
        anchor_K: [V, 3, 3], pixels.
        T_anchor_world: [V, 4, 4].
        wrist_depth: float [H', W'], metres, 0 unknown.
        wrist_K: [3, 3], pixels.
        T_wrist_world: [4, 4].
        stride: Pixels between the points of the grid.
        tolerance: Metres.

    Returns:
        float [M], pixels, at most the wrist image's diagonal, which is what points behind the camera count as.
    """
    height, width = wrist_depth.shape
    diagonal = float(np.hypot(height, width))
    grid_y, grid_x = (x.ravel() for x in np.mgrid[stride // 2 : height : stride, stride // 2 : width : stride])
    world = unproject_depth(
        torch.from_numpy(wrist_depth.astype(np.float64)), torch.from_numpy(wrist_K), torch.from_numpy(T_wrist_world)
    ).numpy()[grid_y, grid_x]
    known = wrist_depth[grid_y, grid_x] > 0
    errors = []
    for view, depth in enumerate(anchor_depth):
        uv, z = _project(world, anchor_K[view], T_anchor_world[view])
        with np.errstate(invalid='ignore'):
            column, row = np.round(uv[:, 0]), np.round(uv[:, 1])
        inside = known & (z > 0) & (column >= 0) & (column < depth.shape[1]) & (row >= 0) & (row < depth.shape[0])
        index = np.flatnonzero(inside)
        seen = index[np.abs(depth[row[index].astype(int), column[index].astype(int)] - z[index]) < tolerance]
        if not len(seen):
            continue
        points = _sample(own_points[view], uv[seen], depth.shape)
        own_uv, own_z = _project(points, own_K, own_T_wrist_world)
        error = np.hypot(own_uv[:, 0] - grid_x[seen], own_uv[:, 1] - grid_y[seen])
        error[~(own_z > 0) | ~np.isfinite(error)] = diagonal
        errors.append(np.minimum(error, diagonal))
    return np.concatenate(errors) if errors else np.zeros(0)


def lpips_from(paths: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """LPIPS (AlexNet) with local weights.

    Args:
        paths: Files of AlexNet's features and of the linear weights, or of both, separated by commas; see `read_weights`.

    Returns:
        A function of two uint8 [N, H, W, 3] to [N].

    Raises:
        UserError: A file cannot be used, or does not hold these weights.
    """
    network = Lpips().eval()
    network.load(read_weights(paths, 'LPIPS'), paths)

    @torch.inference_mode()
    def distance(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
        _same(images, truth)
        parts = []
        for start in range(0, len(images), _BATCH):
            one, two = (_planes(x[start : start + _BATCH]) / 255 for x in (images, truth))
            parts.append(network(one, two).numpy())
        return np.concatenate(parts)

    return distance


def fvd_from(paths: str, frames: int = 16) -> Callable[[list[np.ndarray], list[np.ndarray]], float]:
    """Fréchet video distance by I3D's logits of Kinetics-400, with local weights.

    Args:
        paths: A file of I3D's weights; see `read_weights`.
        frames: Length of the clips that videos are cut into.

    Returns:
        A function of two lists of videos, uint8 [T, H, W, 3] each, to the distance.

    Raises:
        UserError: A file cannot be used, or does not hold these weights.
    """
    network = I3d()
    network.load(read_weights(paths, 'FVD'), paths)

    @torch.inference_mode()
    def features(videos: list[np.ndarray]) -> np.ndarray:
        clips = [v[i : i + frames] for v in videos for i in range(0, len(v) - frames + 1, frames)]
        if len(clips) < 2:
            raise UserError(
                f'FVD needs two clips of {frames} frames or more, and the episodes give {len(clips)}',
                'evaluate more or longer episodes',
            )
        inputs = (_planes(clip).transpose(0, 1)[None] / 127.5 - 1 for clip in clips)
        return np.concatenate([network(video).double().numpy() for video in inputs])

    return lambda videos, truth: frechet_distance(features(videos), features(truth))


def frechet_distance(one: np.ndarray, two: np.ndarray) -> float:
    """Fréchet distance of two sets of features [N, D] taken as Gaussians (Heusel et al. 2017)."""
    mean = ((one.mean(0) - two.mean(0)) ** 2).sum()
    cov_one, cov_two = np.atleast_2d(np.cov(one, rowvar=False)), np.atleast_2d(np.cov(two, rowvar=False))
    # trace of the root of a product of two positive matrices: the roots of its (real, not negative) eigenvalues.
    roots = np.sqrt(np.maximum(np.linalg.eigvals(cov_one @ cov_two).real, 0)).sum()
    return float(mean + np.trace(cov_one) + np.trace(cov_two) - 2 * roots)


def _sample(points: np.ndarray, uv: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """Bilinear look-up of a point map [h, w, 3] at pixels uv [M, 2] of the image it stands for. Returns [M, 3]."""
    height, width = points.shape[:2]
    x = np.clip((uv[:, 0] + 0.5) * width / image_hw[1] - 0.5, 0, width - 1)
    y = np.clip((uv[:, 1] + 0.5) * height / image_hw[0] - 0.5, 0, height - 1)
    left, top = np.minimum(x.astype(int), max(width - 2, 0)), np.minimum(y.astype(int), max(height - 2, 0))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    a, b = (x - left)[:, None], (y - top)[:, None]
    above = points[top, left] * (1 - a) + points[top, right] * a
    below = points[bottom, left] * (1 - a) + points[bottom, right] * a
    return above * (1 - b) + below * b


def _project(points: np.ndarray, K: np.ndarray, T_camera_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    uv, z = project(
        torch.from_numpy(np.asarray(points, np.float64)),
        torch.from_numpy(np.asarray(K, np.float64)),
        torch.from_numpy(np.asarray(T_camera_world, np.float64)),
    )
    return uv.numpy(), z.numpy()


def _planes(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()


def _same(images: np.ndarray, truth: np.ndarray) -> None:
    if images.shape != truth.shape or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f'Images {list(images.shape)} and truth {list(truth.shape)} must both be uint8 [N, H, W, 3].')
