"""Weights are read into the precision they run in, and what runs so stays near float32."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from wristworld_ros.models.config import ModelConfig
from wristworld_ros.models.param_dtype import init_empty_weights, load_into
from wristworld_ros.pipeline import VirtualWrist, load_model, tiny_random_model
from wristworld_ros.pipeline.model_directory import choose_precision, save_model
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet

BFLOAT16 = torch.bfloat16


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('model')
    save_model(tiny_random_model(), path, half=False)
    return str(path)


def video(model):
    stream = VirtualWrist(model, StreamSettings(min_coverage=0.0, min_confidence=0.0))
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (6, 2, 42, 56, 3), dtype=np.uint8)
    return np.stack([f.image for i, p in enumerate(pictures) for f in stream.push(AnchorSet(i, ('a', 'b'), p))])


def test_big_networks_become_half_and_what_must_be_exact_does_not(folder):
    model = load_model(folder, 'cpu', 'bfloat16')
    dtypes = {n: p.dtype for part in (model.stage1, model.generator) for n, p in part.named_parameters()}
    half = {name for name, dtype in dtypes.items() if dtype == BFLOAT16}
    assert {
        'aggregator.camera_token',
        'transformer.patch_embedding.weight',
        'transformer.blocks.0.attn1.to_q.weight',
    } <= half
    assert any(name.startswith('anchor_encoder.') for name in half)
    exact = ('wrist_head.', 'point_head.', 'decoder.', 'ext_proj.', 'temporal_embed.', 'text_context')
    for name in half:
        assert not name.startswith(exact) and 'scale_shift_table' not in name and 'time_embedder' not in name, name
    assert model.half and model.stream(StreamSettings()).cache.keys.dtype == BFLOAT16


def test_half_precision_makes_nearly_the_same_video(folder):
    wanted, found = (video(load_model(folder, 'cpu', p)).astype(int) for p in ('float32', 'bfloat16'))
    assert np.abs(found - wanted).mean() < 6 and not np.array_equal(found, wanted)


def test_auto_is_float32_on_a_cpu_and_the_models_own_on_a_gpu():
    config = tiny_random_model().config
    trained = ModelConfig(**{**vars(config), 'precision': 'bfloat16'})
    chosen = [choose_precision(c, 'auto', device) for c in (config, trained) for device in ('cpu', 'cuda')]
    assert chosen == [torch.float32, torch.float32, torch.float32, BFLOAT16]
    assert choose_precision(trained, 'float32', 'cuda') == torch.float32


def test_a_model_without_values_takes_those_of_the_file_and_keeps_its_buffers():
    def build():
        module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(memory_format=torch.channels_last)
        module.register_parameter('same', module[0].weight)
        return module

    wanted = build()
    with init_empty_weights():
        module = build()
    assert module[0].weight.is_meta and not module[1].running_mean.is_meta
    named = {name: t for name, t in module.state_dict(keep_vars=True).items() if name != 'same'}
    weights = {name: wanted.state_dict()[name].double() for name in named}
    load_into(module, named, weights, 'a file', BFLOAT16, lambda name: name.endswith('bias'))
    assert module.same is not None and torch.equal(module.same, module[0].weight)
    assert module[0].bias.dtype == BFLOAT16 and module[0].weight.dtype == torch.float32
    assert torch.equal(module[0].weight, wanted[0].weight) and module[0].weight.requires_grad
    with pytest.raises(ValueError, match=r'a file: key 0\.weight has shape'):
        load_into(module, named, weights | {'0.weight': torch.zeros(1)}, 'a file')


def test_what_other_threads_build_meanwhile_has_its_values(folder):
    built, models = [], []
    with init_empty_weights():
        other = threading.Thread(target=lambda: built.append(nn.Linear(2, 2)))
        waits = threading.Thread(target=lambda: models.append(load_model(folder, 'cpu')))
        other.start()
        waits.start()
        other.join()
    waits.join()
    assert not built[0].weight.is_meta and not nn.Linear(2, 2).weight.is_meta
    assert not any(p.is_meta for p in models[0].generator.parameters())


def test_the_order_of_memory_is_kept(folder):
    built, loaded = (m.generator.decoder.stem.weight for m in (tiny_random_model(), load_model(folder, 'cpu')))
    assert loaded.stride() == built.stride()
