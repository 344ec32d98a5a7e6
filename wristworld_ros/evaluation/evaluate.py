"""Held-out episodes through the whole system, from RGB alone and with more known, beside baselines on the same frames."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from wristworld_ros.data.episode import Episode
from wristworld_ros.data.formats.native import read_episode
from wristworld_ros.data.ground_truth import GroundTruth, read_ground_truth
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation import baselines, metrics
from wristworld_ros.evaluation.knowledge import LEVELS, KnowledgeLevel, known_sets, levels_from, levels_of
from wristworld_ros.evaluation.objects import flicker, object_measures
from wristworld_ros.evaluation.page import ShownEpisode, require_page_packages, write_page
from wristworld_ros.evaluation.settings import EvaluationSettings
from wristworld_ros.evaluation.sim_fvd import SimFvd
from wristworld_ros.evaluation.table import EvaluationTable
from wristworld_ros.models.config import ModelError
from wristworld_ros.pipeline import VirtualWrist, load_model
from wristworld_ros.pipeline.known_geometry import KNOWN_NEAR
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.model_directory import find_model
from wristworld_ros.pipeline.observation import Observation
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.setting import check
from wristworld_ros.settings import StreamSettings
from wristworld_ros.sim.sensor import SensorSettings
from wristworld_ros.types import AnchorSet

# Videos uint8 [T, h, w, 3] and true ones -> their distance.
VideoDistance = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], float]
TRUTH, LATE = 'true wrist image', 'true wrist image, one frame late'
MEAN, COPY = 'mean wrist image', 'copy of an anchor'


@dataclass(frozen=True)
class _Row:
    """One generated row of the table. filled: whether it brings its condition map, with holes filled, as a row beside it."""

    name: str
    model: WristModel
    stream: StreamSettings
    level: KnowledgeLevel
    filled: bool = False

    @property
    def source(self) -> tuple[int, str]:
        """Rows that share it share stage 1 and the condition map, which depend neither on steps nor on the seed."""
        return id(self.model), self.level.title

    @property
    def filled_name(self) -> str:
        """Name of the row of its condition map."""
        return filled_name(self.level)


def filled_name(level: KnowledgeLevel) -> str:
    """The row of a level's condition map with its holes filled."""
    return f'{level.title}: filled condition map'


def generated_name(level: KnowledgeLevel, steps: int) -> str:
    """The row of what a level's stream publishes."""
    return f'{level.title}: generated, {steps} step{"s" * (steps > 1)}'


@dataclass
class _EpisodeRows:
    """What one episode gives: videos of each row (one per seed), uint8 [T, h, w, 3], and its geometric measures.

    frames: their numbers. truth, objects, depth: of the true wrist camera in the same frames; the latter two None where the
    episode has none.
    """

    truth: np.ndarray
    frames: list[int]
    objects: np.ndarray | None = None
    depth: np.ndarray | None = None
    videos: dict[str, list[np.ndarray]] = field(default_factory=dict)
    geometry: dict[str, dict[str, float]] = field(default_factory=dict)


