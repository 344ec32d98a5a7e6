"""The one table of the package: `EvaluationTable` of an evaluation, and `aligned` and `markdown` for any rows of text."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Column:
    """One measure.

    key: its name in the records. title: with its unit. digits: after the decimal point. better: which way is better, up,
    down, one (close to 1) or none.
    """

    key: str
    title: str
    digits: int
    better: str = 'none'


COLUMNS = (
    Column('psnr', 'PSNR dB', 2, 'up'),
    Column('ssim', 'SSIM', 3, 'up'),
    Column('valid_percent', 'valid %', 0),
    Column('valid_psnr', 'PSNR of valid dB', 2, 'up'),
    Column('valid_ssim', 'SSIM of valid', 3, 'up'),
    Column('valid_floor', 'floor of valid dB', 2),
    Column('object_psnr', 'object dB', 2, 'up'),
    Column('found', 'found', 2, 'up'),
    Column('found_near', 'found near', 2, 'up'),
    Column('found_far', 'found far', 2, 'up'),
    Column('contrast', 'contrast', 2, 'one'),
    Column('shift', 'shift px', 1, 'down'),
    Column('object_sharpness', 'object sharpness', 2, 'one'),
    Column('flicker', 'flicker', 1, 'down'),
    Column('sharpness', 'sharpness', 2, 'one'),
    Column('change', 'change', 1),
    Column('rotation_deg', 'wrist deg', 2, 'down'),
    Column('position_m', 'wrist m', 3, 'down'),
    Column('aligned_rotation_deg', 'aligned deg', 2, 'down'),
    Column('aligned_position_m', 'aligned m', 3, 'down'),
    Column('scale_percent', 'scale %', 1, 'down'),
    Column('cloud_median_px', 'cloud px (median)', 1, 'down'),
    Column('cloud_mean_px', 'cloud px (mean)', 1, 'down'),
    Column('lpips', 'LPIPS', 3, 'down'),
    Column('fvd', 'FVD', 0, 'down'),
    Column('sim_fvd', 'sim-FVD', 2, 'down'),
)
LEGEND = (
    'found: share of objects best found within 5 px of 128 of their place, correlated by 0.5 or more (near: closer to the '
    'camera than 0.2 m); contrast: share of their colour difference from the surroundings that is there; shift: how far from '
    'their place they are best found; flicker: change where the true video stands still, grey levels; '
    'sharpness: gradients relative to the true image, 1 is as sharp as the truth; '
    'change: from frame to frame, grey levels; '
    "wrist deg, m: wrist pose in the first anchor's frame, as TF has it; "
    'aligned deg, m: after one similarity an episode that fits the anchors alone; '
    'scale %: error of the distances between the anchors; '
    "cloud px: the model's points in its own wrist camera against where they truly are, wrist pixels."
)


@dataclass
class EvaluationTable:
    """Measures of every row on the same frames.

    head: what was evaluated, as text pairs. rows: row name -> one record of measures per episode (missing or NaN where
    a measure has no meaning). whole: row name -> measures of all episodes together (FVD).
    """

    head: dict[str, str]
    rows: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    whole: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, row: str, record: dict[str, float]) -> None:
        """Append one episode's record to a row."""
        self.rows.setdefault(row, []).append({k: float(v) for k, v in record.items()})

    def values(self, row: str, key: str) -> np.ndarray:
        """One measure of a row, float64 [episodes that have it]."""
        values = np.array([record.get(key, math.nan) for record in self.rows[row]])
        return values[np.isfinite(values)]

    def mean(self, row: str, key: str) -> float:
        """Mean over episodes; NaN where the row does not have this measure."""
        if key in self.whole.get(row, {}):
            return self.whole[row][key]
        values = self.values(row, key)
        return float(values.mean()) if len(values) else math.nan

    def deviation(self, row: str, key: str) -> float:
        """Standard deviation over episodes; NaN where the row does not have this measure, 0 for one episode."""
        values = self.values(row, key)
        return float(values.std()) if len(values) else math.nan

    def error(self, row: str, key: str) -> float:
        """Standard error of the mean; NaN where there are fewer than two episodes with this measure."""
        values = self.values(row, key)
        return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan

    def columns(self) -> list[Column]:
        """The columns that at least one row fills."""
        return [c for c in COLUMNS if any(math.isfinite(self.mean(row, c.key)) for row in self.rows)]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows as text: mean ± standard error, and - where a row has no such measure."""
        columns = self.columns()
        lines = [[row, *(self._cell(row, c) for c in columns)] for row in self.rows]
        return ['row', *(c.title for c in columns)], lines

    def _cell(self, row: str, column: Column) -> str:
        mean, error = self.mean(row, column.key), self.error(row, column.key)
        if not math.isfinite(mean):
            return '-'
        text = f'{mean:.{column.digits}f}'
        if math.isfinite(error):
            text += f' ± {error:.{column.digits}f}'
        return text

    def text(self) -> str:
        """The aligned table with its head and legend, for a terminal."""
        head = '\n'.join(f'{key}: {value}' for key, value in self.head.items())
        return f'{head}\n\n{aligned(*self.cells())}\n\n{LEGEND}'

    def markdown(self) -> str:
        """The same as Markdown."""
        head = '; '.join(f'{key}: {value}' for key, value in self.head.items())
        return f'{markdown(*self.cells())}\n\n{head}.\n\n{LEGEND}\n'

    def record(self) -> dict:
        """Everything, ready for JSON; NaN becomes null."""
        columns = [c.key for c in self.columns()]
        summary = {
            row: {key: {'mean': self.mean(row, key), 'deviation': self.deviation(row, key)} for key in columns}
            for row in self.rows
        }
        return _finite({'head': self.head, 'summary': summary, 'episodes': self.rows})

    def write(self, folder: Path) -> Path:
        """Write table.{txt,md,csv,json} below `folder`, which is created if necessary, and return it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'table.txt').write_text(self.text() + '\n')
        (folder / 'table.md').write_text(self.markdown())
        (folder / 'table.json').write_text(json.dumps(self.record(), indent=1) + '\n')
        with open(folder / 'table.csv', 'w', newline='') as file:
            writer = csv.writer(file)
            columns = self.columns()
            writer.writerow(['row', *(f'{c.key}_{part}' for c in columns for part in ('mean', 'deviation'))])
            for row in self.rows:
                parts = ((self.mean(row, c.key), self.deviation(row, c.key)) for c in columns)
                writer.writerow([row, *(f'{x:.6g}' if math.isfinite(x) else '' for pair in parts for x in pair)])
        return folder


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text: the first column to the left, the others to the right."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]

    def line(cells):
        return '  '.join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths))).rstrip()

    return '\n'.join([line(header), '  '.join('-' * w for w in widths), *map(line, rows)])


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = '') -> str:
    """A Markdown table.

    Args:
        header: Titles of the columns.
        rows: Cells as text; a vertical bar in one does not end it.
        align: 'l' or 'r' for each column: text to the left, numbers to the right. '' puts the first column to the left
            and the others to the right.

    Raises:
        ValueError: `align` names another number of columns, or has another letter.
    """
    align = align or 'l' + 'r' * (len(header) - 1)
    if len(align) != len(header) or set(align) - set('lr'):
        raise ValueError(f'align is {align!r} for {len(header)} columns; give l or r for each.')
    rule = ['---' if letter == 'l' else '--:' for letter in align]
    lines = [header, rule, *([cell.replace('|', '\\|') for cell in row] for row in rows)]
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)


def _finite(value):
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
