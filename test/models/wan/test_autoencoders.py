"""Autoencoders: streams put together are whole clips (this pins the library's private streaming interface)."""

import pytest
import torch

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
        vae.reset()
        pieces = []
        for piece in video.split(cuts, dim=2):
            pieces.append(vae.encode_next(piece))
            vae.encode(video[:, :, :1])
            vae.decode(whole[:, :, :1])
        assert torch.allclose(torch.cat(pieces, dim=2), whole, atol=1e-6)
    pieces = []
    for piece in whole.split([1, 2], dim=2):
        pieces.append(vae.decode_next(piece))
        vae.decode(whole[:, :, :1])
    assert torch.allclose(torch.cat(pieces, dim=2), vae.decode(whole), atol=1e-6)
    vae.reset()
    assert vae.decode_next(whole[:, :, :1]).shape[2] == 1, 'a new stream starts with one frame'


def test_wan_refuses_other_clip_lengths(wan):
    _, vae = wan
    with pytest.raises(ValueError, match='got 4 frames'):
        vae.encode(torch.zeros(1, 3, 4, 32, 48))


def test_pixel_unshuffle_loses_nothing():
    video = torch.rand(2, 3, 4, 32, 48) * 2 - 1
    autoencoder = autoencoder_from_config({'kind': 'pixel_unshuffle', 'factor': 8})
    latents = autoencoder.encode(video)
    assert latents.shape == (2, 192, 4, 4, 6)
    assert torch.equal(autoencoder.decode(latents), video)
    assert torch.equal(autoencoder.decode_next(autoencoder.encode_next(video)), video)
    with pytest.raises(ValueError, match='no multiple of 8'):
        PixelUnshuffle(8).encode(torch.zeros(1, 3, 1, 30, 32))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match='pixel_unshuffle, wan'):
        autoencoder_from_config({'kind': 'vq'})
    with pytest.raises(ValueError, match='for z_dim 8'):
        autoencoder_from_config({'kind': 'wan', 'dim': 8, 'z_dim': 8})
