"""Windowed sampling: one window is a plain clip, many make one video without seams."""

import gc
import itertools
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wristworld_ros.evaluation.metrics import seam_ratio
from wristworld_ros.models.wan import Window, WristGenerator, clip_latents, plan_windows, sample_windows, sampling
from wristworld_ros.models.wan.config import SIM_TINY, WRISTWORLD_1_3B, GeneratorConfig
from wristworld_ros.models.wan.windows import seam_frames


@given(total=st.integers(1, 90), window=st.integers(2, 21), share=st.floats(0, 0.99), lead=st.integers(0, 2))
def test_weights_add_up_to_one_at_every_frame_and_neighbours_overlap(total, window, share, lead):
    overlap = max(int(share * window), lead + 1)
    if overlap >= window:
        return
    windows = plan_windows(total, window, overlap, lead)
    whole = torch.zeros(total)
    for w in windows:
        assert w.frames == min(window, total) and (w.weights >= 0).all()
        whole[w.span] += w.weights
        if w.start:
            assert not w.weights[:lead].any()
    assert torch.allclose(whole, torch.ones(total), atol=1e-6)
    assert windows[0].start == 0 and windows[-1].span.stop == total
    for one, two in itertools.pairwise(windows):
        assert one.span.stop - two.start >= overlap and two.start > one.start


def test_impossible_windows_are_refused():
    for window, overlap in ((4, 4), (4, 0)):
        with pytest.raises(ValueError, match='overlap must be 1 to 3'):
            plan_windows(9, window, overlap)
    with pytest.raises(ValueError, match='overlap must be 2 to 3'):
        plan_windows(9, 4, 1, lead=1)
    with pytest.raises(ValueError, match='total=0'):
        plan_windows(0, 4, 1)


def test_a_clip_is_as_long_as_published_and_as_the_embeddings_and_the_context_allow():
    published, tiny = (GeneratorConfig.from_config(c) for c in (WRISTWORLD_1_3B, SIM_TINY))
    assert clip_latents(published, 4, views=2) == 21
    assert clip_latents(tiny, 1, views=4) == 16
    assert clip_latents(GeneratorConfig.from_config(SIM_TINY | {'context_length': 20}), 1, views=4) == 5
    with pytest.raises(ValueError, match='fewer views'):
        clip_latents(tiny, 1, views=100)


def test_windows_of_a_compressed_video_take_the_frames_of_a_clip():
    first, second = plan_windows(6, 4, 2, lead=1)
    assert (first.video_span(4), second.video_span(4)) == (slice(0, 13), slice(8, 21))
    # Latent frame 3 is the only one in which both count; it stands for the frames 9 to 12.
    assert seam_frames((first, second), 4) == [9, 10, 11, 12, 13]
    assert seam_frames(plan_windows(6, 4, 2), 1) == [2, 3, 4]
    assert seam_frames((Window(0, 3, torch.ones(3)), Window(3, 3, torch.ones(3))), 1) == [3]


def inputs(gen, frames, views, seed=0, batch=1):
    s, g = gen.settings, torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, s.latent_channels, frames, 4, 4, generator=g)
    condition = torch.randn(batch, s.condition_channels, frames, 4, 4, generator=g)
    features = torch.randn(batch, views, frames, s.clip_dim, generator=g)
    return noise, condition, features


@torch.no_grad()
@pytest.mark.parametrize('views', [1, 2, 3, 4])
@pytest.mark.parametrize('solver', ['euler', 'unipc'])
@pytest.mark.parametrize('batched', [True, False])
def test_a_single_window_is_a_plain_sample_to_the_bit(small_gen, views, solver, batched):
    noise, condition, features = inputs(small_gen, 5, views)
    negative = small_gen.context(None, None)
    how = {'steps': 3, 'cfg_scale': 3.0, 'solver': solver, 'batched': batched}
    context = small_gen.context(None, small_gen.anchor_tokens(features))
    wanted = small_gen.sample(noise, condition, context, negative, **how)
    windows = plan_windows(5, 8, 2)
    found = sample_windows(small_gen, noise, condition, features, windows, negative_context=negative, **how)
    assert torch.equal(found, wanted)


@torch.no_grad()
@pytest.mark.parametrize('frames', [1, 2, 4, 5, 7, 11])
def test_any_length_is_sampled_and_the_same_seed_gives_the_same_video(small_gen, frames):
    noise, condition, features = inputs(small_gen, frames, 2, batch=2)
    windows = plan_windows(frames, 4, 2)
    one, two = (sample_windows(small_gen, noise, condition, features, windows, steps=2) for _ in range(2))
    assert one.shape == noise.shape and torch.isfinite(one).all() and torch.equal(one, two)


