"""Model directories: what is written is what is read, and what does not fit is named."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from wristworld_ros.models.config import ModelError
from wristworld_ros.pipeline import load_model, save_model, tiny_random_model


@pytest.fixture
def folder(tmp_path):
    save_model(tiny_random_model(), tmp_path, torch.float32)
    return tmp_path


def test_a_saved_model_comes_back_equal(folder):
    ours, loaded = tiny_random_model(), load_model(str(folder), 'cpu')
    for name in ('stage1', 'generator'):
        expected = getattr(ours, name).state_dict()
        for key, tensor in getattr(loaded, name).state_dict().items():
            assert torch.equal(tensor, expected[key]), key
    assert loaded.config == ours.config


def test_half_precision_on_disk_is_float32_in_memory(tmp_path):
    save_model(tiny_random_model(), tmp_path)
    assert load_file(tmp_path / 'stage1.safetensors')['aggregator.camera_token'].dtype == torch.float16
    assert next(load_model(str(tmp_path), 'cpu').stage1.parameters()).dtype == torch.float32


def test_weight_names_are_the_public_ones(folder):
    assert 'wrist_head.token_query' in load_file(folder / 'stage1.safetensors')
    assert 'denoising_model.blocks.0.self_attn.q.weight' in load_file(folder / 'generator.safetensors')


@pytest.mark.parametrize('name', ['config.json', 'stage1.safetensors', 'generator.safetensors'])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f'{name} is missing'):
        load_model(str(folder), 'cpu')


def test_a_truncated_file_is_named(folder):
    path = folder / 'generator.safetensors'
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r'generator\.safetensors cannot be read'):
        load_model(str(folder), 'cpu')


def test_a_wrong_shape_is_named_with_both_shapes(folder):
    path = folder / 'stage1.safetensors'
    tensors = load_file(path)
    tensors['wrist_head.token_query'] = torch.zeros(1, 1, 7)
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r'wrist_head\.token_query has shape \[1, 1, 7\], wanted \[1, 1, 32\]'):
        load_model(str(folder), 'cpu')


def test_an_unknown_format_or_key_is_refused(folder):
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps(config | {'format': 99}))
    with pytest.raises(ModelError, match='format 1'):
        load_model(str(folder), 'cpu')
    (folder / 'config.json').write_text(json.dumps(config | {'nonsense': 1}))
    with pytest.raises(ModelError, match='nonsense'):
        load_model(str(folder), 'cpu')


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(ModelError, match="no model 'nothing_of_that_name'"):
        load_model('nothing_of_that_name', 'cpu')
