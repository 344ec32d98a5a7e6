"""Alignment: the similarity that made the data is recovered, and data that do not determine it are rejected."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wristworld_ros.geometry import (
    DegenerateFitError,
    Similarity,
    align_camera_centres,
    align_cameras,
    fit_rigid,
    fit_similarity,
    invert_rigid,
    pose_error,
    quaternion_to_matrix,
)


def random_similarity(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    rotation = quaternion_to_matrix(torch.randn(4, generator=generator, dtype=torch.float64))
    translation = torch.randn(3, generator=generator, dtype=torch.float64)
    return Similarity(torch.tensor(scale, dtype=torch.float64), rotation, translation), generator


def random_cameras(count, generator):
    rotation = quaternion_to_matrix(torch.randn(count, 4, generator=generator, dtype=torch.float64))
    return torch.cat([rotation, torch.randn(count, 3, 1, generator=generator, dtype=torch.float64)], 2)


def assert_same(found, wanted):
    for name in ('scale', 'rotation', 'translation'):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), atol=1e-7, rtol=1e-7)


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10), count=st.integers(4, 30))
def test_a_similarity_is_recovered(seed, scale, count):
    wanted, generator = random_similarity(seed, scale)
    source = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    weights = 0.1 + torch.rand(count, generator=generator, dtype=torch.float64)
    assert_same(fit_similarity(source, wanted.points(source)), wanted)
    assert_same(fit_similarity(source, wanted.points(source), weights), wanted)


def test_points_without_weight_do_not_count():
    wanted, generator = random_similarity(0, 1.0)
    source = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    target = wanted.points(source)
    target[:3] += 5
    weights = torch.ones(20)
    weights[:3] = 0
    assert_same(fit_rigid(source, target, weights), wanted)


def test_a_mirrored_cloud_still_gives_a_rotation():
    source = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = fit_similarity(source, source * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    assert torch.linalg.det(found.rotation).item() == pytest.approx(1)


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10), count=st.integers(1, 6))
def test_cameras_moved_by_a_similarity_are_aligned_back(seed, scale, count):
    wanted, generator = random_similarity(seed, scale if count > 1 else 1.0)
    estimated = random_cameras(count, generator)
    true = wanted.cameras(estimated)
    found = align_cameras(estimated, true)
    assert_same(found, wanted)
    degrees, metres = pose_error(found.cameras(estimated), true)
    assert degrees.max() < 1e-5 and metres.max() < 1e-6
    if count > 3:
        assert_same(align_camera_centres(estimated, true), wanted)


def test_pose_error_is_in_degrees_and_in_metres_between_centres():
    quarter = quaternion_to_matrix(torch.tensor([0, 0, math.sin(math.pi / 4), math.cos(math.pi / 4)]).double())
    world_camera = torch.cat([quarter, torch.tensor([[0.0], [3.0], [4.0]]).double()], 1)
    degrees, metres = pose_error(invert_rigid(world_camera), torch.eye(4).double()[:3])
    assert degrees.item() == pytest.approx(90) and metres.item() == pytest.approx(5)


@pytest.mark.parametrize(
    ('source', 'words'),
    [(torch.randn(2, 3), 'needs 3 points'), (torch.arange(5.0)[:, None].expand(5, 3), 'one line')],
)
def test_points_that_do_not_determine_the_transform_are_rejected(source, words):
    with pytest.raises(DegenerateFitError, match=words):
        fit_similarity(source, source)


def test_a_wrong_shape_is_the_callers_mistake():
    with pytest.raises(ValueError, match='N, 3') as error:
        fit_similarity(torch.randn(5, 2), torch.randn(5, 2))
    assert not isinstance(error.value, DegenerateFitError)
