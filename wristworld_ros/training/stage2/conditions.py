"""Condition maps of every quality for every training frame, made once before stage 2 trains on them.

Stage 2 must learn to keep what is known and to repair what is not, so its condition maps come from the same steps that a stream
takes, told of each episode as much as desks know: images alone, cameras, depth, the robot, with the errors that they have.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from wristworld_ros.data.cache import cache_key
from wristworld_ros.data.formats.native import list_episodes, read_episode
from wristworld_ros.data.ground_truth import GroundTruth, read_ground_truth
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.knowledge import LEVELS, KnowledgeLevel, known_sets
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.model_directory import load_model
from wristworld_ros.pipeline.reconstruct import ReconstructionStep
from wristworld_ros.runtime.children import die_with
from wristworld_ros.runtime.files import clear_leftovers, file_sha256, write_atomically

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
        ('rgb', 0.2), ('calibrated', 0.2), ('calibrated-exact', 0.15), ('rgbd', 0.1), ('rgbd-robot', 0.15), ('exact', 0.1),
        ('exact-robot', 0.1),
    )  # fmt: skip
    maps: int = 4


def prepare_conditions(
    episodes: Path, folder: Path, model: Path, settings: ConditionSettings, limit: int | None = None, workers: int = 2
) -> list[Path]:
    """Write one .npz per episode; those that are there already are kept.

    A file is there already if it was made from the same recording by the same weights with the same settings: its name
    holds a key of all three.

    Args:
        episodes: Folder of episodes with depth, joint angles and object masks, of any numbers of anchors.
        folder: Where the files go.
        model: Model directory whose stage 1 and plane sweep make the maps; its generator does not run.
        settings: How they are made.
        limit: Only the first so many episodes; None for all.
        workers: Processes.

    Returns:
        Their paths, in the order of the episodes' names. Keys, for Q maps of T frames: condition uint8 [Q, T, h, w, 3], depth
        float16 [Q, T, h, w] in metres, trust uint8 [Q, T, h, w] (255 is all of it), anchors uint8 [V, T, s, s, 3], wrist uint8
        [T, h, w, 3], objects uint8 [T, h, w].

    Raises:
        UserError: An episode lacks what a level needs, or the model directory is not whole.
    """
    weights = ''.join(file_sha256(path) for path in sorted(model.iterdir()) if path.suffix in ('.json', '.safetensors'))
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    jobs = []
    for index, source in enumerate(list_episodes(episodes)[:limit]):
        key = cache_key(source, model=weights, settings=settings)
        jobs.append((Path(source), folder / f'{Path(source).name}-{key}.npz', index))
    todo = [job for job in jobs if not job[1].exists()]
    if todo:
        with ProcessPoolExecutor(workers, get_context('spawn'), _start_worker, (os.getpid(), model, settings)) as pool:
            running = [pool.submit(_prepare, *job) for job in todo]
            for done in tqdm(as_completed(running), total=len(running), desc='condition maps', unit='episode'):
                done.result()
    return [target for _, target, _ in jobs]


_worker: dict = {}  # a worker process's model and settings


def _start_worker(parent: int, model: Path, settings: ConditionSettings) -> None:
    die_with(parent)
    torch.set_num_threads(1)
    _worker['model'], _worker['settings'] = load_model(str(model), 'cpu'), settings


def _prepare(source: Path, target: Path, index: int) -> None:
    settings: ConditionSettings = _worker['settings']
    model: WristModel = _worker['model']
    rng = np.random.default_rng((11, index))
    truth = _with_views(read_ground_truth(read_episode(source), model.config.wrist_hw), settings.single_share, rng)
    if truth.objects is None:
        raise UserError(f'{source} has no object masks of its wrist camera', 'record it with wrist_objects')
    maps = [condition_maps(model, truth, level, int(rng.integers(1 << 30))) for level in _sample_levels(settings, rng)]
    image, depth, trust = (np.stack(parts) for parts in zip(*maps, strict=True))
    tokens = [resize_images(frames, (settings.token_size,) * 2) for frames in truth.images]
    with write_atomically(target) as part:
        np.savez(
            part,
            condition=image,
            depth=depth,
            trust=trust,
            anchors=np.stack(tokens),
            wrist=truth.wrist,
            objects=truth.objects,
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


def _sample_levels(settings: ConditionSettings, rng: np.random.Generator) -> list[KnowledgeLevel]:
    """Different levels by their weights."""
    names, weights = zip(*settings.levels, strict=True)
    chosen = rng.choice(names, settings.maps, replace=False, p=np.array(weights) / sum(weights))
    return [(LEVELS | ROBOT_LEVELS)[name] for name in chosen]


@torch.inference_mode()
def condition_maps(
    model: WristModel, truth: GroundTruth, level: KnowledgeLevel, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An episode's condition maps at one level of knowledge, as a stream would make them.

    Returns:
        uint8 [T, h, w, 3], float16 [T, h, w] and uint8 [T, h, w]; see `prepare_conditions`.
    """
    step = ReconstructionStep(model, remember=level.memory, refine=level.refine)
    maps = [step(anchors).condition for anchors in known_sets(truth, level, seed)]
    return (
        np.stack([m.image.cpu().numpy() for m in maps]),
        np.stack([m.depth.cpu().numpy().astype(np.float16) for m in maps]),
        np.stack([(255 * m.trust).round().clamp(0, 255).to(torch.uint8).cpu().numpy() for m in maps]),
    )
