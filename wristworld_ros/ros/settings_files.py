"""The files that repeat what `settings.py` says: the node's YAML and the tables of the docs.

`python -m wristworld_ros.ros.settings_files` writes them; a test checks that they are in step.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import yaml

from wristworld_ros.evaluation.table import markdown
from wristworld_ros.options import default_of
from wristworld_ros.setting import allowed, kind_of, shown
from wristworld_ros.settings import CameraSettings, NodeSettings

WRITTEN = 'Written from wristworld_ros/settings.py by `python -m wristworld_ros.ros.settings_files`; change it there.'
HEADER = ('name', 'type', 'default', 'allowed', 'live', 'meaning')


def yaml_text() -> str:
    """config/virtual_wrist.yaml: every parameter of the node at its default.

    For any node that reads it (`/**`), the one form that --params-file and `ros2 param load` both take in any namespace.
    """
    lines = [f'# {WRITTEN}', '/**:', '  ros__parameters:']
    for f in fields(NodeSettings):
        lines += [f'    # {f.metadata["doc"]}', f'    {f.name}: {_in_yaml(shown(f, default_of(f)))}']
    return '\n'.join(lines) + '\n'


def docs_text() -> str:
    """docs/settings.md."""
    return f"""# Settings

<!-- {WRITTEN} -->
Live settings may change at any time (`ros2 param set`), the others while the node is not configured. A value out of
its bounds is refused with the reason. A word that is allowed beside numbers (`auto`, `never`, ...) is written in YAML, on
the command line and with `ros2 param set` alike.

## The node `virtual_wrist`

{_table(NodeSettings)}

## The node `camera`

These are read once, at the start.

{_table(CameraSettings)}
"""


def files(root: Path) -> dict[Path, str]:
    """Every written file and its text."""
    return {root / 'config/virtual_wrist.yaml': yaml_text(), root / 'docs/settings.md': docs_text()}


def _table(record: type) -> str:
    rows = []
    for f in fields(record):
        kind = 'string array' if kind_of(f) == 'list' else kind_of(f)
        live = 'yes' if f.metadata['live'] else ''
        rows.append(
            (f'`{f.name}`', kind, f'`{_in_yaml(shown(f, default_of(f)))}`', allowed(f), live, f.metadata['doc'])
        )
    return markdown(HEADER, rows, align='l' * len(HEADER))


def _in_yaml(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix('...\n').strip()


if __name__ == '__main__':
    for path, text in files(Path(__file__).resolve().parents[2]).items():
        path.write_text(text)
