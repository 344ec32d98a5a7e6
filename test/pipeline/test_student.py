"""A few-step student: its live stream and its offline video are the same images, and what cannot be is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wristworld_ros.errors import UserError
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.autoencoders import autoencoder_from_config
from wristworld_ros.pipeline import VirtualWrist, tiny_random_model
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.offline import encode_video, generate_video, plan_for
from wristworld_ros.settings import StreamSettings, WindowSettings
from wristworld_ros.types import AnchorSet

STUDENT = {
    'sampler': {'kind': 'renoise', 'timesteps': [1000, 750, 500, 250]}, 'sampling_steps': 4, 'chunk_frames': 2,
    'history_chunks': 2, 'sink_chunks': 1,
}  # fmt: skip
WAN = {
    'autoencoder': {'kind': 'wan', 'dim': 8, 'z_dim': 16}, 'latent_channels': 16, 'in_channels': 32, 'out_channels': 16,
    'decoder': None, 'prediction': 'velocity', 'text': 'stored',
}  # fmt: skip
SETTINGS = StreamSettings(
    chunk=2, history=2, min_coverage=0.0, min_confidence=0.0, min_agreement=0.01, check_anchors=False, fill_from=None,
    composite=False,
)  # fmt: skip


@pytest.fixture(scope='module', params=[{}, WAN | {'cfg_scale': 3.0}], ids=['pixels', 'wan'])
def student(request):
    plain = tiny_random_model()
    torch.manual_seed(0)
    config = plain.config.generator | STUDENT | request.param
    generator, autoencoder = WristGenerator.from_config(config), autoencoder_from_config(config['autoencoder'])
    if generator.decoder is not None:
        torch.nn.init.normal_(generator.decoder.last.weight, std=0.3)
    return WristModel(replace(plain.config, generator=config), plain.stage1, generator, 'cpu', autoencoder)


def sets(frames):
    coarse = np.random.default_rng(0).integers(0, 256, (frames, 2, 7, 7, 3), dtype=np.uint8).repeat(8, 2).repeat(8, 3)
    return [AnchorSet(i * 10**8, ('left', 'right'), images) for i, images in enumerate(coarse)]


def streamed(model, anchors, settings):
    wrist = VirtualWrist(model, settings)
    return np.stack([frame.image for anchor_set in anchors for frame in wrist.push(anchor_set)])


@pytest.mark.parametrize('steps', [1, 2, 4])
def test_the_offline_video_is_the_stream_to_the_bit(student, steps):
    """Ten sets of a model of pixels are five chunks; with Wan's autoencoder 13 are two."""
    anchors = sets(10 if student.autoencoder.temporal_stride == 1 else 13)
    guidance = None if student.config.generator.get('cfg_scale', 1.0) != 1.0 else 1.0
    live = streamed(student, anchors, replace(SETTINGS, steps=steps, seed=5, guidance=guidance))
    windows = WindowSettings(steps=steps, guidance=guidance)
    offline = np.stack(list(generate_video(student, encode_video(student, anchors), windows, seed=5)))
    assert len(live) == len(anchors)
    assert np.array_equal(live, offline)


def test_steps_make_a_difference_and_auto_takes_all(student):
    anchors = sets(6)
    one, four, auto = (streamed(student, anchors, replace(SETTINGS, steps=steps)) for steps in (1, 4, None))
    assert np.array_equal(four, auto) and not np.array_equal(one, four)


def test_a_last_chunk_that_is_not_full_is_cut(student):
    frames = 5 if student.autoencoder.temporal_stride == 1 else 9
    encoded = encode_video(student, sets(frames))
    assert len(list(generate_video(student, encoded, WindowSettings()))) == frames
    plan = plan_for(student, encoded, WindowSettings())
    assert [w.start for w in plan] == [0, 2, 4][: len(plan)] and all(w.frames == 2 for w in plan)


def test_what_has_no_meaning_for_a_student_is_refused(student):
    encoded = encode_video(student, sets(2 if student.autoencoder.temporal_stride == 1 else 5))
    for wrong in ({'window': 4}, {'overlap': 1}, {'shift': 5.0}, {'solver': 'unipc'}, {'steps': 5}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            list(generate_video(student, encoded, WindowSettings(**wrong)))
    with pytest.raises(UserError, match='distilled to 4'):
        VirtualWrist(student, replace(SETTINGS, steps=5))
