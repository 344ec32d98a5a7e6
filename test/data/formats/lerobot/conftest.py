"""Data sets that lerobot's own releases wrote, and small ones that are written here."""

import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from wristworld_ros.data.formats.lerobot.writer import WriteSettings, write_lerobot
from wristworld_ros.data.formats.native import CameraTrack, NativeSet, write_episode

FRAMES, HW = 12, (48, 64)


@pytest.fixture(autouse=True, scope='session')
def quiet_encoder():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SVT_LOG', '1')
        yield


@pytest.fixture
def stored():
    """Folder of the sets that lerobot wrote."""
    path = Path(os.environ.get('WRISTWORLD_DATA', ''), 'lerobot')
    if not os.environ.get('WRISTWORLD_DATA') or not path.is_dir():
        pytest.skip('WRISTWORLD_DATA names no folder with lerobot')
    return path


@pytest.fixture(scope='session')
def whole_sets(tmp_path_factory):
    """Sets of three episodes of 20, 18 and 22 frames at 15 frames/s, AV1, as v3.0 and as v2.1; by version."""
    folder = tmp_path_factory.mktemp('whole')
    rng = np.random.default_rng(5)
    for number, frames in enumerate((20, 18, 22)):
        cameras = [track(name, role, rng, frames=frames) for name, role in (('exterior', 'anchor'), ('wrist', 'wrist'))]
        write_episode(
            folder / f'episodes/{number}', task=('pick the cube', 'open the drawer')[number % 2], seed=0, fps=15, success=True,
            stamps_ns=np.round(np.arange(frames) / 15 * 1e9).astype(np.int64), cameras=cameras,
            tracks={'joints': rng.normal(size=(frames, 7)), 'actions': rng.normal(size=(frames, 7))},
        )  # fmt: skip
    data = NativeSet(folder / 'episodes')
    for version in ('v3.0', 'v2.1'):
        settings = WriteSettings(version, codec='av1')
        write_lerobot(folder / version, [partial(data.episode, i) for i in range(3)], settings)
    return folder


@pytest.fixture
def copied(whole_sets, tmp_path):
    """A copy of one of them, to be damaged."""
    return lambda version='v3.0': Path(shutil.copytree(whole_sets / version, tmp_path / version))


def track(name, role, rng, depth=False, frames=FRAMES):
    """A calibrated camera whose images change with time."""
    y, x = np.mgrid[: HW[0], : HW[1]]
    images = [np.stack([x * 3, y * 4, np.full_like(x, 10 + 9 * i)], -1) for i in range(frames)]
    T = np.tile(np.eye(4), (frames, 1, 1))
    T[:, :3, 3] = rng.normal(size=(frames, 3))
    K = np.tile([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]], (frames, 1, 1))
    maps = np.broadcast_to(0.3 + 0.02 * x + 0.1 * y, (frames, *HW)).astype(np.float32).copy() if depth else None
    if depth:
        maps[:, :5, :5] = 0
    return CameraTrack(name, role, np.stack(images).astype(np.uint8), K, T, maps)


@pytest.fixture(scope='session')
def episodes(tmp_path_factory):
    """Two episodes of our own, with all that an episode can say."""
    root = tmp_path_factory.mktemp('episodes')
    for number in range(2):
        rng = np.random.default_rng(number)
        T = np.tile(np.eye(4), (FRAMES, 1, 1))
        T[:, :3, 3] = rng.normal(size=(FRAMES, 3))
        write_episode(
            root / f'{number:06d}', task=('lift', 'push')[number], seed=number, fps=10, success=True,
            stamps_ns=10**9 + np.arange(FRAMES) * 100_000_000,
            cameras=[track('left', 'anchor', rng, True), track('wrist', 'wrist', rng), track('random0', 'random', rng)],
            tracks={
                'joints': rng.normal(size=(FRAMES, 7)), 'gripper': rng.uniform(0, 0.08, FRAMES), 'T_base_hand': T,
                'actions': rng.normal(size=(FRAMES, 8)),
            },
        )  # fmt: skip
    return NativeSet(root)


@pytest.fixture
def written(episodes, tmp_path):
    """Writes those episodes as a LeRobot data set."""

    def write(name='set', **settings):
        opened = [partial(episodes.episode, i) for i in range(len(episodes))]
        write_lerobot(tmp_path / name, opened, WriteSettings(**settings))
        return tmp_path / name

    return write
