import numpy as np
import pytest
import torch

from wristworld_ros.apps.bench import full_size
from wristworld_ros.apps.bench.inputs import Shapes, moving_pattern
from wristworld_ros.apps.bench.parts import parts_of
from wristworld_ros.models.config import ModelError
from wristworld_ros.pipeline import VirtualWrist, memory_check
from wristworld_ros.pipeline.generate import ChunkGenerator
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet

# The published classes and options at the smallest sizes.
STAGE1 = {
    'img_size': 28, 'embed_dim': 16, 'depth': 4, 'num_heads': 2, 'patch_embed_depth': 1, 'patch_embed_heads': 2,
    'camera_trunk_depth': 1, 'camera_heads': 2, 'dpt_features': 8, 'dpt_out_channels': [8, 8, 8, 8],
    'heads': ['camera', 'wrist', 'points'],
}  # fmt: skip
GENERATOR = full_size.SIZES['wristworld_1_3b'][1] | {
    'dim': 24, 'ffn_dim': 32, 'text_dim': 16, 'freq_dim': 16, 'num_heads': 2, 'num_layers': 2, 'clip_dim': 16, 'clip_hidden': 16,
    'context_length': 32,
    'anchor_encoder': {'image_size': 28, 'dim': 16, 'num_heads': 2, 'num_layers': 2, 'patch_size': 14, 'resize': 'bicubic'},
    'autoencoder': {'kind': 'wan', 'dim': 8, 'z_dim': 16},
}  # fmt: skip


def small(dtype):
    return full_size.build('small', STAGE1, GENERATOR, full_size.CLOUD, 'cpu', dtype, 28, (32, 32))


def test_the_published_model_has_its_published_size():
    stage1, generator = full_size.SIZES['wristworld_1_3b']
    with torch.device('meta'):
        first = full_size.ReconstructionModel.from_config(stage1)
        second = full_size.WristGenerator.from_config(generator)
    count = {
        name: sum(p.numel() for p in part.parameters()) / 1e6
        for name, part in {'wrist': first.wrist_head, 'wan': second.transformer, 'tower': second.anchor_encoder}.items()
    }
    assert count['wrist'] == pytest.approx(367, abs=2)
    assert count['wan'] == pytest.approx(1419, abs=2)
    assert count['tower'] == pytest.approx(611, abs=5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_random_weights_are_made_in_their_precision_and_stream_finite_images(dtype):
    model = small(dtype)
    assert model.stage1.aggregator.camera_token.dtype == dtype
    assert model.stage1.wrist_head.token_query.dtype == torch.float32
    assert model.generator.transformer.patch_embedding.weight.dtype == dtype
    assert model.generator.transformer.scale_shift_table.dtype == torch.float32
    wrist = VirtualWrist(model, StreamSettings(chunk=1, steps=2, history=1, min_coverage=0.0, min_confidence=0.0))
    frames = []
    for i in range(5):
        frames += wrist.push(AnchorSet(i, ('a', 'b'), moving_pattern(i, 2, 28, 42)))
    assert len(frames) == 5
    assert all(frame.valid and frame.image.shape == (32, 32, 3) for frame in frames)
    assert np.std(frames[-1].image) > 1


def test_the_same_networks_serve_another_size_with_and_without_guidance():
    model = small(torch.float32)
    other = full_size.resized(model, (16, 48))
    assert other.config.wrist_hw == (16, 48) and model.config.wrist_hw == (32, 32)
    assert other.generator is model.generator
    assert ChunkGenerator(model, StreamSettings(guidance=None)).negative is not None
    assert ChunkGenerator(other, StreamSettings()).negative is None


def test_the_tiny_decoder_is_measured_next_to_the_full_one():
    model = small(torch.float32)
    tiny = full_size.with_tiny_decoder(model)
    assert tiny.autoencoder is model.tiny_autoencoder and model.autoencoder is not tiny.autoencoder
    shapes = Shapes((28, 42), (32, 32), views=(1,), history=1)
    rows = {part.name: part for part in parts_of(model, shapes)}
    with torch.inference_mode():
        assert rows['tiny decoder, a chunk'].run().shape == rows['VAE decode, a chunk'].run().shape == (1, 3, 4, 32, 32)


def test_a_random_model_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(ModelError, match=r"no random model 'random:big'; use random:wristworld_1_3b\."):
        full_size.random_model('random:big', 'cpu', torch.float32)


def test_a_random_model_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(memory_check, 'free_ram', lambda: 2**30)
    with pytest.raises(ModelError, match=r'random:wristworld_1_3b needs about .* of RAM .* and 1\.0 GiB are free'):
        full_size.random_model('random:wristworld_1_3b', 'cpu', torch.bfloat16)
