"""The steps that run on a GPU never wait for it: no value comes back to the host, and no constant is sent from it.

The meta device stands for the GPU, for its tensors have no values that anybody could read; what is sent from the host is
seen as it is made. A step like this may be captured as a CUDA graph.
"""

from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.wan import WRISTWORLD_1_3B, WristGenerator
from wristworld_ros.models.wan.autoencoders import autoencoder_from_config
from wristworld_ros.models.wan.tiny_decoder import TinyAutoencoder, tiny_decoder_for
from wristworld_ros.pipeline import tiny_random_model
from wristworld_ros.pipeline.generate import ChunkGenerator
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.reconstruct import ReconstructionStep
from wristworld_ros.settings import StreamSettings

DEVICE = torch.device('meta')


class Watch(TorchDispatchMode):
    """Refuses constants from the host, values to it, and tensors that stayed there."""

    def __enter__(self):
        self._patch = patch.object(torch.Tensor, 'new_tensor', self._refuse)  # no dispatch shows this one
        self._patch.start()
        return super().__enter__()

    def __exit__(self, *error):
        self._patch.stop()
        return super().__exit__(*error)

    @staticmethod
    def _refuse(*args, **kwargs):
        raise AssertionError('new_tensor sends values from the host')

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(word in func.name() for word in ('lift', '_local_scalar', 'nonzero', 'masked_select', 'unique')):
            raise AssertionError(f'{func.name()} makes the host and the device wait for each other')
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, torch.Tensor) and value.dtype == torch.bool and 'index' in func.name():
                raise AssertionError(f'{func.name()} counts what a mask holds, for which the host waits')
            if isinstance(value, torch.Tensor) and value.device != DEVICE and value.ndim:
                raise AssertionError(f'{func.name()} got a tensor {list(value.shape)} of the host')
        return func(*args, **(kwargs or {}))


@pytest.fixture
def on_device(monkeypatch):
    """A function from changes of stage 1's configuration to a tiny model on the device."""
    monkeypatch.setattr(torch, 'is_autocast_enabled', lambda device: False)
    monkeypatch.setattr(torch, 'autocast', lambda *args, **kwargs: nullcontext())

    def make(**changes):
        config = tiny_random_model().config
        with DEVICE:
            stage1 = ReconstructionModel.from_config(config.stage1 | changes)
            generator = WristGenerator.from_config(config.generator)
        return WristModel(config, stage1, generator, 'meta')

    return make


def images(*shape):
    return torch.zeros(*shape, 3, dtype=torch.uint8, device=DEVICE)


@pytest.mark.parametrize('heads', [['camera', 'wrist', 'points'], ['camera', 'wrist', 'depth']])
@pytest.mark.parametrize('fov', [None, 60.0])
def test_reconstruction_does_not_wait(on_device, heads, fov):
    step = ReconstructionStep(on_device(heads=heads), wrist_fov=fov)
    with torch.inference_mode():
        step._scene(images(2, 42, 56))  # tables are made once
        with Watch():
            K, T, points, confidence = step._scene(images(2, 42, 56))
            image, depth, facts = step._condition(K, T, points, confidence, images(2, 84, 112), images(2, 42, 56))
    assert (image.shape, depth.shape, facts.shape) == ((32, 32, 3), (32, 32), (5,))


def test_generation_does_not_wait(on_device):
    stream = ChunkGenerator(on_device(), StreamSettings(steps=2, history=2))
    noise, condition = torch.zeros(1, 192, 1, 4, 4, device=DEVICE), torch.zeros(1, 320, 1, 4, 4, device=DEVICE)
    with torch.inference_mode():
        stream._context(images(2, 1, 32, 32))
        for _ in range(4):  # until the ring has turned
            with Watch():
                (context,) = stream._context(images(2, 1, 32, 32))
                (latents,) = stream._sample_chunk(noise[None], condition, context)
                stream._write_chunk(latents, condition, context)
                stream.cache.advance()
    assert latents.shape == noise.shape


PUBLISHED = WRISTWORLD_1_3B | {
    'dim': 24, 'ffn_dim': 32, 'text_dim': 16, 'freq_dim': 16, 'num_heads': 2, 'num_layers': 2, 'clip_dim': 16,
    'clip_hidden': 16, 'context_length': 32, 'text': 'stored',
    'anchor_encoder': {'image_size': 28, 'dim': 16, 'num_heads': 2, 'num_layers': 2, 'patch_size': 14, 'resize': 'bicubic'},
    'autoencoder': {'kind': 'wan', 'dim': 8, 'z_dim': 16},
}  # fmt: skip


@pytest.mark.parametrize('guidance', [1.0, None])
@pytest.mark.parametrize('tiny', [False, True])
def test_generation_with_the_published_parts_does_not_wait(on_device, guidance, tiny):
    config = replace(tiny_random_model().config, generator=PUBLISHED, wrist_hw=(32, 48))
    with DEVICE:
        generator = WristGenerator.from_config(PUBLISHED)
        full = autoencoder_from_config(PUBLISHED['autoencoder']).eval()
        autoencoder = TinyAutoencoder(full, tiny_decoder_for(full, width=8, blocks=1)) if tiny else full
        video = [torch.zeros(1, 3, frames, 32, 48) for frames in (1, 4)]
        noise = torch.zeros(1, 16, 1, 4, 6)
    model = WristModel(config, on_device().stage1, generator, 'meta', autoencoder)
    stream = ChunkGenerator(model, StreamSettings(steps=2, history=1, guidance=guidance))
    states = [None, None]

    def generate(piece):
        with Watch():
            condition, states[0] = stream.autoencoder.encode_next(piece, states[0])
            (context,) = stream._context(images(2, piece.shape[2], 40, 60))
            (latents,) = stream._sample_chunk(noise[None], condition, context)
            stream._write_chunk(latents, condition, context)
            stream.cache.advance()
            video, states[1] = stream.autoencoder.decode_next(latents, states[1])
            return video

    with torch.inference_mode():
        stream._context(images(2, 1, 40, 60))
        made = [generate(piece).shape[2] for piece in (*video, video[1])]
    assert made == [1, 4, 4]


@pytest.mark.parametrize(
    'waits',
    [
        lambda values: values.new_tensor([1.0, 2.0]),
        lambda values: values[values > 0],
        lambda values: values.masked_select(values > 0),
        lambda values: bool(values.any()),
        lambda values: torch.zeros(3) + 1,
    ],
)
def test_the_watch_sees_what_waits(waits):
    values = torch.zeros(3, device=DEVICE)
    with Watch(), pytest.raises((AssertionError, RuntimeError)):
        waits(values)
