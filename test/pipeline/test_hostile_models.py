"""A model directory from elsewhere: whatever is in it, loading ends at once with one sentence that names the file."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wristworld_ros.models.config import ModelError
from wristworld_ros.pipeline import load_model, save_model, tiny_random_model
from wristworld_ros.pipeline.memory_check import check_memory, estimate_for
from wristworld_ros.settings import StreamSettings

HUGE = 10**12


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('model')
    save_model(tiny_random_model(), folder, torch.float32)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / 'model'))


def changed(folder, change):
    config = json.loads((folder / 'config.json').read_text())
    change(config)
    (folder / 'config.json').write_text(json.dumps(config))


def refused(folder, words):
    start = time.monotonic()
    with pytest.raises(ModelError, match=words) as error:
        load_model(str(folder), 'cpu')
    assert str(folder) in str(error.value) and '\n' not in str(error.value)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda c: c.update(name=7), 'name: expected `str`'),
        (lambda c: c.update(wrist_hw=[HUGE, HUGE]), 'wrist_hw'),
        (lambda c: c.update(wrist_hw=[128]), 'wrist_hw'),
        (lambda c: c.update(wrist_hw='12'), 'wrist_hw'),
        (lambda c: c.update(anchor_width=0), 'anchor_width'),
        (lambda c: c.update(anchor_width='wide'), 'anchor_width'),
        (lambda c: c.update(noise_share=2.0), 'noise_share'),
        (lambda c: c.update(precision='int8'), 'precision'),
        (lambda c: c.update(untrained='wrist_head'), 'untrained'),
        (lambda c: c.update(use_condition=1), 'use_condition'),
        (lambda c: c.update(cloud=None), 'cloud'),
        (lambda c: c['cloud'].update(upsample=HUGE), 'upsample'),
        (lambda c: c['cloud'].update(radius='2'), 'radius'),
        (lambda c: c['cloud'].update(render_size=[HUGE, HUGE]), 'render_size'),
        (lambda c: c.update(stage1=[1]), 'stage1'),
        (lambda c: c['stage1'].update(depth=HUGE), 'depth'),
        (lambda c: c['stage1'].update(depth='deep'), 'depth'),
        (lambda c: c['stage1'].update(embed_dim=HUGE), 'embed_dim'),
        (lambda c: c['stage1'].update(embed_dim=None), 'embed_dim'),
        (lambda c: c['stage1'].update(num_heads=0), 'num_heads'),
        (lambda c: c['stage1'].update(patch_size=-16), 'patch_size'),
        (lambda c: c['stage1'].update(dpt_layers=5), 'dpt_layers'),
        (lambda c: c['stage1'].update(heads=[['camera']]), 'heads'),
        (lambda c: c['stage1'].update(dpt_features='many'), 'dpt_features'),
        (lambda c: c['stage1'].update(track_iters=HUGE), 'track_iters'),
        (lambda c: c['generator'].update(num_layers=HUGE), 'num_layers'),
        (lambda c: c['generator'].update(dim='192'), 'dim'),
        (lambda c: c['generator'].update(dim=1.5), 'dim'),
        (lambda c: c['generator'].update(num_heads=0), 'num_heads'),
        (lambda c: c['generator'].update(max_frames=HUGE), 'max_frames'),
        (lambda c: c['generator'].update(patch_size=[1, 2]), 'patch_size'),
        (lambda c: c['generator'].update(shift=0), 'shift'),
        (lambda c: c['generator'].update(autoencoder=None), 'autoencoder'),
        (lambda c: c['generator'].update(autoencoder='pixel_unshuffle'), 'autoencoder'),
        (lambda c: c['generator'].update(autoencoder={'kind': 'pixel_unshuffle', 'factor': HUGE}), 'autoencoder'),
        (lambda c: c['generator'].update(autoencoder={'kind': 'wan', 'dim': HUGE}), 'autoencoder'),
        (lambda c: c['generator']['decoder'].update(widths=HUGE), 'decoder'),
        (lambda c: c['generator']['decoder'].update(factor=0), 'decoder'),
        (lambda c: c['generator']['decoder'].update(widths=[7, 7, 7, 7]), 'config.json'),
        (lambda c: c['generator']['anchor_encoder'].update(num_layers=HUGE), 'anchor_encoder'),
        (lambda c: c['generator']['anchor_encoder'].update(num_heads=7), 'config.json'),
    ],
)
def test_values_that_are_wrong_or_huge_are_named(folder, change, words):
    changed(folder, change)
    refused(folder, words)
    with pytest.raises(ModelError):
        estimate_for(StreamSettings(model=str(folder), device='cpu'), 2)


def test_a_tiny_decoder_that_is_huge_or_not_there_is_refused(folder):
    changed(folder, lambda c: c.update(tiny_decoder={'width': HUGE}))
    refused(folder, 'tiny decoder')


def test_the_check_of_memory_refuses_them_too(folder):
    changed(folder, lambda c: c['generator'].update(num_layers=HUGE))
    with pytest.raises(ValueError, match='num_layers'):
        check_memory(StreamSettings(model=str(folder), device='cpu'), 2)


@pytest.mark.parametrize('name', ['config.json', 'stage1.safetensors', 'generator.safetensors'])
def test_pipes_devices_and_directories_in_place_of_files_are_named(folder, name):
    for kind, words in (
        ('pipe', 'a named pipe'),
        ('device', 'a device'),
        ('directory', 'a directory'),
        ('none', 'missing'),
    ):
        path = folder / name
        path.unlink() if path.is_symlink() or path.is_file() or path.is_fifo() else path.is_dir() and path.rmdir()
        if kind == 'pipe':
            os.mkfifo(path)
        elif kind == 'device':
            path.symlink_to('/dev/zero')
        elif kind == 'directory':
            path.mkdir()
        refused(folder, words)


def test_a_config_nested_without_end_is_one_sentence(folder):
    (folder / 'config.json').write_text('{"stage1": ' + '[' * 10_000_000)
    refused(folder, 'nested too deeply|at most')


@pytest.mark.parametrize('file', ['stage1.safetensors', 'generator.safetensors'])
@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_weights_that_are_nan_or_infinite_are_named_before_anything_runs(folder, file, value):
    weights = load_file(folder / file)
    key = sorted(weights)[3]
    weights[key] = weights[key].float()
    weights[key].view(-1)[-1] = value
    save_file(weights, folder / file)
    refused(folder, f'key {key} holds NaN or infinity')


def test_weights_too_large_for_the_dtype_they_are_kept_in_are_named(folder):
    weights = {k: v.float() for k, v in load_file(folder / 'stage1.safetensors').items()}
    key = sorted(weights)[3]
    weights[key] = weights[key].double()
    weights[key].view(-1)[0] = 1e300
    save_file(weights, folder / 'stage1.safetensors')
    refused(folder, f'key {key} holds NaN or infinity as float32')


@pytest.mark.parametrize('dtype', [torch.int8, torch.int64, torch.bool])
def test_integer_weights_are_refused(folder, dtype):
    weights = {key: tensor.to(dtype) for key, tensor in load_file(folder / 'stage1.safetensors').items()}
    save_file(weights, folder / 'stage1.safetensors')
    refused(folder, r'is stored as \w+, and floating-point weights are wanted')


def test_a_truncated_file_of_weights_is_named(folder):
    path = folder / 'generator.safetensors'
    path.write_bytes(path.read_bytes()[:1000])
    refused(folder, 'cannot be read as safetensors')


def test_shipped_models_load_still():
    assert load_model('sim_tiny', 'cpu').config.name == 'sim_tiny'
