"""Chunk by chunk with a cache equals the block-causal pass; nothing grows or drifts over a stream."""

import pytest
import torch

from wristworld_ros.models.wan import (
    WristGenerator,
    block_causal_predict,
    chunk_contexts,
    commit_chunk,
    generate_chunk,
    new_cache,
    sample_chunks,
)
from wristworld_ros.models.wan.causal import block_causal_mask
from wristworld_ros.models.wan.sampling import euler_sample
from wristworld_ros.models.wan.transformer import AttentionPlan


@pytest.fixture
def clip():
    torch.manual_seed(1)
    return {
        'noisy': torch.randn(2, 192, 8, 4, 4),
        'clean': torch.randn(2, 192, 8, 4, 4),
        'condition': torch.randn(2, 320, 8, 4, 4),
        'features': torch.randn(2, 2, 8, 32),
    }


@torch.no_grad()
def stream(gen, clip, timestep, chunk, history, wrong_by=0, start=0, reanchor=0):
    """Predictions of all chunks, each with the clean chunks before it in the cache.

    start: frames that went by before. wrong_by: frames that the queries' positions are off after the first chunk.
    reanchor: chunks after which the history is forgotten.
    """
    cache = new_cache(gen, (4, 4), 2, chunk, history)
    outputs = []
    for first in range(0, 8, chunk):
        part = {key: value[:, :, first : first + chunk] for key, value in clip.items()}
        context = gen.context(None, gen.anchor_tokens(part['features']))
        positions = start + cache.positions
        plan = AttentionPlan(positions=positions + wrong_by * (first > 0), cache=cache)
        outputs.append(gen.predict(part['noisy'], part['condition'], timestep, context, plan))
        gen.transform(
            part['clean'], part['condition'], torch.zeros(2), context, AttentionPlan(positions=positions, cache=cache)
        )
        cache.advance()
        if cache.chunks == reanchor:
            cache.forget()
    return torch.cat(outputs, dim=2)


