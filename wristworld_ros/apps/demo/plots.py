"""The report's plots, as SVG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wristworld_ros.apps.demo.measures import COPY, GENERATED, MEAN, OWN_WARP, Quality

INK, MUTED, GRID = '#1c2430', '#6b7686', '#e4e8ee'
BLUE, ORANGE, GREEN, RED = '#2563eb', '#e07b18', '#15966b', '#d0342c'
COLORS = {GENERATED: BLUE, OWN_WARP: ORANGE, COPY: '#9aa5b4', MEAN: '#c58bd6'}
MODE_COLORS = {'rgb': RED, 'calibrated': GREEN, 'rgbd': BLUE}
STYLE: dict[Any, Any] = {
    'font.family': 'DejaVu Sans', 'font.size': 9.5, 'text.color': INK, 'axes.labelcolor': MUTED, 'axes.edgecolor': GRID,
    'xtick.color': MUTED, 'ytick.color': MUTED, 'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True,
    'grid.color': GRID, 'grid.linewidth': 0.8, 'axes.axisbelow': True, 'legend.frameon': False, 'svg.fonttype': 'path',
    'lines.solid_capstyle': 'round', 'xtick.major.size': 0, 'ytick.major.size': 0, 'figure.facecolor': 'white',
    'svg.hashsalt': 'wristworld',
}  # fmt: skip


def quality_plot(quality: Quality, path: Path) -> Path:
    """PSNR and SSIM against the true wrist over time: generated frames and the baselines."""

    def fill(figure):
        axes = figure.subplots(2, 1, sharex=True)
        colors = COLORS | {quality.warp: ORANGE, quality.live: BLUE}
        colors |= {row: MODE_COLORS[mode] for mode, row in quality.modes.items()}
        for axis, series, label in ((axes[0], quality.psnr, 'PSNR, dB'), (axes[1], quality.ssim, 'SSIM')):
            for name in reversed(list(series)):
                main = name == quality.live
                axis.plot(
                    quality.seconds, series[name], color=colors.get(name, MUTED), lw=2 if main else 1.1,
                    alpha=1 if main else 0.85, label=f'{name} ({np.mean(series[name]):.3g})', zorder=3 if main else 2,
                )  # fmt: skip
            axis.set_ylabel(label)
            handles, labels = axis.get_legend_handles_labels()
            axis.legend(
                handles[::-1], labels[::-1], ncol=3 if quality.modes else 4, loc='lower left', bbox_to_anchor=(-0.01, 1.0),
                fontsize=8.5,
            )  # fmt: skip
        axes[1].set_xlabel('seconds')

    return _save(fill, path, height=4.6)


def latency_plot(seconds: np.ndarray, age_s: np.ndarray, model_s: np.ndarray, path: Path) -> Path:
    """Age of each wrist frame when it was published, with running p50 and p95, and how ages are spread."""

    def fill(figure):
        axes = figure.subplots(1, 2, width_ratios=[5, 1], sharey=True)
        ages, model = age_s * 1e3, model_s * 1e3
        p50, p95 = np.percentile(ages, [50, 95])
        axes[0].scatter(seconds, ages, s=12, color=BLUE, alpha=0.4, lw=0, label='one frame')
        axes[0].plot(seconds, _running(ages, 50), color=BLUE, lw=1.8, label=f'p50 ({p50:.0f} ms overall)')
        axes[0].plot(seconds, _running(ages, 95), color=ORANGE, lw=1.8, label=f'p95 ({p95:.0f} ms overall)')
        axes[0].plot(
            seconds, _running(model, 50), color=MUTED, lw=1.2, ls=(0, (3, 2)), label='of which in the model, p50'
        )
        axes[0].set_ylabel('stamp to publishing, ms')
        axes[0].set_xlabel('seconds')
        axes[0].set_ylim(0, max(np.percentile(ages, 99.5) * 1.25, 1))
        axes[0].legend(ncol=4, loc='lower left', bbox_to_anchor=(-0.01, 1.0), fontsize=8.5)
        axes[1].hist(ages, bins=40, orientation='horizontal', color=BLUE, alpha=0.75)
        axes[1].axhline(p50, color=BLUE, lw=1.4)
        axes[1].axhline(p95, color=ORANGE, lw=1.4)
        axes[1].set_xlabel('frames')

    return _save(fill, path, height=2.9)


def trust_plot(
    seconds: np.ndarray,
    coverage: np.ndarray,
    confidence: np.ndarray,
    agreement: np.ndarray,
    valid: np.ndarray,
    path: Path,
) -> Path:
    """Coverage, confidence and agreement (where it is known) over time; invalid frames are shaded."""

    def fill(figure):
        axis = figure.subplots()
        axis.plot(seconds, coverage * 100, color=GREEN, lw=1.8, label=f'coverage ({coverage.mean():.0%})')
        axis.plot(seconds, confidence * 100, color=BLUE, lw=1.8, label=f'confidence ({confidence.mean():.0%})')
        if np.isfinite(agreement).any():
            axis.plot(seconds, agreement * 100, color=ORANGE, lw=1.8, label=f'agreement ({np.nanmean(agreement):.0%})')
        step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.1
        shown = False
        for start, end in _spans(valid < 0.5):
            axis.axvspan(
                seconds[start] - step / 2, seconds[end - 1] + step / 2, color=RED, alpha=0.13, lw=0,
                label=None if shown else f'invalid ({np.mean(valid < 0.5):.0%} of frames)',
            )  # fmt: skip
            shown = True
        axis.set_ylim(0, 102)
        axis.set_ylabel('%')
        axis.set_xlabel('seconds')
        axis.legend(ncol=4, loc='lower left', bbox_to_anchor=(-0.01, 1.0), fontsize=8.5)

    return _save(fill, path, height=2.6)


def _running(values: np.ndarray, percentile: float, width: int = 31) -> np.ndarray:
    """Percentile over a window around each value."""
    half = width // 2
    return np.array([np.percentile(values[max(0, i - half) : i + half + 1], percentile) for i in range(len(values))])


def _spans(mask: np.ndarray) -> list[tuple[int, int]]:
    """Runs of true values as (first, one past the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def _save(fill, path: Path, height: float) -> Path:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, height), layout='constrained')
        FigureCanvasSVG(figure)
        fill(figure)
        figure.savefig(path, format='svg', metadata={'Date': None})
    return path
