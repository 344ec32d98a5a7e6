"""The steps that run on a GPU never wait for it: no value comes back to the host, and no constant is sent from it.

The meta device stands for the GPU, for its tensors have no values that anybody could read; what is sent from the host is
seen as it is made. A step like this may be recorded as a CUDA graph.
"""

from contextlib import nullcontext
from unittest.mock import patch

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wristworld_ros.generation import WristGenerator
from wristworld_ros.reconstruction import ReconstructionModel
from wristworld_ros.settings import StreamSettings
from wristworld_ros.streaming import tiny_random_model
from wristworld_ros.streaming.model import WristModel

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


def pictures(*shape):
    return torch.zeros(*shape, 3, dtype=torch.uint8, device=DEVICE)


@pytest.mark.parametrize('heads', [['camera', 'wrist', 'points'], ['camera', 'wrist', 'depth']])
@pytest.mark.parametrize('fov', [0.0, 60.0])
def test_looking_does_not_wait(on_device, heads, fov):
    eye = on_device(heads=heads).eye(wrist_fov=fov)
    with torch.inference_mode():
        eye._scene(pictures(2, 42, 56))  # tables are made once
        with Watch():
            K, T, points, confidence = eye._scene(pictures(2, 42, 56))
            image, depth, facts = eye._condition(K, T, points, confidence, pictures(2, 84, 112))
    assert (image.shape, depth.shape, facts.shape) == ((32, 32, 3), (32, 32), (3,))


def test_drawing_does_not_wait(on_device):
    stream = on_device().stream(StreamSettings(steps=2, history=2))
    noise, condition = torch.zeros(1, 192, 1, 4, 4, device=DEVICE), torch.zeros(1, 320, 1, 4, 4, device=DEVICE)
    with torch.inference_mode():
        stream._context(pictures(2, 1, 32, 32))
        for _ in range(4):  # until the ring has turned
            with Watch():
                (context,) = stream._context(pictures(2, 1, 32, 32))
                (latents,) = stream._generate(noise, condition, context)
                stream._remember(latents, condition, context)
                stream.cache.advance()
    assert latents.shape == noise.shape


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
