"""Scale and shift of relative depth."""

import numpy as np
import pytest

from wristworld_ros.robot.depth_fit import fit_depth


def scene(seed=0):
    rng = np.random.default_rng(seed)
    depth = 0.6 + rng.random((40, 50)).cumsum(1) / 40
    known = np.where(rng.random(depth.shape) < 0.3, depth, 0)
    return rng, depth, known


@pytest.mark.parametrize('inverse', [False, True])
def test_an_unknown_affine_map_is_undone(inverse):
    _, depth, known = scene()
    relative = 7 * (1 / depth if inverse else depth) - 1.5
    fit = fit_depth(relative, known)
    assert fit.inverse == inverse
    np.testing.assert_allclose(fit.apply(relative), depth, rtol=1e-5)
    assert fit.residual < 1e-6


def test_a_fifth_of_outliers_does_not_move_it():
    rng, depth, known = scene()
    known = np.where((known > 0) & (rng.random(depth.shape) < 0.2), 3.0, known) + (known > 0) * rng.normal(
        0, 0.004, depth.shape
    )
    fit = fit_depth(2 * depth + 1, known)
    assert np.abs(fit.apply(2 * depth + 1) - depth).max() < 0.02


def test_too_few_or_constant_pixels_give_none():
    _, depth, known = scene()
    assert fit_depth(depth, np.where(np.arange(2000).reshape(40, 50) < 40, depth, 0)) is None
    assert fit_depth(np.ones_like(depth), known) is None
