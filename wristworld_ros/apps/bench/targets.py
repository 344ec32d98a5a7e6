"""What the published size is to reach on a GPU, beside what was measured. A target that is missed is told, nothing fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FULL_SIZE = 1_000_000_000  # parameters
STEPS = 4
NOT_MEASURED = 'not measured'
RATE = 'overlapped_per_second'


@dataclass(frozen=True)
class Target:
    """read: takes the figure out of a case, None where the case has it not. least: whether it is a lower bound."""

    name: str
    limit: float
    unit: str
    read: Callable[[dict], float | None]
    least: bool = False

    def row(self, cases: list[dict]) -> dict:
        """name, target, measured (or 'not measured'), met (or None)."""
        found = [value for case in cases if _counts(case) if (value := self.read(case)) is not None]
        bound = f'{"at least" if self.least else "at most"} {self.limit:g} {self.unit}'
        if not found:
            return {'name': self.name, 'target': bound, 'measured': NOT_MEASURED, 'met': None}
        worst = min(found) if self.least else max(found)
        met = worst >= self.limit if self.least else worst <= self.limit
        return {'name': self.name, 'target': bound, 'measured': f'{worst:.3g} {self.unit}', 'met': met}


def _counts(case: dict) -> bool:
    return case['device'] == 'cuda' and case['parameters'] >= FULL_SIZE


def _part(name: str) -> Callable[[dict], float | None]:
    """Milliseconds of a part with anchors of the published size."""

    def read(case: dict) -> float | None:
        if case['anchor_hw'] != [294, 518]:
            return None
        return next((row['ms'] for row in case['parts'] if row['part'] == name), None)

    return read


def _stream(key: str, wrist_hw: tuple[int, int] | None = None) -> Callable[[dict], float | None]:
    """A figure of the stream of one-latent chunks in four steps from two views; the slowest of those measured counts."""

    def read(case: dict) -> float | None:
        fits = case['chunk'] == 1 and case['steps'] == STEPS and case['anchor_hw'] == [294, 518]
        if not fits or (wrist_hw and case['wrist_hw'] != list(wrist_hw)):
            return None
        figures = case['stream'][0]
        return figures[key] or figures['frames_per_second'] if key == RATE else figures[key]

    return read


TARGETS = (
    Target('stage 1, two 518x294 views, wrist pose and points', 40, 'ms', _part('stage 1, 2 views')),
    Target('condition map of two 518x294 views', 1, 'ms', _part('condition map')),
    Target('wrist frames, 4 steps, 480x832', 20, '/s', _stream(RATE, (480, 832)), least=True),
    Target('wrist frames, 4 steps, 256x256', 45, '/s', _stream(RATE, (256, 256)), least=True),
    Target('anchors pushed to frame ready, p95, chunk of one latent frame', 500, 'ms', _stream('latency_p95_ms')),
    Target('peak memory', 20_000, 'MB', lambda case: case['peak_mib'] * 2**20 / 1e6),
    Target('aim: wrist frames, 480x832', 30, '/s', _stream(RATE, (480, 832)), least=True),
    Target('aim: anchors pushed to frame ready, p95, 480x832', 250, 'ms', _stream('latency_p95_ms', (480, 832))),
)


def compare(cases: list[dict]) -> list[dict]:
    """A row for each target."""
    return [target.row(cases) for target in TARGETS]
