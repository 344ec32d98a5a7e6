"""A network that produces NaN or infinity: the frame is invalid, and later frames show no trace of it."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from wristworld_ros.pipeline import VirtualWrist, tiny_random_model
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet, FrameStatus


@pytest.fixture(scope='module')
def model():
    torch.set_num_threads(1)
    return tiny_random_model()


def anchor_set(i):
    images = np.random.default_rng(i).integers(0, 256, (2, 42, 56, 3), dtype=np.uint8)
    return AnchorSet(i * 100_000_000, ('a', 'b'), images)


@contextmanager
def poisoned(parameter, value):
    """One weight is that value for a while."""
    with torch.no_grad():
        before = parameter.view(-1)[0].clone()
        parameter.view(-1)[0] = value
        yield
        parameter.view(-1)[0] = before


def weights(model):
    """A weight of every part whose numbers go on to a frame."""
    return {
        'wrist head': ('Stage 1', model.stage1.wrist_head.pose_branch.fc2.bias),
        'cloud': ('Stage 1', model.stage1.point_head.scratch.output_conv2[-1].bias),
        'transformer': ('Stage 2', model.generator.transformer.proj_out.weight),
        'decoder': ('Stage 2', model.generator.decoder.last.bias),
    }


def settings(**changes):
    return StreamSettings(min_coverage=0.0, min_confidence=0.0, **changes)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('part', ['wrist head', 'cloud', 'transformer', 'decoder'])
def test_the_frame_is_invalid_and_the_next_is_that_of_a_new_stream(model, part, value):
    stage, parameter = weights(model)[part]
    stream = VirtualWrist(model, settings())
    for i in range(3):
        assert stream.push(anchor_set(i))[0].valid
    with poisoned(parameter, value):
        (frame,) = stream.push(anchor_set(3))
    assert (
        frame.verdict.status is FrameStatus.NOT_FINITE
        and frame.reason.startswith(stage)
        and 'not finite' in frame.reason
    )
    assert frame.stamp_ns == anchor_set(3).stamp_ns and not frame.image.any()
    for array in (frame.camera.K, frame.camera.T_camera_world, frame.reconstruction.points.numpy()):
        assert np.isfinite(array).all()
    assert np.isfinite([frame.coverage, frame.confidence]).all()
    (after,) = stream.push(anchor_set(4))
    (new,) = VirtualWrist(model, settings()).push(anchor_set(4))
    assert after.valid and np.array_equal(after.image, new.image)


def test_keys_and_values_that_are_not_finite_cost_one_frame_and_are_forgotten(model):
    stream = VirtualWrist(model, settings())
    stream.push(anchor_set(0))
    with poisoned(model.generator.transformer.blocks[0].attn1.to_k.bias, float('nan')):
        stream._generation._commit()  # of the last chunk; it leaves no image, only keys and values
    assert [stream.push(anchor_set(i))[0].valid for i in (1, 2, 3)] == [False, True, True]


def test_a_chunk_with_one_broken_set_is_invalid_as_a_whole_and_every_set_comes_out_once(model):
    stream = VirtualWrist(model, settings(chunk=2))
    frames = stream.push(anchor_set(0))
    with poisoned(model.stage1.wrist_head.pose_branch.fc2.bias, float('nan')):
        frames += stream.push(anchor_set(1))
    frames += stream.push(anchor_set(2)) + stream.push(anchor_set(3))
    assert [f.stamp_ns for f in frames] == [anchor_set(i).stamp_ns for i in range(4)]
    assert [f.valid for f in frames] == [False, False, True, True]
