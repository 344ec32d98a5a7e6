"""What a ROS parameter file says about one node, for launch files, which must know some parameters before the node runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from wristworld_ros.errors import UserError

KEY = 'ros__parameters'


def node_parameters(path: str | Path, node: str) -> dict[str, Any]:
    """The parameters that a file gives one node; of several entries that match it a later one counts.

    Args:
        path: A YAML file as `--params-file` takes it.
        node: Full name of the node, as in '/left_arm/virtual_wrist'.

    Raises:
        UserError: The file is not there, or no parameter file.
    """
    found: dict[str, Any] = {}
    for pattern, parameters in _entries(_tree(Path(path)), ''):
        if re.fullmatch(_expression(pattern), node):
            if not isinstance(parameters, dict):
                raise UserError(
                    f'Parameter file {path} has no parameters below {pattern}: {KEY}', 'give it a name: value for each'
                )
            found |= parameters
    anchors = found.get('anchors', [])
    if not isinstance(anchors, list) or not all(isinstance(name, str) for name in anchors):
        raise UserError(
            f'Parameter file {path} gives {node} the anchors {anchors!r}',
            "give a list of names, as in ['left', 'right']",
        )
    return found


def _tree(path: Path) -> dict:
    try:
        tree = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(
            f'Parameter file {path} cannot be read ({error.strerror})', 'see the argument params_file'
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f'Parameter file {path} is not YAML ({" ".join(str(error).split())})', 'correct it, or give another'
        ) from None
    if not isinstance(tree, dict):
        what = 'is empty' if tree is None else f'holds a {type(tree).__name__} and no nodes'
        raise UserError(
            f'Parameter file {path} {what}', 'begin it as config/virtual_wrist.yaml begins: /**: and ros__parameters:'
        )
    return tree


def _entries(tree: dict, above: str) -> Iterator[tuple[str, Any]]:
    """(name or pattern of a node, its parameters); namespaces may be nested."""
    for key, value in tree.items():
        if key == KEY:
            yield above or '/', value
        elif isinstance(value, dict):
            yield from _entries(value, f'{above}/{str(key).strip("/")}')


def _expression(pattern: str) -> str:
    """Regular expression of a node's name with ROS's wildcards: * is one part of it, ** any number of them."""
    parts = pattern.strip('/').split('/')
    return ''.join({'**': '(/[^/]+)*', '*': '/[^/]+'}.get(part, f'/{re.escape(part)}') for part in parts)
