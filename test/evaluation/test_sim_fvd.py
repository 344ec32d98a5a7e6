"""sim-FVD: it tells changed videos from true ones, more change from less, and its network learns from simulated clips."""

import numpy as np
import pytest
import torch

from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.sim_fvd import FEATURES, FRAMES, GRID, ORDERS, ClipNetwork, SimFvd
from wristworld_ros.pipeline.model_saving import save_weights
from wristworld_ros.training.sim_fvd import (
    OrderedClips,
    SimFvdTraining,
    WristVideo,
    clip_losses,
    read_videos,
    train_sim_fvd,
)
from wristworld_ros.training.trainer import TrainerConfig


def moving_square(seed, frames=16, side=64):
    """A video of a square that moves, uint8 [T, h, w, 3]."""
    rng = np.random.default_rng(seed)
    background, color, (y, x) = rng.integers(40, 90, 3), rng.integers(150, 255, 3), rng.integers(4, 30, 2)
    video = np.tile(background.astype(np.uint8), (frames, side, side, 1))
    for i in range(frames):
        video[i, y + i : y + i + 14, x + i : x + i + 14] = color
    return video


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    save_weights(dict(ClipNetwork().state_dict()), tmp_path / 'weights.safetensors')
    return tmp_path / 'weights.safetensors'


def test_the_same_videos_are_at_no_distance_and_worse_ones_farther(weights):
    distance = SimFvd(weights)
    videos, rng = [moving_square(i) for i in range(8)], np.random.default_rng(0)
    noisy = [
        [np.clip(v + rng.normal(0, spread, v.shape), 0, 255).astype(np.uint8) for v in videos] for spread in (5, 30)
    ]
    same, little, much = (distance(other, videos) for other in (videos, *noisy))
    assert same == pytest.approx(0, abs=1e-6) and same < little < much
    assert distance(noisy[1], videos) == much, 'the same every time'


def test_too_few_clips_are_refused(weights):
    with pytest.raises(UserError, match='two clips of 8 frames'):
        SimFvd(weights)([moving_square(0, FRAMES)], [moving_square(0, FRAMES)])


def test_weights_of_another_network_are_refused(tmp_path):
    save_weights({'order.weight': torch.zeros(ORDERS, FEATURES)}, tmp_path / 'other.safetensors')
    with pytest.raises(UserError, match='is missing'):
        SimFvd(tmp_path / 'other.safetensors')


def test_the_order_of_frames_is_what_the_label_says():
    frames = torch.arange(12.0).view(1, 12, 1, 1).expand(3, 12, 64, 64) / 24 - 0.25
    batch = OrderedClips([WristVideo(frames, torch.zeros(12, GRID, GRID))], 32, seed=0)[0]
    change = batch['clips'][:, 0, :, 0, 0].diff(dim=1)
    for order, steps in zip(batch['order'].tolist(), change, strict=True):
        rises = (steps > 0).all(), (steps < 0).all(), (steps == 0).all()
        assert {0: rises[0], 1: rises[1], 2: not any(rises), 3: rises[2]}[order]


def test_it_learns_where_objects_are_and_how_frames_follow():
    videos = []
    for seed in range(4):
        video = moving_square(seed)
        shown = torch.from_numpy((video != video[:1, :1, :1]).any(-1)).float()
        cells = (torch.nn.functional.adaptive_avg_pool2d(shown[:, None], GRID)[:, 0] > 0.25).float()
        frames = torch.from_numpy(video).permute(3, 0, 1, 2).float() / 127.5 - 1
        videos.append(WristVideo(frames, cells))
    torch.manual_seed(0)
    network, batches = ClipNetwork(), OrderedClips(videos, 8, seed=0)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    totals = []
    for number in range(40):
        terms = clip_losses(network, batches[number])
        optimizer.zero_grad()
        terms['total'].backward()
        optimizer.step()
        totals.append(terms['total'].item())
    assert np.mean(totals[-8:]) < 0.65 * totals[0]


def test_training_leaves_weights_that_measure(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        video = moving_square(i)
        K = np.tile(np.array([[64, 0, 31.5], [0, 64, 31.5], [0, 0, 1.0]]), (16, 1, 1))
        shown = rng.integers(0, 2, (16, 64, 64), dtype=np.uint8)
        track = CameraTrack('wrist', 'wrist', video, K, np.tile(np.eye(4), (16, 1, 1)), objects=shown)
        write_episode(
            tmp_path / f'episodes/{i:06d}', task='none', seed=i, fps=10, success=True, stamps_ns=np.arange(16) * 10**8,
            cameras=[track],
        )  # fmt: skip
    videos = read_videos(tmp_path / 'episodes')
    assert videos[0].frames.shape == (3, 16, 64, 64) and videos[0].objects.shape == (16, GRID, GRID)
    run = SimFvdTraining(TrainerConfig(steps=2, checkpoint_every=1, bf16=False), batch=2)
    train_sim_fvd(videos, videos, tmp_path / 'run', run)
    assert SimFvd(tmp_path / 'run/sim_fvd.safetensors')([moving_square(0)], [moving_square(1)]) >= 0
