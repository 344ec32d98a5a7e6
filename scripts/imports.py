"""The package's structure as its own imports tell it: floors, and who imports whom. Used by the tests and the docs."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = 'wristworld_ros'
# Lowest first. A folder imports from folders before it, and from itself; the first floor is single files.
FLOORS = (
    ('types', 'errors', 'setting', 'settings', 'options', 'input_files'),
    ('geometry',),
    ('models',),
    ('runtime',),
    ('data',),
    ('robot',),
    ('sim',),
    ('pipeline',),
    ('evaluation',),
    ('training',),
    ('ros',),
    ('policy',),
    ('apps',),
    ('cli',),
)


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Dotted name of every module of the package -> its file."""
    found = {}
    for path in sorted((root / NAME).rglob('*.py')):
        parts = path.relative_to(root).with_suffix('').parts
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


def imported_names(path: Path, root: Path = ROOT) -> set[str]:
    """Dotted names that a file imports anywhere, in functions and for type checking too; relative ones are resolved."""
    package = path.relative_to(root).parent.parts
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = '.'.join([*base, *filter(None, [node.module])])
            names |= {f'{module}.{alias.name}' for alias in node.names}
    return names


def module_graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports."""
    known = modules(root)
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        targets = {_module_of(target, known) for target in imported_names(path, root)}
        graph[name] = {target for target in targets if target} - {name}
    return graph


def _module_of(name: str, known: Iterable[str]) -> str | None:
    """The module that a dotted name lies in: itself, or what is left without the object's own name."""
    while name and name not in known:
        name = name.rpartition('.')[0]
    return name if name.startswith(f'{NAME}.') else None


def folder_graph(graph: dict[str, set[str]], depth: int) -> dict[str, set[str]]:
    """The same between folders (and top-level files), `depth` levels below the package."""

    def folder(module: str) -> str:
        return '.'.join(module.split('.')[1 : 1 + depth])

    folders: dict[str, set[str]] = {}
    for module, targets in graph.items():
        if module != NAME:
            found = {folder(target) for target in targets if target != NAME}
            folders.setdefault(folder(module), set()).update(found - {folder(module)})
    return folders


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other (Tarjan's strongly connected components of more than one node)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Sentences about imports that do not run downward."""
    floor = {folder: i for i, folders in enumerate(FLOORS) for folder in folders}
    wrong = []
    for module, targets in sorted(graph.items()):
        for target in sorted(targets):
            if NAME in (module, target):
                continue
            here, there = module.split('.')[1], target.split('.')[1]
            if here not in floor or there not in floor:
                wrong.append(f'{here if here not in floor else there} is on no floor')
            elif floor[there] > floor[here]:
                wrong.append(f'{module} imports {target}')
    return sorted(set(wrong))
