"""Training configurations as YAML, read and checked as a whole before any weights are."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import read_bytes
from wristworld_ros.options import default_of
from wristworld_ros.setting import check, parsed, shown
from wristworld_ros.training.recipes import RECIPES, Config

_FIX = 'correct it; docs/training_settings.md explains every key'


def read_config(path: str | Path, stage: str) -> Config:
    """Read and check a configuration.

    Args:
        path: The YAML file.
        stage: What it must configure, one of `RECIPES`.

    Raises:
        UserError: It cannot be read, is of another stage, or a key or a value is not allowed; nothing else was read until then.
    """
    try:
        content = yaml.safe_load(read_bytes(path, 'give a file of config/train, or one like it'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f'{path} is not YAML ({" ".join(str(error).split())})', _FIX) from None
    if not isinstance(content, dict):
        raise UserError(f'{path} holds no sections', _FIX)
    return parse_config(content, stage, str(path))


def parse_config(content: dict[str, Any], stage: str, source: str) -> Config:
    """The configuration that decoded YAML describes; arguments and errors as in `read_config`."""
    if content.get('stage') != stage:
        raise UserError(f'{source} is of stage {content.get("stage")!r}, and {stage} is trained', 'give another file')
    recipes = RECIPES[stage]
    if content.get('recipe') not in recipes:
        raise UserError(f'{source}: recipe is {content.get("recipe")!r}', f'give {", ".join(recipes)}')
    record = recipes[content['recipe']]
    sections = get_type_hints(record)
    known = {'stage', 'recipe', *sections}
    if unknown := sorted(set(map(str, content)) - known):
        raise UserError(
            f'{source} has the unknown section {", ".join(unknown)}', f'give some of {", ".join(sorted(known))}'
        )
    config = record(**{name: _section(content.get(name), kind, f'{source}: {name}') for name, kind in sections.items()})
    check_config(config, source)
    return config


def check_config(config: Config, source: str) -> None:
    """Raise UserError for the first value of a configuration that is not allowed, or that contradicts another."""
    for f in fields(config):
        section = getattr(config, f.name)
        if is_dataclass(section):
            try:
                check(section)
            except UserError as error:
                raise UserError(f'{source}: {error.what.replace("Setting ", f.name + ".", 1)}', error.fix) from None
    if hasattr(config, 'check_together'):
        try:
            config.check_together()
        except UserError as error:
            raise UserError(f'{source}: {error.what}', error.fix) from None


def _section(values: Any, kind: type, source: str) -> Any:
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f'{source} is {values!r}, not keys and values', _FIX)
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(set(map(str, values)) - set(known)):
        raise UserError(
            f'{source} has the unknown key {", ".join(unknown)}', f'give some of {", ".join(sorted(known))}'
        )
    return kind(**{name: parsed(known[name], value) for name, value in values.items()})


def as_content(config: Config) -> dict[str, Any]:
    """A configuration as YAML holds it; `parse_config` takes it back."""
    stage, recipe = next(
        (s, r) for s, known in RECIPES.items() for r, record in known.items() if type(config) is record
    )
    sections = {
        f.name: {g.name: shown(g, getattr(getattr(config, f.name), g.name)) for g in fields(getattr(config, f.name))}
        for f in fields(config)
    }
    return {'stage': stage, 'recipe': recipe} | sections


def changed(config: Config, **sections: dict[str, Any]) -> Config:
    """A configuration with some values of some sections replaced."""
    return replace(config, **{name: replace(getattr(config, name), **values) for name, values in sections.items()})


def default_config(record: type) -> Config:
    """A configuration with every key at its default."""
    return record(**{
        name: kind(**{f.name: default_of(f) for f in fields(kind)}) for name, kind in get_type_hints(record).items()
    })  # fmt: skip
