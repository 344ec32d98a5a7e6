"""Memory that runs out: the frame is invalid, one thing is given up, and frames come again."""

import threading

import numpy as np
import pytest
import torch

from wristworld_ros.models.wan.autoencoders import WanAutoencoder
from wristworld_ros.models.wan.tiny_decoder import TinyAutoencoder, tiny_decoder_for
from wristworld_ros.pipeline import VirtualWrist, tiny_random_model
from wristworld_ros.runtime.offload import OffloadedModules, StageScheduler
from wristworld_ros.setting import check
from wristworld_ros.settings import OOM_STEPS, StreamSettings
from wristworld_ros.types import AnchorSet, FrameStatus

ERRORS = {
    'gpu': lambda: torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 MiB free.'),
    'cpu': lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
        '4096 bytes. Error code 12 (Cannot allocate memory)'
    ),
    'python': MemoryError,
}


@pytest.fixture
def model():
    torch.set_num_threads(1)
    return tiny_random_model()


def anchor_set(i):
    images = np.random.default_rng(i).integers(0, 256, (2, 42, 56, 3), dtype=np.uint8)
    return AnchorSet(i * 100_000_000, ('a', 'b'), images)


def settings(**changes):
    return StreamSettings(min_coverage=0.0, min_confidence=0.0, **changes)


def fail(monkeypatch, module, error, times=1, after=0):
    """The module's forward raises the error that many times, after so many calls that go well."""
    left, forward = [after, times], module.forward

    def sometimes(*args, **kwargs):
        if left[0]:
            left[0] -= 1
        elif left[1]:
            left[1] -= 1
            raise error()
        return forward(*args, **kwargs)

    monkeypatch.setattr(module, 'forward', sometimes)


@pytest.mark.parametrize('error', ERRORS)
@pytest.mark.parametrize('part', ['stage1', 'generator'])
def test_the_frame_is_invalid_with_what_ran_out_and_what_was_done_and_the_next_is_valid(
    model, monkeypatch, part, error
):
    stream = VirtualWrist(model, settings(history=4))
    for i in range(3):
        assert stream.push(anchor_set(i))[0].valid
    full = stream._generation.cache.nbytes
    fail(monkeypatch, model.stage1 if part == 'stage1' else model.generator.transformer.patch_embedding, ERRORS[error])
    (frame,) = stream.push(anchor_set(3))
    assert (
        frame.verdict.status is FrameStatus.OUT_OF_MEMORY
        and not frame.image.any()
        and frame.stamp_ns == anchor_set(3).stamp_ns
    )
    assert 'ran out in stage ' + ('1' if part == 'stage1' else '2') in frame.reason
    assert 'history 2 instead of 4' in frame.reason and '\n' not in frame.reason and frame.reason.endswith('.')
    assert '2.00 GiB' in frame.reason or error != 'gpu'
    assert stream.oom_fallback.applied == ('history',) and 'history 2' in str(stream.oom_fallback)
    (after,) = stream.push(anchor_set(4))
    (new,) = VirtualWrist(model, settings(history=2)).push(anchor_set(4))
    assert after.valid and np.array_equal(after.image, new.image)
    assert stream._generation.cache.nbytes == full * 3 // 5


def test_the_history_is_halved_down_to_one_and_then_the_stream_goes_on_trying(model, monkeypatch):
    stream = VirtualWrist(model, settings(history=4))
    fail(monkeypatch, model.generator.transformer.patch_embedding, ERRORS['gpu'], times=4)
    reasons = [stream.push(anchor_set(i))[0].reason for i in range(4)]
    assert ['history 2' in reasons[0], 'history 1' in reasons[1]] == [True, True] and stream.history == 1
    assert all('nothing more to give up' in reason for reason in reasons[2:])
    assert stream.push(anchor_set(4))[0].valid


