"""The files that repeat what `config` and `presets` say: config/train and docs/training_settings.md.

`python -m wristworld_ros.training.config_files` writes them; a test checks that they are in step.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from textwrap import wrap
from typing import get_type_hints

import yaml

from wristworld_ros.evaluation.table import markdown
from wristworld_ros.options import default_of
from wristworld_ros.setting import allowed, kind_of, shown
from wristworld_ros.training.config import Schedule
from wristworld_ros.training.config_reading import as_content
from wristworld_ros.training.presets import presets
from wristworld_ros.training.recipes import RECIPES, Config

COMMAND = 'python -m wristworld_ros.training.config_files'
_WRITTEN = (
    f'Written from wristworld_ros/training by `{COMMAND}`; change it there, or copy this file and change the copy.'
)
_NOTES = {
    ('sim_tiny', 'decoder'): "The shipped sim_tiny has no video autoencoder, and so nothing for a tiny decoder to learn; this is the recipe for a small model of your own that has one.",
}  # fmt: skip
_HEADER = ('key', 'type', 'default', 'allowed', 'meaning')


def config_text(name: str, stage: str, config: Config) -> str:
    """One file of config/train: every key with its meaning above it."""
    content = as_content(config)
    summary = ' '.join((type(config).__doc__ or '').split())
    note = _NOTES.get((name, stage), '')
    lines = [*_comment(_WRITTEN, ''), *_comment(f'{summary} {note}'.strip(), '')]
    lines += [f'stage: {stage}', f'recipe: {content["recipe"]}']
    for section in fields(config):
        record = getattr(config, section.name)
        lines += ['', *_comment(' '.join((type(record).__doc__ or '').split()), ''), f'{section.name}:']
        for f in fields(record):
            bounds = allowed(f)
            doc = f.metadata['doc'] + (f' ({bounds})' if bounds else '')
            lines += [*_comment(doc, '  '), f'  {f.name}: {in_yaml(content[section.name][f.name])}']
    return '\n'.join(lines) + '\n'


def docs_text() -> str:
    """docs/training_settings.md."""
    parts = [
        '# Keys of training configurations',
        f'<!-- Written from the records in wristworld_ros/training/config*.py by `{COMMAND}`; change it there. -->\n'
        '`wristworld train STAGE EPISODES --config FILE` reads one of `config/train`, or a copy of yours ([training](training.md)). '
        'Every key may be left out and then has the default below; an unknown one is refused, before any weights are read.',
    ]
    for stage, recipes in RECIPES.items():
        for recipe, record in recipes.items():
            parts.append(f'## `stage: {stage}`, `recipe: {recipe}`\n\n{" ".join((record.__doc__ or "").split())}')
            for name, kind in get_type_hints(record).items():
                if kind is not Schedule:
                    parts.append(f'### `{name}`\n\n{" ".join((kind.__doc__ or "").split())}\n\n{_table(kind)}')
    parts.append(f'## `schedule`, of every stage\n\n{" ".join((Schedule.__doc__ or "").split())}\n\n{_table(Schedule)}')
    return '\n\n'.join(parts) + '\n'


def files(root: Path) -> dict[Path, str]:
    """Every written file and its text."""
    found = {
        root / f'config/train/{name}/{stage}.yaml': config_text(name, stage, c)
        for (name, stage), c in presets().items()
    }
    return found | {root / 'docs/training_settings.md': docs_text()}


def in_yaml(value: object) -> str:
    """A value on one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix('...\n').strip()


def _comment(text: str, indent: str) -> list[str]:
    return [f'{indent}# {line}' for line in wrap(text, 116 - len(indent))]


def _table(record: type) -> str:
    rows = []
    for f in fields(record):
        kind = 'list of words' if kind_of(f) == 'list' else kind_of(f)
        rows.append((f'`{f.name}`', kind, f'`{in_yaml(shown(f, default_of(f)))}`', allowed(f), f.metadata['doc']))
    return markdown(_HEADER, rows, align='l' * len(_HEADER))


if __name__ == '__main__':
    for path, text in files(Path(__file__).resolve().parents[2]).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
