"""How good the recorded wrist frames are, where the true wrist camera was recorded too."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wristworld_ros.data.recording import CONDITION, TRUE_WRIST, WRIST, Recording
from wristworld_ros.evaluation import baselines, metrics
from wristworld_ros.evaluation.table import EvaluationTable

GENERATED, OWN_WARP, COPY, MEAN = (
    'generated',
    'warp of own geometry + inpainting',
    'copy of an anchor',
    'mean wrist image',
)


@dataclass(frozen=True)
class Quality:
    """seconds: float64 [N], since the first wrist frame. psnr, ssim: row -> float64 [N]. table: one record a row."""

    seconds: np.ndarray
    psnr: dict[str, np.ndarray]
    ssim: dict[str, np.ndarray]
    table: EvaluationTable


def measure(recording: Recording, mean_wrist: np.ndarray | None = None) -> Quality | None:
    """Quality of every wrist frame that has a true one within the slop; None where there is no true wrist camera.

    mean_wrist: the training set's mean image, uint8 [h, w, 3] of any size, or None to leave its row out.
    """
    if not recording.has_truth:
        return None
    videos: dict[str, list[np.ndarray]] = {GENERATED: [], OWN_WARP: [], COPY: []}
    truth, seconds = [], []
    first = recording.views[0]['stamp_ns']
    for view in recording.views:
        stamp = view['stamp_ns']
        streams = (WRIST, TRUE_WRIST, CONDITION, f'anchor_{recording.anchors[0]}')
        pictures = [p for stream in streams if (p := recording.nearest(stream, stamp)) is not None]
        if len(pictures) < len(streams):
            continue
        image, true, condition, anchor = pictures
        hw = image.shape[:2]
        truth.append(_sized(true, hw))
        videos[GENERATED].append(image)
        videos[OWN_WARP].append(_sized(baselines.inpaint(condition), hw))
        videos[COPY].append(baselines.anchor_copy(anchor, hw))
        seconds.append((stamp - first) * 1e-9)
    if not truth:
        return None
    true_video = np.stack(truth)
    stacked = {name: np.stack(frames) for name, frames in videos.items()}
    if mean_wrist is not None:
        stacked[MEAN] = np.repeat(_sized(mean_wrist, true_video.shape[1:3])[None], len(true_video), 0)
    table = EvaluationTable(
        head={'frames': f'{len(true_video)}, fit or not, against the true wrist camera of the same stamp'}
    )
    psnr, ssim = {}, {}
    for name, video in stacked.items():
        psnr[name], ssim[name] = metrics.psnr(video, true_video), metrics.ssim(video, true_video)
        record = {'psnr': psnr[name].mean(), 'ssim': ssim[name].mean()}
        table.add(
            name, record | {'sharpness': metrics.sharpness(video, true_video), 'change': metrics.frame_change(video)}
        )
    table.add('true wrist', {'sharpness': 1.0, 'change': metrics.frame_change(true_video)})
    return Quality(np.array(seconds), psnr, ssim, table)


def _sized(image: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == tuple(hw):
        return image
    shrinks = hw[0] * hw[1] < image.shape[0] * image.shape[1]
    return cv2.resize(image, hw[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
