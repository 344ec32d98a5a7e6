"""Models in low precision: which weights are kept in it, when it is chosen, and that the video stays near float32's."""

import threading

import numpy as np
import pytest
import torch

from wristworld_ros.models.config import ModelConfig
from wristworld_ros.models.state_dict import empty_weights
from wristworld_ros.pipeline import VirtualWrist, load_model, tiny_random_model
from wristworld_ros.pipeline.generate import ChunkGenerator
from wristworld_ros.pipeline.model_directory import choose_precision
from wristworld_ros.pipeline.model_saving import save_model
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet

BFLOAT16 = torch.bfloat16


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('model')
    save_model(tiny_random_model(), path, torch.float32)
    return str(path)


def video(model):
    stream = VirtualWrist(model, StreamSettings(min_coverage=0.0, min_confidence=0.0))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 2, 42, 56, 3), dtype=np.uint8)
    return np.stack([f.image for i, p in enumerate(images) for f in stream.push(AnchorSet(i, ('a', 'b'), p))])


def test_big_networks_are_kept_in_bfloat16_and_what_must_be_exact_is_not(folder):
    model = load_model(folder, 'cpu', 'bfloat16')
    dtypes = {n: p.dtype for part in (model.stage1, model.generator) for n, p in part.named_parameters()}
    low = {name for name, dtype in dtypes.items() if dtype == BFLOAT16}
    assert {
        'aggregator.camera_token',
        'transformer.patch_embedding.weight',
        'transformer.blocks.0.attn1.to_q.weight',
    } <= low
    assert any(name.startswith('anchor_encoder.') for name in low)
    exact = ('wrist_head.', 'point_head.', 'decoder.', 'ext_proj.', 'temporal_embed.', 'text_context')
    for name in low:
        assert not name.startswith(exact) and 'scale_shift_table' not in name and 'time_embedder' not in name, name
    assert model.low_precision and ChunkGenerator(model, StreamSettings()).cache.keys.dtype == BFLOAT16


def test_low_precision_makes_nearly_the_same_video(folder):
    wanted, found = (video(load_model(folder, 'cpu', p)).astype(int) for p in ('float32', 'bfloat16'))
    assert np.abs(found - wanted).mean() < 6 and not np.array_equal(found, wanted)


def test_auto_is_float32_on_a_cpu_and_the_models_own_on_a_gpu():
    config = tiny_random_model().config
    trained = ModelConfig(**{**vars(config), 'precision': 'bfloat16'})
    chosen = [choose_precision(c, 'auto', device) for c in (config, trained) for device in ('cpu', 'cuda')]
    assert chosen == [torch.float32, torch.float32, torch.float32, BFLOAT16]
    assert choose_precision(trained, 'float32', 'cuda') == torch.float32


@pytest.mark.parametrize('instructions', [True, False])
def test_the_plane_sweep_convolves_in_bfloat16_where_the_cpu_can(monkeypatch, instructions):
    monkeypatch.setattr('wristworld_ros.pipeline.model_directory.has_bfloat16_instructions', lambda: instructions)
    asked = [load_model('sim_tiny', 'cpu', p).sweep.join.weight.dtype for p in ('auto', 'float32')]
    assert asked == [BFLOAT16 if instructions else torch.float32, torch.float32]


def test_a_model_that_is_loaded_while_another_thread_builds_one_has_all_its_weights(folder):
    models = []
    with empty_weights():
        other = threading.Thread(target=lambda: models.append(load_model(folder, 'cpu')))
        other.start()
        other.join(0.2)
    other.join()
    parameters = [p for part in (models[0].stage1, models[0].generator) for p in part.parameters()]
    assert not any(p.is_meta for p in parameters)


def test_the_order_of_memory_is_kept(folder):
    built, loaded = (m.generator.decoder.stem.weight for m in (tiny_random_model(), load_model(folder, 'cpu')))
    assert loaded.stride() == built.stride()