def evaluate(
    model: WristModel | str,
    episodes: Sequence[Episode | Path] | Path | str,
    settings: StreamSettings | None = None,
    evaluation: EvaluationSettings | None = None,
    ablations: dict[str, WristModel | str] | None = None,
    folder: Path | None = None,
    progress: bool = True,
    levels: Sequence[KnowledgeLevel] | None = None,
) -> EvaluationTable:
    """Evaluate a model on whole episodes.

    Every row is measured on the same frames: those that all generated rows produced.

    Args:
        model: Loaded, or the name or directory of one.
        episodes: Opened ones, their directories, or the path of a data set of any format that docs/datasets.md lists.
        settings: Of the stream; `evaluation.row_steps` replaces its `steps`.
        evaluation: What is evaluated.
        ablations: Row name -> another model, run with the first of the steps.
        folder: Where each episode's measures are written as JSON while the evaluation runs.
        progress: Show a progress bar.
        levels: What the stream knows, level by level; None for `evaluation.knowledge`.

    Raises:
        UserError: There are no episodes, or some episode has no frame that every row produced.
    """
    settings, evaluation = settings or StreamSettings(), evaluation or EvaluationSettings()
    check(evaluation)
    if folder and evaluation.page:
        require_page_packages()
    opened = _open(episodes, evaluation.limit)
    levels = levels or _levels(opened, evaluation)
    rows = _rows(model, settings, evaluation, ablations or {}, levels)
    main = rows[0].model
    mean = _mean_image(model if isinstance(model, str) else settings.model, evaluation.mean_image, main)
    perceptual = metrics.lpips_from(evaluation.lpips) if evaluation.lpips else None
    distances: dict[str, VideoDistance] = {}
    if evaluation.fvd:
        distances['fvd'] = metrics.fvd_from(evaluation.fvd)
    if evaluation.sim_fvd:
        distances['sim_fvd'] = SimFvd(evaluation.sim_fvd)
    table = EvaluationTable(head={})
    kept: dict[str, list[np.ndarray]] = {}
    shown: list[ShownEpisode] = []
    frames = 0
    labelled = list(zip(_labels(opened), opened, strict=True))
    for label, episode in ProgressBar(labelled, desc='evaluating', unit='episode', disable=not progress):
        truth = read_ground_truth(
            episode, main.config.wrist_hw, evaluation.anchors, evaluation.frames, need_calibration=False
        )
        found = _run_episode(rows, truth, mean, evaluation.seeds)
        frames += len(found.truth)
        records = {}
        for name, videos in found.videos.items():
            measures = _truth_record(found.truth) if name == TRUTH else _record(videos, found, perceptual)
            records[name] = measures | found.geometry.get(name, {})
            table.add(name, records[name])
            if distances:
                kept.setdefault(name, []).append(videos[0])
        if folder:
            _write_episode(Path(folder), label, len(found.truth), records)
        if folder and len(shown) < evaluation.page:
            shown.append(_shown(label, episode, truth, found))
    for name, videos in kept.items():
        if name not in (TRUTH, LATE):
            table.whole[name] = {key: distance(videos, kept[TRUTH]) for key, distance in distances.items()}
    table.head.update(_head(main, settings, evaluation, len(opened), frames, mean is not None))
    coverage, confidence = (table.mean(rows[0].name, key) for key in ('coverage', 'confidence'))
    table.head['trust'] = f'{coverage:.0%} of the wrist view covered, confidence {confidence:.2f}, on average'
    if folder and shown:
        write_page(Path(folder), table, shown)
    return table


def _levels(episodes: Sequence[Episode], evaluation: EvaluationSettings) -> list[KnowledgeLevel]:
    """Those that were asked for, or all that every episode knows enough for."""
    if evaluation.knowledge is not None:
        return levels_from(evaluation.knowledge)
    possible = [levels_of(episode, evaluation.anchors) for episode in episodes]
    return [level for level in LEVELS.values() if all(level in known for known in possible)]


def _shown(label: str, episode: Episode, truth: GroundTruth, found: _EpisodeRows) -> ShownEpisode:
    """The anchors, the true wrist video and the first seed of every row but the baselines that look at it."""
    videos = {f'anchor {name}': truth.images[i][found.frames] for i, name in enumerate(truth.names)}
    videos |= {name: made[0] for name, made in found.videos.items() if name != LATE}
    return ShownEpisode(label, 1e9 / float(np.median(np.diff(episode.stamps_ns))), videos)


def _labels(episodes: Sequence[Episode]) -> list[str]:
    """What files and the page call the episodes: their names (many formats have one path for all), with their places where two are alike."""
    names = [re.sub(r'[^\w.-]+', '_', episode.name.partition(' ')[2] or episode.name) for episode in episodes]
    return names if len(set(names)) == len(names) else [f'{place}_{name}' for place, name in enumerate(names)]


def _open(episodes: Sequence[Episode | Path] | Path | str, limit: int | None) -> list[Episode]:
    where = 'the list given'
    if isinstance(episodes, str | Path):
        where, episodes = str(episodes), _episodes_in(episodes, limit)
    if not episodes:
        raise UserError(f'There are no episodes in {where}', 'record some with `wristworld simulate`')
    return [e if isinstance(e, Episode) else read_episode(e) for e in episodes[:limit]]


def _episodes_in(path: Path | str, limit: int | None) -> list[Episode]:
    """The first episodes of a data set of any known format."""
    data = open_data_set(path)
    return [data.episode(i) for i in range(len(data))[:limit]]


