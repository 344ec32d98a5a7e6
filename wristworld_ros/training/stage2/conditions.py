"""Condition maps of every quality for every training frame, made once before stage 2 trains on them.

Stage 2 must learn to keep what is known and to repair what is not, so its condition maps come from the same steps that a stream
takes, told of each episode as much as desks know: images alone, cameras, depth, the robot, with the errors that they have.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wristworld_ros.data.cache import cache_key
from wristworld_ros.data.formats.native import list_episodes, read_episode
from wristworld_ros.data.ground_truth import GroundTruth, read_ground_truth
from wristworld_ros.evaluation.knowledge import LEVELS, KnowledgeLevel, known_sets
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.prior import WristPrior
from wristworld_ros.pipeline.reconstruct import ReconstructionStep
from wristworld_ros.runtime.children import die_with
from wristworld_ros.runtime.files import clear_leftovers, write_atomically
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.training.parts import PackagedParts, TrainedParts
from wristworld_ros.types import AnchorSet

# Image uint8 [T, h, w, 3], depth float16 and trust uint8 [T, h, w].
MapArrays = tuple[np.ndarray, np.ndarray, np.ndarray]
ROBOT_LEVELS = {f'{name}-robot': replace(LEVELS[name], robot=True) for name in ('rgbd', 'exact')}


@dataclass(frozen=True)
class ConditionSettings:
    """How condition maps are made.

    token_size: pixels a side of the anchor images that the generator takes. single_share: share of episodes of which only one
    anchor is used. levels: what is known -> weight of its maps among an episode's. maps: maps of each frame.
    """

    token_size: int = 96
    single_share: float = 0.1
    levels: tuple[tuple[str, float], ...] = (
        ('mounted', 0.2), ('calibrated', 0.2), ('calibrated-exact', 0.15), ('rgbd', 0.1), ('rgbd-robot', 0.15), ('exact', 0.1),
        ('exact-robot', 0.1),
    )  # fmt: skip
    maps: int = 4


def prepare_conditions(
    episodes: Path,
    folder: Path,
    parts: TrainedParts | PackagedParts,
    settings: ConditionSettings,
    generator: dict[str, Any],
    limit: int | None = None,
    workers: int = 2,
) -> list[Path]:
    """Write one .npz per episode; those that are there already are kept.

    A file is there already if it was made from the same recording by the same weights with the same settings: its name
    holds a key of all three.

    Args:
        episodes: Folder of episodes of any numbers of anchors. Levels that one knows too little for are left out.
        folder: Where the files go.
        parts: What reconstructs.
        settings: How they are made.
        generator: Configuration of the generator that will train on them.
        limit: Only the first so many episodes; None for all.
        workers: Processes.

    Returns:
        Their paths, in the order of the episodes' names. Keys, for Q maps of T frames: condition uint8 [Q, T, h, w, 3], depth
        float16 [Q, T, h, w] in metres, trust uint8 [Q, T, h, w] (255 is all of it), anchors uint8 [V, T, s, s, 3], wrist uint8
        [T, h, w, 3], objects uint8 [T, h, w], mount float64 [4, 4], T_hand_wrist where the recording says it.

    Raises:
        UserError: A run is not finished, or an episode has no anchor or no wrist camera, or anchors of several sizes.
    """
    parts.model('', WristGenerator.from_config(generator), generator)  # a run that is not finished is better known now
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    jobs = []
    for index, source in enumerate(list_episodes(episodes)[:limit]):
        key = cache_key(source, model=parts.key, settings=settings)
        jobs.append((Path(source), folder / f'{Path(source).name}-{key}.npz', index))
    todo = [job for job in jobs if not job[1].exists()]
    if todo:
        with ProcessPoolExecutor(
            workers, get_context('spawn'), _start_worker, (os.getpid(), parts, settings, generator)
        ) as pool:
            running = [pool.submit(_prepare, *job) for job in todo]
            for done in ProgressBar(as_completed(running), total=len(running), desc='condition maps', unit='episode'):
                done.result()
    return [target for _, target, _ in jobs]


_worker: dict = {}  # a worker process's model and settings


def _start_worker(
    parent: int, parts: TrainedParts | PackagedParts, settings: ConditionSettings, generator: dict[str, Any]
) -> None:
    die_with(parent)
    torch.set_num_threads(1)
    _worker['model'] = parts.model('', WristGenerator.from_config(generator), generator)
    _worker['settings'] = settings


def _prepare(source: Path, target: Path, index: int) -> None:
    settings: ConditionSettings = _worker['settings']
    model: WristModel = _worker['model']
    rng = np.random.default_rng((11, index))
    truth = _with_views(read_ground_truth(read_episode(source), model.config.wrist_hw), settings.single_share, rng)
    levels = _sample_levels(truth, settings, rng)
    maps = [condition_maps(model, truth, level, int(rng.integers(1 << 30))) for level in levels]
    write_conditions(target, maps, truth, settings.token_size)


def write_conditions(target: Path, maps: Sequence[MapArrays], truth: GroundTruth, token_size: int) -> None:
    """Write the file of an episode, whole or not at all; its keys are in `prepare_conditions`.

    Args:
        target: The .npz file.
        maps: Of each quality, as `stacked_maps` gives them.
        truth: The episode.
        token_size: Pixels a side of the anchor images that the generator takes.
    """
    image, depth, trust = (np.stack(parts) for parts in zip(*maps, strict=True))
    with write_atomically(target) as part:
        np.savez(
            part,
            condition=image,
            depth=depth,
            trust=trust,
            anchors=np.stack([resize_images(frames, (token_size, token_size)) for frames in truth.images]),
            wrist=truth.wrist,
            objects=np.zeros(truth.wrist.shape[:3], np.uint8) if truth.objects is None else truth.objects,
            **({} if truth.T_hand_wrist is None else {'mount': truth.T_hand_wrist}),
        )


def _with_views(truth: GroundTruth, single_share: float, rng: np.random.Generator) -> GroundTruth:
    """The episode with its anchors in random order, or sometimes just one of them."""
    order = rng.permutation(len(truth.names))
    if rng.random() < single_share:
        order = order[:1]
    return replace(
        truth,
        names=tuple(truth.names[v] for v in order),
        images=truth.images[order],
        depth=None if truth.depth is None else truth.depth[order],
        K=truth.K[order],
        T_anchor_world=truth.T_anchor_world[order],
    )


def _sample_levels(truth: GroundTruth, settings: ConditionSettings, rng: np.random.Generator) -> list[KnowledgeLevel]:
    """Different levels by their weights, out of those that the episode knows enough for."""
    known = LEVELS | ROBOT_LEVELS
    possible = [
        (known[name], weight)
        for name, weight in settings.levels
        if (truth.depth is not None or not known[name].depth) and (truth.joints is not None or not known[name].robot)
    ]
    weights = np.array([weight for _, weight in possible])
    count = min(settings.maps, len(possible))
    return [possible[i][0] for i in rng.choice(len(possible), count, replace=False, p=weights / weights.sum())]


def condition_maps(model: WristModel, truth: GroundTruth, level: KnowledgeLevel, seed: int) -> MapArrays:
    """An episode's condition maps at one level of knowledge, as the generator of a stream would be given them."""
    step = ReconstructionStep(model, remember=level.memory, refine=level.refine)
    return stacked_maps(step, known_sets(truth, level, seed), model.prior)


@torch.inference_mode()
def stacked_maps(step: ReconstructionStep, sets: Iterable[AnchorSet], prior: WristPrior | None = None) -> MapArrays:
    """Condition maps of T sets of one stream, over the mean wrist image where there is one."""
    maps = [(step(anchors).condition, anchors.images) for anchors in sets]
    maps = [condition if prior is None else prior(condition, images) for condition, images in maps]
    return (
        np.stack([m.image.cpu().numpy() for m in maps]),
        np.stack([m.depth.cpu().numpy().astype(np.float16) for m in maps]),
        np.stack([(255 * m.trust).round().clamp(0, 255).to(torch.uint8).cpu().numpy() for m in maps]),
    )
