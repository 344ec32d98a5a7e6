"""Real clips through the whole system, in a table of their own beside two floors that know the true wrist camera's other images.

There is no depth, no instance and no true camera here: PSNR and SSIM against the true wrist image, how many frames the stream
itself calls valid, and the same figures over those alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from wristworld_ros.data.images import write_image
from wristworld_ros.data.real_clips import RealClip, list_clips, mounted_camera, read_clip, wrist_mount
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation import baselines, metrics
from wristworld_ros.evaluation.table import EvaluationTable
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.input_files import json_text
from wristworld_ros.pipeline import VirtualWrist
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.robot.calibration_file import Calibration, read_calibration
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet

MEAN, FIRST = 'mean image of the other clips', 'true first wrist image, repeated'
RGB, CALIBRATED = 'RGB: generated', 'CALIBRATED: generated'
FILLED = 'CALIBRATED: filled condition map'
CALIBRATION = 'calibration.yaml'
SHEET, SHEET_FRAMES, SHEET_HEIGHT = 'sheet.png', 3, 96


@dataclass
class _Row:
    """What a row shows of one clip: uint8 [T', h, w, 3], of which frames, and which of these the stream calls valid, bool [T']."""

    images: np.ndarray
    frames: np.ndarray
    valid: np.ndarray | None = None


@dataclass
class _Clip:
    clip: RealClip
    truth: np.ndarray
    rows: dict[str, _Row] = field(default_factory=dict)


def evaluate_real(
    model: WristModel,
    folder: Path | str,
    settings: StreamSettings | None = None,
    calibrations: Path | None = None,
    limit: int | None = None,
    frames: int | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> EvaluationTable:
    """Evaluate a model on real clips.

    Args:
        model: Loaded.
        folder: Of clips, see `data.real_clips`.
        settings: Of the stream.
        calibrations: Folder of `<clip>/calibration.yaml` with anchors exterior_1 and exterior_2 in the robot's base, and the wrist
            camera in the hand where it is not the usual one; clips with at least one anchor get the rows CALIBRATED.
        limit: Clips at most; None takes all.
        frames: Frames of a clip at most, spread evenly over it; None takes all.
        out: Where each clip's measures and the contact sheet are written.
        progress: Show a progress bar.

    Raises:
        UserError: There are fewer than two clips, or a clip or calibration cannot be read.
    """
    settings = settings or StreamSettings()
    names = list_clips(folder)
    if len(names) < 2:
        raise UserError(f'{folder} holds one clip', 'give two or more: the mean image is that of the others')
    clips = []
    for name in ProgressBar(names[:limit], desc='evaluating', unit='clip', disable=not progress):
        clip = read_clip(folder, name, frames)
        found = _Clip(clip, resize_images(clip.wrist, model.config.wrist_hw))
        _run(found, model, settings, _calibration(calibrations, name))
        clips.append(found)
    _add_floors(clips)
    table = EvaluationTable(head=_head(model, settings, clips, calibrations))
    for found in clips:
        records = {name: _record(row, found) for name, row in found.rows.items()}
        for name, record in records.items():
            table.add(name, record)
        if out:
            _write_clip(Path(out), found, records)
    if out:
        write_image(Path(out) / SHEET, contact_sheet([(c.clip, c.truth, _shown(c)) for c in clips]))
    return table


def known_cameras(clip: RealClip, frame: int, calibration: Calibration, hw: tuple[int, int]) -> AnchorSet:
    """The anchor set of one frame with the cameras that a calibration knows, and the wrist camera by kinematics.

    Args:
        clip: The clip.
        frame: Its number.
        calibration: Anchors by the names of `data.real_clips.ANCHORS`; those it lacks stay unknown.
        hw: Height and width of the wrist image, pixels.
    """
    anchors = clip.anchor_set(frame)
    size = anchors.images.shape[1:3]
    K, T = np.full((2, 3, 3), np.nan), np.full((2, 4, 4), np.nan)
    for view, name in enumerate(anchors.names):
        if (placed := calibration.anchors.get(name)) is not None:
            T[view] = placed.T
            if placed.camera is not None:
                K[view] = _scaled(placed.camera.intrinsics.K, (placed.camera.height, placed.camera.width), size)
    mount = wrist_mount() if calibration.wrist is None else calibration.wrist.T
    wrist = clip.wrist_camera(frame, mount, hw)
    return replace(anchors, intrinsics=K, T_base_anchor=T, wrist=wrist, mounted=mounted_camera(mount, hw))


def _scaled(K: np.ndarray, hw: tuple[int, int], to: tuple[int, int]) -> np.ndarray:
    y, x = to[0] / hw[0], to[1] / hw[1]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1.0]]) @ K


def _calibration(folder: Path | None, name: str) -> Calibration | None:
    path = None if folder is None else Path(folder) / name / CALIBRATION
    return read_calibration(path) if path is not None and path.exists() else None


def _run(found: _Clip, model: WristModel, settings: StreamSettings, calibration: Calibration | None) -> None:
    """Add the rows that the model makes."""
    frames = range(len(found.truth))
    mounted = mounted_camera(wrist_mount(), model.config.wrist_hw)
    sets = [replace(found.clip.anchor_set(i), mounted=mounted) for i in frames]
    found.rows[RGB], _ = _stream(model, settings, sets)
    if calibration is not None and calibration.anchors:
        sets = [known_cameras(found.clip, i, calibration, model.config.wrist_hw) for i in frames]
        found.rows[CALIBRATED], found.rows[FILLED] = _stream(model, settings, sets)


def _stream(model: WristModel, settings: StreamSettings, sets: list[AnchorSet]) -> tuple[_Row, _Row]:
    """What a new stream publishes, and its condition maps with their holes filled, of the same frames."""
    wrist = VirtualWrist(model, settings)
    number = {anchors.stamp_ns: i for i, anchors in enumerate(sets)}
    images, filled, frames, valid = [], [], [], []
    maps = {}
    for anchors in sets:
        observation = wrist.reconstruct(anchors)
        condition = observation.condition
        maps[anchors.stamp_ns] = baselines.inpaint(condition.image.cpu().numpy(), condition.depth.cpu().numpy())
        for frame in wrist.generate(observation):
            images.append(frame.image)
            filled.append(maps[frame.stamp_ns])
            frames.append(number[frame.stamp_ns])
            valid.append(frame.valid)
    if not frames:
        raise UserError(f'No frame of a clip of {len(sets)} came out of the stream', 'give a smaller --chunk')
    index, judged = np.array(frames), np.array(valid)
    return _Row(np.stack(images), index, judged), _Row(np.stack(filled), index, judged)


def _add_floors(clips: list[_Clip]) -> None:
    """The mean of the other clips' wrist images, each clip counting alike, and each clip's own first image."""
    means = np.stack([c.truth.mean(0, dtype=np.float64) for c in clips])
    for i, found in enumerate(clips):
        frames = np.arange(len(found.truth))
        others = means[np.arange(len(clips)) != i].mean(0) if len(clips) > 1 else means[i]
        mean = np.rint(others).astype(np.uint8)
        floors = {MEAN: _Row(np.repeat(mean[None], len(frames), 0), frames)}
        if len(frames) > 1:  # the first image is not compared with itself
            floors[FIRST] = _Row(np.repeat(found.truth[:1], len(frames) - 1, 0), frames[1:])
        found.rows = floors | found.rows


def _record(row: _Row, found: _Clip) -> dict[str, float]:
    truth = found.truth[row.frames]
    psnr, ssim = metrics.psnr(row.images, truth), metrics.ssim(row.images, truth)
    record = {
        'psnr': float(psnr.mean()), 'ssim': float(ssim.mean()), 'sharpness': metrics.sharpness(row.images, truth),
        'change': metrics.frame_change(row.images),
    }  # fmt: skip
    if row.valid is not None:
        record['valid_percent'] = 100 * float(row.valid.mean())
        if row.valid.any():
            mean = metrics.psnr(found.rows[MEAN].images[row.frames], truth)
            record |= {
                'valid_psnr': float(psnr[row.valid].mean()), 'valid_ssim': float(ssim[row.valid].mean()),
                'valid_floor': float(mean[row.valid].mean()),
            }  # fmt: skip
    return record


def _head(model: WristModel, settings: StreamSettings, clips: list[_Clip], calibrations: Path | None) -> dict[str, str]:
    height, width = model.config.wrist_hw
    known = sum(CALIBRATED in c.rows for c in clips)
    head = {
        'model': f'{model.config.name}, wrist {width}x{height}, on {model.device.type}',
        'data': f'{len(clips)} real clips, {sum(len(c.truth) for c in clips)} frames, 2 anchors',
        'stream': f'{settings.steps} step(s), chunk {settings.chunk}, history {settings.history}',
        'numbers': 'mean ± standard error over clips; valid: frames that the stream itself calls valid; over them: clips that have '
        'some; floor: the mean image of the other clips over the same frames',
    }
    if calibrations is not None:
        head['calibrated'] = f'{known} of {len(clips)} clips, whose cameras are estimated, in the rows CALIBRATED'
    return head


def _write_clip(folder: Path, found: _Clip, records: dict[str, dict[str, float]]) -> None:
    path = folder / 'clips' / f'{found.clip.name.replace("/", "_")}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {'clip': found.clip.name, 'frames': len(found.truth), 'rows': records}
    path.write_text(json_text(record))


def _shown(found: _Clip) -> list[_Row]:
    return [found.rows[name] for name in (MEAN, RGB, CALIBRATED, FILLED) if name in found.rows]


def contact_sheet(clips: list[tuple[RealClip, np.ndarray, list[_Row]]]) -> np.ndarray:
    """Rows of images of every clip: both anchors, the true wrist image, and what each row of the table has in its place.

    Images of frames that are not valid have a red edge. Returns uint8 [H, W, 3].
    """
    most = max(len(rows) for _, _, rows in clips)
    lines = []
    for clip, truth, rows in clips:
        for share in (np.arange(SHEET_FRAMES) + 0.5) / SHEET_FRAMES:
            i = int(share * len(truth))
            cells = [sheet_cell(clip.images[0, i]), sheet_cell(clip.images[1, i]), sheet_cell(truth[i])]
            for row in rows:
                at = int(np.abs(row.frames - i).argmin())
                cells.append(sheet_cell(row.images[at], row.valid is None or bool(row.valid[at])))
            cells += [np.full_like(sheet_cell(truth[0]), 255)] * (most - len(rows))
            lines.append(np.concatenate(cells, 1))
    return np.concatenate(lines)


def sheet_cell(image: np.ndarray, valid: bool = True) -> np.ndarray:
    """An image as a contact sheet shows it, with a red edge where it is not valid."""
    width = round(SHEET_HEIGHT * image.shape[1] / image.shape[0])
    cell = cv2.resize(image, (width, SHEET_HEIGHT), interpolation=cv2.INTER_AREA)
    if not valid:
        cv2.rectangle(cell, (0, 0), (width - 1, SHEET_HEIGHT - 1), (220, 30, 30), 2)
    return cell
