"""Loading public checkpoints: with and without a wrist head, and the error where they do not belong to the model."""

from __future__ import annotations

import logging

import pytest
import torch

from wristworld_ros.errors import UserError
from wristworld_ros.models.vggt import ReconstructionModel, load_public_weights

TINY = {
    'img_size': 28,
    'embed_dim': 16,
    'depth': 1,
    'num_heads': 2,
    'camera_trunk_depth': 1,
    'dpt_layers': [0, 0, 0, 0],
    'dpt_features': 8,
    'dpt_out_channels': [4, 4, 4, 4],
    'heads': ['camera', 'wrist', 'depth'],
}


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return ReconstructionModel.from_config(TINY), ReconstructionModel.from_config(TINY).state_dict()


def test_a_file_without_a_wrist_head_says_so_and_leaves_it_as_it_was(pair, caplog):
    model, weights = pair
    before = {name: value.clone() for name, value in model.wrist_head.state_dict().items()}
    public = {name: value for name, value in weights.items() if not name.startswith('wrist_head.')}
    with caplog.at_level(logging.INFO):
        sentence = load_public_weights(model, public)
    assert 'the wrist head stays as it was' in sentence and sentence in caplog.text and sentence.count('.') <= 2
    assert all(torch.equal(value, model.wrist_head.state_dict()[name]) for name, value in before.items())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in public.items())


def test_a_whole_file_loads_all(pair):
    model, weights = pair
    assert load_public_weights(model, weights) == f'Loaded {len(weights)} tensors.'
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_a_wrong_shape_names_the_key_the_shape_found_and_the_shape_wanted_and_changes_nothing(pair):
    model, weights = pair
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wrong = weights | {'camera_head.embed_pose.weight': torch.zeros(3, 9)}
    with pytest.raises(UserError, match=r'camera_head.embed_pose.weight has shape \[3, 9\], wanted \[32, 9\]'):
        load_public_weights(model, wrong)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_missing_and_unknown_names_are_reported_in_one_sentence_and_change_nothing(pair):
    model, weights = pair
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for wrong, words in (
        (_without(weights, 'camera_head.embed_pose.weight'), r'key camera_head.embed_pose.weight is missing'),
        (weights | {'aggregator.more': torch.zeros(1)}, r'key aggregator.more .* is not part of this model'),
        (_without(weights, 'wrist_head.token_query'), r'key wrist_head.token_query is missing'),
    ):
        with pytest.raises(UserError, match=words) as error:
            load_public_weights(model, wrong, 'model.pt')
        assert str(error.value).startswith('model.pt: ') and '\n' not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def _without(weights, name):
    return {n: value for n, value in weights.items() if n != name}


def test_a_model_on_the_meta_device_takes_the_tensors_and_gets_an_initialised_wrist_head(pair):
    _, weights = pair
    with torch.device('meta'):
        model = ReconstructionModel.from_config(TINY)
    load_public_weights(model, {name: value for name, value in weights.items() if not name.startswith('wrist_head.')})
    assert not any(value.is_meta for value in model.state_dict().values())
    with torch.no_grad():
        out = model.eval()(torch.rand(1, 2, 3, 28, 28))
    assert (out.wrist_pose_enc[-1, ..., 6:] - 1).abs().max() < 0.2