def _rows(
    model: WristModel | str,
    settings: StreamSettings,
    evaluation: EvaluationSettings,
    ablations: dict[str, WristModel | str],
    levels: Sequence[KnowledgeLevel],
) -> list[_Row]:
    def loaded(m: WristModel | str) -> WristModel:
        return load_model(m, settings.device, settings.precision, settings.decoder) if isinstance(m, str) else m

    try:
        steps = [int(s) for s in evaluation.row_steps.split(',')]
    except ValueError:
        raise UserError(
            f'Setting row_steps is {evaluation.row_steps!r}', 'give whole numbers and commas, as in 1,2,4'
        ) from None
    if len(set(steps)) < len(steps):
        raise UserError(f'Setting row_steps is {evaluation.row_steps!r}, one number twice', 'give each once')
    for n in steps:
        check(replace(settings, steps=n))
    main = loaded(model)
    first = replace(settings, steps=steps[0])
    rows = [
        _Row(generated_name(levels[0], n), main, replace(settings, steps=n), levels[0], n == steps[0]) for n in steps
    ]
    rows += [_Row(generated_name(level, steps[0]), main, first, level, True) for level in levels[1:]]
    rows += [_Row(name, loaded(other), first, levels[0]) for name, other in ablations.items()]
    for row in rows:
        if row.model.config.wrist_hw != main.config.wrist_hw:
            raise UserError(
                f'The model of row {row.name!r} generates wrist images of {row.model.config.wrist_hw} (height, width) '
                f'and the first model of {main.config.wrist_hw}',
                'compare models of one size',
            )
    return rows


def _mean_image(name: str, given: str | None, model: WristModel) -> np.ndarray | None:
    if given:
        image = baselines.mean_wrist(Path(given), model.config.wrist_hw)
        if image is None:
            raise UserError(f'{given} cannot be read as an image', 'give the mean wrist image of the training set')
        return image
    try:
        return baselines.mean_wrist(find_model(name), model.config.wrist_hw)
    except ModelError:  # a model that was loaded from elsewhere has no directory to search
        return None


def _run_episode(rows: list[_Row], truth: GroundTruth, mean: np.ndarray | None, seeds: int) -> _EpisodeRows:
    """All rows on one episode, cut to the frames that every generated row produced."""
    observations: dict[tuple[int, str], list[Observation]] = {}
    for row in rows:
        if row.source not in observations:
            observations[row.source] = _reconstruct(row, known_sets(truth, row.level))
    runs = {row.name: [_generate(row, observations[row.source], seed) for seed in range(seeds)] for row in rows}
    frames = sorted(set.intersection(*(set(images) for found in runs.values() for images in found)))
    if not frames:
        raise UserError(
            f'No frame of an episode of {len(truth)} frames came out of every row',
            'give a smaller --chunk, or longer episodes',
        )
    found = _EpisodeRows(truth.wrist[frames], frames)
    if truth.objects is not None:
        found.objects = truth.objects[frames]
        found.depth = None if truth.wrist_depth is None else truth.wrist_depth[frames]
    found.videos[TRUTH] = [found.truth]
    found.videos[LATE] = [truth.wrist[np.maximum(np.array(frames) - 1, 0)]]
    if mean is not None:
        found.videos[MEAN] = [np.repeat(mean[None], len(frames), 0)]
    hw = truth.wrist.shape[1:3]
    found.videos[COPY] = [np.stack([baselines.anchor_copy(truth.images[0, i], hw) for i in frames])]
    for row in rows:
        seen = observations[row.source]
        found.videos[row.name] = [np.stack([images[i] for i in frames]) for images in runs[row.name]]
        found.geometry[row.name] = _geometry(seen, truth, frames)
        if row.filled:
            found.videos[row.filled_name] = [np.stack([_filled(seen[i]) for i in frames])]
            found.geometry[row.filled_name] = found.geometry[row.name]
    return found


def _reconstruct(row: _Row, sets: list[AnchorSet]) -> list[Observation]:
    level = row.level
    wrist = VirtualWrist(row.model, replace(row.stream, scene_memory=level.memory, refine_calibration=level.refine))
    return [wrist.reconstruct(anchor_set) for anchor_set in sets]


def _generate(row: _Row, observations: list[Observation], seed: int) -> dict[int, np.ndarray]:
    """Wrist images of one new stream by frame number."""
    wrist = VirtualWrist(row.model, replace(row.stream, seed=row.stream.seed + seed))
    frames = [frame for observation in observations for frame in wrist.generate(observation)]
    number = {observation.anchors.stamp_ns: i for i, observation in enumerate(observations)}
    return {number[frame.stamp_ns]: frame.image for frame in frames}


def _filled(observation: Observation) -> np.ndarray:
    condition = observation.condition
    return baselines.inpaint(condition.image.cpu().numpy(), condition.depth.cpu().numpy())


