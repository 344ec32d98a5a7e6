"""Images alone, in a model with a hand network and a plane sweep: when stage 1 runs, and what is made of known intrinsics."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch

from wristworld_ros.models.hand import HandConfig, HandNetwork
from wristworld_ros.models.sweep import SweepConfig, SweepNetwork
from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.pipeline import WristModel, tiny_random_model
from wristworld_ros.pipeline.close_up import hand_certainty
from wristworld_ros.pipeline.reconstruct import ReconstructionStep
from wristworld_ros.types import AnchorSet, Camera, Geometry, PixelOrigin

TENTH = 100_000_000  # ns


@pytest.fixture(scope='module')
def model():
    base = tiny_random_model()
    torch.manual_seed(1)
    stage1 = base.config.stage1 | {'heads': ['camera', 'wrist', 'points', 'scene_coordinates']}
    config = replace(base.config, stage1=stage1)
    sweep = SweepNetwork(SweepConfig(features=8, matched=8, widths=(16, 16), anchor_width=64))
    hand = HandNetwork(HandConfig(size=32, widths=(8, 8, 8), dense=16))
    return WristModel(config, ReconstructionModel.from_config(stage1), base.generator, 'cpu', sweep=sweep, hand=hand)


def anchor_set(stamp, views=2, **changes):
    images = np.random.default_rng(stamp % 7).integers(0, 256, (views, 48, 64, 3), dtype=np.uint8)
    return AnchorSet(stamp, tuple('abc'[:views]), images, **changes)


class Counted:
    """A step whose runs of stage 1 are counted."""

    def __init__(self, model, **settings):
        self.step = ReconstructionStep(model, table_height=0.0, **settings)
        self.runs, run = 0, self.step.stage1

        def counting(colors):
            self.runs += 1
            return run(colors)

        counting.clear = run.clear
        self.step.stage1 = counting

    def __call__(self, anchors):
        return self.step(anchors)


@pytest.mark.parametrize(('every', 'runs'), [(1, 6), (3, 2), (4, 2)])
def test_stage_1_runs_on_one_of_so_many_sets(model, every, runs):
    step = Counted(model, stage1_every=every)
    for i in range(6):
        assert step(anchor_set(i * TENTH)).geometry is Geometry.RGB
    assert step.runs == runs


def test_stage_1_runs_where_the_hand_may_have_gone_anywhere_or_the_stream_is_another(model):
    step = Counted(model, stage1_every=100)
    step(anchor_set(0))
    step(anchor_set(TENTH))
    assert step.runs == 1
    step(anchor_set(9 * TENTH))
    assert step.runs == 2, 'most of a second later'
    step(anchor_set(10 * TENTH, views=3))
    assert step.runs == 3, 'another camera'
    step.step.reset()
    step(anchor_set(11 * TENTH, views=3))
    assert step.runs == 4, 'a new stream'


def test_the_view_is_swept_and_says_what_it_trusts(model):
    observation = ReconstructionStep(model, table_height=0.0)(anchor_set(0))
    condition = observation.condition
    assert set(np.unique(condition.origin.numpy())) <= {PixelOrigin.EMPTY, PixelOrigin.PREDICTED}
    assert 0 <= observation.confidence <= 1 and 0 <= observation.coverage <= 1
    assert observation.reconstruction.points.shape[0] == 2


@pytest.mark.parametrize('table_height', [0.0, None])  # None: a view by stage 1 alone where no table is found
def test_a_hand_that_is_not_found_takes_confidence_away(model, table_height):
    def confidence(expected):
        bias = model.hand.out.bias.clone()
        bias[9] = 3.0 + float(np.log(np.expm1(expected)))
        with mock.patch.object(model.hand.out, 'bias', torch.nn.Parameter(bias, requires_grad=False)):
            return ReconstructionStep(model, table_height=table_height)(anchor_set(0, views=1)).confidence

    sure, ordinary, lost = confidence(0.001), confidence(0.01), confidence(0.1)
    assert sure == ordinary > 0
    assert lost == pytest.approx(sure * np.exp(-(0.101 - 0.015) / 0.03), rel=0.01)


def test_certainty_falls_with_the_expected_error_and_no_further_than_the_mean():
    assert hand_certainty(np.array([0.005, 0.01])) == 1
    assert hand_certainty(np.array([0.05, 0.05])) < hand_certainty(np.array([0.01, 0.05])) < 1


def test_the_wrist_camera_is_where_it_is_mounted_and_tracked_as_well(model):
    turn = np.array(
        [[0.0, -1, 0, 0.02], [1, 0, 0, -0.06], [0, 0, 1, 0.03], [0, 0, 0, 1]]
    )  # mounted, in one as the network's own
    T_hand_wrist = np.array(model.hand.config.mount) @ turn
    K = np.array([[40.0, 0, 31.5], [0, 40.0, 31.5], [0, 0, 1]])
    mounted = Camera(K, np.linalg.inv(T_hand_wrist), 64, 64)
    plain, step = (ReconstructionStep(model, table_height=0.0, stage1_every=4) for _ in range(2))
    for i in range(3):
        own = plain(anchor_set(i * TENTH)).reconstruction
        found = step(anchor_set(i * TENTH, mounted=mounted)).reconstruction
        assert np.allclose(found.wrist.T_camera_world, np.linalg.inv(turn) @ own.wrist.T_camera_world, atol=1e-6)
        assert found.wrist.K[0, 0] == pytest.approx(40.0 * found.wrist.width / 64)
        assert all(
            np.allclose(a.T_camera_world, b.T_camera_world) for a, b in zip(found.anchors, own.anchors, strict=True)
        )


def test_known_intrinsics_stand(model):
    K = np.stack([np.array([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]])] * 2)
    K[1] = np.nan
    alone = ReconstructionStep(model, table_height=0.0)(anchor_set(0)).reconstruction
    known = ReconstructionStep(model, table_height=0.0)(anchor_set(0, intrinsics=K)).reconstruction
    width = known.anchors[0].width
    assert known.anchors[0].K[0, 0] == pytest.approx(50.0 * width / 64)
    assert known.anchors[1].K[0, 0] == pytest.approx(alone.anchors[1].K[0, 0])
    assert known.world == 'anchor'
