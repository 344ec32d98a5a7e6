"""The wrist pose is refined until the model's own points agree with their predicted scene coordinates."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wristworld_ros.geometry import pose_error, transform_points
from wristworld_ros.models.vggt.scene_coordinates import patch_centers, refine_wrist


def pose(rng, angle=3.0, distance=0.5):
    axis = rng.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    a = rng.uniform(0, angle)
    T = np.eye(4)
    T[:3, :3] += np.sin(a) * K + (1 - np.cos(a)) * K @ K
    T[:3, 3] = rng.uniform(-distance, distance, 3)
    return torch.from_numpy(T)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_it_finds_the_pose_from_a_wrong_start_with_a_third_of_the_patches_wrong(seed):
    rng = np.random.default_rng(seed)
    scene_coordinates = torch.from_numpy(rng.uniform(-0.3, 0.3, (96, 3)) + [0, 0, 0.3])
    true = pose(rng)
    points = transform_points(torch.linalg.inv(true), scene_coordinates)
    points[:32] += torch.from_numpy(rng.uniform(0.3, 0.6, (32, 3)))
    start = pose(rng, angle=0.15, distance=0.08) @ true
    degrees, metres = pose_error(refine_wrist(start, points, scene_coordinates), true)
    before, away = pose_error(start, true)
    assert degrees < max(1.0, 0.3 * before) and metres < max(0.01, 0.3 * away)


def test_a_pose_that_agrees_stays():
    rng = np.random.default_rng(0)
    scene_coordinates, true = torch.from_numpy(rng.uniform(-0.2, 0.4, (40, 3))), pose(rng)
    found = refine_wrist(true, transform_points(torch.linalg.inv(true), scene_coordinates), scene_coordinates)
    assert torch.allclose(found, true, atol=1e-9)


@pytest.mark.parametrize('points', [torch.zeros(5, 3), torch.arange(5)[:, None] * torch.ones(3)])
def test_points_that_do_not_determine_the_pose_leave_it_as_it_was(points):
    T = torch.eye(4)
    assert torch.equal(refine_wrist(T, points, points), T.double())


def test_patch_centers_are_the_entries_at_the_centres_of_patches():
    maps = torch.arange(4 * 6).reshape(1, 1, 4, 6)
    assert patch_centers(maps, 2).tolist() == [[[7, 9, 11, 19, 21, 23]]]


def test_a_mistake_of_the_caller_is_not_taken_for_an_undetermined_pose():
    with pytest.raises(ValueError, match='must both be'):
        refine_wrist(torch.eye(4), torch.zeros(1, 3), torch.rand(5, 3))
