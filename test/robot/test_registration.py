"""A camera that sees a known surface tells how far its given pose is off."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wristworld_ros.robot.registration import CameraCorrection, SurfaceMatches

SECOND = 10**9


def arm(rng, count=600):
    """Points and outward normals of three boxes, an arm of sorts, somewhere near the base."""
    points, normals = [], []
    for centre in rng.uniform((0.2, -0.3, 0.1), (0.6, 0.3, 0.6), (3, 3)):
        axis = rng.integers(0, 3, count // 3)
        side = rng.choice([-1.0, 1.0], count // 3)
        at = rng.uniform(-1, 1, (count // 3, 3))
        at[np.arange(len(axis)), axis] = side
        turn = Rotation.random(random_state=rng).as_matrix()
        points.append((at * (0.05, 0.06, 0.15)) @ turn.T + centre)
        normals.append((np.eye(3)[axis] * side[:, None]) @ turn.T)
    return np.concatenate(points), np.concatenate(normals)


def camera():
    """Camera from base, about a metre away."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler('xyz', [110, 5, 80], degrees=True).as_matrix()
    T[:3, 3] = (0.1, 0.2, 1.1)
    return T


def displaced(T, degrees, metres, rng):
    error = np.eye(4)
    error[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * unit(rng)).as_matrix()
    error[:3, 3] = metres * unit(rng)
    return error @ T


def unit(rng):
    v = rng.normal(size=3)
    return v / np.linalg.norm(v)


def matches(rng, T, noise):
    """What a camera at T truly measures of an arm pose."""
    points, normals = arm(rng)
    measured = points @ T[:3, :3].T + T[:3, 3]
    return SurfaceMatches(points, normals, measured * (1 + noise * rng.normal(size=(len(points), 1))))


def error_at_the_table(T, true):
    place = np.array([0.45, 0, 0.1, 1])
    return np.linalg.norm(((T - true) @ place)[:3])


@pytest.mark.parametrize('seed', range(8))
def test_a_calibration_off_by_half_a_degree_and_5_mm_is_corrected_to_1_mm(seed):
    rng, true = np.random.default_rng(seed), camera()
    given = displaced(true, 0.5, 0.005, rng)
    correction = CameraCorrection()
    for i in range(8):
        correction.update(i * SECOND, matches(rng, true, 0.005), given)
    assert error_at_the_table(correction.T @ given, true) < 0.001 < error_at_the_table(given, true)


def test_an_exact_calibration_stays():
    rng, true = np.random.default_rng(0), camera()
    correction = CameraCorrection()
    for i in range(8):
        correction.update(i * SECOND, matches(rng, true, 0.0), true)
    np.testing.assert_allclose(correction.T, np.eye(4), atol=1e-6)


def test_what_lies_elsewhere_than_the_surface_does_not_count():
    rng, true = np.random.default_rng(1), camera()
    given = displaced(true, 0.3, 0.003, rng)
    correction = CameraCorrection()
    for i in range(8):
        seen = matches(rng, true, 0.002)
        hidden = rng.random(len(seen.points)) < 0.3
        seen.measured[hidden, 2] -= rng.uniform(0.04, 0.3, hidden.sum())  # something stands before the arm
        correction.update(i * SECOND, seen, given)
    assert error_at_the_table(correction.T @ given, true) < 0.001


def test_a_calibration_that_is_wrong_altogether_is_left_to_the_check_of_residuals():
    rng, true = np.random.default_rng(2), camera()
    given = displaced(true, 1.0, 0.08, rng)
    correction = CameraCorrection()
    for i in range(8):
        correction.update(i * SECOND, matches(rng, true, 0.002), given)
    np.testing.assert_array_equal(correction.T, np.eye(4))


def test_another_given_pose_or_an_earlier_time_starts_over():
    rng, true = np.random.default_rng(3), camera()
    given = displaced(true, 0.5, 0.005, rng)
    correction = CameraCorrection()
    correction.update(SECOND, matches(rng, true, 0.0), given)
    assert not np.allclose(correction.T, np.eye(4), atol=1e-4)
    correction.update(2 * SECOND, SurfaceMatches(*(np.zeros((0, 3)),) * 3), true)
    np.testing.assert_array_equal(correction.T, np.eye(4))


def test_residuals_are_distances_along_the_normals_and_unknown_for_a_few_points():
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (200, 3)) * (1, 1, 0)
    normals = np.tile([0.0, 0, 1], (200, 1))
    beside = points + (0.05, 0, 0.004)  # a shift along the surface is none
    assert SurfaceMatches(points, normals, beside).residual(np.eye(4)) == pytest.approx(0.004)
    assert np.isnan(SurfaceMatches(points[:50], normals[:50], beside[:50]).residual(np.eye(4)))
