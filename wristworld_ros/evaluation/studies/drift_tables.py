"""What `evaluation.drift` measured, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A stream that was broken is itself again when its PSNR is off by no more than this, dB. Ahead is off too: broken history
# may please PSNR by chance.
RECOVERED = 0.3
MEASURES = ('PSNR dB', 'SSIM', 'sharpness', 'change')


@dataclass(frozen=True)
class Drift:
    """One episode at one number of steps.

    bin_frames: frames a bin. bins: float64 [bins, 4], `MEASURES` of each bin of a long stream; apart: [4], of the first bin
    without history; anchored: [4], of the first bin of a stream that re-anchors. seams: [3], seam ratio at the frames where
    that begins again, of it, of the long stream and of the true video. recovery: [frames], dB that a stream is ahead of one that was not broken.
    """

    steps: int
    bin_frames: int
    bins: np.ndarray
    apart: np.ndarray
    anchored: np.ndarray
    seams: np.ndarray
    recovery: np.ndarray

    @property
    def fall(self) -> float:
        """PSNR of the last bin less that of the first, dB; below 0 it wore out."""
        return float(self.bins[-1, 0] - self.bins[0, 0])

    @property
    def slope(self) -> float:
        """Slope of PSNR over the bins, dB in 1,000 frames; NaN for one bin."""
        if len(self.bins) < 2:
            return float('nan')
        return float(np.polyfit(np.arange(len(self.bins)) * self.bin_frames / 1000, self.bins[:, 0], 1)[0])

    @property
    def recovered(self) -> float:
        """Frames after which it never again is off by more than `RECOVERED`; NaN where it still is at the end."""
        off = np.flatnonzero(np.abs(self.recovery) > RECOVERED)
        last = off[-1] + 1 if len(off) else 0
        return float('nan') if last == len(self.recovery) else float(last)


def tables(found: Sequence[Drift], every: int) -> list[list[str]]:
    """Markdown: quality over time, drift, re-anchoring every so many chunks, recovery; means over episodes."""
    groups = {steps: [d for d in found if d.steps == steps] for steps in sorted({d.steps for d in found})}
    return [time_table(groups), drift_table(groups), reanchor_table(groups, every), recovery_table(groups)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ['| ' + ' | '.join(heads) + ' |', '| ' + ' | '.join(['--:'] * len(heads)) + ' |']
    return lines + ['| ' + ' | '.join(row) + ' |' for row in rows]


def _spread(values: Sequence[float]) -> str:
    return f'{np.mean(values):+.3f} ± {np.std(values):.3f}'


def time_table(groups: dict[int, list[Drift]]) -> list[str]:
    """A row a bin, four columns for each number of steps; below, the same content drawn without history."""
    heads = ['frames', *(f'{m}, {n} step{"s" * (n > 1)}' for n in groups for m in MEASURES)]
    size = round(np.mean([d.bin_frames for ds in groups.values() for d in ds]))
    rows = []

    def cells(values: np.ndarray) -> list[str]:
        return [f'{v:.{places}f}' for v, places in zip(values, (2, 3, 2, 1), strict=True)]

    for i in range(min(len(d.bins) for ds in groups.values() for d in ds)):
        means = [np.mean([d.bins[i] for d in ds], axis=0) for ds in groups.values()]
        rows.append([f'{i * size} to {(i + 1) * size - 1}', *(c for mean in means for c in cells(mean))])
    apart = [np.mean([d.apart for d in ds], axis=0) for ds in groups.values()]
    rows.append(['without history', *(c for mean in apart for c in cells(mean))])
    return _table(heads, rows)


def drift_table(groups: dict[int, list[Drift]]) -> list[str]:
    """Last bin less first bin and slope of PSNR, mean ± standard deviation over episodes, and the worst episode."""
    heads = ('steps', 'drift, dB', 'worst episode, dB', 'slope, dB in 1,000 frames', 'sharpness, last less first')
    rows = []
    for steps, ds in groups.items():
        falls = [d.fall for d in ds]
        sharper = [d.bins[-1, 2] - d.bins[0, 2] for d in ds]
        rows.append([str(steps), _spread(falls), f'{min(falls):+.3f}', _spread([d.slope for d in ds]), _spread(sharper)])  # fmt: skip
    return _table(heads, rows)


def reanchor_table(groups: dict[int, list[Drift]], every: int) -> list[str]:
    """Whether a re-anchoring shows: the change from frame to frame at its frames by that elsewhere, and its price."""
    heads = (
        'steps', f'seam ratio, every {every} chunks', 'same frames, never', 'same frames, true video',
        f'PSNR dB, every {every} chunks', 'never', 'without history', f'change, every {every} chunks', 'never',
        'without history',
    )  # fmt: skip
    rows = []
    for steps, ds in groups.items():
        seams = np.mean([d.seams for d in ds], axis=0)
        quality = np.mean([(d.anchored, d.bins[0], d.apart) for d in ds], axis=0)
        rows.append([str(steps), *(f'{v:.2f}' for v in (*seams, *quality[:, 0], *quality[:, 3]))])
    return _table(heads, rows)


def recovery_table(groups: dict[int, list[Drift]], at: Sequence[int] = (1, 2, 4, 8, 16, 32)) -> list[str]:
    """Frames until a stream that began with noise is back, and how far off its PSNR is after so many frames, dB."""
    shown = [n for n in at if n <= min(len(d.recovery) for ds in groups.values() for d in ds)]
    heads = ['steps', 'frames to recover, mean', 'worst episode', *(f'off at frame {n}, dB' for n in shown)]
    rows = []
    for steps, ds in groups.items():
        frames = [d.recovered for d in ds]
        mean = np.mean([[abs(d.recovery[n - 1]) for n in shown] for d in ds], axis=0)
        rows.append([str(steps), f'{np.mean(frames):.1f}', f'{np.max(frames):.0f}', *(f'{v:.2f}' for v in mean)])
    return _table(heads, rows)