def test_a_chunk_in_which_memory_ran_out_is_invalid_as_a_whole_and_every_set_comes_out_once(model, monkeypatch):
    stream = VirtualWrist(model, settings(chunk=2))
    fail(monkeypatch, model.stage1, ERRORS['gpu'], after=1)
    frames = [frame for i in range(4) for frame in stream.push(anchor_set(i))]
    assert [f.stamp_ns for f in frames] == [anchor_set(i).stamp_ns for i in range(4)]
    assert [f.valid for f in frames] == [False, False, True, True]


def test_without_fallback_steps_nothing_is_given_up(model, monkeypatch):
    stream = VirtualWrist(model, settings(on_out_of_memory=[]))
    fail(monkeypatch, model.generator.transformer.patch_embedding, ERRORS['gpu'])
    assert (
        'nothing more' in stream.push(anchor_set(0))[0].reason
        and stream.oom_fallback.applied == ()
        and str(stream.oom_fallback) == ''
    )
    assert stream.push(anchor_set(1))[0].valid and stream.history == 4


def test_the_tiny_decoder_is_used_where_there_is_one(monkeypatch):
    model, full = tiny_random_model(), WanAutoencoder(8)
    model.autoencoder, model.tiny_autoencoder = (
        full,
        TinyAutoencoder(full, tiny_decoder_for(full, width=8, blocks=1)),
    )
    stream = VirtualWrist(model, settings(on_out_of_memory=['tiny_decoder', 'history']))
    fail(monkeypatch, model.stage1, ERRORS['gpu'], times=2)
    first, second = (stream.push(anchor_set(i))[0].reason for i in range(2))
    assert 'tiny decoder' in first and 'history 2' in second
    assert model.autoencoder is model.tiny_autoencoder and full.vae.decoder is None
    assert stream.oom_fallback.applied == ('tiny_decoder', 'history')


def test_another_error_triggers_no_fallback(model, monkeypatch):
    stream = VirtualWrist(model, settings())
    fail(monkeypatch, model.generator.transformer.patch_embedding, lambda: RuntimeError('shapes cannot be multiplied'))
    with pytest.raises(RuntimeError, match='shapes'):
        stream.push(anchor_set(0))
    assert stream.oom_fallback.applied == ()


@pytest.mark.parametrize(('value', 'words'), [(['histroy'], "'histroy'"), (['history', 'history'], 'twice')])
def test_unknown_steps_are_refused_with_those_that_exist(value, words):
    with pytest.raises(ValueError, match=words):
        check(StreamSettings(on_out_of_memory=value))
    check(StreamSettings(on_out_of_memory=list(OOM_STEPS)))


def test_offloaded_weights_are_loaded_to_compute_and_compute_the_same(model):
    expected = VirtualWrist(model, settings()).push(anchor_set(0))[0].image
    stream = VirtualWrist(model, settings())
    stream.release_steps()
    stream.scheduler.offload([model.stage1], [model.generator, model.autoencoder, None], model.device)
    assert np.array_equal(stream.push(anchor_set(0))[0].image, expected)
    weight = model.generator.transformer.proj_out.weight
    resting = weight.data_ptr()
    with stream.scheduler.generating():
        assert weight.data_ptr() != resting
    assert weight.data_ptr() == resting


def test_weights_that_do_not_fit_all_stay_in_ram(model, monkeypatch):
    offloaded = OffloadedModules([model.stage1], model.device)
    resting = [p.data_ptr() for p in model.stage1.parameters()]
    to, calls = torch.Tensor.to, []

    def full(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise ERRORS['gpu']()
        return to(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, 'to', full)
    with pytest.raises(torch.OutOfMemoryError):
        offloaded.load()
    assert [p.data_ptr() for p in model.stage1.parameters()] == resting


def test_offloaded_stages_wait_for_each_other(model):
    scheduler, order = StageScheduler(), []

    def generate():
        with scheduler.generating():
            order.append('generate')

    scheduler.offload([model.stage1], [model.generator], model.device)
    with scheduler.reconstructing():
        thread = threading.Thread(target=generate)
        thread.start()
        thread.join(0.1)
        order.append('reconstruct')
    thread.join(5)
    assert order == ['reconstruct', 'generate']