@torch.no_grad()
@pytest.mark.parametrize(('chunk', 'history'), [(1, 2), (2, 1), (2, 9), (4, 1), (2, 0)])
def test_cached_chunks_equal_the_block_causal_pass(small_gen, clip, chunk, history):
    timestep = torch.tensor([700.0, 200.0])
    contexts = chunk_contexts(small_gen, clip['features'], [chunk] * (8 // chunk))
    full = block_causal_predict(
        small_gen, clip['noisy'], clip['clean'], clip['condition'], timestep, contexts, chunk, history
    )
    assert (stream(small_gen, clip, timestep, chunk, history) - full).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize('history', [1, 2])
def test_a_stream_that_forgets_equals_block_causal_passes_over_the_parts(small_gen, clip, history):
    timestep = torch.tensor([700.0, 200.0])
    parts = []
    for half in (slice(0, 4), slice(4, 8)):
        inputs = {key: value[:, :, half] for key, value in clip.items()}
        contexts = chunk_contexts(small_gen, inputs.pop('features'), [1] * 4)
        parts.append(
            block_causal_predict(
                small_gen, inputs['noisy'], inputs['clean'], inputs['condition'], timestep, contexts, 1, history
            )
        )
    forgetful = stream(small_gen, clip, timestep, 1, history, reanchor=4)
    assert (forgetful - torch.cat(parts, dim=2)).abs().max() < 1e-5
    remembering = stream(small_gen, clip, timestep, 1, history)
    assert (forgetful - remembering)[:, :, 4].abs().max() > 1e-4


@torch.no_grad()
def test_a_wrong_frame_offset_shows(small_gen, clip):
    timestep = torch.tensor([700.0, 200.0])
    right = stream(small_gen, clip, timestep, 2, 2)
    assert (stream(small_gen, clip, timestep, 2, 2, wrong_by=1) - right).abs().max() > 1e-4


@torch.no_grad()
def test_positions_stay_valid_after_ten_million_frames(small_gen, clip):
    timestep = torch.tensor([700.0, 200.0])
    late = stream(small_gen, clip, timestep, 2, 2, start=10_000_000)
    assert (late - stream(small_gen, clip, timestep, 2, 2)).abs().max() < 1e-5


@torch.no_grad()
def test_generate_chunk_samples_with_the_committed_history(small_gen, clip):
    cache, other = (new_cache(small_gen, (4, 4), 2) for _ in range(2))
    context = small_gen.context(None, small_gen.anchor_tokens(clip['features'][:, :, :2]))
    part = {key: value[:, :, :2] for key, value in clip.items()}
    first = generate_chunk(small_gen, part['noisy'], part['condition'], context, cache, steps=2)
    assert (cache.chunks, int(cache.positions[0])) == (1, 2)
    commit_chunk(small_gen, first, part['condition'], context, other)
    plan = AttentionPlan(positions=torch.tensor([2, 3]), cache=other)
    velocity = small_gen.guided_velocity(part['condition'], context, plan=plan)
    wanted = euler_sample(velocity, part['noisy'], small_gen.sigmas(2))
    found = generate_chunk(small_gen, part['noisy'], part['condition'], context, cache, steps=2, commit=False)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert cache.chunks == 1, 'without commit the ring stays'
    assert not torch.allclose(found, first, atol=1e-3), 'history counts'


@torch.no_grad()
def test_first_chunk_needs_no_history_and_reset_brings_it_back(small_gen, clip):
    cache = new_cache(small_gen, (4, 4), 2)
    context = small_gen.context(None, None)
    context = context.expand(2, -1, -1)
    part = clip['noisy'][:, :, :2], clip['condition'][:, :, :2]
    first = generate_chunk(small_gen, *part, context, cache)
    generate_chunk(small_gen, *part, context, cache)
    cache.reset()
    assert torch.equal(generate_chunk(small_gen, *part, context, cache), first)
    whole = small_gen.sample(*part, context)
    assert torch.allclose(first, whole, atol=1e-5), 'a first chunk is a clip of its own'


@torch.no_grad()
def test_guidance_streams_both_contexts_in_one_cache(small_gen, clip):
    part = clip['noisy'][:1, :, :2], clip['condition'][:1, :, :2]
    context = small_gen.context(None, small_gen.anchor_tokens(clip['features'][:1, :, :2]))
    negative = small_gen.context(None, None)
    cache = new_cache(small_gen, (4, 4), batch=2)
    found = generate_chunk(small_gen, *part, context, cache, negative_context=negative, cfg_scale=3.0)
    wanted = small_gen.sample(*part, context, negative, cfg_scale=3.0)
    assert torch.allclose(found, wanted, atol=1e-4)
    assert cache.chunks == 1
    with pytest.raises(ValueError, match=r'KVCache\.append'):
        generate_chunk(
            small_gen, *part, context, new_cache(small_gen, (4, 4)), negative_context=negative, cfg_scale=3.0
        )


def test_noisy_chunks_attend_to_clean_history_and_themselves_only():
    mask = block_causal_mask(3, 1)[0].astype(int).tolist()
    assert mask == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [1, 0, 0, 0, 1, 0],
        [0, 1, 0, 0, 0, 1],
    ]


@torch.no_grad()
def test_dropped_history_equals_first_chunks_for_that_sample_only(small_gen, clip):
    timestep = torch.tensor([700.0, 200.0])
    contexts = chunk_contexts(small_gen, clip['features'], [2] * 4)
    arguments = (small_gen, clip['noisy'], clip['clean'], clip['condition'], timestep, contexts, 2, 2)
    full, dropped = (block_causal_predict(*arguments, visible=v) for v in (None, torch.tensor([0, 2])))
    assert torch.allclose(dropped[1], full[1], atol=1e-5)
    alone = small_gen.predict(
        clip['noisy'][:1, :, 6:], clip['condition'][:1, :, 6:], timestep[:1], contexts[:1, 3], None
    )
    assert torch.allclose(dropped[:1, :, 6:], alone, atol=1e-5)
    by_chunk = block_causal_predict(*arguments, visible=torch.tensor([[0, 1, 2, 0], [2, 2, 2, 2]]))
    assert torch.allclose(by_chunk[:1, :, 6:], alone, atol=1e-5)


def test_training_pass_reaches_every_trained_parameter(small_gen, clip):
    small_gen.train()
    images = torch.rand(2, 2, 8, 3, 24, 32)
    contexts = chunk_contexts(small_gen, small_gen.anchor_features(images), [2] * 4)
    out = block_causal_predict(
        small_gen, clip['noisy'], clip['clean'], clip['condition'], torch.tensor([700.0, 200.0]), contexts
    )
    out.square().mean().backward()
    still = [n for n, p in small_gen.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not still


def test_gradient_checkpointing_gives_the_same_gradients(small_gen, clip):
    def gradient():
        small_gen.zero_grad()
        contexts = chunk_contexts(small_gen, clip['features'], [2] * 4)
        timestep = torch.tensor([700.0, 200.0])
        block_causal_predict(
            small_gen, clip['noisy'], clip['clean'], clip['condition'], timestep, contexts
        ).square().mean().backward()
        return small_gen.transformer.blocks[0].attn1.to_k.weight.grad.clone()

    plain = gradient()
    small_gen.transformer.enable_gradient_checkpointing()
    assert torch.allclose(gradient(), plain, atol=1e-7)


def test_anchor_tokens_can_be_left_out_per_sample(small_gen, clip):
    contexts = chunk_contexts(small_gen, clip['features'], [2] * 4, keep=torch.tensor([True, False]))
    bare = small_gen.context(None, None)[0]
    assert torch.equal(contexts[1, 3], bare)
    assert not torch.equal(contexts[0, 3], bare)


def test_chunks_of_unequal_frames_get_contexts_of_their_own_frames(small_gen, clip):
    contexts = chunk_contexts(small_gen, clip['features'], [2, 6])
    alone = small_gen.context(None, small_gen.anchor_tokens(clip['features'][:, :, 2:]))
    assert torch.allclose(contexts[:, 1], alone)
    with pytest.raises(ValueError, match='8 anchor frames'):
        chunk_contexts(small_gen, clip['features'], [4, 2])


@torch.no_grad()
def test_a_sink_stays_while_the_rest_of_the_history_moves_on(small_config, clip):
    """The stream with sinks equals the block-causal pass whose mask has them."""
    torch.manual_seed(0)
    gen = WristGenerator.from_config(small_config | {'sink_chunks': 1})
    torch.nn.init.normal_(gen.decoder.last.weight, std=0.3)
    timestep = torch.tensor([700.0, 200.0])
    contexts = chunk_contexts(gen, clip['features'], [1] * 8)
    arguments = (clip['noisy'], clip['clean'], clip['condition'], timestep, contexts, 1, 3)
    full = block_causal_predict(gen, *arguments)
    assert (stream(gen, clip, timestep, 1, 3) - full).abs().max() < 1e-5
    without = WristGenerator.from_config(small_config)
    without.load_state_dict(gen.state_dict())
    assert (block_causal_predict(without, *arguments) - full)[:, :, -1].abs().max() > 1e-5


def test_the_mask_of_a_sink_has_the_first_chunk_and_the_last_ones():
    mask = block_causal_mask(5, 2, sink_chunks=1)[0].astype(int).tolist()
    assert mask[9] == [1, 0, 0, 1, 0, 0, 0, 0, 0, 1]
    assert mask[4] == [1, 0, 0, 1, 1, 0, 0, 0, 0, 0]


@pytest.fixture
def student(small_config):
    torch.manual_seed(0)
    sampler = {'kind': 'renoise', 'timesteps': [1000, 750, 500, 250]}
    gen = WristGenerator.from_config(small_config | {'sampler': sampler, 'sampling_steps': 4})
    torch.nn.init.normal_(gen.decoder.last.weight, std=0.3)
    return gen


@torch.no_grad()
@pytest.mark.parametrize('steps', [1, 2, 4])
def test_a_student_that_streams_equals_block_causal_passes_without_a_cache(student, clip, steps):
    """Every denoising step of every chunk as one pass over the clip so far; nothing is cached there."""
    noise = torch.randn(steps, 2, 192, 8, 4, 4)
    streamed = sample_chunks(student, noise, clip['condition'], clip['features'], 1, 2, 2, steps)
    contexts, levels = chunk_contexts(student, clip['features'], [2] * 4), student.sigmas(steps)
    clean = torch.zeros(2, 192, 8, 4, 4)
    for chunk in range(4):
        x = noise[0]
        for step, sigma in enumerate(levels):
            timestep = (1000 * sigma).expand(2)
            predicted = block_causal_predict(student, x, clean, clip['condition'], timestep, contexts, 2, 2)
            if step + 1 < steps:
                x = (1 - levels[step + 1]) * predicted + levels[step + 1] * noise[step + 1]
        span = slice(2 * chunk, 2 * chunk + 2)
        clean[:, :, span] = predicted[:, :, span]
    assert (streamed - clean).abs().max() < 1e-5


@torch.no_grad()
def test_a_student_refuses_more_steps_than_it_was_distilled_to(student, clip):
    with pytest.raises(ValueError, match='distilled to 4'):
        sample_chunks(student, torch.randn(5, 2, 192, 8, 4, 4), clip['condition'], None, steps=5)
