"""The tiny decoder: Wan's strides, streams equal to whole clips, a state of fixed size, far fewer operations."""

import pytest
import torch

from wristworld_ros.models.wan.autoencoders import WanAutoencoder
from wristworld_ros.models.wan.checkpoints import vae_from_release
from wristworld_ros.models.wan.tiny_decoder import TinyAutoencoder, TinyDecoder, tiny_decoder_for


def randomised(decoder):
    """With random weights where training would start from zeros."""
    torch.manual_seed(0)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return decoder.eval().requires_grad_(False)


@pytest.fixture
def vae(load_fixture):
    fixture = load_fixture('wan_vae_public')
    return vae_from_release(fixture.weights, fixture.config)


@pytest.fixture
def tiny(vae):
    return TinyAutoencoder(vae, randomised(tiny_decoder_for(vae, width=8))).eval()


@pytest.fixture
def latents():
    return torch.randn(2, 16, 4, 3, 5, generator=torch.Generator().manual_seed(1))


def test_the_first_latent_frame_gives_one_frame_and_every_other_four(tiny, latents):
    assert (tiny.temporal_stride, tiny.spatial_stride, tiny.latent_channels) == (4, 8, 16)
    for n in (1, 2, 4):
        assert tiny.decode(latents[:, :, :n]).shape == (2, 3, 4 * n - 3, 24, 40)
        assert tiny.decode(latents[:, :, :n]).abs().max() <= 1


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
def test_a_stream_equals_the_whole_clip_to_the_bit(tiny, latents, cuts):
    whole = tiny.decode(latents)
    pieces, state = [], None
    for piece in latents.split(cuts, dim=2):
        frames, state = tiny.decode_next(piece, state)
        pieces.append(frames)
        tiny.decode(latents[:, :, :1])
    assert torch.equal(torch.cat(pieces, dim=2), whole)
    assert tiny.decode_next(latents[:, :, :1], None)[0].shape[2] == 1, 'a new stream starts with one frame'


def test_all_frames_at_once_give_what_one_after_the_other_gives(tiny, latents):
    at_once, _ = tiny.tiny(latents)
    assert torch.allclose(at_once.clamp(-1, 1), tiny.decode(latents), atol=1e-6)


def test_what_comes_later_changes_nothing_before(tiny, latents):
    later = latents.clone()
    later[:, :, 3] += 1
    assert torch.equal(tiny.decode(latents)[:, :, :9], tiny.decode(later)[:, :, :9])
    earlier = latents.clone()
    earlier[:, :, 1] += 1
    assert not torch.equal(tiny.decode(latents)[:, :, 5:9], tiny.decode(earlier)[:, :, 5:9]), 'it remembers'


def test_the_state_does_not_grow_with_the_stream(tiny, latents):
    state, sizes = None, set()
    for _ in range(5):
        _, state = tiny.decode_next(latents, state)
        sizes.add(sum(kept.untyped_storage().nbytes() for kept in state))
    assert len(sizes) == 1


def test_interleaved_streams_do_not_affect_each_other(tiny, latents):
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    first, encoder = tiny.encode_next(video, None)
    assert torch.equal(tiny.encode_next(video, None)[0], first), 'each starts on its own'
    frames, decoder = tiny.decode_next(latents[:, :, :2], None)
    assert tiny.decode_next(latents.flip(2), None)[0].shape[2] == 13
    rest, _ = tiny.decode_next(latents[:, :, 2:], decoder)
    again, _ = tiny.decode_next(latents[:, :, 2:], decoder)
    assert torch.equal(torch.cat([frames, rest], 2), tiny.decode(latents))
    assert torch.equal(again, rest), 'a state is not changed by the call that gets it'
    assert tiny.encode_next(video[:, :, :4], encoder)[0].shape[2] == 1


def test_encoding_is_the_full_autoencoders_and_needs_no_decoder(tiny, vae):
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    wanted = vae.encode(video)
    vae.drop_decoder()
    assert torch.equal(tiny.encode(video), wanted)
    with pytest.raises(RuntimeError, match='decoder of this autoencoder was dropped'):
        vae.decode(wanted)


def test_at_the_published_size_it_takes_an_order_of_magnitude_fewer_operations():
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device('meta'):
        full = WanAutoencoder()
        counts = []
        for autoencoder in (full, TinyAutoencoder(full, tiny_decoder_for(full))):
            latent = torch.empty(1, 16, 1, 60, 104)
            _, state = autoencoder.decode_next(latent, None)
            with FlopCounterMode(display=False) as counter:
                autoencoder.decode_next(latent, state)
            counts.append(counter.get_total_flops())
    assert counts[0] > 30 * counts[1]
