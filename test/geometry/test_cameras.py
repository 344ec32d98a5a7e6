"""Pose encodings, projection and rigid transforms: what must hold for any camera."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from wristworld_ros.geometry import (
    camera_centre,
    compose,
    crop_intrinsics,
    decode_pose,
    encode_pose,
    fov_to_intrinsics,
    intrinsics_to_fov,
    invert_rigid,
    matrix_to_quaternion,
    pixel_grid,
    project,
    quaternion_to_matrix,
    resize_intrinsics,
    rotation_angle,
    to_homogeneous,
    transform_points,
    unproject_depth,
)

DATA = Path(__file__).parents[1] / 'fixtures'
numbers = st.floats(-3, 3, allow_subnormal=False)
quaternions = st.lists(numbers, min_size=4, max_size=4).filter(lambda q: sum(x * x for x in q) > 0.01)
translations = st.lists(numbers, min_size=3, max_size=3)
fovs = st.lists(st.floats(0.2, 2.5), min_size=2, max_size=2)
sizes = st.tuples(st.integers(8, 600), st.integers(8, 600))


def pose(q, t):
    rotation = quaternion_to_matrix(torch.tensor(q, dtype=torch.float64))
    return torch.cat([rotation, torch.tensor(t, dtype=torch.float64)[:, None]], 1)


def test_decoding_equals_the_public_fixture():
    data = load_file(DATA / 'spc_public.safetensors')
    extrinsics, intrinsics = decode_pose(data['input.wrist_pose_enc'], (70, 98))
    for found, wanted in ((extrinsics, data['output.extrinsics']), (intrinsics, data['output.intrinsics'])):
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@settings(deadline=None)
@given(q=quaternions, t=translations, fov=fovs, image_hw=sizes)
def test_encoding_and_decoding_undo_each_other(q, t, fov, image_hw):
    intrinsics = fov_to_intrinsics(torch.tensor(fov, dtype=torch.float64), image_hw)
    extrinsics = pose(q, t)
    again, intrinsics_again = decode_pose(encode_pose(extrinsics, intrinsics, image_hw), image_hw)
    torch.testing.assert_close(again, extrinsics)
    torch.testing.assert_close(intrinsics_again, intrinsics)
    torch.testing.assert_close(intrinsics_to_fov(intrinsics, image_hw), torch.tensor(fov, dtype=torch.float64))


@settings(deadline=None)
@given(q=quaternions, length=st.floats(0.1, 10))
def test_length_and_sign_of_a_quaternion_do_not_matter(q, length):
    q = torch.tensor(q, dtype=torch.float64)
    matrix = quaternion_to_matrix(q)
    torch.testing.assert_close(quaternion_to_matrix(-length * q), matrix)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(matrix) > 0.99
    unit = matrix_to_quaternion(matrix)
    assert unit[3] >= 0
    torch.testing.assert_close(quaternion_to_matrix(unit), matrix)


@pytest.mark.parametrize('axis', range(3))
@pytest.mark.parametrize('angle', [0.0, 1e-4, math.pi / 2, math.pi - 1e-4, math.pi])
def test_the_angle_between_rotations_is_exact_near_zero_and_near_pi(axis, angle):
    q = torch.zeros(4, dtype=torch.float64)
    q[axis], q[3] = math.sin(angle / 2), math.cos(angle / 2)
    matrix = quaternion_to_matrix(q).requires_grad_()
    assert rotation_angle(torch.eye(3, dtype=torch.float64), matrix).item() == pytest.approx(angle, abs=1e-9)
    matrix_to_quaternion(matrix).sum().backward()
    assert matrix.grad.isfinite().all()


@settings(deadline=None)
@given(q=quaternions, t=translations, q2=quaternions, t2=translations)
def test_rigid_transforms_invert_and_compose(q, t, q2, t2):
    first, second = pose(q, t), pose(q2, t2)
    points = torch.tensor([[0.3, -2.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(transform_points(invert_rigid(first), transform_points(first, points)), points)
    torch.testing.assert_close(
        transform_points(compose(first, second), points), transform_points(first, transform_points(second, points))
    )
    assert compose(first, second).shape == (3, 4) and invert_rigid(to_homogeneous(first)).shape == (4, 4)
    at_centre = transform_points(first, camera_centre(first)[None])
    torch.testing.assert_close(at_centre, torch.zeros_like(at_centre), atol=1e-9, rtol=0)


@settings(deadline=None)
@given(q=quaternions, t=translations, fov=fovs, image_hw=st.tuples(st.integers(2, 9), st.integers(2, 9)))
def test_projecting_an_unprojected_depth_gives_the_pixels_back(q, t, fov, image_hw):
    intrinsics = fov_to_intrinsics(torch.tensor(fov, dtype=torch.float64), image_hw)
    extrinsics = pose(q, t)
    depth = 0.5 + torch.rand(image_hw, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    world = unproject_depth(depth, intrinsics, extrinsics)
    uv, z = project(world.flatten(0, 1), intrinsics, extrinsics)
    torch.testing.assert_close(z.view(image_hw), depth)
    torch.testing.assert_close(
        uv.unflatten(0, image_hw), pixel_grid(image_hw, dtype=torch.float64), atol=1e-7, rtol=1e-7
    )


def test_everything_is_batched_and_differentiable():
    pose_enc = torch.randn(2, 3, 9, dtype=torch.float64) * 0.2 + 0.6
    pose_enc.requires_grad_()
    extrinsics, intrinsics = decode_pose(pose_enc, (60, 80))
    assert extrinsics.shape == (2, 3, 3, 4) and intrinsics.shape == (2, 3, 3, 3)
    points = torch.randn(2, 3, 5, 3, dtype=torch.float64)
    uv, z = project(points, intrinsics, extrinsics)
    assert uv.shape == (2, 3, 5, 2) and z.shape == (2, 3, 5)
    assert torch.autograd.gradcheck(lambda p: project(points, *decode_pose(p, (60, 80))[::-1])[1], (pose_enc,))


@settings(deadline=None)
@given(scale=st.integers(2, 5), left=st.integers(0, 3), top=st.integers(0, 3))
def test_resized_and_cropped_intrinsics_follow_the_image(scale, left, top):
    intrinsics = torch.tensor([[50.0, 0, 20], [0, 60.0, 12], [0, 0, 1]], dtype=torch.float64)
    point = torch.tensor([[0.1, -0.2, 1.5]], dtype=torch.float64)
    eye = torch.eye(4, dtype=torch.float64)[:3]
    (uv,) = project(point, intrinsics, eye)[0]
    (cropped,) = project(point, crop_intrinsics(intrinsics, left, top), eye)[0]
    torch.testing.assert_close(cropped, uv - torch.tensor([left, top], dtype=torch.float64))
    (centred,) = project(point, resize_intrinsics(intrinsics, (24, 40), (24 * scale, 40 * scale)), eye)[0]
    torch.testing.assert_close(centred, (uv + 0.5) * scale - 0.5)
    (edged,) = project(point, resize_intrinsics(intrinsics, (24, 40), (24 * scale, 40 * scale), centre=0.5), eye)[0]
    torch.testing.assert_close(edged, uv * scale)


def test_a_wrong_shape_is_reported_in_one_sentence():
    for call in (
        lambda: decode_pose(torch.zeros(8), (4, 4)),
        lambda: quaternion_to_matrix(torch.zeros(3)),
        lambda: matrix_to_quaternion(torch.zeros(3, 4)),
        lambda: invert_rigid(torch.zeros(3, 3)),
    ):
        with pytest.raises(ValueError, match='must be'):
            call()
