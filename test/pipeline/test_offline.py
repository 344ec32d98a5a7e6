"""A whole video through both stages in windows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.autoencoders import autoencoder_from_config
from wristworld_ros.models.wan.sampling import shared_noise
from wristworld_ros.pipeline import tiny_random_model
from wristworld_ros.pipeline.generate import NotFiniteError, to_pixels
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.offline import encode_video, generate_video, plan_for
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
    """The same machine with Wan's autoencoder (random, four images a latent frame), guidance and a stored prompt."""
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
    encoded = encode_video(model, sets(frames, views))
    assert [f.stamp_ns for f in encoded.frames] == [i * 10**8 for i in range(frames)]
    assert encoded.features.shape[:3] == (1, views, frames)
    settings = WindowSettings(window=4, overlap=2, steps=2)
    one, two = (np.stack(list(generate_video(model, encoded, settings))) for _ in range(2))
    assert one.shape == (frames, 32, 32, 3) and one.dtype == np.uint8 and np.array_equal(one, two)


def test_one_window_is_the_plain_sample(model):
    encoded, gen = encode_video(model, sets(5)), model.generator
    noise, _ = shared_noise((1, 192, 5, 4, 4), model.config.noise_share, generator=torch.Generator().manual_seed(3))
    context = gen.context(None, gen.anchor_tokens(encoded.features))
    wanted = to_pixels(model.autoencoder.decode(gen.sample(noise, encoded.condition_latents, context, steps=2)))
    assert np.array_equal(np.stack(list(generate_video(model, encoded, WindowSettings(steps=2), seed=3))), wanted)


@pytest.mark.parametrize('frames', [1, 5, 6, 14])
def test_an_autoencoder_that_compresses_time_gives_as_many_frames_as_it_was_shown(compressing, frames):
    encoded = encode_video(compressing, sets(frames))
    assert encoded.latent_frames == -(-(frames - 1) // 4) + 1
    assert encoded.condition_latents.shape[2] == encoded.latent_frames
    assert encoded.features.shape[2] == 1 + 4 * (encoded.latent_frames - 1)
    settings = WindowSettings(window=9, overlap=8, steps=2, solver='unipc', one_batch=False)
    images = np.stack(list(generate_video(compressing, encoded, settings)))
    assert images.shape == (frames, 32, 32, 3)


def test_without_settings_a_window_is_the_clip_of_the_model(model, compressing):
    encoded = encode_video(model, sets(2))
    long = replace(encoded, latent_frames=40)
    assert plan_for(model, long, WindowSettings())[0].frames == 16
    # max_frames 16 video frames are 4 latent ones
    assert plan_for(compressing, long, WindowSettings())[0].frames == 4


def test_what_cannot_be_is_refused_in_one_sentence(model):
    encoded = encode_video(model, sets(9))
    with pytest.raises(ValueError, match='stores no negative prompt'):
        list(generate_video(model, encoded, WindowSettings(guidance=4.0)))
    with pytest.raises(ValueError, match='4 frames cannot overlap by 4'):
        list(generate_video(model, encoded, WindowSettings(window=4, overlap=4)))
    with pytest.raises(ValueError, match='at most 16 of 2 view'):
        list(generate_video(model, encoded, WindowSettings(window=17)))
    with pytest.raises(ValueError, match='need at least 2'):
        list(generate_video(model, encoded, WindowSettings(window=1)))
    with pytest.raises(ValueError, match='contain no frames'):
        encode_video(model, [])


def test_numbers_that_are_not_finite_make_no_image(model):
    encoded = encode_video(model, sets(3))
    encoded = replace(encoded, condition_latents=encoded.condition_latents * float('nan'))
    with pytest.raises(NotFiniteError):
        list(generate_video(model, encoded, WindowSettings()))


def test_black_and_disagreeing_anchors_are_named_in_the_frames_of_a_video(model):
    strict = WristModel(replace(model.config, min_agreement=1.0), model.stage1, model.generator, 'cpu')
    two = sets(2)
    two[0].images[1] = 0
    frames = encode_video(strict, two).frames
    assert [f.verdict.status.name for f in frames] == ['UNIFORM_ANCHOR', 'ANCHORS_DISAGREE']
    frames = encode_video(model, two).frames
    assert [f.verdict.status.name for f in frames] == ['UNIFORM_ANCHOR', 'VALID'] and 0 < frames[1].agreement < 1
