"""What a run shows while it trains: `log.jsonl`, a progress bar with the time left, TensorBoard, and sample pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from wristworld_ros.errors import UserError, require_package
from wristworld_ros.input_files import decode_json, json_text
from wristworld_ros.runtime.files import write_atomically
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.training.parallel import process_count, rank

LOG, SAMPLES, TENSORBOARD = 'log.jsonl', 'samples', 'tensorboard'


@dataclass
class _LogLine:
    """What is read of a line of `log.jsonl`."""

    step: int


class TermMeans:
    """Means of the terms since they were last asked for, over the steps and over all processes."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Take in the terms of one batch; their names are the same at every one."""
        for name, value in terms.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def take(self) -> dict[str, float]:
        """The means, and begin again; every process calls it together."""
        names, count = list(self._sums), self._count
        values = torch.stack([self._sums[name] for name in names]) / max(count, 1) if names else torch.zeros(0)
        self._sums, self._count = {}, 0
        if process_count() > 1 and names:
            values = values.float()
            torch.distributed.all_reduce(values)
            values = values / process_count()
        return dict(zip(names, values.tolist(), strict=True))


class Monitor:
    """Everything that a run shows; only the first process shows anything.

    Args:
        folder: Of the run.
        step: Where it continues; lines of the log after it are dropped, for these steps come again.
        steps: In all; None where the clock ends the run.
        tensorboard: Whether to write event files too.

    Raises:
        UserError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, step: int, steps: int | None, tensorboard: bool):
        self._folder, self._shows, self._writer = folder, rank() == 0, None
        self._bar = ProgressBar(
            total=steps, initial=step, desc=folder.name, unit='step', mininterval=5, disable=not self._shows
        )
        if not self._shows:
            return
        if tensorboard:
            require_package('tensorboard', 'train', 'Writing for TensorBoard')
            import tensorboard
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1)
        path = folder / LOG
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text(''.join(line for line in lines if _step_of(line) <= step))

    def advance(self, left_seconds: float | None = None) -> None:
        """One step more; left_seconds: of a run that the clock ends."""
        self._bar.update()
        if left_seconds is not None:
            self._bar.set_postfix_str(f'{left_seconds / 60:.1f} min left', refresh=False)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a line to the log, with its step under 'step'."""
        if not self._shows:
            return
        with open(self._folder / LOG, 'a') as f:
            f.write(json_text(dict(record), indent=None))
        if self._writer is not None:
            for name, value in record.items():
                if name != 'step' and isinstance(value, int | float) and math.isfinite(value):
                    self._writer.add_scalar(name, value, record['step'])

    def show(self, step: int, picture: np.ndarray) -> None:
        """Keep a sample picture, uint8 [H, W, 3] RGB."""
        if not self._shows:
            return
        with write_atomically(self._folder / SAMPLES / f'{step:08d}.png') as part:
            cv2.imwrite(str(part), picture[..., ::-1])
        if self._writer is not None:
            self._writer.add_image('samples', picture, step, dataformats='HWC')

    def close(self) -> None:
        """Nothing more will be shown."""
        self._bar.close()
        if self._writer is not None:
            self._writer.close()


def film_strips(videos: Sequence[np.ndarray], frames: int = 6) -> np.ndarray:
    """Videos one above the other as a sample picture: `frames` of them, spread evenly, side by side.

    Args:
        videos: uint8 [F, H, W, 3] each.
        frames: All where there are fewer.

    Returns:
        uint8 [len(videos) H, frames W, 3].
    """
    count = len(videos[0])
    chosen = np.unique(np.linspace(0, count - 1, min(frames, count)).round().astype(int))
    return np.concatenate([np.concatenate(list(video[chosen]), axis=1) for video in videos], axis=0)


def _step_of(line: str) -> float:
    try:
        return decode_json(line, _LogLine, LOG).step
    except UserError:  # the last line of a run that was killed
        return math.inf
