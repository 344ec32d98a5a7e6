"""What a model makes of the held-out episodes, as a stream, before and after; and what it must beat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wristworld_ros.data.cache import cache_key
from wristworld_ros.data.ground_truth import GroundTruth
from wristworld_ros.data.images import write_image
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation import metrics
from wristworld_ros.evaluation.real import sheet_cell
from wristworld_ros.evaluation.table import EvaluationTable
from wristworld_ros.pipeline import VirtualWrist
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.runtime.files import write_atomically
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.settings import StreamSettings
from wristworld_ros.training.finetune.recordings import Recording
from wristworld_ros.types import AnchorSet, WristFrame

MEAN, FIRST = 'mean wrist image of the training episodes', 'true first wrist image, repeated'
BEFORE, AFTER = 'before', 'after'
SHEET, SHEET_FRAMES = 'sheet.png', 4
Made = dict[str, np.ndarray]


def stream_recordings(
    before: WristModel, after: WristModel, shared: bool, recordings: Sequence[Recording], folder: Path, weights: str,
    settings: StreamSettings,
) -> list[Path]:  # fmt: skip
    """Stream every recording at every level that it knows with both models; files that are there already are kept.

    Args:
        before: The model that was started from.
        after: The adapted one.
        shared: Whether both reconstruct with the same weights: then that is done once.
        recordings: The held-out ones.
        folder: Where the files go.
        weights: Changes with either model's weights.
        settings: Of the streams.

    Returns:
        One .npz a recording. Keys, for each level's title and each model ('before', 'after'): '<title>: <model>/images' uint8
        [T', h, w, 3], '<title>: <model>/frames' int64 [T'] of the recording's T, '<title>: <model>/valid' bool [T'].

    Raises:
        UserError: A recording cannot be decoded, or is shorter than a chunk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    targets = []
    for recording in ProgressBar(recordings, desc='measuring before and after', unit='episode'):
        key = cache_key(recording.episode.path, content=recording.content, weights=weights, settings=settings,
                        robot=recording.robot, levels=recording.levels)  # fmt: skip
        target = folder / f'{key}.npz'
        if not target.exists():
            truth, made = recording.truth(before.config.wrist_hw), {}
            for level in recording.levels:
                streams = {name: VirtualWrist(model, settings) for name, model in ((BEFORE, before), (AFTER, after))}
                for name, found in _stream(streams, shared, recording.sets(truth, level)).items():
                    made |= {f'{level.title}: {name}/{what}': values for what, values in found.items()}
            with write_atomically(target) as part:
                np.savez(part, **made)
        targets.append(target)
    return targets


def _stream(streams: dict[str, VirtualWrist], shared: bool, sets: list[AnchorSet]) -> dict[str, Made]:
    """What each stream publishes of the same sets."""
    frames: dict[str, list[WristFrame]] = {name: [] for name in streams}
    for anchors in sets:
        observation = None
        for name, wrist in streams.items():
            if observation is None or not shared:
                observation = wrist.reconstruct(anchors)
            frames[name] += wrist.generate(observation)
    if not all(frames.values()):
        raise UserError(f'No frame of an episode of {len(sets)} came out of the stream', 'record longer episodes')
    number = {anchors.stamp_ns: i for i, anchors in enumerate(sets)}
    return {
        name: {
            'images': np.stack([frame.image for frame in found]),
            'frames': np.array([number[frame.stamp_ns] for frame in found]),
            'valid': np.array([frame.valid for frame in found]),
        }
        for name, found in frames.items()
    }


def compare(
    recordings: Sequence[Recording], streamed: Sequence[Path], mean: np.ndarray, wrist_hw: tuple[int, int]
) -> tuple[EvaluationTable, np.ndarray]:  # fmt: skip
    """The table of the held-out episodes, and a contact sheet.

    Args:
        recordings: The held-out ones.
        streamed: Of `stream_recordings`.
        mean: Mean wrist image of the episodes that it adapted to, uint8 [h, w, 3].
        wrist_hw: Of the model, pixels.

    Returns:
        The table, with one record an episode in each row; and uint8 [H, W, 3] RGB: of some frames of every episode the anchors, the
        true wrist image, the mean image, and the images before and after; frames that are not valid have a red edge.
    """
    table, lines = EvaluationTable(head={}), []
    titles = [level.title for level in recordings[0].levels if all(level in r.levels for r in recordings)]
    rows = [f'{title}: {name}' for title in titles for name in (BEFORE, AFTER)]
    for recording, path in zip(recordings, streamed, strict=True):
        truth = recording.truth(wrist_hw)
        table.add(MEAN, _record(np.repeat(mean[None], len(truth), 0), truth.wrist))
        table.add(FIRST, _record(np.repeat(truth.wrist[:1], len(truth) - 1, 0), truth.wrist[1:]))
        made = _read(path)
        for row in rows:
            table.add(row, _made_record(made, row, truth, mean))
        lines += _sheet_lines(truth, mean, made, rows)
    return table, _stacked(lines)


def write_table(folder: Path, table: EvaluationTable, sheet: np.ndarray) -> None:
    """Write table.{txt,md,csv,json} and the contact sheet."""
    table.write(folder)
    write_image(folder / SHEET, sheet)


def _record(images: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {
        'psnr': float(metrics.psnr(images, truth).mean()), 'ssim': float(metrics.ssim(images, truth).mean()),
        'sharpness': metrics.sharpness(images, truth), 'change': metrics.frame_change(images),
    }  # fmt: skip


def _made_record(made: Made, row: str, truth: GroundTruth, mean: np.ndarray) -> dict[str, float]:
    images, frames, valid = (made[f'{row}/{name}'] for name in ('images', 'frames', 'valid'))
    wanted = truth.wrist[frames]
    record = _record(images, wanted) | {'valid_percent': 100 * float(valid.mean())}
    if valid.any():
        record['valid_psnr'] = float(metrics.psnr(images[valid], wanted[valid]).mean())
        floor = np.repeat(mean[None], int(valid.sum()), 0)
        record['valid_floor'] = float(metrics.psnr(floor, wanted[valid]).mean())
    return record


def _sheet_lines(truth: GroundTruth, mean: np.ndarray, made: Made, rows: list[str]) -> list[np.ndarray]:
    lines = []
    for share in (np.arange(SHEET_FRAMES) + 0.5) / SHEET_FRAMES:
        i = int(share * len(truth))
        cells = [sheet_cell(truth.images[view, i]) for view in range(min(2, len(truth.names)))]
        cells += [sheet_cell(truth.wrist[i]), sheet_cell(mean)]
        for row in rows:
            at = int(np.abs(made[f'{row}/frames'] - i).argmin())
            cells.append(sheet_cell(made[f'{row}/images'][at], bool(made[f'{row}/valid'][at])))
        lines.append(np.concatenate(cells, 1))
    return lines


def _stacked(lines: list[np.ndarray]) -> np.ndarray:
    """Lines one below the other; shorter ones, of fewer or narrower anchors, end in white."""
    width = max(line.shape[1] for line in lines)
    return np.concatenate(
        [np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0)), constant_values=255) for line in lines]
    )


def _read(path: Path) -> Made:
    with np.load(path) as f:
        return {name: f[name] for name in f.files}
