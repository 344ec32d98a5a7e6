"""The files that say again what `settings.py` says: the node's YAML and the table in the docs.

`python -m wristworld_ros.ros.settings_files` writes them; a test checks that they are in step.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import yaml

from wristworld_ros.settings import CameraSettings, NodeSettings

WRITTEN = 'Written from wristworld_ros/settings.py by `python -m wristworld_ros.ros.settings_files`; change it there.'


def default(f: Field) -> Any:
    """The default of one setting."""
    return f.default if f.default_factory is MISSING else f.default_factory()


def yaml_text() -> str:
    """config/virtual_wrist.yaml: every parameter of the node at its default."""
    lines = [f'# {WRITTEN}', '/**/virtual_wrist:', '  ros__parameters:']
    for f in fields(NodeSettings):
        value = yaml.safe_dump(default(f), default_flow_style=True, width=1000).removesuffix('...\n').strip()
        lines += [f'    # {f.metadata["doc"]}', f'    {f.name}: {value}']
    return '\n'.join(lines) + '\n'


def table(settings: type) -> list[str]:
    """The settings of one record as a table."""
    lines = ['| name | type | default | allowed | live | meaning |', '| --- | --- | --- | --- | --- | --- |']
    for f in fields(settings):
        m = f.metadata
        allowed = ', '.join(m['choices']) if m['choices'] else '' if m['low'] is None else f'{m["low"]} to {m["high"]}'
        kind = 'string array' if f.type == 'list' else f.type
        lines.append(
            f'| `{f.name}` | {kind} | `{default(f)!r}` | {allowed} | {"yes" if m["live"] else ""} | {m["doc"]} |'
        )
    return lines


def docs_text() -> str:
    """docs/settings.md."""
    return '\n'.join(
        [
            '# Settings',
            '',
            f'<!-- {WRITTEN} -->',
            'Live settings may change at any time (`ros2 param set`), the others while the node is not configured. A value out of',
            'its bounds is refused with the reason.',
            '',
            '## The node `virtual_wrist`',
            '',
            *table(NodeSettings),
            '',
            '## The node `camera`',
            '',
            'These are read once, at the start.',
            '',
            *table(CameraSettings),
            '',
        ]
    )


def files(root: Path) -> dict[Path, str]:
    """Every written file and its text."""
    return {root / 'config/virtual_wrist.yaml': yaml_text(), root / 'docs/settings.md': docs_text()}


if __name__ == '__main__':
    for path, text in files(Path(__file__).resolve().parents[2]).items():
        path.write_text(text)