def _geometry(observations: list[Observation], truth: GroundTruth, frames: list[int]) -> dict[str, float]:
    """Pose, scale, trust and cloud measures of one model on one episode."""
    seen = [observations[i] for i in frames]
    record = {
        'coverage': float(np.mean([o.coverage for o in seen])),
        'confidence': float(np.mean([o.confidence for o in seen])),
    }
    if not truth.calibrated:
        return record
    pose = metrics.wrist_pose_errors(
        np.stack([[c.T_camera_world for c in o.reconstruction.anchors] for o in seen]),
        np.stack([o.reconstruction.wrist.T_camera_world for o in seen]),
        np.swapaxes(truth.T_anchor_world, 0, 1)[frames],
        truth.T_wrist_world[frames],
    )
    record |= {
        'rotation_deg': float(pose.rotation_deg.mean()),
        'position_m': float(pose.position_m.mean()),
        'aligned_rotation_deg': float(pose.aligned_rotation_deg.mean()),
        'aligned_position_m': float(pose.aligned_position_m.mean()),
        'scale_percent': 100 * abs(pose.scale_error),
    }
    if truth.depth is not None and truth.wrist_depth is not None:
        errors = np.concatenate([_cloud_errors(observations[i], truth, i) for i in frames])
        if len(errors):
            record |= {'cloud_median_px': float(np.median(errors)), 'cloud_mean_px': float(errors.mean())}
    return record


def _cloud_errors(observation: Observation, truth: GroundTruth, frame: int) -> np.ndarray:
    assert truth.depth is not None and truth.wrist_depth is not None
    reconstruction = observation.reconstruction
    return metrics.own_cloud_errors(
        reconstruction.points.cpu().numpy(), reconstruction.wrist.K, reconstruction.wrist.T_camera_world,
        truth.depth[:, frame], truth.K[:, frame], truth.T_anchor_world[:, frame],
        truth.wrist_depth[frame], truth.wrist_K[frame], truth.T_wrist_world[frame],
    )  # fmt: skip


def _truth_record(truth: np.ndarray) -> dict[str, float]:
    return {'sharpness': 1.0, 'change': metrics.frame_change(truth)}


def _record(videos: list[np.ndarray], found: _EpisodeRows, perceptual: Callable | None) -> dict[str, float]:
    """Image and object measures of one row on one episode, averaged over seeds."""
    records = []
    for video in videos:
        record = {
            'psnr': float(metrics.psnr(video, found.truth).mean()),
            'ssim': float(metrics.ssim(video, found.truth).mean()),
            'sharpness': metrics.sharpness(video, found.truth),
            'change': metrics.frame_change(video),
            'flicker': flicker(video, found.truth),
        }
        if found.objects is not None:
            record |= object_measures(video, found.truth, found.objects, found.depth)
        if perceptual:
            record['lpips'] = float(perceptual(video, found.truth).mean())
        records.append(record)
    return {key: float(np.mean([r.get(key, math.nan) for r in records])) for key in records[0]}


def _write_episode(folder: Path, label: str, frames: int, records: dict[str, dict[str, float]]) -> None:
    path = folder / 'episodes' / f'{label}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    clean = {n: {k: None if math.isnan(v) else v for k, v in r.items()} for n, r in records.items()}
    path.write_text(json.dumps({'episode': label, 'frames': frames, 'rows': clean}, indent=1) + '\n')


def _head(
    model: WristModel, settings: StreamSettings, evaluation: EvaluationSettings, episodes: int, frames: int,
    has_mean: bool,
) -> dict[str, str]:  # fmt: skip
    height, width = model.config.wrist_hw
    sensor = SensorSettings()
    near = f'{model.config.cloud.near if settings.near is None else settings.near:g} m'
    head = {
        'model': f'{model.config.name}, wrist {width}x{height}, on {model.device.type}',
        'data': f'{episodes} episodes, {frames} frames, {evaluation.anchors or "all"} anchors',
        'stream': f'chunk {settings.chunk}, history {settings.history}, near plane {near} (wrist camera known: {KNOWN_NEAR:g} m), '
        f'{evaluation.seeds} seed(s)',
        'knowledge': f'CALIBRATED, RGBD: anchors off by {sensor.rotation_deg:g} degrees and {1000 * sensor.translation_m:g} mm, '
        f'depth noise {sensor.depth_noise:.1%}; exact: neither; wrist camera from kinematics',
        'numbers': 'mean ± standard error over episodes; holes filled by push-pull',
    }
    if not has_mean:
        head['left out'] = 'mean wrist image (the model has no mean_wrist.png; give one with --mean-image)'
    return head
