"""Condition maps of *predicted* geometry for every training frame, made once before stage 2 trains on them.

Stage 2 must learn to repair what stage 1 really gets wrong, so its condition maps come from stage 1 itself.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from wristworld_ros.data.cache import cache_key
from wristworld_ros.data.formats.native import list_episodes, read_episode
from wristworld_ros.errors import UserError
from wristworld_ros.geometry.cloud import CloudSettings, wrist_condition
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.pipeline.reconstruct import Reconstructor
from wristworld_ros.runtime.children import die_with
from wristworld_ros.runtime.files import clear_leftovers, file_sha256, write_atomically
from wristworld_ros.training.stage1.train import finished_stage1
from wristworld_ros.types import AnchorSet


@dataclass(frozen=True)
class ConditionSettings:
    """How condition maps are made.

    anchor_width: pixels that stage 1 runs at. wrist_hw: size of the wrist image. cloud: how points become a condition
    map. token_size: pixels a side of the anchor images that the generator takes. single_share: share of episodes of which
    only one anchor is used.
    """

    anchor_width: int
    wrist_hw: tuple[int, int]
    cloud: CloudSettings
    token_size: int
    single_share: float = 0.15


def prepare_conditions(
    episodes: Path, folder: Path, stage1: Path, settings: ConditionSettings, limit: int | None = None, workers: int = 3
) -> list[Path]:
    """Write one .npz per episode; those that are there already are kept.

    A file is there already if it was made from the same recording by the same weights with the same settings: its name
    holds a key of all three.

    Args:
        episodes: Folder of episodes, of any numbers of anchors.
        folder: Where the files go.
        stage1: Folder of `train_stage1` (config.json, model.pt).
        settings: How they are made.
        limit: Only the first so many episodes; None for all.
        workers: Processes.

    Returns:
        Their paths, in the order of the episodes' names. Keys: condition uint8 [T, h, w, 3], depth float16 [T, h, w] in
        metres, anchors uint8 [V, T, s, s, 3], wrist uint8 [T, h, w, 3].

    Raises:
        UserError: Stage 1 is not finished, or an episode has no anchor or no wrist camera, or anchors of several sizes.
    """
    finished_stage1(stage1)
    weights = file_sha256(stage1 / 'model.pt') + file_sha256(stage1 / 'config.json')
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    jobs = []
    for index, source in enumerate(list_episodes(episodes)[:limit]):
        views = _sample_views(index, _anchor_names(source), settings.single_share)
        key = cache_key(source, stage1=weights, settings=settings, views=views)
        jobs.append((Path(source), folder / f'{Path(source).name}-{key}.npz', views))
    todo = [job for job in jobs if not job[1].exists()]
    if todo:
        with ProcessPoolExecutor(workers, get_context('spawn'), _start_worker, (os.getpid(), stage1, settings)) as pool:
            running = [pool.submit(_prepare, *job) for job in todo]
            for done in tqdm(as_completed(running), total=len(running), desc='condition maps', unit='episode'):
                done.result()
    return [target for _, target, _ in jobs]


def _anchor_names(source: Path) -> tuple[str, ...]:
    episode = read_episode(source)
    names = episode.names('anchor')
    if not names or not episode.names('wrist'):
        raise UserError(
            f'Episode {source} has {len(names)} anchor and {len(episode.names("wrist"))} wrist cameras',
            'leave it out: training takes one anchor or more and the wrist',
        )
    if len({(episode.camera(name).width, episode.camera(name).height) for name in names}) > 1:
        raise UserError(f'The anchors of {source} differ in size', 'record them at one size')
    return names


def _sample_views(index: int, names: tuple[str, ...], single_share: float) -> list[str]:
    """The anchors that an episode's condition maps are made from: all in random order, or sometimes just one."""
    rng = np.random.default_rng((11, index))
    order = [names[v] for v in rng.permutation(len(names))]
    return order[:1] if rng.random() < single_share else order


_worker: dict = {}  # a worker process's reconstructor and settings


def _start_worker(parent: int, stage1: Path, settings: ConditionSettings) -> None:
    die_with(parent)
    torch.set_num_threads(1)
    _worker['reconstruct'] = Reconstructor(finished_stage1(stage1)[1], settings.anchor_width, settings.wrist_hw)
    _worker['settings'] = settings


@torch.inference_mode()
def _prepare(source: Path, target: Path, views: list[str]) -> None:
    episode, settings = read_episode(source), _worker['settings']
    rgb = np.stack([episode.rgb(name) for name in views], axis=1)  # [T, V, H, W, 3]
    images, depths = [], []
    for stamp, frame in zip(episode.stamps_ns, rgb, strict=True):
        reconstruction = _worker['reconstruct'](AnchorSet(int(stamp), tuple(views), frame))
        condition = wrist_condition(reconstruction, torch.from_numpy(frame), settings.cloud)
        images.append(condition.image.numpy())
        depths.append(condition.depth.numpy().astype(np.float16))
    tokens = [resize_images(frame, (settings.token_size,) * 2) for frame in rgb]
    with write_atomically(target) as part:
        np.savez(
            part,
            condition=np.stack(images),
            depth=np.stack(depths),
            anchors=np.stack(tokens, axis=1),
            wrist=episode.rgb(episode.names('wrist')[0]),
        )
