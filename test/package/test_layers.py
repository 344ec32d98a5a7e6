"""Imports run downward only, and nothing outside nodes/ knows ROS."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / 'wristworld_ros'
# What each layer may import besides itself and the data contract (types, settings).
BELOW = {
    'geometry': set(),
    'reconstruction': {'geometry'},
    'generation': {'geometry'},
    'episodes': {'geometry'},
    'streaming': {'generation', 'reconstruction', 'geometry'},
    'conversion': {'streaming', 'generation', 'reconstruction', 'geometry'},
    'evaluation': {'streaming', 'generation', 'reconstruction', 'geometry', 'episodes'},
    'offline': {'streaming', 'generation', 'reconstruction', 'geometry', 'episodes'},
    'training': {'offline', 'evaluation', 'streaming', 'generation', 'reconstruction', 'geometry', 'episodes'},
    # Two commands that run the nodes, beside each other.
    'benchmark': {'demo', 'evaluation', 'streaming', 'generation', 'reconstruction', 'geometry', 'episodes'},
    'demo': {'benchmark', 'evaluation', 'streaming', 'generation', 'reconstruction', 'geometry', 'episodes'},
    # Looks at everything, but at ROS only from afar: it starts a node and reads what that prints.
    'doctor': {'streaming', 'generation', 'reconstruction', 'geometry'},
    'nodes': {
        'doctor',
        'demo',
        'evaluation',
        'streaming',
        'generation',
        'reconstruction',
        'geometry',
        'episodes',
        'msg',
    },
}
CONTRACT = {'types', 'settings', 'options', 'units'}


def imported(path: Path) -> set[tuple[str, ...]]:
    """Dotted names a module imports, relative ones resolved."""
    here = path.relative_to(ROOT).with_suffix('').parts
    here = here[:-1] if here[-1] == '__init__' else here
    package = here if path.name == '__init__.py' else here[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {tuple(alias.name.split('.')) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split('.') if node.module else ()))
            names |= {(*module, alias.name) for alias in node.names}
    return names


def modules(folder: str) -> list[Path]:
    return sorted((PACKAGE / folder).rglob('*.py'))


@pytest.mark.parametrize('layer', BELOW)
def test_a_layer_imports_only_what_lies_below_it(layer):
    wrong = [
        f'{path.relative_to(ROOT)} imports {".".join(name)}'
        for path in modules(layer)
        for name in imported(path)
        if name[0] == 'wristworld_ros'
        and len(name) > 1
        and name[1] not in BELOW[layer] | CONTRACT | {layer, '__version__'}
    ]
    assert not wrong


def test_every_folder_of_the_package_is_a_layer():
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and list(p.glob('*.py'))}
    assert folders <= set(BELOW)


def test_only_nodes_import_ros():
    ros = {
        'rclpy',
        'sensor_msgs',
        'std_msgs',
        'geometry_msgs',
        'diagnostic_msgs',
        'tf2_msgs',
        'std_srvs',
        'launch',
        'launch_ros',
    }
    wrong = [
        f'{path.relative_to(ROOT)} imports {".".join(name)}'
        for layer in BELOW
        if layer != 'nodes'
        for path in modules(layer)
        for name in imported(path)
        if name[0] in ros or name[:2] == ('wristworld_ros', 'msg')
    ]
    assert not wrong


def test_importing_everything_outside_nodes_loads_no_rclpy():
    program = (
        'import importlib, pkgutil, sys, wristworld_ros\n'
        f'for m in pkgutil.walk_packages([{str(PACKAGE)!r}], "wristworld_ros."):\n'
        '    if m.name.split(".")[1] not in ("nodes", "msg", "cli") and not m.name.endswith("__main__"):\n'
        '        importlib.import_module(m.name)\n'
        '        print(m.name)\n'
        'assert "rclpy" not in sys.modules, "rclpy was loaded"\n'
    )
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert 'wristworld_ros.types' in done.stdout
