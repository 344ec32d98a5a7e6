"""The dense target of small models, and their stem."""

import pytest
import torch

from wristworld_ros.reconstruction import ReconstructionModel
from wristworld_ros.reconstruction.places import patch_middles

CONFIG = {
    'img_size': 32, 'patch_size': 8, 'patch_stem': 'convolutional', 'embed_dim': 32, 'depth': 4, 'num_heads': 4,
    'patch_embed_depth': 1, 'camera_trunk_depth': 1, 'dpt_features': 8, 'heads': ['camera', 'wrist', 'depth', 'places'],
}  # fmt: skip


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
