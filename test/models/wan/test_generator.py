"""The generator agrees with the published computation and loads the published names."""

import pytest
import torch

from wristworld_ros.errors import UserError
from wristworld_ros.models.wan import SIM_TINY, WRISTWORLD_1_3B, WristGenerator


@pytest.fixture
def stage2(load_fixture):
    fixture = load_fixture('stage2_public')
    gen = WristGenerator.from_config(fixture.config)
    gen.load_release_state_dict(fixture.weights)
    return fixture, gen


@torch.no_grad()
def test_tokens_context_and_velocity_agree_with_the_release(stage2):
    fixture, gen = stage2
    tokens = gen.anchor_tokens(fixture.input['anchor_clip_features'])
    fixture.assert_agrees('anchor_tokens', tokens)
    context = gen.context(fixture.input['text_context'], tokens)
    fixture.assert_agrees('context', context)
    latents, condition, timestep = (fixture.input[k] for k in ('noise', 'control_latents', 'timestep'))
    fixture.assert_agrees('velocity', gen.velocity(latents, condition, timestep, context))
    negative = fixture.input['negative_context']
    fixture.assert_agrees('velocity_negative', gen.velocity(latents, condition, timestep, negative))


def test_guided_sampling_agrees_with_the_release(stage2):
    fixture, gen = stage2
    fixture.assert_agrees('sigmas', gen.sigmas())
    fixture.assert_agrees('sigmas_50', gen.sigmas(50))
    context = gen.context(fixture.input['text_context'], gen.anchor_tokens(fixture.input['anchor_clip_features']))
    noise, condition, negative = (fixture.input[k] for k in ('noise', 'control_latents', 'negative_context'))
    fixture.assert_agrees(
        'sampled_latents', gen.sample(noise, condition, context, negative, steps=4, cfg_scale=5.0, shift=5.0)
    )


def test_full_size_has_the_released_names_and_shapes(load_keys):
    with torch.device('meta'):
        gen = WristGenerator.from_config(WRISTWORLD_1_3B)
    found = {name: tuple(tensor.shape) for name, tensor in gen.release_tensors().items()}
    assert found == load_keys('wristworld_video_keys')


def test_other_sizes_and_more_views_build_from_the_configuration(stage2):
    fixture, _ = stage2
    config = fixture.config | {'max_views': 5, 'patch_size': [1, 1, 1], 'num_layers': 1, 'context_length': 64}
    gen = WristGenerator.from_config(config)
    tokens = gen.anchor_tokens(torch.randn(2, 5, 3, config['clip_dim']))
    assert tokens.shape == (2, 15, config['text_dim'])
    context = gen.context(torch.randn(1, 20, config['text_dim']), tokens)
    assert context.shape == (2, 64, config['text_dim'])
    assert context[:, 20:49].eq(0).all(), 'short text is filled with zeros'
    assert gen.velocity(torch.randn(2, 16, 2, 3, 5), None, torch.full((2,), 9.0), context).shape == (2, 16, 2, 3, 5)


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (lambda w: w.pop('ext_proj.0.bias'), ['ext_proj.0.bias', 'missing', '[32]']),
        (lambda w: w.update({'ext_proj.0.bias': torch.zeros(7)}), ['ext_proj.0.bias', '[7]', '[32]']),
        (lambda w: w.update({'more': torch.zeros(2)}), ['more', '[2]', 'not part']),
    ],
)
def test_wrong_weights_are_refused_in_one_sentence_and_change_nothing(stage2, damage, words):
    fixture, gen = stage2
    before = {name: tensor.clone() for name, tensor in gen.release_tensors().items()}
    damage(fixture.weights)
    with pytest.raises(ValueError) as error:
        gen.load_release_state_dict({k: v + 1 for k, v in fixture.weights.items()})
    assert all(word in str(error.value) for word in words)
    assert '\n' not in str(error.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in gen.release_tensors().items())


