"""Errors of sensors are of the size that is asked for, and none where none is asked for."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wristworld_ros.sim.sensor import EXACT, SensorSettings, displaced_pose, measured_depth


@pytest.fixture
def depth():
    """A wall at 1 m with a box at 0.7 m before it, and a hole."""
    depth = np.ones((60, 80), np.float32)
    depth[20:40, 30:50] = 0.7
    depth[:5, :5] = 0
    return depth


def test_an_exact_sensor_changes_nothing(depth):
    np.testing.assert_allclose(measured_depth(depth, EXACT, np.random.default_rng(0)), depth, atol=5e-4)
    T = np.linalg.inv(np.diag([1.0, 1, 1, 1]))
    np.testing.assert_array_equal(displaced_pose(T, EXACT, np.random.default_rng(0)), T)


def test_noise_is_a_share_of_depth_in_whole_millimetres_and_unknown_stays_unknown(depth):
    measured = measured_depth(depth, SensorSettings(edge_holes=0), np.random.default_rng(0))
    assert (measured[:5, :5] == 0).all()
    for where in (depth == 1, depth == np.float32(0.7)):
        assert np.std(measured[where] / depth[where] - 1) == pytest.approx(0.005, rel=0.1)
    np.testing.assert_allclose(measured * 1000, np.round(measured * 1000), atol=1e-3)


def test_the_far_side_of_an_edge_is_in_the_shadow(depth):
    measured = measured_depth(depth, SensorSettings(depth_noise=0, edge_holes=2), np.random.default_rng(0))
    assert (measured[20:40, 28:30] == 0).all() and (measured[20:40, 50:52] == 0).all()
    assert (measured[20:40, 30:50] > 0).all() and (measured[20:40, 26:28] > 0).all()


@pytest.mark.parametrize('seed', range(5))
def test_a_calibration_is_off_by_what_it_is_said_to_be(seed):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_euler('xyz', [0.3, 1, -2]).as_matrix(), (0.2, -0.4, 1.1)
    error = displaced_pose(T, SensorSettings(), np.random.default_rng(seed)) @ np.linalg.inv(T)
    assert np.degrees(Rotation.from_matrix(error[:3, :3]).magnitude()) == pytest.approx(0.5)
    assert np.linalg.norm(error[:3, 3]) == pytest.approx(0.005)
