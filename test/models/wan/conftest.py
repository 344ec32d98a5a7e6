"""Numeric fixtures from `test/fixtures`, and a generator of the small model's form at test size."""

import ast
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from wristworld_ros.models.wan import SIM_TINY, WristGenerator

DATA = Path(__file__).parents[2] / 'fixtures'


@dataclass
class Fixture:
    """One numeric fixture: configuration, weights, inputs and what a correct implementation computes."""

    config: dict
    weights: dict
    input: dict
    output: dict

    def assert_agrees(self, name, found):
        """1e-4 of the output's largest magnitude."""
        wanted = self.output[name]
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max(), name


@pytest.fixture
def load_fixture():
    def load(name):
        with safe_open(DATA / f'{name}.safetensors', 'pt') as file:
            parts = {'weights': {}, 'input': {}, 'output': {}}
            for key in file.keys():  # noqa: SIM118 (it is not a dictionary)
                kind, rest = key.split('.', 1)
                parts[kind][rest] = file.get_tensor(key)
            return Fixture(json.loads(file.metadata()['config']), **parts)

    return load


@pytest.fixture
def load_keys():
    """The names and shapes of a published checkpoint."""

    def load(name):
        lines = (DATA / f'{name}.txt').read_text().splitlines()
        return {key: tuple(ast.literal_eval(shape)) for key, shape in (line.split(' ', 1) for line in lines)}

    return load


@pytest.fixture(scope='session')
def small_config():
    """The small model's form at test size: 32x32 images, 2 anchor views."""
    return SIM_TINY | {
        'dim': 48,
        'ffn_dim': 64,
        'text_dim': 24,
        'freq_dim': 32,
        'num_heads': 4,
        'num_layers': 2,
        'clip_dim': 32,
        'clip_hidden': 16,
        'out_channels': 12,
        'decoder': {'factor': 8, 'widths': [8, 8, 16, 16], 'noise_channels': 16},
        'anchor_encoder': {'image_size': 32, 'dim': 32, 'num_heads': 2, 'num_layers': 2, 'patch_size': 16},
        'chunk_frames': 2,
        'history_chunks': 2,
    }


@pytest.fixture
def small_gen(small_config):
    """A small generator whose decoder has left its starting point, so that every part counts."""
    torch.manual_seed(0)
    gen = WristGenerator.from_config(small_config)
    torch.nn.init.normal_(gen.decoder.last.weight, std=0.3)
    return gen
