"""From episodes to a model directory that streams: both trainings, packaged, for a few steps."""

import json
from dataclasses import replace

import numpy as np
import pytest

from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.data.packed import pack_episodes, packed_episodes
from wristworld_ros.pipeline import VirtualWrist, load_model, tiny_random_model
from wristworld_ros.settings import StreamSettings
from wristworld_ros.training.package import package_model
from wristworld_ros.training.stage1 import train as stage1
from wristworld_ros.training.stage1.data import Stage1Sampling
from wristworld_ros.training.stage2 import train as stage2
from wristworld_ros.training.stage2.data import Stage2Sampling
from wristworld_ros.training.trainer import TrainerConfig
from wristworld_ros.types import AnchorSet

FEW = TrainerConfig(steps=2, checkpoint_every=1, bf16=False)


def camera(name, role, hw, position, rng, frames=6):
    K = np.array([[hw[1], 0, (hw[1] - 1) / 2], [0, hw[1], (hw[0] - 1) / 2], [0, 0, 1.0]])
    T = np.eye(4)
    T[:3, :3] = [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]  # looks back along -x at the robot
    T[:3, 3] = -T[:3, :3] @ position
    return CameraTrack(
        name, role, rng.integers(0, 256, (frames, *hw, 3), dtype=np.uint8), np.stack([K] * frames),
        np.stack([T] * frames), rng.uniform(0.5, 2, (frames, *hw)).astype(np.float32),
    )  # fmt: skip


@pytest.fixture
def episodes(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        cameras = [
            camera('front', 'anchor', (96, 128), np.array([1.5, 0.1, 0.5]), rng),
            camera('side', 'anchor', (96, 128), np.array([1.5, -0.3, 0.6]), rng),
            camera('wrist', 'wrist', (128, 128), np.array([0.6, 0.0, 0.3]), rng),
        ]
        write_episode(
            tmp_path / 'episodes' / f'{i:06d}', task='none', seed=i, fps=10, success=True,
            stamps_ns=np.arange(6) * 10**8, cameras=cameras,
        )  # fmt: skip
    return tmp_path / 'episodes'


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_training_packaging_and_streaming_fit_together(episodes, tmp_path):
    packed = tmp_path / 'packed'
    pack_episodes(episodes, packed, stage1.PACKED_SIZE, stage1.WRIST_SIZE, workers=1)
    views = {1: 0.5, 2: 0.5}
    run1 = stage1.Stage1Training(optimisation=FEW, sampling=Stage1Sampling(batch=1, views=views), workers=0)
    run1 = replace(run1, model={**run1.model, 'embed_dim': 32, 'depth': 4, 'dpt_layers': [0, 1, 2, 3]})
    stage1.train_stage1(packed, packed_episodes(packed)[:1], tmp_path / 's1', run1)
    tiny = tiny_random_model().config.generator
    run2 = stage2.Stage2Training(
        model=tiny, optimisation=FEW, sampling=Stage2Sampling(batch=1, frames=4, chunks=(2,)), workers=0
    )
    maps = stage2.prepare_for(run2, episodes, tmp_path / 's1' / 'conditions', tmp_path / 's1', None, workers=1)
    stage2.train_stage2(maps, maps[:1], tmp_path / 's2', run2)
    hashes = package_model(tmp_path / 's1', tmp_path / 's2', tmp_path / 'model', 'made_here')
    assert set(hashes) == {'stage1.safetensors', 'generator.safetensors'}
    assert json.loads((tmp_path / 'model' / 'config.json').read_text())['name'] == 'made_here'
    assert (tmp_path / 'model' / 'mean_wrist.png').exists()
    stream = VirtualWrist(load_model(str(tmp_path / 'model'), 'cpu'), StreamSettings())
    (frame,) = stream.push(AnchorSet(0, ('front', 'side'), np.zeros((2, 240, 320, 3), np.uint8)))
    assert frame.image.shape == (128, 128, 3)
