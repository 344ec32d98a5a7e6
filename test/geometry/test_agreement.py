"""Clouds that lie on one another agree, clouds that do not differ by their colours, and one alone has nothing to agree with."""

import numpy as np
import pytest
import torch

from wristworld_ros.geometry.agreement import cloud_agreement
from wristworld_ros.geometry.cloud import CloudSettings

CLOUD = CloudSettings(near=0.02)
K = torch.tensor([[60.0, 0, 31.5], [0, 60.0, 31.5], [0, 0, 1]], dtype=torch.float64)
T = torch.eye(4, dtype=torch.float64)


def wall(x=0.0, size=64):
    """A wall at half a metre that fills the view of the camera at the origin, moved sideways by x metres."""
    y, columns = np.mgrid[:size, :size]
    rays = np.stack([(columns - 31.5) / 60, (y - 31.5) / 60, np.ones((size, size))], -1)
    return torch.from_numpy((rays * 0.5 + [x, 0, 0]).astype(np.float32))


def stripes(shift=0):
    columns = (np.arange(64) + shift) // 8 % 2 * 200
    return torch.from_numpy(np.broadcast_to(columns[None, :, None], (64, 64, 3)).astype(np.uint8).copy())


def agreement(points, colors, hw=(64, 64), K=K):
    return cloud_agreement(torch.stack(points), torch.stack(colors), K, T, hw, CLOUD)


def test_the_same_surface_seen_by_two_anchors_agrees():
    assert agreement([wall(), wall()], [stripes(), stripes()]).tolist() == [1, 1]


def test_disagreement_is_the_mean_difference_of_the_colours():
    grey = [torch.full((64, 64, 3), value, dtype=torch.uint8) for value in (100, 151)]
    assert agreement([wall(), wall()], grey).tolist() == pytest.approx([0.8, 0.8])


def test_a_cloud_in_the_wrong_place_disagrees_where_its_colours_differ():
    moved = agreement([wall(), wall(8 / 60 * 0.5)], [stripes(), stripes()])
    assert moved.max() < 0.4


def test_one_anchor_alone_and_anchors_that_share_no_pixel_cannot_be_compared():
    assert agreement([wall()], [stripes()]).isnan().tolist() == [True]
    assert agreement([wall(), wall(2.0)], [stripes(), stripes()]).isnan().all()


def test_of_three_anchors_the_one_that_differs_agrees_least():
    found = agreement([wall()] * 3, [stripes(), stripes(8), stripes()])
    assert found.argmin() == 1 and found[0] == found[2] == pytest.approx((1 + found[1]) / 2)


def test_points_that_are_not_finite_count_for_nothing():
    hole, grey = wall(), torch.full((64, 64, 3), 100, dtype=torch.uint8)
    hole[:, :32] = float('nan')
    half = grey.clone()
    half[:, :32] = 255
    assert agreement([hole, wall()], [half, grey]).tolist() == [1, 1]


def test_the_maps_are_coarse_at_any_size_of_the_wrist_image():
    fine = K.clone()
    fine[:2] = torch.tensor([[600.0, 0, 319.5], [0, 600.0, 319.5]])
    assert agreement([wall(), wall()], [stripes(), stripes()], hw=(640, 640), K=fine).tolist() == [1, 1]
