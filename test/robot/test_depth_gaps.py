"""Lines that registration leaves empty are bridged within a surface, and nothing else is."""

import numpy as np

from wristworld_ros.robot.depth_gaps import bridge_gaps


def plane() -> np.ndarray:
    """Two views of a slanted plane."""
    v, u = np.mgrid[:24, :32]
    return np.stack([0.5 + 0.001 * u + 0.002 * v, 0.7 + 0.001 * v + 0 * u]).astype(np.float32)


def test_empty_rows_and_columns_of_a_plane_are_bridged_exactly():
    depth = plane()
    depth[:, 3:-1:4] = 0
    depth[:, :, 2:-1:4] = 0
    np.testing.assert_allclose(bridge_gaps(depth), plane(), atol=1e-6)


def test_wide_gaps_edges_of_depth_and_the_border_stay_empty():
    wide, border, edge = plane(), plane(), plane()
    wide[:, 4:6] = wide[:, :, 7:9] = 0
    border[:, 0] = border[:, :, -1] = 0
    edge[:, :, :10] = 1.5
    edge[:, :, 10] = 0
    for depth in (wide, border, edge):
        np.testing.assert_array_equal(bridge_gaps(depth), depth)


def test_depth_that_is_complete_is_not_copied():
    depth = plane()
    assert bridge_gaps(depth) is depth
