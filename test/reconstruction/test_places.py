"""The wrist pose from where the patches say they lie."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wristworld_ros.geometry import quaternion_to_matrix, transform_points
from wristworld_ros.reconstruction import ReconstructionModel
from wristworld_ros.reconstruction.places import patch_middles, wrist_from_places

CONFIG = {
    'img_size': 32, 'patch_size': 8, 'patch_stem': 'convolutional', 'embed_dim': 32, 'depth': 4, 'num_heads': 4,
    'patch_embed_depth': 1, 'camera_trunk_depth': 1, 'dpt_features': 8, 'heads': ['camera', 'wrist', 'depth', 'places'],
}  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=7, max_size=7), st.integers(0, 1000))
def test_exact_places_give_the_exact_pose(numbers, seed):
    turn, shift = torch.tensor(numbers[:4], dtype=torch.float64), torch.tensor(numbers[4:], dtype=torch.float64)
    turn = turn + torch.tensor([0, 0, 0, 2.0])
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3], T[:3, 3] = quaternion_to_matrix(turn), shift
    places = torch.rand(40, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
    points = transform_points(torch.linalg.inv(T), places)
    assert torch.allclose(wrist_from_places(points, places), T, atol=1e-9)


def test_far_patches_do_not_count_and_too_few_near_ones_give_no_pose():
    near, far = torch.rand(10, 3) * 0.3, torch.rand(10, 3) + 3
    points = torch.cat([near, torch.rand(10, 3) * 100])
    pose = wrist_from_places(points, torch.cat([near, far]))
    assert torch.allclose(pose, torch.eye(4, dtype=torch.float64), atol=1e-6)
    assert wrist_from_places(far, far) is None
    line = torch.linspace(0, 1, 10)[:, None] * torch.ones(3)
    assert wrist_from_places(line, line) is None


def test_middles_are_those_of_the_patches_in_the_order_of_the_tokens():
    grid = torch.stack(torch.meshgrid(torch.arange(16), torch.arange(24), indexing='ij'), -1)[None, None]
    assert patch_middles(grid, 8)[0, 0].tolist() == [[4, 4], [4, 12], [4, 20], [12, 4], [12, 12], [12, 20]]


def test_the_head_is_built_only_where_it_is_named_and_gives_a_place_a_patch():
    model = ReconstructionModel.from_config(CONFIG)
    out = model(torch.rand(2, 3, 3, 16, 24))
    assert out.places.shape == (2, 3, 6, 6)
    plain = ReconstructionModel.from_config({**CONFIG, 'heads': ['camera']})
    assert plain(torch.rand(1, 1, 3, 16, 24)).places is None
    with pytest.raises(ValueError, match='places'):
        plain(torch.rand(1, 1, 3, 16, 24), heads=('places',))


def test_a_convolutional_stem_wants_a_power_of_two():
    with pytest.raises(ValueError, match='power of 2'):
        ReconstructionModel.from_config({**CONFIG, 'patch_size': 14, 'img_size': 56})
