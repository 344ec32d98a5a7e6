"""A saved generator comes back, and damaged ones are refused with the file and the key."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from wristworld_ros.generation.storage import CONFIG_FILE, WEIGHTS_FILE, load_generator, save_generator


@pytest.fixture
def saved(small_gen, tmp_path):
    save_generator(small_gen, tmp_path)
    return small_gen, tmp_path


@torch.no_grad()
def test_round_trip_is_float32_in_memory_and_half_on_disk(saved):
    gen, directory = saved
    back = load_generator(directory)
    assert back.settings == gen.settings
    assert all(t.dtype == torch.float16 for t in load_file(directory / WEIGHTS_FILE).values())
    for name, tensor in back.release_tensors().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, gen.release_tensors()[name].half().float())
    latents, timestep = torch.randn(1, 192, 2, 4, 4), torch.full((1,), 400.0)
    a, b = (g.predict(latents, None, timestep, g.context(None, None)) for g in (gen, back))
    assert torch.allclose(a, b, atol=2e-2)


def test_full_precision_is_exact(small_gen, tmp_path):
    save_generator(small_gen, tmp_path, half=False)
    back = load_generator(tmp_path).release_tensors()
    assert all(torch.equal(tensor, back[name]) for name, tensor in small_gen.release_tensors().items())


def test_damaged_models_are_refused(saved):
    _, directory = saved
    weights = load_file(directory / WEIGHTS_FILE)
    key = 'denoising_model.blocks.0.self_attn.q.bias'
    save_file(weights | {key: torch.zeros(3)}, directory / WEIGHTS_FILE)
    with pytest.raises(ValueError, match=rf'{WEIGHTS_FILE}: key {key} has shape \[3\], wanted \[48\]'):
        load_generator(directory)
    save_file({name: t for name, t in weights.items() if name != key}, directory / WEIGHTS_FILE)
    with pytest.raises(ValueError, match=f'key {key} is missing'):
        load_generator(directory)
    (directory / WEIGHTS_FILE).write_bytes(b'short')
    with pytest.raises(ValueError, match='cannot be read'):
        load_generator(directory)
    config = json.loads((directory / CONFIG_FILE).read_text())
    (directory / CONFIG_FILE).write_text(json.dumps({k: v for k, v in config.items() if k != 'ffn_dim'}))
    with pytest.raises(ValueError, match='lacks ffn_dim'):
        load_generator(directory)
    (directory / WEIGHTS_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=WEIGHTS_FILE):
        load_generator(directory)


def test_weights_that_are_not_finite_are_not_saved(small_gen, tmp_path):
    with torch.no_grad():
        small_gen.ext_proj[0].bias[0] = 1e9
    with pytest.raises(ValueError, match=r'ext_proj\.0\.bias is not finite'):
        save_generator(small_gen, tmp_path)
