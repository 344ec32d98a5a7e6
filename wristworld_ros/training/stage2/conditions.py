"""Condition maps of *predicted* geometry for every training frame, made once before stage 2 trains on them.

Stage 2 must learn to repair what stage 1 really gets wrong, so its condition maps come from stage 1 itself.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from wristworld_ros.data.formats.native import list_episodes, read_episode
from wristworld_ros.geometry.cloud import CloudSettings, wrist_condition
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.pipeline.reconstructor import Reconstructor
from wristworld_ros.training.stage1.train import finished_stage1
from wristworld_ros.types import AnchorSet

_state: dict = {}  # a worker process's own reconstructor


def _start_worker(stage1: Path, width: int, wrist_hw: tuple[int, int], cloud: CloudSettings) -> None:
    torch.set_num_threads(1)
    _state['reconstruct'] = Reconstructor(finished_stage1(stage1)[1], width, wrist_hw)
    _state['cloud'] = cloud


def _views_of(index: int, anchors: int, single_share: float) -> list[int]:
    """Which anchors an episode's condition maps are made from: all in random order, or now and then just one."""
    rng = np.random.default_rng((11, index))
    order = [int(v) for v in rng.permutation(anchors)]
    return order[:1] if rng.random() < single_share else order


@torch.inference_mode()
def _prepare(source: Path, target: Path, views: list[int], token_size: int) -> None:
    episode = read_episode(source)
    anchors = [c for c in episode.cameras if c.role == 'anchor']
    wrist = next(c for c in episode.cameras if c.role == 'wrist')
    rgb = np.stack([episode.rgb(anchors[v].name) for v in views], axis=1)  # [T, V, H, W, 3]
    images, depths = [], []
    for stamp, frame in zip(episode.stamps_ns, rgb, strict=True):
        names = tuple(anchors[v].name for v in views)
        reconstruction = _state['reconstruct'](AnchorSet(int(stamp), names, frame))
        condition = wrist_condition(reconstruction, torch.from_numpy(frame), _state['cloud'])
        images.append(condition.image.numpy())
        depths.append(condition.depth.numpy().astype(np.float16))
    temporary = target.with_name(f'.{target.name}.{os.getpid()}.npz')
    np.savez(
        temporary,
        condition=np.stack(images),
        depth=np.stack(depths),
        anchors=np.stack([resize_images(frame, (token_size, token_size)) for frame in rgb], axis=1),
        wrist=episode.rgb(wrist.name),
    )
    temporary.rename(target)


def prepare_conditions(
    episodes: Path, folder: Path, stage1: Path, width: int, wrist_hw: tuple[int, int], cloud: CloudSettings,
    token_size: int, limit: int | None = None, single_share: float = 0.15, workers: int = 3,
) -> list[Path]:  # fmt: skip
    """Write one .npz an episode and return their paths in order of name; those that are there are kept.

    stage1: folder of `train_stage1` (config.json, model.pt). Keys: condition uint8 [T, h, w, 3], depth float16
    [T, h, w] metres, anchors uint8 [V, T, s, s, 3], wrist uint8 [T, h, w, 3].
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = [Path(s) for s in list_episodes(episodes)][:limit]
    targets = [folder / f'{s.name}.npz' for s in sources]
    todo = [(i, s, t) for i, (s, t) in enumerate(zip(sources, targets, strict=True)) if not t.exists()]
    if todo:
        initargs = (stage1, width, wrist_hw, cloud)
        with ProcessPoolExecutor(workers, get_context('spawn'), _start_worker, initargs) as pool:
            jobs = [pool.submit(_prepare, s, t, _views_of(i, 2, single_share), token_size) for i, s, t in todo]
            for job in tqdm(as_completed(jobs), total=len(jobs), desc='condition maps', unit='episode'):
                job.result()
    return targets
