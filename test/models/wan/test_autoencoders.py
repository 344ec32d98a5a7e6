"""Autoencoders: concatenated streams are whole clips (this pins the library's private streaming interface)."""

import threading

import pytest
import torch

from wristworld_ros.errors import UserError
from wristworld_ros.models.wan.autoencoders import PixelUnshuffle, autoencoder_from_config
from wristworld_ros.models.wan.checkpoints import vae_from_release


@pytest.fixture
def wan(load_fixture):
    fixture = load_fixture('wan_vae_public')
    return fixture, vae_from_release(fixture.weights, fixture.config)


def test_wan_agrees_with_the_release(wan):
    fixture, vae = wan
    latents = vae.encode(fixture.input['video'])
    fixture.assert_agrees('latents', latents)
    fixture.assert_agrees('decoded', vae.decode(latents))
    assert (vae.temporal_stride, vae.spatial_stride, vae.latent_channels) == (4, 8, 16)


def test_wan_streams_equal_whole_clips_even_with_clips_in_between(wan):
    fixture, vae = wan
    video = fixture.input['video']
    whole = vae.encode(video)
    for cuts in ([1, 4, 4], [5, 4]):
        pieces, state = [], None
        for piece in video.split(cuts, dim=2):
            latents, state = vae.encode_next(piece, state)
            pieces.append(latents)
            vae.encode(video[:, :, :1])
            vae.decode(whole[:, :, :1])
        assert torch.allclose(torch.cat(pieces, dim=2), whole, atol=1e-6)
    pieces, state = [], None
    for piece in whole.split([1, 2], dim=2):
        frames, state = vae.decode_next(piece, state)
        pieces.append(frames)
        vae.decode(whole[:, :, :1])
    assert torch.allclose(torch.cat(pieces, dim=2), vae.decode(whole), atol=1e-6)
    assert vae.decode_next(whole[:, :, :1], None)[0].shape[2] == 1, 'a new stream starts with one frame'


def test_a_wan_state_is_not_changed_by_the_call_that_gets_it(wan):
    """So a piece that failed may be repeated."""
    fixture, vae = wan
    video = fixture.input['video']
    latents, before = vae.encode_next(video[:, :, :1], None)
    one, two = (vae.encode_next(video[:, :, 1:5], before)[0] for _ in range(2))
    assert torch.equal(one, two)
    _, before = vae.decode_next(latents, None)
    one, two = (vae.decode_next(one, before)[0] for _ in range(2))
    assert torch.equal(one, two) and one.shape[2] == 4


def test_wan_states_have_a_fixed_size(wan):
    _, vae = wan
    states, sizes = [None, None], []
    for frames in (1, 4, 4, 8, 4):
        latents, states[0] = vae.encode_next(torch.rand(1, 3, frames, 16, 16), states[0])
        _, states[1] = vae.decode_next(latents, states[1])
        sizes.append([sum(t.numel() for t in state if isinstance(t, torch.Tensor)) for state in states])
    assert sizes[1:] == [sizes[1]] * 4


def test_wan_streams_in_two_threads_share_one_autoencoder(wan):
    _, vae = wan
    videos = torch.rand(2, 1, 3, 9, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = [[], []]

    def run(stream):
        for _ in range(10):
            encoder = decoder = None
            pieces = []
            for piece in videos[stream].split([1, 4, 4], dim=2):
                latents, encoder = vae.encode_next(piece, encoder)
                frames, decoder = vae.decode_next(latents, decoder)
                pieces += [latents, frames]
            found[stream].append(pieces)

    run(0), run(1)
    threads = [threading.Thread(target=run, args=(stream,)) for stream in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, *others in found:
        assert len(others) == 19
        assert all(torch.equal(a, b) for other in others for a, b in zip(other, one, strict=True))


def test_wan_refuses_other_clip_lengths(wan):
    _, vae = wan
    with pytest.raises(UserError, match='got 4 frames'):
        vae.encode(torch.zeros(1, 3, 4, 32, 48))


def test_pixel_unshuffle_loses_nothing():
    video = torch.rand(2, 3, 4, 32, 48) * 2 - 1
    autoencoder = autoencoder_from_config({'kind': 'pixel_unshuffle', 'factor': 8})
    latents = autoencoder.encode(video)
    assert latents.shape == (2, 192, 4, 4, 6)
    assert torch.equal(autoencoder.decode(latents), video)
    streamed, state = autoencoder.encode_next(video, None)
    assert torch.equal(streamed, latents) and torch.equal(autoencoder.decode_next(streamed, state)[0], video)
    with pytest.raises(UserError, match='not a multiple of 8'):
        PixelUnshuffle(8).encode(torch.zeros(1, 3, 1, 30, 32))


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match='pixel_unshuffle, wan'):
        autoencoder_from_config({'kind': 'vq'})
    with pytest.raises(UserError, match='for z_dim 8'):
        autoencoder_from_config({'kind': 'wan', 'dim': 8, 'z_dim': 8})


@pytest.mark.parametrize('config', [{'kind': 'pixel_unshuffle'}, {'kind': 'wan', 'dim': 8}])
def test_every_parameter_may_be_in_low_precision(config):
    autoencoder = autoencoder_from_config(config)
    assert autoencoder.param_dtype('any', torch.bfloat16) == torch.bfloat16
