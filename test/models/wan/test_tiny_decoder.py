"""The light decoder: Wan's strides, streams equal to whole clips in fixed memory, an order of magnitude fewer operations."""

import copy

import pytest
import torch

from wristworld_ros.models.wan.autoencoders import WanAutoencoder
from wristworld_ros.models.wan.checkpoints import vae_from_release
from wristworld_ros.models.wan.tiny_decoder import TinyAutoencoder, TinyDecoder, tiny_decoder_for


def lively(decoder):
    """With random weights where training would begin with none."""
    torch.manual_seed(0)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return decoder.eval().requires_grad_(False)


@pytest.fixture
def vae(load_fixture):
    fixture = load_fixture('wan_vae_public')
    return vae_from_release(fixture.weights, fixture.config)


@pytest.fixture
def light(vae):
    return TinyAutoencoder(vae, lively(tiny_decoder_for(vae, width=8))).eval()


@pytest.fixture
def latents():
    return torch.randn(2, 16, 4, 3, 5, generator=torch.Generator().manual_seed(1))


def test_the_first_latent_gives_one_picture_and_every_other_four(light, latents):
    assert (light.temporal_stride, light.spatial_stride, light.latent_channels) == (4, 8, 16)
    for n in (1, 2, 4):
        assert light.decode(latents[:, :, :n]).shape == (2, 3, 4 * n - 3, 24, 40)
        assert light.decode(latents[:, :, :n]).abs().max() <= 1


@pytest.mark.parametrize('strides', [(2, 1), (4, 2), (8, 4), (16, 2)])
def test_strides_are_those_of_the_autoencoder(strides):
    space, time = strides
    video, _ = TinyDecoder(3, space, time, width=4, blocks=1)(torch.zeros(1, 3, 3, 2, 3))
    assert video.shape == (1, 3, 1 + 2 * time, 2 * space, 3 * space)


@pytest.mark.parametrize('strides', [(8, 3), (6, 2), (4, 4)])
def test_other_strides_are_refused(strides):
    with pytest.raises(ValueError, match='powers of two'):
        TinyDecoder(3, *strides)


@pytest.mark.parametrize('cuts', [[1, 1, 1, 1], [1, 3], [3, 1], [2, 2]])
def test_a_stream_equals_the_whole_clip_to_the_bit(light, latents, cuts):
    whole = light.decode(latents)
    light.reset()
    pieces = []
    for piece in latents.split(cuts, dim=2):
        pieces.append(light.decode_next(piece))
        light.decode(latents[:, :, :1])
    assert torch.equal(torch.cat(pieces, dim=2), whole)
    light.reset()
    assert light.decode_next(latents[:, :, :1]).shape[2] == 1, 'a new stream starts with one frame'


def test_all_frames_at_once_give_what_one_after_the_other_gives(light, latents):
    at_once, _ = light.light(latents)
    assert torch.allclose(at_once.clamp(-1, 1), light.decode(latents), atol=1e-6)


def test_what_comes_later_changes_nothing_before(light, latents):
    later = latents.clone()
    later[:, :, 3] += 1
    assert torch.equal(light.decode(latents)[:, :, :9], light.decode(later)[:, :, :9])
    earlier = latents.clone()
    earlier[:, :, 1] += 1
    assert not torch.equal(light.decode(latents)[:, :, 5:9], light.decode(earlier)[:, :, 5:9]), 'it remembers'


def test_memory_does_not_grow_with_the_stream(light, latents):
    memory, sizes = None, set()
    for _ in range(5):
        _, memory = light.light(latents, memory)
        sizes.add(sum(m.untyped_storage().nbytes() for m in memory))
    assert len(sizes) == 1


def test_copies_share_weights_and_not_streams(light, latents):
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    one, two = copy.copy(light), copy.copy(light)
    assert one.light is two.light and one.full.vae is two.full.vae
    first = one.encode_next(video)
    assert torch.equal(two.encode_next(video), first), 'an own start'
    one.decode_next(latents)
    assert two.decode_next(latents[:, :, :1]).shape[2] == 1


def test_encoding_is_the_full_autoencoders_and_needs_no_decoder(light, vae):
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    wanted = vae.encode(video)
    vae.drop_decoder()
    assert torch.equal(light.encode(video), wanted)
    with pytest.raises(RuntimeError, match='decoder of this autoencoder was dropped'):
        vae.decode(wanted)


def test_at_the_published_size_it_takes_an_order_of_magnitude_fewer_operations():
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device('meta'):
        full = WanAutoencoder()
        counts = []
        for autoencoder in (full, TinyAutoencoder(full, tiny_decoder_for(full))):
            latent = torch.empty(1, 16, 1, 60, 104)
            autoencoder.decode_next(latent)
            with FlopCounterMode(display=False) as counter:
                autoencoder.decode_next(latent)
            counts.append(counter.get_total_flops())
    assert counts[0] > 30 * counts[1]
