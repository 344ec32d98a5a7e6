"""The stream without ROS: what comes out for what goes in, and that nothing grows."""

import gc
import resource
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wristworld_ros.pipeline import VirtualWrist, tiny_random_model
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet, FrameStatus

STEP = 100_000_000  # 10 Hz, in nanoseconds


@pytest.fixture(scope='module')
def model():
    torch.set_num_threads(1)
    return tiny_random_model()


def anchor_set(i, views=2, hw=(42, 56), seed=None):
    rng = np.random.default_rng(i if seed is None else seed)
    names = tuple(f'camera{v}' for v in range(views))
    return AnchorSet(i * STEP, names, rng.integers(0, 256, (views, *hw, 3), dtype=np.uint8))


def push_all(stream, sets):
    return [frame for s in sets for frame in stream.push(s)]


@pytest.mark.parametrize('chunk', [1, 2, 3, 4])
def test_every_set_comes_out_once_in_order_with_its_own_stamp(model, chunk):
    frames = push_all(VirtualWrist(model, StreamSettings(chunk=chunk)), [anchor_set(i) for i in range(12)])
    assert [f.stamp_ns for f in frames] == [i * STEP for i in range(12)]


@pytest.mark.parametrize('views', [1, 2, 3, 5])
def test_any_number_of_anchors_gives_a_frame_of_the_wrist_size(model, views):
    (frame,) = VirtualWrist(model, StreamSettings()).push(anchor_set(0, views))
    assert frame.image.shape == (32, 32, 3) and frame.image.dtype == np.uint8
    assert frame.reconstruction.points.shape[0] == views


def test_the_same_input_and_seed_give_the_same_video_and_another_seed_another(model):
    sets = [anchor_set(i) for i in range(3)]
    one, two = (push_all(VirtualWrist(model, StreamSettings(steps=2)), sets) for _ in range(2))
    other = push_all(VirtualWrist(model, StreamSettings(steps=2, seed=1)), sets)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(one, two))
    assert not np.array_equal(one[-1].image, other[-1].image)


@pytest.mark.parametrize('chunk', [1, 2])
def test_reconstructing_ahead_of_generating_changes_nothing(model, chunk):
    sets = [anchor_set(i) for i in (0, 1, 2, 3, 1, 2)]  # the stamps go back once
    pushed = push_all(VirtualWrist(model, StreamSettings(chunk=chunk)), sets)
    ahead = VirtualWrist(model, StreamSettings(chunk=chunk))
    generated = [frame for seen in [ahead.reconstruct(s) for s in sets] for frame in ahead.generate(seen)]
    assert [f.stamp_ns for f in generated] == [f.stamp_ns for f in pushed]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(generated, pushed))


@pytest.mark.parametrize('change', ['size', 'cameras', 'stamp'])
def test_a_changed_rig_or_a_stamp_that_goes_back_starts_a_new_stream(model, change):
    stream = VirtualWrist(model, StreamSettings())
    push_all(stream, [anchor_set(i) for i in range(10, 14)])
    new = {
        'size': anchor_set(14, hw=(56, 56)),
        'cameras': anchor_set(14, views=1),
        'stamp': anchor_set(3),
    }[change]
    (after,) = stream.push(new)
    (fresh,) = VirtualWrist(model, StreamSettings()).push(new)
    assert np.array_equal(after.image, fresh.image)


def test_a_half_filled_chunk_is_forgotten_by_a_reset(model):
    stream = VirtualWrist(model, StreamSettings(chunk=2))
    assert stream.push(anchor_set(0)) == []
    stream.reset()
    assert stream.push(anchor_set(1)) == []
    assert [f.stamp_ns for f in stream.push(anchor_set(2))] == [STEP, 2 * STEP]


def test_the_past_is_seen_only_with_history(model):
    def third_frame(history, first_seed):
        sets = [anchor_set(0, seed=first_seed), anchor_set(1), anchor_set(2)]
        return push_all(VirtualWrist(model, StreamSettings(history=history)), sets)[-1].image

    assert np.array_equal(third_frame(0, first_seed=7), third_frame(0, first_seed=8))
    assert not np.array_equal(third_frame(2, first_seed=7), third_frame(2, first_seed=8))


def test_a_frame_without_coverage_is_invalid_and_says_why(model):
    (frame,) = VirtualWrist(model, StreamSettings(min_coverage=1.0)).push(anchor_set(0))
    assert frame.verdict.status is FrameStatus.LOW_COVERAGE and 'min_coverage' in frame.reason
    (frame,) = VirtualWrist(model, StreamSettings(min_coverage=0.0, min_confidence=0.0)).push(anchor_set(0))
    assert frame.valid and frame.reason == ''


def test_a_set_field_of_view_replaces_the_predicted_one(model):
    (frame,) = VirtualWrist(model, StreamSettings(wrist_fov=90.0)).push(anchor_set(0))
    assert frame.camera.K[1, 1] == pytest.approx(frame.camera.height / 2)


