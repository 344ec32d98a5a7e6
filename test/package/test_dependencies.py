"""The extras of the package install what is imported, and nothing else."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
# Imported only where a ROS installation brings them: no wheels of them exist, and package.xml asks for them.
FROM_ROS = {'cv_bridge', 'tf_transformations', 'tf2_msgs', 'ament_index_python', 'launch', 'launch_ros', 'bond'}


def _name(requirement: str) -> str:
    return re.match(r'[\w.-]+', requirement).group().lower().replace('_', '-')


def _imports() -> set[str]:
    found = set()
    for path in (ROOT / 'wristworld_ros').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition('.')[0])
    return found - set(sys.stdlib_module_names) - {'wristworld_ros'} - FROM_ROS


def _imported_distributions() -> set[str]:
    known = packages_distributions()
    return {name.lower().replace('_', '-') for module in _imports() for name in known.get(module, [module])}


def test_every_import_is_declared():
    groups = [
        PROJECT['dependencies'],
        *(
            PROJECT['optional-dependencies'][extra]
            for extra in ('sim', 'sim-parts', 'data', 'ray', 'robot', 'train', 'view')
        ),
    ]
    declared = {_name(requirement) for group in groups for requirement in group}
    # One import name, several distributions of it: any declared one will do.
    known = packages_distributions()
    missing = {
        module
        for module in _imports()
        if not declared & {name.lower().replace('_', '-') for name in known.get(module, [module])}
    }
    assert not missing, f'imported, but in no dependency or extra: {sorted(missing)}'


def test_every_dependency_is_imported():
    groups = [
        PROJECT['dependencies'],
        *(PROJECT['optional-dependencies'][extra] for extra in ('data', 'ray', 'train', 'view')),
    ]
    declared = {_name(requirement) for group in groups for requirement in group if not requirement.startswith('ros-')}
    assert not declared - _imported_distributions(), 'declared, but never imported'
