"""Condition maps: the public fixture to the pixel, the reference renderer on any cloud, limits of the contract."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from wristworld_ros.apps.bench.reference_renderer import render_reference
from wristworld_ros.geometry import condition_map

DATA = Path(__file__).parents[1] / 'fixtures'


def load(name):
    with safe_open(DATA / name, 'pt') as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()['config'])  # noqa: SIM118


def scene(count, image_hw, seed=0, spread=1.5):
    generator = torch.Generator().manual_seed(seed)
    height, width = image_hw
    z = 2 * torch.rand(count, generator=generator) - 0.3
    xy = (torch.rand(count, 2, generator=generator) - 0.5) * spread
    points = torch.cat([xy * z[:, None].abs(), z[:, None]], 1)
    colors = torch.randint(0, 256, (count, 3), generator=generator, dtype=torch.uint8)
    intrinsics = torch.tensor([[0.9 * width, 0, width / 2], [0, 1.1 * height, height / 2], [0, 0, 1]])
    angle = torch.tensor(0.2)
    rotation = torch.tensor([[angle.cos(), 0, angle.sin()], [0, 1, 0], [-angle.sin(), 0, angle.cos()]])
    return points, colors, intrinsics, torch.cat([rotation, torch.tensor([[0.05], [-0.03], [0.1]])], 1)


def assert_equals_reference(points, colors, intrinsics, extrinsics, **settings_):
    image, depth = condition_map(points, colors, intrinsics, extrinsics, **settings_)
    arrays = (value.numpy() for value in (points, colors, intrinsics, extrinsics))
    wanted_image, wanted_depth = render_reference(*arrays, **settings_)
    assert np.array_equal(image.numpy(), wanted_image)
    assert np.array_equal(depth.numpy(), wanted_depth)


def test_equals_the_public_fixture_in_every_pixel():
    data, config = load('splat_public.safetensors')
    image, depth = condition_map(
        *(data[f'input.{name}'] for name in ('points', 'colors', 'intrinsics', 'extrinsics')),
        image_hw=tuple(config['image_hw']),
        radius=config['radius'],
        near=config['near'],
    )
    assert image.dtype == torch.uint8 and depth.dtype == torch.float32
    assert torch.equal(image, data['output.image'])
    assert torch.equal(depth, data['output.depth'])


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(0, 300),
    image_hw=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    radius=st.integers(0, 4),
    near=st.sampled_from([0.0, 0.01, 0.5]),
    seed=st.integers(0, 10**6),
)
def test_equals_the_reference_renderer_on_any_cloud(count, image_hw, radius, near, seed):
    assert_equals_reference(*scene(count, image_hw, seed), image_hw=image_hw, radius=radius, near=near)


def test_equals_the_reference_renderer_where_many_points_are_equally_near():
    points, colors, intrinsics, _ = scene(2000, (30, 40))
    points[:, 2] = 1.0
    assert_equals_reference(points, colors, intrinsics, torch.eye(4)[:3], image_hw=(30, 40))


def test_equals_the_reference_renderer_on_a_dense_cloud_of_the_published_size():
    assert_equals_reference(*scene(60_000, (294, 518)), image_hw=(294, 518))


def test_order_of_the_points_does_not_matter():
    points, colors, intrinsics, extrinsics = scene(3000, (50, 70))
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(1))
    first = condition_map(points, colors, intrinsics, extrinsics, image_hw=(50, 70))
    second = condition_map(points[order], colors[order], intrinsics, extrinsics, image_hw=(50, 70))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_no_points_give_a_black_image():
    image, depth = condition_map(
        torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8), torch.eye(3), torch.eye(4)[:3], image_hw=(5, 7)
    )
    assert image.shape == (5, 7, 3) and not image.any() and depth.shape == (5, 7) and not depth.any()


def test_points_that_are_not_finite_are_ignored():
    points, colors, intrinsics, extrinsics = scene(500, (30, 40))
    dirty = torch.cat([points, torch.full((3, 3), torch.nan), torch.full((2, 3), torch.inf), points[:1]])
    dirty[-1, 1] = torch.nan
    shades = torch.cat([colors, torch.full((6, 3), 255, dtype=torch.uint8)])
    wanted = condition_map(points, colors, intrinsics, extrinsics, image_hw=(30, 40))
    found = condition_map(dirty, shades, intrinsics, extrinsics, image_hw=(30, 40))
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_a_centre_outside_covers_nothing_even_where_its_footprint_reaches_in():
    intrinsics = torch.eye(3)
    colors = torch.full((4, 3), 255, dtype=torch.uint8)
    points = torch.tensor([[-0.01, 2, 1], [10.0, 2, 1], [3, -0.5, 1], [3, 5.0, 1]])
    image, _ = condition_map(points, colors, intrinsics, torch.eye(4)[:3], image_hw=(5, 10))
    assert not image.any()
    inside, _ = condition_map(
        torch.tensor([[0.0, 0.0, 1.0]]), colors[:1], intrinsics, torch.eye(4)[:3], image_hw=(5, 10)
    )
    assert int(inside[..., 0].bool().sum()) == 6  # a quarter of the 13-pixel footprint with its axes


def test_near_plane_is_strict():
    points, colors = torch.tensor([[0.0, 0.0, 0.5]]), torch.full((1, 3), 9, dtype=torch.uint8)
    at, _ = condition_map(points, colors, torch.eye(3), torch.eye(4)[:3], image_hw=(3, 3), near=0.5)
    before, _ = condition_map(points, colors, torch.eye(3), torch.eye(4)[:3], image_hw=(3, 3), near=0.49)
    assert not at.any() and before.any()


def test_non_contiguous_and_float64_inputs_give_the_same():
    points, colors, intrinsics, extrinsics = scene(500, (30, 40))
    wanted = condition_map(points, colors, intrinsics, extrinsics, image_hw=(30, 40))
    strided = condition_map(
        points.T.contiguous().T, colors.repeat(1, 2)[:, :3], intrinsics.double(), extrinsics.double(), image_hw=(30, 40)
    )
    assert all(torch.equal(a, b) for a, b in zip(wanted, strided, strict=True))


def test_inputs_are_left_as_they_were_and_nothing_requires_a_gradient():
    inputs = scene(100, (10, 12))
    before = [value.clone() for value in inputs]
    image, depth = condition_map(inputs[0].requires_grad_(), *inputs[1:], image_hw=(10, 12))
    assert not depth.requires_grad and not image.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'points': torch.zeros(4, 2)}, 'points'),
        ({'colors': torch.zeros(4, 3)}, 'uint8'),
        ({'intrinsics': torch.zeros(4, 4)}, 'intrinsics'),
        ({'extrinsics': torch.zeros(3, 3)}, 'camera-from-world'),
        ({'intrinsics': torch.zeros(3, 3, device='meta')}, 'one device'),
        ({'image_hw': (0, 4)}, 'at least 1'),
    ],
)
def test_a_wrong_input_is_reported_in_one_sentence(change, words):
    given_ = {
        'points': torch.zeros(4, 3),
        'colors': torch.zeros(4, 3, dtype=torch.uint8),
        'intrinsics': torch.eye(3),
        'extrinsics': torch.eye(4)[:3],
        'image_hw': (4, 4),
    }
    with pytest.raises(ValueError, match=words) as error:
        condition_map(**(given_ | change))
    assert '\n' not in str(error.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_cuda_equals_cpu_in_every_pixel():
    inputs = scene(100_000, (294, 518))
    wanted = condition_map(*inputs, image_hw=(294, 518))
    found = condition_map(*(value.cuda() for value in inputs), image_hw=(294, 518))
    assert all(torch.equal(a, b.cpu()) for a, b in zip(wanted, found, strict=True))
