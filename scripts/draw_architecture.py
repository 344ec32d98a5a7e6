"""Draws docs/images/architecture.svg from the package's own imports: `python scripts/draw_architecture.py`.

A box is a folder, with the first sentence of its `__init__`; it stands one row above the highest folder that it imports. An
arrow is an import; one that follows from two others is left out.
"""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

import imports

PICTURE = imports.ROOT / 'docs/images/architecture.svg'
BASE = 'types, errors, settings, options'  # one box: files that everything imports
WIDTH, BOX_W, BOX_H, ROW_H, MARGIN = 1080, 320, 78, 116, 20
CHARACTERS = 50  # of a line in a box
INK, MUTED, LINE, FILL, BACK = '#1c2430', '#5b6676', '#8793a5', '#f3f6fa', '#ffffff'


def folders() -> dict[str, set[str]]:
    """Folder -> folders that it imports; the single files at the bottom are one box."""
    bottom = set(imports.FLOORS[0])
    graph = imports.folder_graph(imports.module_graph(), 1)
    merged: dict[str, set[str]] = {BASE: set()}
    for folder, targets in graph.items():
        if folder not in bottom and folder != 'cli':
            merged[folder] = {BASE if target in bottom else target for target in targets}
    return merged


def without_implied(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same graph without edges that a longer path has as well."""

    def reach(node: str) -> set[str]:
        found: set[str] = set()
        for target in graph[node]:
            found |= {target} | reach(target)
        return found

    return {
        node: {t for t in targets if not any(t in reach(other) for other in targets - {t})}
        for node, targets in graph.items()
    }


def rows(graph: dict[str, set[str]]) -> list[list[str]]:
    """Folders by row, the lowest first."""
    height: dict[str, int] = {}

    def level(node: str) -> int:
        if node not in height:
            height[node] = 1 + max((level(target) for target in graph[node]), default=-1)
        return height[node]

    found: list[list[str]] = [[] for _ in range(1 + max(level(node) for node in graph))]
    for node in sorted(graph, key=lambda n: next((i for i, f in enumerate(imports.FLOORS) if n in f), -1)):
        found[height[node]].append(node)
    return found


def sentence(folder: str) -> str:
    """The first sentence of a folder's docstring."""
    if folder == BASE:
        return 'The data that flows through the package, its errors, and every setting once.'
    text = ast.get_docstring(ast.parse((imports.ROOT / imports.NAME / folder / '__init__.py').read_text())) or ''
    first = ' '.join(text.split('\n\n')[0].split()).replace('`', '').split('. ')[0]
    return first.rstrip('.') + '.' if first else ''


def places(table: list[list[str]]) -> dict[str, tuple[float, float]]:
    """Upper left corner of each box."""
    found = {}
    for r, row in enumerate(table):
        gap = (WIDTH - len(row) * BOX_W) / (len(row) + 1)
        for c, folder in enumerate(row):
            found[folder] = gap + c * (BOX_W + gap), MARGIN + (len(table) - 1 - r) * ROW_H
    return found


def box(folder: str, x: float, y: float) -> list[str]:
    """One box with its text."""
    lines = textwrap.wrap(sentence(folder), CHARACTERS)[:3]
    name = folder if folder == BASE else f'{folder}/'
    parts = [
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{BOX_W}" height="{BOX_H}" rx="7" fill="{FILL}" stroke="{LINE}"/>',
        f'<text x="{x + 12:.0f}" y="{y + 21:.0f}" font-size="15" font-weight="bold" fill="{INK}">{escape(name)}</text>',
    ]
    for i, line in enumerate(lines):
        parts.append(
            f'<text x="{x + 12:.0f}" y="{y + 38 + 14 * i:.0f}" font-size="11" fill="{MUTED}">{escape(line)}</text>'
        )
    return parts


def arrow(start: tuple[float, float], end: tuple[float, float], shift: float) -> str:
    """From the lower edge of one box to the upper edge of another."""
    x0, y0, x1, y1 = start[0] + BOX_W / 2 + shift, start[1] + BOX_H, end[0] + BOX_W / 2 + shift, end[1] - 4
    bend = (y1 - y0) / 2
    path = f'M {x0:.0f} {y0:.0f} C {x0:.0f} {y0 + bend:.0f}, {x1:.0f} {y1 - bend:.0f}, {x1:.0f} {y1:.0f}'
    return f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.4" marker-end="url(#head)"/>'


def draw() -> str:
    """The whole picture as SVG."""
    graph = folders()
    table = rows(graph)
    where, height = places(table), 2 * MARGIN + (len(table) - 1) * ROW_H + BOX_H
    head = f'<path d="M 0 0 L 8 4 L 0 8 z" fill="{LINE}"/>'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="DejaVu Sans, Arial, sans-serif">',
        f'<defs><marker id="head" markerWidth="8" markerHeight="8" refX="4" refY="4" orient="auto">{head}</marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="{BACK}"/>',
    ]
    for node, targets in without_implied(graph).items():
        ordered = sorted(targets, key=lambda t: where[t][0])
        for i, target in enumerate(ordered):
            parts.append(arrow(where[node], where[target], 26 * (i - (len(ordered) - 1) / 2)))
    for folder, (x, y) in where.items():
        parts += box(folder, x, y)
    return '\n'.join([*parts, '</svg>']) + '\n'


if __name__ == '__main__':
    Path(PICTURE).write_text(draw())
