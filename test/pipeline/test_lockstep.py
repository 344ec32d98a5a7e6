"""Streams in lockstep: each gives what it gives alone, their networks run as batches, and a run repeats itself to the bit."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from wristworld_ros.models.wan.autoencoders import WanAutoencoder
from wristworld_ros.models.wan.kv_cache import KVCache
from wristworld_ros.pipeline.lockstep import Lockstep, lockstep_model
from wristworld_ros.pipeline.model import tiny_random_model
from wristworld_ros.pipeline.virtual_wrist import VirtualWrist
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet

SETTINGS = StreamSettings(min_coverage=0.0, check_anchors=False, guidance=1.0)


def anchor_sets(stream, count):
    rng = np.random.default_rng(stream)
    images = rng.integers(0, 256, (count, 2, 6, 8, 3), dtype=np.uint8).repeat(8, 2).repeat(8, 3)
    return [AnchorSet(10**8 * i, ('left', 'right'), one) for i, one in enumerate(images)]


def in_lockstep(model, streams):
    """The frames of every stream; a stream leaves when it has no more sets."""
    shared, lockstep = lockstep_model(model), Lockstep(len(streams))
    wrists = [VirtualWrist(shared, replace(SETTINGS, graphs=False)) for _ in streams]
    found = [[] for _ in streams]
    for step in range(max(map(len, streams))):
        going = [number for number, sets in enumerate(streams) if step < len(sets)]
        observations = lockstep.run([partial(wrists[n].reconstruct, streams[n][step]) for n in going])
        calls = [partial(wrists[n].generate, one) for n, one in zip(going, observations, strict=True)]
        for number, frames in zip(going, lockstep.run(calls), strict=True):
            found[number] += frames
    lockstep.close()
    return found


@pytest.fixture(scope='module')
def model():
    torch.set_num_threads(1)
    return tiny_random_model()


@pytest.fixture(scope='module')
def streams():
    return [anchor_sets(0, 6), anchor_sets(1, 6), anchor_sets(2, 4)]


def test_each_stream_gives_what_it_gives_alone(model, streams):
    for sets, frames in zip(streams, in_lockstep(model, streams), strict=True):
        alone = VirtualWrist(model, SETTINGS)
        wanted = [frame for one in sets for frame in alone.push(one)]
        assert [frame.stamp_ns for frame in frames] == [frame.stamp_ns for frame in wanted]
        for own, other in zip(frames, wanted, strict=True):
            assert own.verdict == other.verdict and abs(own.confidence - other.confidence) < 1e-4
            np.testing.assert_allclose(own.camera.T_camera_world, other.camera.T_camera_world, atol=1e-4)
            assert (np.abs(own.image.astype(int) - other.image) <= 2).mean() > 0.99


def test_a_run_gives_the_same_bits_again(model, streams):
    for one, other in zip(in_lockstep(model, streams), in_lockstep(model, streams), strict=True):
        assert all(np.array_equal(a.image, b.image) for a, b in zip(one, other, strict=True))


def test_networks_run_once_for_all_streams(model, streams):
    sizes = []
    hooks = [
        model.stage1.register_forward_hook(lambda module, given, out: sizes.append(('stage1', len(given[0])))),
        model.generator.decoder.register_forward_hook(lambda module, given, out: sizes.append(('decoder', len(out)))),
    ]
    in_lockstep(model, streams)
    for hook in hooks:
        hook.remove()
    wanted = [('stage1', 3), ('decoder', 3)] * 4 + [('stage1', 2), ('decoder', 2)] * 2
    assert sizes == wanted


def test_caches_in_other_states_do_not_join(model):
    caches = [KVCache(1, 1, 1, 2, 3, 1, 2) for _ in range(2)]
    caches[1].advance()
    assert caches[0].start == 0 and caches[1].start == 1
    caches[1].forget()
    assert caches[0].state == caches[1].state and caches[1].start == 1, 'keys are rotated by their position'
    caches[1].reset()
    assert caches[1].start == 0


def test_an_autoencoder_with_a_state_is_batched_and_its_states_are_given_back(model):
    torch.manual_seed(0)
    plain = tiny_random_model()
    plain.autoencoder = WanAutoencoder(dim=8, z_dim=16).eval()
    shared, videos = lockstep_model(plain), torch.rand(2, 1, 3, 5, 16, 16)

    def halves(autoencoder, video):
        first, state = autoencoder.encode_next(video[:, :, :1])
        return torch.cat([first, autoencoder.encode_next(video[:, :, 1:], state)[0]], dim=2)

    lockstep = Lockstep(2)
    with torch.inference_mode():
        found = lockstep.run([partial(halves, shared.autoencoder, video) for video in videos])
        for one, video in zip(found, videos, strict=True):
            torch.testing.assert_close(one, halves(plain.autoencoder, video), atol=1e-4, rtol=1e-4)
    lockstep.close()


def test_what_a_call_raises_is_raised_when_the_others_have_ended():
    ended, lockstep = [], Lockstep(2)
    with pytest.raises(ZeroDivisionError):
        lockstep.run([lambda: 1 / 0, lambda: ended.append(1)])
    assert ended == [1]
    lockstep.close()
