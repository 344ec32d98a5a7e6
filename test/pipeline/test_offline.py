"""A whole video through both stages in windows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.autoencoders import autoencoder_from_config
from wristworld_ros.models.wan.sampling import shared_noise
from wristworld_ros.pipeline import tiny_random_model
from wristworld_ros.pipeline.generator_inputs import NotFiniteError, to_pixels
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.offline import draw, watch, windows_for
from wristworld_ros.settings import WindowSettings
from wristworld_ros.types import AnchorSet


@pytest.fixture(scope='module')
def model():
    return tiny_random_model()


def sets(frames, views=2):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (frames, views, 7, 7, 3), dtype=np.uint8).repeat(8, 2).repeat(8, 3)
    names = tuple(f'anchor{i}' for i in range(views))
    return [AnchorSet(i * 10**8, names, images) for i, images in enumerate(coarse)]


@pytest.fixture(scope='module')
def compressing(model):
    """The same machine with Wan's autoencoder (random, four pictures a latent frame), guidance and a stored prompt."""
    config = model.config.generator | {
        'autoencoder': {'kind': 'wan', 'dim': 8, 'z_dim': 16}, 'latent_channels': 16, 'in_channels': 32,
        'out_channels': 16, 'decoder': None, 'prediction': 'velocity', 'text': 'stored', 'cfg_scale': 3.0,
    }  # fmt: skip
    torch.manual_seed(0)
    autoencoder = autoencoder_from_config(config['autoencoder'])
    generator = WristGenerator.from_config(config)
    return WristModel(replace(model.config, generator=config), model.stage1, generator, 'cpu', autoencoder)


@pytest.mark.parametrize(('frames', 'views'), [(1, 1), (5, 2), (9, 4)])
def test_a_frame_comes_out_for_every_frame_that_goes_in(model, frames, views):
    seen = watch(model, sets(frames, views))
    assert [f.stamp_ns for f in seen.frames] == [i * 10**8 for i in range(frames)]
    assert seen.features.shape[:3] == (1, views, frames)
    settings = WindowSettings(window=4, overlap=2, steps=2)
    one, two = (np.stack(list(draw(model, seen, settings))) for _ in range(2))
    assert one.shape == (frames, 32, 32, 3) and one.dtype == np.uint8 and np.array_equal(one, two)


def test_one_window_is_the_plain_sample(model):
    seen, gen = watch(model, sets(5)), model.generator
    noise, _ = shared_noise((1, 192, 5, 4, 4), model.config.noise_share, generator=torch.Generator().manual_seed(3))
    context = gen.context(None, gen.anchor_tokens(seen.features))
    wanted = to_pixels(model.autoencoder.decode(gen.sample(noise, seen.condition_latents, context, steps=2)))
    assert np.array_equal(np.stack(list(draw(model, seen, WindowSettings(steps=2), seed=3))), wanted)


@pytest.mark.parametrize('frames', [1, 5, 6, 14])
def test_an_autoencoder_that_compresses_time_gives_as_many_frames_as_it_was_shown(compressing, frames):
    seen = watch(compressing, sets(frames))
    assert seen.latent_frames == -(-(frames - 1) // 4) + 1
    assert seen.condition_latents.shape[2] == seen.latent_frames
    assert seen.features.shape[2] == 1 + 4 * (seen.latent_frames - 1)
    settings = WindowSettings(window=9, overlap=8, steps=2, solver='unipc', one_batch=False)
    pictures = np.stack(list(draw(compressing, seen, settings)))
    assert pictures.shape == (frames, 32, 32, 3)


def test_without_settings_a_window_is_the_clip_of_the_model(model, compressing):
    seen = watch(model, sets(2))
    long = replace(seen, latent_frames=40)
    assert windows_for(model, long, WindowSettings())[0].frames == 16
    # max_frames 16 video frames are 4 latent ones
    assert windows_for(compressing, long, WindowSettings())[0].frames == 4


def test_what_cannot_be_is_refused_in_one_sentence(model):
    seen = watch(model, sets(9))
    with pytest.raises(ValueError, match='stores no negative prompt'):
        list(draw(model, seen, WindowSettings(guidance=4.0)))
    with pytest.raises(ValueError, match='4 frames cannot overlap by 4'):
        list(draw(model, seen, WindowSettings(window=4, overlap=4)))
    with pytest.raises(ValueError, match='at most 16 of 2 view'):
        list(draw(model, seen, WindowSettings(window=17)))
    with pytest.raises(ValueError, match='need at least 2'):
        list(draw(model, seen, WindowSettings(window=1)))
    with pytest.raises(ValueError, match='no frames'):
        watch(model, [])


def test_numbers_that_are_not_finite_make_no_picture(model):
    seen = watch(model, sets(3))
    seen = replace(seen, condition_latents=seen.condition_latents * float('nan'))
    with pytest.raises(NotFiniteError):
        list(draw(model, seen, WindowSettings()))