@torch.no_grad()
def test_guidance_in_one_batch_and_in_two_passes_agree(small_gen):
    noise, condition, features = inputs(small_gen, 7, 2)
    how = {'negative_context': small_gen.context(None, None), 'steps': 2, 'cfg_scale': 4.0}
    windows = plan_windows(7, 4, 2)
    one, two = (sample_windows(small_gen, noise, condition, features, windows, batched=b, **how) for b in (True, False))
    assert torch.allclose(one, two, atol=1e-4)
    bare = sample_windows(small_gen, noise, condition, features, windows, steps=2)
    assert not torch.allclose(one, bare, atol=1e-3)


@torch.no_grad()
def test_each_window_has_its_own_anchor_frames_with_times_from_its_first(small_gen, monkeypatch):
    noise, condition, features = inputs(small_gen, 6, 3)
    seen = []
    tokens = small_gen.anchor_tokens
    monkeypatch.setattr(small_gen, 'anchor_tokens', lambda f: seen.append(f.clone()) or tokens(f))
    sample_windows(small_gen, noise, condition, features, plan_windows(6, 4, 2), steps=1)
    assert [torch.equal(s, features[:, :, a : a + 4]) for s, a in zip(seen, (0, 2), strict=True)] == [True, True]


@torch.no_grad()
def test_windows_go_through_the_model_one_at_a_time_and_none_is_kept(small_gen, monkeypatch):
    """What the network holds depends on the window, however long the video is."""
    made, alive, frames = [], [], []
    velocity = small_gen.velocity

    def spy(latents, *args):
        gc.collect()
        alive.append(sum(ref() is not None for ref in made))
        frames.append(latents.shape[2])
        out = velocity(latents, *args)
        made.append(weakref.ref(out))
        return out

    monkeypatch.setattr(small_gen, 'velocity', spy)
    noise, condition, features = inputs(small_gen, 20, 2)
    calls = []
    windows = plan_windows(20, 4, 2)
    sample_windows(small_gen, noise, condition, features, windows, steps=2, on_window=lambda: calls.append(1))
    assert set(frames) == {4} and len(frames) == len(calls) == 2 * len(windows)
    assert max(alive) <= 1


class Toned(WristGenerator):
    """A stand-in whose clips are exact except for their brightness, which each clip chooses as real models do: the
    noise of its first frame decides whether all of it becomes darker or brighter."""

    def velocity(self, latents, condition_latents, timestep, context, plan=None):
        sigma = timestep[0] / 1000
        tone = torch.tanh(20 * latents[:, :1, :1].mean((3, 4), keepdim=True))
        return (latents - condition_latents[:, : latents.shape[1]] - 0.15 * tone) / sigma


@torch.no_grad()
def test_windows_leave_no_seam_where_independent_clips_do(small_config):
    gen = Toned.from_config(small_config | {'decoder': None, 'out_channels': 192})
    frames = 46
    windows = plan_windows(frames, 16, 6)
    clips = [(0, 16), (16, 32), (32, 46)]
    joined_ratios, apart_ratios = [], []
    for seed in range(5):
        noise, motion, features = inputs(gen, frames, 2, seed)
        motion = 0.03 * motion.cumsum(2)
        joined = sample_windows(gen, noise, motion, features, windows, steps=8)
        apart = [
            sample_windows(gen, *(x[:, :, a:b] for x in (noise, motion, features)), plan_windows(b - a, 16, 6), steps=8)
            for a, b in clips
        ]
        joined_ratios.append(seam_ratio(to_image(joined), seam_frames(windows)))
        apart_ratios.append(seam_ratio(to_image(torch.cat(apart, 2)), [16, 32]))
    assert sum(joined_ratios) / 5 <= 1.2
    assert sum(apart_ratios) / 5 > 2


def to_image(latents):
    """[1, C, T, h, w] -> uint8 [T, h, w, 3]."""
    return (latents[0, :3].permute(1, 2, 3, 0) * 60 + 128).round().clamp(0, 255).to(torch.uint8).numpy()


def test_sizes_that_contradict_each_other_are_refused(small_gen):
    noise, condition, features = inputs(small_gen, 6, 2)
    windows = plan_windows(6, 4, 2)
    with pytest.raises(ValueError, match='windows of 6 frames for noise of 5'):
        sample_windows(small_gen, noise[:, :, :5], condition[:, :, :5], features[:, :, :5], windows)
    with pytest.raises(ValueError, match='condition latents of 5 frames'):
        sample_windows(small_gen, noise, condition[:, :, :5], features, windows)
    with pytest.raises(ValueError, match='anchor features of 6 frames for noise of 6; give 21'):
        sample_windows(small_gen, noise, condition, features, windows, temporal_stride=4)
    with pytest.raises(ValueError, match='must be one of euler, unipc'):
        sample_windows(small_gen, noise, condition, features, windows, solver='heun')
    assert sampling.solver('euler') is sampling.euler_sample
