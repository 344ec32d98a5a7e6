"""Python and the packages that the models need, against the least versions that they run with."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from importlib import metadata

from wristworld_ros.apps.doctor.finding import Finding, error, ok

# What pyproject.toml asks for; a test holds the two together. '' takes any version.
PYTHON = '3.11'
LEAST = {
    'torch': '2.4',
    'diffusers': '0.35',
    'transformers': '4.46',
    'numpy': '',
    'opencv-python-headless': '',
    'safetensors': '',
    'av': '',
    'tqdm': '',
    'transforms3d': '0.4.2',
}
# Where another distribution may provide the module (apt's python3-opencv, for one), the module decides.
MODULES = {'opencv-python-headless': 'cv2'}


def version_lines(python: str, found: Mapping[str, str | None]) -> list[Finding]:
    """python: its version. found: version of each package of `LEAST`, None where it is not installed."""
    lines = []
    if _numbers(python) < _numbers(PYTHON):
        lines.append(error(f'Python is {python}', f'use {PYTHON} or newer'))
    for name, least in LEAST.items():
        version, wanted = found.get(name), f'{name}>={least}' if least else name
        if version is None:
            lines.append(error(f'{name} is not installed', f"pip install '{wanted}'"))
        elif least and _numbers(version) < _numbers(least):
            lines.append(error(f'{name} is {version}, older than {least}', f"pip install '{wanted}'"))
    versions = ', '.join(f'{name} {version}' for name, version in found.items() if version)
    return lines or [ok(f'Python {python}, {versions}')]


def read_versions() -> dict[str, str | None]:
    """The installed version of each package of `LEAST`."""
    return {name: _version(name) for name in LEAST}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
    try:
        return __import__(MODULES[name]).__version__ if name in MODULES else None
    except ImportError:
        return None


def python_version() -> str:
    """Of this interpreter."""
    return platform.python_version()


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version: 2.13.0+cpu and 2.13.0rc1 become (2, 13, 0)."""
    return tuple(int(n) for n in re.match(r'[\d.]*', version)[0].strip('.').split('.') if n)
