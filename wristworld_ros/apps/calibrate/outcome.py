"""What a calibration gives its report, whichever way it was made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wristworld_ros.robot.calibration_file import Calibration, PlacedCamera

GOOD_MM, FAIR_MM = 5.0, 15.0  # expected errors at the workspace: `docs/calibration.md` says what they are worth


@dataclass(frozen=True)
class Plot:
    """A plot of the page. title, lead: above it. svg: text."""

    title: str
    lead: str
    svg: str


@dataclass(frozen=True)
class Outcome:
    """A finished calibration of one camera.

    title: what was calibrated. calibration: of it alone. camera: the one camera in it. facts: value, unit, label. header, rows:
    the table of poses, as text. bad: indices of rows that do not agree with the others. notes: sentences, each with what to do.
    picture_lead: what the pictures show. pictures: caption, uint8 [h, w, 3] RGB.
    """

    title: str
    calibration: Calibration
    camera: PlacedCamera
    facts: list[tuple[str, str, str]]
    header: list[str]
    rows: list[list[str]]
    bad: tuple[int, ...]
    notes: list[str]
    picture_lead: str
    pictures: list[tuple[str, np.ndarray]]
    plots: list[Plot]

    @property
    def verdict(self) -> tuple[str, str]:
        """Level (good, fair, poor) and headline."""
        assert self.camera.quality is not None  # whatever was calibrated has one
        expected = self.camera.quality.expected_mm
        if expected > FAIR_MM:
            return 'poor', f'Points in the workspace are known to {expected:.0f} mm only; record more and other poses'
        headline = f'Points in the workspace are known to about {expected:.1f} mm'
        if self.notes:
            return 'fair', f'{headline}; read the notes'
        return ('good' if expected <= GOOD_MM else 'fair'), headline

    def text(self) -> str:
        """The table of poses and the notes, for a terminal."""
        cells = [['', *self.header], *([('!' if i in self.bad else ' '), *row] for i, row in enumerate(self.rows))]
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        lines = [
            '  '.join(cell.rjust(w) if i > 1 else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths)))
            for row in cells
        ]
        facts = [f'{label}: {value}{unit and " "}{unit}' for value, unit, label in self.facts]
        return '\n'.join(
            [self.title, *(line.rstrip() for line in lines), '', *facts, *(f'Note: {note}' for note in self.notes)]
        )
