"""Held-out episodes through the whole machine, from RGB alone, beside baselines on the same frames."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wristworld_ros.data.formats.native import Episode, list_episodes, read_episode
from wristworld_ros.data.ground_truth import GroundTruth, read_ground_truth
from wristworld_ros.evaluation import baselines, metrics
from wristworld_ros.evaluation.settings import EvaluationSettings
from wristworld_ros.evaluation.table import EvaluationTable
from wristworld_ros.models.config import find_model
from wristworld_ros.pipeline import VirtualWrist, load_model
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.reconstruct import Observation
from wristworld_ros.settings import StreamSettings, check
from wristworld_ros.types import AnchorSet

TRUTH, MEAN, COPY = 'true wrist image', 'mean wrist image', 'copy of an anchor'
OWN_WARP, TRUE_WARP = 'warp of own geometry + inpainting', 'warp of TRUE geometry + inpainting'


@dataclass(frozen=True)
class _Row:
    name: str
    model: WristModel
    stream: StreamSettings


class _Remembering(WristModel):
    """A model that does stage 1 and the condition map of an anchor set once, however many rows share them."""

    def __init__(self, model: WristModel):
        self.config, self.device, self.stage1, self.generator = (
            model.config,
            model.device,
            model.stage1,
            model.generator,
        )
        self._model = model
        self._known: dict[tuple, Observation] = {}

    def stream(self, settings: StreamSettings):
        return self._model.stream(settings)

    def reconstruction_step(self, *args, **kwargs):
        reconstruction_step = self._model.reconstruction_step(*args, **kwargs)

        def look(anchors: AnchorSet) -> Observation:
            key = (id(anchors.images), *args, *kwargs.values())
            if key not in self._known:
                self._known[key] = reconstruction_step(anchors)
            return self._known[key]

        return look


def evaluate(
    model: WristModel | str,
    episodes: Sequence[Episode | Path] | Path | str,
    settings: StreamSettings | None = None,
    evaluation: EvaluationSettings | None = None,
    ablations: dict[str, WristModel | str] | None = None,
    folder: Path | None = None,
    progress: bool = True,
) -> EvaluationTable:
    """Evaluate a model on whole episodes.

    model: loaded, or the name or directory of one. episodes: opened ones, their directories, or the folder of them all.
    settings: of the stream; its `steps` gives way to `evaluation.row_steps`. ablations: row name -> another model, run
    with the first of the steps. folder: where each episode's measures go as JSON while the evaluation runs.
    Every row is measured on the same frames: those that all generated rows produced. Raises ValueError, one sentence,
    when there are no episodes, or none of an episode's frames came out of every row.
    """
    settings, evaluation = settings or StreamSettings(), evaluation or EvaluationSettings()
    check(evaluation)  # type: ignore[arg-type]
    opened = _open(episodes, evaluation.limit)
    rows = _rows(model, settings, evaluation, ablations or {})
    main = rows[0].model
    mean = _mean_image(model if isinstance(model, str) else settings.model, evaluation.mean_image, main)
    perceptual = metrics.lpips_from(Path(evaluation.lpips)) if evaluation.lpips else None
    video_distance = metrics.fvd_from(Path(evaluation.fvd)) if evaluation.fvd else None
    table = EvaluationTable(head={})
    kept: dict[str, list[np.ndarray]] = {}
    frames = 0
    for episode in tqdm(opened, desc='evaluating', unit='episode', disable=not progress):
        truth = read_ground_truth(episode, main.config.wrist_hw, evaluation.anchors, evaluation.frames)
        videos, figures, truth_video = _run_episode(rows, truth, mean, main, evaluation.seeds)
        frames += len(truth_video)
        records = {}
        for name, seeds in videos.items():
            record = _measure(seeds, truth_video, perceptual, name == TRUTH) | figures.get(name, {})
            records[name] = record
            table.add(name, record)
            if video_distance:
                kept.setdefault(name, []).append(seeds[0])
        if folder:
            _write_episode(Path(folder), episode, len(truth_video), records)
    if video_distance:
        for name, found in kept.items():
            if name != TRUTH:
                table.whole[name] = {'fvd': video_distance(found, kept[TRUTH])}
    table.head.update(_head(main, settings, evaluation, len(opened), frames, mean is not None))
    coverage, confidence = (table.mean(rows[0].name, key) for key in ('coverage', 'confidence'))
    table.head['trust'] = f'{coverage:.0%} of the wrist view covered, confidence {confidence:.2f}, on average'
    return table


def _open(episodes, limit: int) -> list[Episode]:
    if isinstance(episodes, str | Path):
        where, episodes = episodes, list_episodes(episodes)
    else:
        where = 'the list given'
    if not episodes:
        raise ValueError(f'There are no episodes in {where}; make some with `wristworld simulate`.')
    chosen = episodes[:limit] if limit else episodes
    return [e if isinstance(e, Episode) else read_episode(e) for e in chosen]


def _rows(model, settings: StreamSettings, evaluation: EvaluationSettings, ablations: dict) -> list[_Row]:
    def loaded(m):
        return load_model(m, settings.device, settings.precision, settings.decoder) if isinstance(m, str) else m

    try:
        steps = [int(s) for s in evaluation.row_steps.split(',')]
    except ValueError:
        raise ValueError(
            f'Setting row_steps is {evaluation.row_steps!r}; it takes whole numbers, as in 1,2,4.'
        ) from None
    main = loaded(model)
    rows = [_Row(f'generated, {n} step{"s" * (n > 1)}', main, replace(settings, steps=n)) for n in steps]
    first = replace(settings, steps=steps[0])
    rows += [_Row(name, loaded(other), first) for name, other in ablations.items()]
    for row in rows:
        if row.model.config.wrist_hw != main.config.wrist_hw:
            raise ValueError(
                f'The model of row {row.name!r} makes {row.model.config.wrist_hw} wrist images, the first one '
                f'{main.config.wrist_hw}; compare models of one size.'
            )
    return rows


def _mean_image(name: str, given: str, model: WristModel) -> np.ndarray | None:
    if given:
        image = baselines.mean_wrist(Path(given), model.config.wrist_hw)
        if image is None:
            raise FileNotFoundError(f'{given} is no readable picture; give the mean wrist image of the training set.')
        return image
    try:
        return baselines.mean_wrist(find_model(name), model.config.wrist_hw)
    except ValueError:
        return None


def _run_episode(rows: list[_Row], truth: GroundTruth, mean: np.ndarray | None, main: WristModel, seeds: int):
    """Videos of every row (a list of seeds each), geometry figures of the generated ones, and the true video."""
    sets = [truth.anchor_set(i) for i in range(len(truth))]
    models = {id(row.model): _Remembering(row.model) for row in rows}
    runs = {row.name: [_stream(row, models[id(row.model)], truth, sets, s) for s in range(seeds)] for row in rows}
    common = sorted(set.intersection(*(set(run['images']) for found in runs.values() for run in found)))
    if not common:
        raise ValueError(
            f'No frame of this episode of {len(truth)} came out of every row; is the chunk longer than it?'
        )
    videos = {TRUTH: [truth.wrist[common]]}
    for name, found in runs.items():
        videos[name] = [np.stack([run['images'][i] for i in common]) for run in found]
    if mean is not None:
        videos[MEAN] = [np.repeat(mean[None], len(common), 0)]
    hw = truth.wrist.shape[1:3]
    videos[COPY] = [np.stack([baselines.anchor_copy(truth.images[0, i], hw) for i in common])]
    first = runs[rows[0].name][0]
    videos[OWN_WARP] = [np.stack([baselines.inpaint(first['conditions'][i]) for i in common])]
    if truth.depth is not None:
        videos[TRUE_WARP] = [np.stack([_true_warp(truth, i, rows[0], main) for i in common])]
    figures = {name: _geometry(found[0], truth, common) for name, found in runs.items()}
    figures[OWN_WARP] = figures[rows[0].name]
    return videos, figures, truth.wrist[common]


def _stream(row: _Row, model: _Remembering, truth: GroundTruth, sets: list[AnchorSet], seed: int) -> dict[str, dict]:
    """One pass over an episode: images, condition maps, cameras and cloud errors by frame number."""
    wrist = VirtualWrist(model, replace(row.stream, seed=row.stream.seed + seed))
    number = {int(stamp): i for i, stamp in enumerate(truth.stamps_ns)}
    run: dict[str, dict] = {'images': {}, 'conditions': {}, 'cameras': {}, 'cloud': {}, 'trust': {}}
    for anchors in sets:
        for frame in wrist.push(anchors):
            at = number[frame.stamp_ns]
            run['images'][at], run['conditions'][at] = frame.image, frame.condition
            run['trust'][at] = (frame.coverage, frame.confidence)
            poses = np.stack([c.T_camera_world for c in frame.reconstruction.anchors])
            run['cameras'][at] = (poses, frame.camera.T_camera_world)
            if truth.depth is not None and truth.wrist_depth is not None and not seed:
                run['cloud'][at] = metrics.own_cloud_errors(
                    frame.reconstruction.points.cpu().numpy(), frame.camera.K, frame.camera.T_camera_world,
                    truth.depth[:, at], truth.K[:, at], truth.T_anchor_world[:, at],
                    truth.wrist_depth[at], truth.wrist_K[at], truth.T_wrist_world[at],
                )  # fmt: skip
    return run


def _geometry(run: dict[str, dict], truth: GroundTruth, frames: list[int]) -> dict[str, float]:
    anchors, wrists = (np.stack([run['cameras'][i][part] for i in frames]) for part in (0, 1))
    true_anchors = np.swapaxes(truth.T_anchor_world, 0, 1)[frames]
    degrees, metres = metrics.wrist_pose_errors(anchors, wrists, true_anchors, truth.T_wrist_world[frames])
    figures = {'rotation_deg': float(degrees.mean()), 'position_m': float(metres.mean())}
    coverage, confidence = np.mean([run['trust'][i] for i in frames], axis=0)
    figures |= {'coverage': float(coverage), 'confidence': float(confidence)}
    cloud = np.concatenate([run['cloud'][i] for i in frames if i in run['cloud']] or [np.zeros(0)])
    if len(cloud):
        figures |= {'cloud_median_px': float(np.median(cloud)), 'cloud_mean_px': float(cloud.mean())}
    return figures


def _true_warp(truth: GroundTruth, frame: int, row: _Row, main: WristModel) -> np.ndarray:
    assert truth.depth is not None
    cloud = replace(main.config.cloud, near=row.stream.near or main.config.cloud.near)
    return baselines.true_warp(
        truth.images[:, frame], truth.depth[:, frame], truth.K[:, frame], truth.T_anchor_world[:, frame],
        truth.wrist_camera(frame), cloud,
    )  # fmt: skip


def _measure(seeds: list[np.ndarray], truth: np.ndarray, perceptual, is_truth: bool) -> dict[str, float]:
    """Measures of one row on one episode, averaged over seeds."""
    if is_truth:
        return {'sharpness': 1.0, 'change': metrics.frame_change(truth)}
    records = []
    for video in seeds:
        record = {
            'psnr': float(metrics.psnr(video, truth).mean()),
            'ssim': float(metrics.ssim(video, truth).mean()),
            'sharpness': metrics.sharpness(video, truth),
            'change': metrics.frame_change(video),
        }
        if perceptual:
            record['lpips'] = float(perceptual(video, truth).mean())
        records.append(record)
    return {key: float(np.mean([r[key] for r in records])) for key in records[0]}


def _write_episode(folder: Path, episode: Episode, frames: int, records: dict) -> None:
    path = folder / 'episodes' / f'{episode.path.name}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    clean = {n: {k: None if math.isnan(v) else v for k, v in r.items()} for n, r in records.items()}
    path.write_text(json.dumps({'episode': episode.path.name, 'frames': frames, 'rows': clean}, indent=1) + '\n')


def _head(model, settings, evaluation, episodes: int, frames: int, has_mean: bool) -> dict[str, str]:
    height, width = model.config.wrist_hw
    head = {
        'model': f'{model.config.name}, wrist {width}x{height}, on {model.device.type}',
        'data': f'{episodes} episodes, {frames} frames, {evaluation.anchors or "all"} anchors, RGB alone',
        'stream': f'chunk {settings.chunk}, history {settings.history}, near {settings.near or "of the model"}, {evaluation.seeds} seed(s)',
        'numbers': 'mean ± standard deviation over episodes; holes filled by push-pull',
    }
    if not has_mean:
        head['left out'] = 'mean wrist image (the model has no mean_wrist.png; give one with --mean-image)'
    return head
