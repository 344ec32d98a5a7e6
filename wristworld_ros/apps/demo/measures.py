"""What a recording says: how the run went, and how good the wrist frames are where the true wrist camera was recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from wristworld_ros.apps.demo.settings import MODES, TOLD
from wristworld_ros.data.recording import CONDITION, TRUE_OBJECTS, TRUE_WRIST, WRIST, Recording, replayed_stream
from wristworld_ros.evaluation import baselines, metrics
from wristworld_ros.evaluation.objects import flicker, object_measures
from wristworld_ros.evaluation.table import EvaluationTable
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.models.config import ModelConfig
from wristworld_ros.pipeline.model_directory import find_model

# Modes of the live run, where only one was recorded.
GENERATED, OWN_WARP = 'generated', 'warp of own geometry + inpainting'
SLOP_S = 0.06  # between the stamps of an anchor set and of the true wrist image
COPY, MEAN = 'copy of an anchor', 'mean wrist image'


@dataclass(frozen=True)
class RunFigures:
    """How a run went. Rates per second, latencies in seconds, memory in MiB.

    invalid_statuses: name of a `FrameStatus` -> invalid frames that had it. examples: the same names -> the sentence of one
    of those frames. counters: the node's own, over the time of the recording.
    """

    seconds: float
    frames: int
    rate: float
    invalid: int
    invalid_statuses: dict[str, int]
    examples: dict[str, str]
    age_p50: float
    age_p95: float
    model_p50: float
    coverage: float
    confidence: float
    agreement: float
    memory_start: float
    memory_end: float
    counters: dict[str, int]


@dataclass(frozen=True)
class ModeFigures:
    """What a mode made of the recorded sets.

    told: what it knew, in words. valid: share of frames that are valid but for their age. coverage: mean, 0 to 1. model_p50: time
    of a set in the model, seconds.
    """

    told: str
    valid: float
    coverage: float
    model_p50: float


@dataclass(frozen=True)
class Quality:
    """Wrist frames against the true wrist camera.

    stamps_ns: int64 [N]. seconds: float64 [N], since the first wrist frame. psnr, ssim: row -> float64 [N]. table: one
    record per row. live, warp: rows of what was published and of its condition map. modes: rows of generated images, by mode;
    empty where one mode alone was recorded.
    """

    stamps_ns: np.ndarray
    seconds: np.ndarray
    psnr: dict[str, np.ndarray]
    ssim: dict[str, np.ndarray]
    table: EvaluationTable
    live: str = GENERATED
    warp: str = OWN_WARP
    modes: dict[str, str] = field(default_factory=dict)

    def psnr_by_stamp(self, row: str | None = None) -> dict[int, float]:
        """PSNR of a row of generated frames, dB, by stamp in nanoseconds; None for those of the live run."""
        return dict(zip(self.stamps_ns.tolist(), self.psnr[row or self.live].tolist(), strict=True))


def live_mode_of(recording: Recording) -> str:
    """The mode of the live run, of `MODES`; rgb where none was noted."""
    mode = recording.head.get('mode', MODES[0])
    return mode if mode in MODES else MODES[0]


def recorded_modes(recording: Recording) -> dict[str, str]:
    """Streams of generated images by mode, where several were recorded; the least told first."""
    streams = {mode: replayed_stream(mode) for mode in MODES if len(recording.stamps(replayed_stream(mode)))}
    if not streams:
        return {}
    streams[live_mode_of(recording)] = WRIST
    return {mode: streams[mode] for mode in MODES if mode in streams}


def mode_figures(recording: Recording) -> dict[str, ModeFigures]:
    """Figures of every mode, where several were recorded."""
    found = {}
    for mode, stream in recorded_modes(recording).items():
        views = recording.views if stream == WRIST else recording.replayed(mode)
        # A frame is called stale only where nothing else is wrong with it; frames made afterwards have no age.
        valid = np.mean([view['status'] in ('VALID', 'STALE') for view in views]) if views else math.nan
        coverage, latency = ([view[key] for view in views] or [math.nan] for key in ('coverage', 'latency'))
        found[mode] = ModeFigures(TOLD[mode], float(valid), float(np.mean(coverage)), float(np.median(latency)))
    return found


def summarise(recording: Recording) -> RunFigures:
    """The run in numbers, from the wrist frames and the node's own counters."""
    seconds, ages = recording.seconds(), recording.series('age')
    span = float(seconds[-1]) if len(seconds) > 1 else 0.0
    reasons: dict[str, list[str]] = {}
    for view in recording.views:
        if not view['valid']:
            reasons.setdefault(view['status'], []).append(view['reason'])
    first, last = (_counters(recording.status[i]) if recording.status else {} for i in (0, -1))
    names = [name for name in last if name not in ('stamp', 'state', 'memory', 'geometry')]
    return RunFigures(
        seconds=span, frames=len(seconds), rate=(len(seconds) - 1) / span if span else 0.0,
        invalid=sum(len(found) for found in reasons.values()),
        invalid_statuses={status: len(found) for status, found in reasons.items()},
        examples={status: found[len(found) // 2] for status, found in reasons.items()},
        age_p50=float(np.percentile(ages, 50)), age_p95=float(np.percentile(ages, 95)),
        model_p50=float(np.percentile(recording.series('latency'), 50)),
        coverage=float(recording.series('coverage').mean()), confidence=float(recording.series('confidence').mean()),
        agreement=float(recording.series('agreement').mean()),
        memory_start=first.get('memory', 0) / 2**20, memory_end=last.get('memory', 0) / 2**20,
        counters={name: last[name] - first.get(name, 0) for name in names},
    )  # fmt: skip


def measure_quality(recording: Recording, mean_wrist: np.ndarray | None = None) -> Quality | None:
    """Quality of every wrist frame that has a true one within the slop, and that every recorded mode has.

    Args:
        recording: Of the demo.
        mean_wrist: The training set's mean wrist image, uint8 [h, w, 3] of any size; None leaves its row out.

    Returns:
        None where no true wrist camera was recorded.
    """
    if not recording.has_truth:
        return None
    modes = recorded_modes(recording)
    rows = {mode: f'{mode.upper()}: generated' for mode in modes}
    live = rows.get(live_mode_of(recording), GENERATED)
    warp = f'{live_mode_of(recording).upper()}: filled condition map' if modes else OWN_WARP
    generated = {rows[mode]: stream for mode, stream in modes.items()} or {GENERATED: WRIST}
    compared = _compared(recording, generated, warp)
    if not compared.stamps:
        return None
    true_video = np.stack(compared.truth)
    stacked = {name: np.stack(frames) for name, frames in compared.videos.items()}
    if mean_wrist is not None:
        stacked[MEAN] = np.repeat(_resized(mean_wrist, true_video.shape[1:3])[None], len(true_video), 0)
    objects = np.stack(compared.objects) if compared.objects else None
    psnr, ssim, table = _measured(stacked, true_video, objects)
    stamps_ns = np.array(compared.stamps, np.int64)
    seconds = (stamps_ns - recording.views[0]['stamp_ns']) * 1e-9
    return Quality(stamps_ns, seconds, psnr, ssim, table, live, warp, rows)


@dataclass
class _Compared:
    """Images of the frames that have all: by row of the table, the true ones, labels of objects in these (empty without), stamps."""

    videos: dict[str, list[np.ndarray]]
    truth: list[np.ndarray] = field(default_factory=list)
    objects: list[np.ndarray] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)


def _compared(recording: Recording, generated: Mapping[str, str], warp: str) -> _Compared:
    """The frames of which everything was recorded, at the size of the wrist image.

    Args:
        recording: Of the demo.
        generated: Rows of generated images -> their streams.
        warp: Row of the filled condition map.
    """
    anchor, has_objects = f'anchor_{recording.anchors[0]}', len(recording.stamps(TRUE_OBJECTS)) > 0
    streams = [*generated.values(), TRUE_WRIST, CONDITION, anchor, *([TRUE_OBJECTS] * has_objects)]
    found_all = _Compared({name: [] for name in (*generated, warp, COPY)})
    for view in recording.views:
        found = {}
        for stream in streams:
            image = recording.nearest(stream, view['stamp_ns'], 1e-6 if stream in generated.values() else SLOP_S)
            if image is not None:
                found[stream] = image
        if len(found) < len(streams):
            continue
        hw = found[WRIST].shape[:2]
        found_all.truth.append(_resized(found[TRUE_WRIST], hw))
        for name, stream in generated.items():
            found_all.videos[name].append(found[stream])
        condition = found[CONDITION]
        hit = (condition > 0).any(-1).astype(np.float32)  # holes alone are black, as `ConditionMap.marked`
        found_all.videos[warp].append(_resized(baselines.inpaint(condition, hit), hw))
        found_all.videos[COPY].append(baselines.anchor_copy(found[anchor], hw))
        if has_objects:
            labels = cv2.resize(found[TRUE_OBJECTS][..., 0], hw[::-1], interpolation=cv2.INTER_NEAREST)
            found_all.objects.append(labels)
        found_all.stamps.append(view['stamp_ns'])
    return found_all


def _measured(
    videos: Mapping[str, np.ndarray], true_video: np.ndarray, objects: np.ndarray | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], EvaluationTable]:
    """PSNR (dB) and SSIM of each frame by row, [T], and the table of all measures.

    Args:
        videos: Row -> uint8 [T, h, w, 3].
        true_video: uint8 [T, h, w, 3].
        objects: Labels in it, uint8 [T, h, w], see `CameraTrack`; None without.
    """
    table = EvaluationTable(
        head={'frames': f'{len(true_video)}, valid or not, against the true wrist camera of the same stamp'}
    )
    psnr, ssim = {}, {}
    for name, video in videos.items():
        psnr[name], ssim[name] = metrics.psnr(video, true_video), metrics.ssim(video, true_video)
        record = {'psnr': psnr[name].mean(), 'ssim': ssim[name].mean(), 'flicker': flicker(video, true_video)}
        record |= {} if objects is None else object_measures(video, true_video, objects)
        table.add(
            name, record | {'sharpness': metrics.sharpness(video, true_video), 'change': metrics.frame_change(video)}
        )
    table.add('true wrist', {'sharpness': 1.0, 'change': metrics.frame_change(true_video)})
    return psnr, ssim, table


def mean_wrist_of(model: str) -> np.ndarray | None:
    """The mean wrist image of a model's training set, uint8 [h, w, 3] at the model's size; None where it has none.

    Args:
        model: Name of a model that ships with the package, or a model directory.
    """
    folder = find_model(model)
    return baselines.mean_wrist(folder, ModelConfig.read(folder / 'config.json').wrist_hw)


def _counters(status: dict[str, Any]) -> dict[str, int]:
    return {k: v for k, v in status.items() if isinstance(v, int) and not isinstance(v, bool)}


def _resized(image: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    return resize_images(image[None], hw)[0]
