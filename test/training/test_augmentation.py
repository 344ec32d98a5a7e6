"""Zoom and roll change the camera, never the scene."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wristworld_ros.geometry import invert_rigid, project, unproject_depth
from wristworld_ros.training.augmentation import color_table, recolor, zoom_and_roll


@settings(max_examples=20, deadline=None)
@given(zoom=st.floats(0.8, 1.4), roll=st.floats(-0.2, 0.2), size=st.sampled_from([(128, 96), (160, 120)]))
def test_world_points_of_the_new_picture_lie_on_the_old_surface(zoom, roll, size):
    K = np.array([[150.0, 0, 79.5], [0, 150.0, 59.5], [0, 0, 1]])
    T = np.eye(4)
    T[:3, 3] = [0.1, -0.2, 0.5]
    rows, columns = np.mgrid[:120, :160]
    depth = 1.0 + 0.002 * rows + 0.001 * columns  # a slanted plane in pixels: any point can be looked up
    rgb = np.stack([columns, rows, rows], -1).astype(np.uint8)
    _, new_depth, new_K, new_T = zoom_and_roll(rgb, depth.astype(np.float32), K, T, zoom, roll, size)
    world = unproject_depth(torch.from_numpy(new_depth).double(), torch.from_numpy(new_K), torch.from_numpy(new_T))
    uv, z = project(world.reshape(-1, 3), torch.from_numpy(K), torch.from_numpy(T))
    hit = torch.from_numpy(new_depth.reshape(-1) > 0)
    expected = 1.0 + 0.002 * uv[:, 1] + 0.001 * uv[:, 0]
    assert hit.float().mean() > 0.5
    assert (z - expected)[hit].abs().max() < 0.004  # depth is taken from the nearest pixel


def test_recolouring_is_the_same_for_equal_pixels_and_keeps_the_order_of_brightness():
    table = color_table(np.random.default_rng(0), 1.0)
    assert table.dtype == np.uint8 and (np.diff(table.astype(int), axis=0) >= 0).all()
    picture = np.random.default_rng(1).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    assert np.array_equal(recolor(picture, table)[0, 0], [table[picture[0, 0, c], c] for c in range(3)])


def test_a_rigid_turn_stays_rigid():
    _, _, _, T = zoom_and_roll(
        np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.float32), np.eye(3), np.eye(4), 1.1, 0.3, (8, 8)
    )
    T = torch.from_numpy(T)
    assert (T @ invert_rigid(T)).numpy() == pytest.approx(np.eye(4))