def test_settings_out_of_bounds_are_refused_in_one_sentence(model):
    with pytest.raises(ValueError, match='chunk is 0'):
        VirtualWrist(model, StreamSettings(chunk=0))
    with pytest.raises(ValueError, match=r'guidance is 3\.0, and model tiny_random stores no negative prompt'):
        VirtualWrist(model, StreamSettings(guidance=3.0))


class Operations(TorchDispatchMode):
    """Counts the operations that torch dispatches."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
def test_work_and_memory_per_frame_are_the_same_after_thousands_of_frames(model):
    stream = VirtualWrist(model, StreamSettings(chunk=4, history=2))
    sets = [anchor_set(i, views=1, hw=(14, 56)) for i in range(16)]
    work, memory = {}, {}
    for i in range(2_500):
        s = sets[i % 16]
        measured = i in (500, 501, 502, 503, 2_496, 2_497, 2_498, 2_499)
        with Operations() if measured else nullcontext() as operations:  # to count costs more than to compute
            stream.push(AnchorSet(i * STEP, s.names, s.images))
        if measured:
            gc.collect()
            work[i], memory[i] = operations.count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert list(work.values())[:4] == list(work.values())[4:]
    assert memory[2_499] - memory[500] < 20_000  # kB


# Without these only coverage and confidence were judged, and black, frozen, doubled and unrelated anchors were valid.


def lenient(**changes):
    return StreamSettings(min_coverage=0.0, min_confidence=0.0, **changes)


def test_a_black_a_doubled_and_a_frozen_anchor_make_frames_invalid_that_still_show_an_image(model):
    stream = VirtualWrist(model, lenient(frozen_after=0.5))
    black, doubled = anchor_set(0), anchor_set(1)
    black.images[1] = 0
    doubled.images[1] = doubled.images[0]
    frames = push_all(stream, [black, doubled])
    for i in range(2, 12):
        frozen = anchor_set(i)
        frozen.images[1] = anchor_set(2).images[1]
        frames += stream.push(frozen)
    assert [f.verdict.status.name for f in frames] == ['UNIFORM_ANCHOR', 'IDENTICAL_ANCHORS'] + ['VALID'] * 6 + [
        'FROZEN_ANCHOR'
    ] * 4
    assert all(f.image.any() and 'camera' in f.reason for f in frames if not f.valid)


def test_made_up_images_are_valid_where_the_anchors_are_not_checked(model):
    black = anchor_set(0)
    black.images[:] = 0
    stream = VirtualWrist(model, lenient(check_anchors=False))
    assert stream.push(black)[0].valid
    stream.settings = lenient()
    assert stream.push(anchor_set(1))[0].valid
    black = AnchorSet(2 * STEP, black.names, black.images)
    assert stream.push(black)[0].verdict.status is FrameStatus.UNIFORM_ANCHOR


def test_the_condition_map_of_a_frame_is_black_where_nothing_is_seen_and_nowhere_else(model):
    black = anchor_set(0)
    black.images[:] = 0
    (frame,) = VirtualWrist(model, lenient(check_anchors=False)).push(black)
    assert frame.coverage > 0 and (frame.condition > 0).any(-1).mean() == pytest.approx(frame.coverage)


def test_anchors_that_disagree_are_invalid_and_the_reason_has_the_figure(model):
    (frame,) = VirtualWrist(model, lenient(min_agreement=1.0)).push(anchor_set(0))
    assert frame.verdict.status is FrameStatus.ANCHORS_DISAGREE and 0 < frame.agreement < 1
    assert f'{frame.agreement:.2f}' in frame.reason and 'min_agreement is 1.00' in frame.reason
    (frame,) = VirtualWrist(model, lenient(min_agreement=0.01)).push(anchor_set(0))
    assert frame.valid


def test_of_three_anchors_the_one_that_disagrees_is_named(model):
    (frame,) = VirtualWrist(model, lenient(min_agreement=1.0)).push(anchor_set(0, views=3))
    assert any(f'Anchor camera{i} agrees' in frame.reason for i in range(3))


def test_the_threshold_of_agreement_is_the_models_own_and_may_change_while_running(model):
    changed = WristModel(replace(model.config, min_agreement=1.0), model.stage1, model.generator, 'cpu')
    stream = VirtualWrist(changed, lenient())
    assert stream.push(anchor_set(0))[0].verdict.status is FrameStatus.ANCHORS_DISAGREE
    stream.settings = lenient(min_agreement=0.01)
    assert stream.push(anchor_set(1))[0].valid


def test_one_anchor_has_nothing_to_agree_with(model):
    (frame,) = VirtualWrist(model, lenient(min_agreement=1.0)).push(anchor_set(0, views=1))
    assert np.isnan(frame.agreement) and frame.valid
