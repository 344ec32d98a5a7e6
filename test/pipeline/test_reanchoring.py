"""Re-anchoring: a chunk made without history leaves nothing of the past; a long stream neither grows nor degrades."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wristworld_ros.pipeline import VirtualWrist, tiny_random_model
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet


@pytest.fixture(scope='module')
def model():
    torch.set_num_threads(1)
    return tiny_random_model()


@pytest.fixture(scope='module')
def observations(model):
    """Stage 1 of 16 sets of noise; a stream may generate from them again and again."""
    random = np.random.default_rng(0)
    wrist = VirtualWrist(model, StreamSettings())
    sets = [AnchorSet(i, ('a', 'b'), random.integers(0, 256, (2, 42, 56, 3), dtype=np.uint8)) for i in range(16)]
    return [replace(wrist.reconstruct(s), starts_stream=False) for s in sets]


def generated(model, observations, frames, **settings):
    """Images of one stream, float32 [N, h, w, 3]."""
    wrist = VirtualWrist(model, StreamSettings(**settings))
    return np.stack(
        [f.image for i in range(frames) for f in wrist.generate(observations[i % len(observations)])]
    ).astype(np.float32)


def close(one, two):
    """Equal up to rounding: positions are further on, so rotations differ in the last bits."""
    return np.abs(one - two).max() <= 1


@pytest.mark.parametrize(('chunk', 'steps'), [(1, 1), (1, 2), (2, 2)])
def test_the_chunk_is_what_a_stream_without_history_makes_of_the_same_noise(model, observations, chunk, steps):
    same = {'chunk': chunk, 'steps': steps}
    anchored, apart, never = (
        generated(model, observations, 12 * chunk, **same, **how).reshape(12, chunk, 32, 32, 3)
        for how in ({'reanchor': 5}, {'history': 0}, {})
    )
    assert [close(anchored[i], apart[i]) for i in range(12)] == [i in (0, 5, 10) for i in range(12)]
    assert np.array_equal(anchored[:5], never[:5]), 'until then it is the same stream'
    assert not close(anchored[5], never[5])


def test_history_grows_again_from_the_new_chunk_alone(model, observations):
    """What was seen before a re-anchoring makes no difference to anything after it."""
    one = generated(model, observations, 14, reanchor=5, history=2)
    two = generated(model, observations[5:10] + observations[5:], 14, reanchor=5, history=2)
    assert not close(one[4], two[4])
    assert np.array_equal(one[5:], two[5:])
    never = generated(model, observations[5:10] + observations[5:], 14, history=2)
    assert not np.array_equal(never[5:], two[5:])


def test_every_chunk_re_anchored_is_no_history(model, observations):
    assert close(generated(model, observations, 8, reanchor=1), generated(model, observations, 8, history=0))


def test_a_reset_counts_from_its_own_start(model, observations):
    wrist = VirtualWrist(model, StreamSettings(reanchor=3))
    for observation in observations[:5]:
        wrist.generate(observation)
    fresh = replace(observations[0], starts_stream=True)
    again = np.stack([wrist.generate(v)[0].image for v in [fresh, *observations[1:8]]])
    assert np.array_equal(again, generated(model, observations, 8, reanchor=3))


@pytest.mark.parametrize('reanchor', [None, 50])
def test_two_thousand_frames_stay_what_the_first_were(model, observations, reanchor):
    wrist = VirtualWrist(model, StreamSettings(chunk=8, history=2, reanchor=reanchor))
    cache = wrist._generation.cache
    memory = cache.keys.data_ptr(), cache.nbytes
    frames = [frame for i in range(2000) for frame in wrist.generate(observations[i % 16])]
    assert len(frames) == 2000 and all(not frame.verdict.status.is_blank for frame in frames)
    assert (cache.keys.data_ptr(), cache.nbytes) == memory
    assert int(cache.positions[0]) == 1992, 'all but the last chunk are committed, and positions have gone on'
    made = [frame.image for frame in frames]
    # Both stretches show the same sets equally often, and both with their history full.
    first, last = (np.stack(part).astype(np.float32) for part in (made[32:128], made[-96:]))
    assert abs(last.mean() - first.mean()) < 0.5 and abs(last.std() - first.std()) < 0.5
    levels = first.mean((1, 2, 3))
    assert (last.mean((1, 2, 3)) > levels.min() - 2).all() and (last.mean((1, 2, 3)) < levels.max() + 2).all()


def test_a_negative_number_of_chunks_is_refused(model):
    with pytest.raises(ValueError, match='reanchor is -1'):
        VirtualWrist(model, StreamSettings(reanchor=-1))
