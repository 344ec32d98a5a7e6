"""The small model's decoder mixes the warp and its own prediction by a gate, and depends on all of its inputs."""

import pytest
import torch

from wristworld_ros.models.wan import SIM_TINY, WristGenerator
from wristworld_ros.models.wan.autoencoders import PixelUnshuffle
from wristworld_ros.models.wan.condition_planes import condition_planes
from wristworld_ros.models.wan.conv_decoder import ConvDecoder


@pytest.mark.parametrize(('gate', 'expected'), [(-50.0, 'the warp'), (50.0, 'the smoothed warp')])
@torch.no_grad()
def test_the_gate_mixes_the_warp_and_a_prediction_over_the_smoothed_warp(small_config, gate, expected):
    gen = WristGenerator.from_config(small_config)
    gen.decoder.last.bias[3] = gate
    image = torch.randint(0, 256, (1, 2, 32, 32, 3), dtype=torch.uint8)
    depth = torch.rand(1, 2, 32, 32) * (torch.rand(1, 2, 32, 32) > 0.5)
    planes = condition_planes(image, depth).transpose(1, 2)
    autoencoder = PixelUnshuffle(8)
    context = gen.context(None, None)
    latents = gen.sample(torch.randn(1, 192, 2, 4, 4), autoencoder.encode(planes), context, steps=2)
    decoded, warp = autoencoder.decode(latents), planes[:, :3]
    if expected == 'the warp':
        assert torch.allclose(decoded, warp, atol=1e-5)
    else:
        assert decoded.std() < 0.6 * warp.std()
        assert float(decoded.mean()) == pytest.approx(float(warp.mean()), abs=1e-2)


@torch.no_grad()
def test_every_input_counts():
    torch.manual_seed(0)
    decoder = ConvDecoder(48, 80, 6, factor=4, widths=[8, 16, 16])
    torch.nn.init.normal_(decoder.last.weight)
    inputs = {
        'features': torch.randn(1, 6, 2, 4, 4),
        'latents': torch.randn(1, 48, 2, 4, 4),
        'condition_latents': torch.randn(1, 80, 2, 4, 4),
        'sigma': torch.tensor([0.5]),
    }
    out = decoder(**inputs)
    assert out.shape == (1, 48, 2, 4, 4)
    for name, value in inputs.items():
        assert not torch.allclose(decoder(**inputs | {name: value / 2}), out, atol=1e-4), name


def test_sizes_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match='multiples of 64'):
        ConvDecoder(190, 320, 8)
    with pytest.raises(ValueError, match='factor 8'):
        ConvDecoder(192, 320, 8, widths=[8, 8])


def test_the_preset_stays_small():
    with torch.device('meta'):
        gen = WristGenerator.from_config(SIM_TINY)
    assert sum(p.numel() for p in gen.decoder.parameters()) < 3e6
    assert sum(p.numel() for p in gen.parameters()) < 10e6
