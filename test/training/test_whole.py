"""From episodes to a model directory that streams: both trainings, packaged, for a few steps."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.data.packed import pack_episodes
from wristworld_ros.errors import UserError
from wristworld_ros.pipeline import VirtualWrist, load_model, tiny_random_model
from wristworld_ros.settings import StreamSettings
from wristworld_ros.training.checkpoint import read_tensors, write_weights
from wristworld_ros.training.hand import train as hand
from wristworld_ros.training.hand.data import HandSampling
from wristworld_ros.training.package import package_model
from wristworld_ros.training.parts import TrainedParts
from wristworld_ros.training.stage1 import train as stage1
from wristworld_ros.training.stage1.data import Stage1Batches, Stage1Sampling
from wristworld_ros.training.stage2 import train as stage2
from wristworld_ros.training.stage2.data import Stage2Sampling
from wristworld_ros.training.sweep import train as sweep
from wristworld_ros.training.sweep.data import SweepSampling
from wristworld_ros.training.trainer import TrainerConfig
from wristworld_ros.types import AnchorSet

FRAMES = 4
FEW = TrainerConfig(steps=2, checkpoint_every=1, bf16=False)


def camera(name, role, hw, position, rng, frames=FRAMES):
    K = np.array([[hw[1], 0, (hw[1] - 1) / 2], [0, hw[1], (hw[0] - 1) / 2], [0, 0, 1.0]])
    T = np.eye(4)
    T[:3, :3] = [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]  # looks back along -x at the robot
    T[:3, 3] = -T[:3, :3] @ position
    down = (np.arange(hw[0]) - K[1, 2]) / K[1, 1]
    floor = np.where(down > 0.05, position[2] / np.maximum(down, 0.05), 2.0)  # the level that the robot stands on
    depth = np.broadcast_to(floor[None, :, None], (frames, *hw)).astype(np.float32)
    return CameraTrack(
        name, role, rng.integers(0, 256, (frames, *hw, 3), dtype=np.uint8), np.stack([K] * frames),
        np.stack([T] * frames), depth,
    )  # fmt: skip


ANCHORS = {'front': (1.5, 0.1, 0.5), 'side': (1.5, -0.3, 0.6), 'other': (1.4, 0.4, 0.7)}


def record(folder, anchors, count=2):
    """Episodes with the first so many anchors."""
    rng = np.random.default_rng(0)
    for i in range(count):
        cameras = [camera(n, 'anchor', (96, 128), np.array(p), rng) for n, p in list(ANCHORS.items())[:anchors]]
        write_episode(
            folder / f'{i:06d}', task='none', seed=i, fps=10, success=True, stamps_ns=np.arange(FRAMES) * 10**8,
            cameras=[*cameras, camera('wrist', 'wrist', (128, 128), np.array([0.6, 0.0, 0.3]), rng)],
        )  # fmt: skip
    return folder


def train_stage1(episodes, out, few=FEW):
    packed = pack_episodes(episodes, out / 'frames', stage1.PACKED_SIZE, stage1.WRIST_SIZE, workers=1)
    run = stage1.Stage1Training(config=few, sampling=Stage1Sampling(batch=1), workers=0)
    run = replace(run, model={**run.model, 'embed_dim': 32, 'depth': 4, 'dpt_layers': [0, 1, 2, 3]})
    stage1.train_stage1(packed, packed[:1], out, run)
    return out


def train_parts(episodes, out):
    packed = pack_episodes(episodes, out / 'frames', (64, 48), (32, 32), workers=1)
    run = sweep.SweepTraining(config=FEW, sampling=SweepSampling(batch=1), workers=0)
    sweep.train_sweep(packed, packed[:1], out / 'sweep', run)
    run = hand.HandTraining(config=FEW, sampling=HandSampling(batch=2), workers=0)
    hand.train_hand(packed, packed[:1], out / 'hand', run)
    return TrainedParts(train_stage1(episodes, out / 's1'), out / 'sweep', out / 'hand')


def train_stage2(episodes, parts, out):
    tiny = tiny_random_model().config.generator
    run = stage2.Stage2Training(
        model=tiny, config=FEW, sampling=Stage2Sampling(batch=2, frames=4, chunks=(2,)), workers=0
    )
    maps = stage2.prepare_for(run, episodes, out / 'conditions', parts, None, workers=1)
    stage2.train_stage2(maps, maps[:1], out, run)
    return maps


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('anchors', [1, 3])
def test_training_packaging_and_streaming_fit_together(tmp_path, anchors):
    episodes = record(tmp_path / 'episodes', anchors)
    parts = train_parts(episodes, tmp_path)
    maps = train_stage2(episodes, parts, tmp_path / 's2')
    with np.load(maps[0]) as f:
        assert len(f['anchors']) == anchors
    hashes = package_model(parts, tmp_path / 's2', tmp_path / 'model', 'made_here')
    assert set(hashes) == {f'{name}.safetensors' for name in ('stage1', 'sweep', 'hand', 'generator')}
    assert json.loads((tmp_path / 'model' / 'config.json').read_text())['name'] == 'made_here'
    assert (tmp_path / 'model' / 'mean_wrist.png').exists()
    assert json.loads((tmp_path / 'model' / 'config.json').read_text())['mount'] is None  # no episode says it
    stream = VirtualWrist(load_model(str(tmp_path / 'model'), 'cpu'), StreamSettings())
    names = tuple(list(ANCHORS)[:anchors])
    (frame,) = stream.push(AnchorSet(0, names, np.zeros((anchors, 240, 320, 3), np.uint8)))
    assert frame.image.shape == (128, 128, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_condition_maps_of_another_stage_1_or_another_recording_are_not_taken(tmp_path):
    episodes = record(tmp_path / 'episodes', 1, count=1)
    first = train_stage1(episodes, tmp_path / 's1')
    run = stage2.Stage2Training(model=tiny_random_model().config.generator)

    def maps():
        return stage2.prepare_for(run, episodes, first / 'conditions', TrainedParts(first), None, workers=1)

    before = maps()
    times = [p.stat().st_mtime_ns for p in before]
    assert maps() == before and [p.stat().st_mtime_ns for p in before] == times
    weights = read_tensors(first)
    write_weights(first / 'model.safetensors', {k: v * 1.5 if v.is_floating_point() else v for k, v in weights.items()})
    after = maps()
    assert not set(before) & set(after), 'other weights, other maps'
    shutil.rmtree(episodes)
    record(episodes, 2, count=1)
    assert not set(after) & set(maps()), 'the same names, another recording'


def test_frames_of_another_recording_or_size_are_packed_again(tmp_path):
    episodes = record(tmp_path / 'episodes', 1)

    def packed(size=(64, 48)):
        return [e.path for e in pack_episodes(episodes, tmp_path / 'frames', size, (32, 32), workers=1)]

    before = packed()
    assert packed() == before
    assert not set(before) & set(packed((32, 24)))
    shutil.rmtree(episodes)
    record(episodes, 2)
    assert not set(before) & set(packed())


def test_stage_1_takes_the_views_that_there_are(tmp_path):
    sizes = {'size': (64, 48), 'wrist_size': (32, 32), 'workers': 1}
    one = pack_episodes(record(tmp_path / 'one', 1), tmp_path / 'frames1', **sizes)
    three = pack_episodes(record(tmp_path / 'three', 3), tmp_path / 'frames3', **sizes)
    assert Stage1Batches(one, Stage1Sampling(), 0).view_counts == [1]
    mixed = Stage1Batches(one + three, Stage1Sampling(batch=2, views={1: 0.4, 2: 0.3, 3: 0.3}), 0)
    assert {mixed[i]['rgb'].shape[1] for i in range(30)} == {1, 2, 3}
    assert torch.equal(mixed[4]['rgb'], mixed[4]['rgb'])
    with pytest.raises(UserError, match='None of 2 episodes has 1 or more views'):
        Stage1Batches(one, Stage1Sampling(azimuth=0.001), 0)