def test_too_many_views_frames_or_tokens_are_refused(small_gen):
    with pytest.raises(UserError, match='5 views'):
        small_gen.anchor_tokens(torch.zeros(1, 5, 1, 32))
    with pytest.raises(UserError, match='17 frames'):
        small_gen.anchor_tokens(torch.zeros(1, 1, 17, 32))
    tokens = small_gen.settings.context_length + 1
    with pytest.raises(UserError, match=f'{tokens} anchor tokens'):
        small_gen.context(None, torch.zeros(1, tokens, 24))


def test_missing_and_impossible_settings_are_refused():
    with pytest.raises(UserError, match='lacks dim, ffn_dim; add them'):
        WristGenerator.from_config({k: v for k, v in SIM_TINY.items() if k not in ('dim', 'ffn_dim')})
    with pytest.raises(UserError, match='prediction'):
        WristGenerator.from_config(SIM_TINY | {'prediction': 'noise'})
    with pytest.raises(UserError, match='out_channels'):
        WristGenerator.from_config(SIM_TINY | {'decoder': None})


@torch.no_grad()
def test_one_step_of_a_sample_predictor_is_its_prediction(small_gen):
    noise, condition = torch.randn(1, 192, 2, 4, 4), torch.randn(1, 320, 2, 4, 4)
    context = small_gen.context(None, None)
    wanted = small_gen.predict(noise, condition, torch.full((1,), 1000.0), context)
    found = small_gen.sample(noise, condition, context, steps=1)
    assert torch.allclose(found, wanted, atol=1e-5)


@torch.no_grad()
def test_velocity_and_sample_are_two_sides_of_one_prediction(small_gen):
    latents, sigma = torch.randn(2, 192, 2, 4, 4), torch.tensor([0.3, 0.8])
    prediction = small_gen.predict(latents, None, 1000 * sigma, small_gen.context(None, None).expand(2, -1, -1))
    velocity = small_gen.to_velocity(prediction, latents, 1000 * sigma)
    assert torch.allclose(latents - sigma.view(2, 1, 1, 1, 1) * velocity, prediction, atol=1e-5)
    assert small_gen.to_sample(prediction, latents, 1000 * sigma) is prediction


@torch.no_grad()
def test_a_missing_condition_is_a_condition_of_zeros(small_gen):
    latents, timestep, context = torch.randn(1, 192, 2, 4, 4), torch.full((1,), 500.0), small_gen.context(None, None)
    zeros = small_gen.predict(latents, torch.zeros(1, 320, 2, 4, 4), timestep, context)
    assert torch.equal(small_gen.predict(latents, None, timestep, context), zeros)


@torch.no_grad()
def test_timesteps_may_differ_between_frames(small_gen):
    latents, condition = torch.randn(1, 192, 2, 4, 4), torch.randn(1, 320, 2, 4, 4)
    context = small_gen.context(None, None)
    one = small_gen.predict(latents, condition, torch.full((1,), 500.0), context)
    assert torch.allclose(small_gen.predict(latents, condition, torch.full((1, 2), 500.0), context), one, atol=1e-5)
    two = small_gen.predict(latents, condition, torch.tensor([[500.0, 100.0]]), context)
    assert not torch.allclose(two, one, atol=1e-3)


def test_low_precision_is_for_the_transformer_and_the_vision_tower_only(small_gen):
    low = {
        name for name, _ in small_gen.named_parameters() if small_gen.param_dtype(name, torch.bfloat16) != torch.float32
    }
    assert {'transformer.patch_embedding.weight', 'transformer.blocks.0.attn1.to_q.weight'} <= low
    assert any(name.startswith('anchor_encoder.') for name in low)
    exact = ('decoder.', 'ext_proj.', 'temporal_embed.', 'view_embed.', 'text_context')
    for name in low:
        assert not name.startswith(exact) and 'scale_shift_table' not in name and 'time_embedder' not in name, name
