"""Measured depth loses its noise where nothing moves, and keeps edges and what moves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wristworld_ros.robot.depth_filter import DepthFilter

HW = (60, 80)
NOISE = 0.005


def desk(box: float | None = 0.95, column: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """True depth float32 [1, H, W] of a slanted table with a box on it, and images uint8 [1, H, W, 3]."""
    depth = np.repeat(np.linspace(1.3, 0.9, HW[0])[:, None], HW[1], 1).astype(np.float32)
    image = np.full((*HW, 3), 120, np.uint8)
    if box is not None:
        depth[20:40, column : column + 20] = box
        image[20:40, column : column + 20] = (200, 40, 40)
    return depth[None], image[None]


def noisy(depth: np.ndarray, rng: np.random.Generator, share: float = NOISE) -> np.ndarray:
    measured = np.round(depth * (1 + share * rng.standard_normal(depth.shape)) * 1000) / 1000
    return np.where(depth > 0, measured, 0).astype(np.float32)


def error(found: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square of the relative error."""
    return float(np.sqrt(np.mean((found / truth - 1) ** 2)))


def test_noise_falls_with_time_and_is_less_at_once():
    rng, filter_ = np.random.default_rng(0), DepthFilter()
    truth, image = desk()
    errors = [error(filter_(i, noisy(truth, rng), image), truth) for i in range(12)]
    assert errors[0] < 0.75 * NOISE
    assert errors[-1] < 0.3 * NOISE


def test_depth_without_noise_stays():
    filter_ = DepthFilter()
    truth, image = desk()
    for i in range(4):
        found = filter_(i, truth, image)
    np.testing.assert_allclose(found, truth, atol=1e-3)


def test_edges_stay_where_they_are():
    rng, filter_ = np.random.default_rng(1), DepthFilter()
    truth, image = desk(box=0.85)
    for i in range(10):
        found = filter_(i, noisy(truth, rng), image)
    assert np.abs(found[0, 20:40, 30] - 0.85).max() < 0.015
    assert np.abs(found / truth - 1).max() < 0.02


@pytest.mark.parametrize('step', [0.002, 0.004, 0.01, 0.03])
def test_what_comes_nearer_is_not_left_behind(step):
    """A box of the same colour in the same pixels, whose depth alone tells that it moves."""
    rng, filter_ = np.random.default_rng(2), DepthFilter()
    behind = []
    for i in range(16):
        truth, image = desk(box=0.95 - step * i)
        found = filter_(i, noisy(truth, rng), image)
        behind.append(float(np.mean(found[0, 22:38, 32:48] - truth[0, 22:38, 32:48])))
    print(
        f'{step * 1000:.0f} mm a set: {1000 * np.mean(behind[2:]):.1f} mm behind, {1000 * max(behind):.1f} mm at most'
    )
    assert max(behind) < 0.012


def test_where_a_box_was_is_the_table_at_once():
    rng, filter_ = np.random.default_rng(3), DepthFilter()
    for i in range(8):
        filter_(i, *(f(x) for f, x in zip((lambda d: noisy(d, rng), np.copy), desk(column=10), strict=True)))
    truth, image = desk(column=50)
    found = filter_(8, noisy(truth, rng), image)
    assert np.abs(found / truth - 1)[0, 20:40, 10:30].max() < 6 * NOISE


@pytest.mark.parametrize('why', ['stamp', 'moved', 'size', 'reset'])
def test_begins_again(why):
    rng, filter_, fresh = np.random.default_rng(4), DepthFilter(), DepthFilter()
    truth, image = desk()
    pose = np.eye(4)[None]
    for i in range(5):
        filter_(i, noisy(truth, rng), image, pose)
    depth, stamp = noisy(truth, rng), 5
    if why == 'stamp':
        stamp = 4
    elif why == 'moved':
        pose = pose.copy()
        pose[0, 0, 3] = 0.05
    elif why == 'size':
        depth, image = np.ascontiguousarray(depth[:, ::2, ::2]), np.ascontiguousarray(image[:, ::2, ::2])
    else:
        filter_.reset()
    np.testing.assert_array_equal(filter_(stamp, depth, image, pose), fresh(stamp, depth, image, pose))


def test_anchors_of_unknown_place_are_filtered_likewise():
    rng = np.random.default_rng(5)
    truth, image = desk()
    sets = [noisy(truth, rng) for _ in range(5)]
    unknown = np.full((1, 4, 4), np.nan)
    filters = [(DepthFilter(), pose) for pose in (None, unknown, np.eye(4)[None])]
    found = [[f(i, depth, image, pose) for i, depth in enumerate(sets)][-1] for f, pose in filters]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), sets=st.integers(1, 4))
def test_unknown_stays_unknown_and_known_stays_finite(seed, share, sets):
    rng, filter_ = np.random.default_rng(seed), DepthFilter()
    image = rng.integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
    for i in range(sets):
        depth = rng.uniform(0.05, 20, (2, 24, 32)).astype(np.float32)
        depth[rng.random(depth.shape) < share] = rng.choice([0, np.nan, np.inf, -1])
        found = filter_(i, depth, image)
        known = np.isfinite(depth) & (depth > 0)
        assert found.dtype == np.float32 and ((found > 0) == known).all() and np.isfinite(found).all()
