"""The release's vision tower and text encoder: numbers, names, refusals (the autoencoder: test_autoencoders.py)."""

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

from wristworld_ros.models.wan import checkpoints as release
from wristworld_ros.models.wan.anchor_encoder import AnchorEncoder
from wristworld_ros.models.wan.autoencoders import WanAutoencoder


@torch.no_grad()
def test_vision_tower_agrees_with_the_release(load_fixture):
    fixture = load_fixture('wan_clip_public')
    clip = release.clip_from_release(fixture.weights, fixture.config)
    images = fixture.input['images']
    assert torch.allclose(clip.preprocess(images), fixture.input['pixel_values'], atol=1e-4)
    fixture.assert_agrees('features', clip.features(images))
    fixture.assert_agrees('tokens', clip.tokens(images))


def test_text_encoder_agrees_with_the_release(load_fixture):
    fixture = load_fixture('wan_t5_public')
    text = release.text_encoder_from_release(fixture.weights, fixture.config)
    fixture.assert_agrees('context', text.context(fixture.input['ids'], fixture.input['mask']))


def test_full_size_vision_tower_has_the_released_names(load_keys):
    with torch.device('meta'):
        targets = release.clip_targets(AnchorEncoder(release.CLIP_VIT_H), release.CLIP_VIT_H)
    found = {}
    for name, tensor in targets.items():
        name, _, part = name.partition('#')
        rows = tensor.shape[0] * (3 if part else 1)
        found[name] = (rows, *tensor.shape[1:])
    wanted = load_keys('wan_clip_visual_keys')
    assert found == {name: shape for name, shape in wanted.items() if name.startswith('visual.')}


def test_full_size_text_encoder_has_the_released_names(load_keys):
    with torch.device('meta'):
        text = release.TextEncoder(release.UMT5_XXL)
    found = {name: tuple(tensor.shape) for name, tensor in text.release_tensors().items()}
    assert found == load_keys('wan_t5_keys')


def test_full_size_autoencoder_has_the_released_names(load_keys):
    with torch.device('meta'):
        vae = WanAutoencoder(**release.WAN_VAE).vae
    wanted = convert_wan_vae_to_diffusers(load_keys('wan_vae_keys'))
    assert {name: tuple(tensor.shape) for name, tensor in vae.state_dict().items()} == wanted


@pytest.mark.parametrize(
    ('part', 'load', 'key'),
    [
        ('wan_clip_public', release.clip_from_release, 'visual.transformer.1.attn.to_qkv.weight'),
        ('wan_clip_public', release.clip_from_release, 'visual.transformer.3.mlp.0.weight'),
        ('wan_vae_public', release.vae_from_release, 'decoder.conv1.weight'),
        ('wan_t5_public', release.text_encoder_from_release, 'blocks.2.ffn.gate.0.weight'),
    ],
)
def test_wrong_shapes_and_missing_keys_are_refused_with_the_releases_key(load_fixture, part, load, key):
    fixture = load_fixture(part)
    with pytest.raises(ValueError, match=key.replace('.', r'\.')):
        load(fixture.weights | {key: torch.zeros(5, 2)}, fixture.config)
    missing = {name: value for name, value in fixture.weights.items() if name != key}
    with pytest.raises(ValueError, match='missing'):
        load(missing, fixture.config)


def test_the_small_tower_is_the_same_class_and_learns():
    encoder = AnchorEncoder({'image_size': 32, 'dim': 16, 'num_heads': 2, 'num_layers': 3, 'patch_size': 16})
    features = encoder.features(torch.rand(2, 3, 48, 64))
    assert features.shape == (2, 16)
    features.sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
    with pytest.raises(ValueError, match='lacks dim'):
        AnchorEncoder({'image_size': 32, 'num_heads': 2, 'num_layers': 3, 'patch_size': 16})
