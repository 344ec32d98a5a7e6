"""What a result depends on, as hashes: the model, the settings, the versions, and the files that an episode is read from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from wristworld_ros import __version__
from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.input_files import check_file
from wristworld_ros.pipeline.model_directory import choose_device, find_model
from wristworld_ros.runtime.files import file_sha256
from wristworld_ros.settings import StreamSettings

_FORMAT = 1  # of what is kept of an episode; another number makes all of it again
_NO_MATTER = ('workers', 'engine', 'address', 'gpus', 'page', 'force')  # settings that change no byte of the result
_PACKAGES = ('torch', 'numpy', 'av', 'opencv-python-headless')


def model_sha256(name_or_path: str) -> str:
    """sha256 over names and contents of all files of a model directory.

    Raises:
        ModelError: There is no such model.
    """
    folder, digest = find_model(name_or_path), hashlib.sha256()
    for path in sorted(path for path in folder.rglob('*') if path.is_file()):
        digest.update(f'{path.relative_to(folder)}\0{file_sha256(path)}\n'.encode())
    return digest.hexdigest()


def run_identity(stream: StreamSettings, settings: AugmentSettings, anchors: tuple[str, ...]) -> dict[str, Any]:
    """What all episodes of a run have in common that the result depends on; the manifest holds it."""
    chosen = {name: value for name, value in asdict(settings).items() if name not in _NO_MATTER}
    if settings.urdf is not None:  # what is in it counts, and not where it lies
        chosen['urdf'] = file_sha256(check_file(settings.urdf, 'give the URDF of the robot'))
    return {
        'format': _FORMAT,
        'model': {'name': find_model(stream.model).name, 'sha256': model_sha256(stream.model)},
        'settings': chosen | {'anchors': list(anchors)},
        'stream': {name: value for name, value in asdict(stream).items() if name not in ('model', 'device')},
        'device': choose_device(stream.device).partition(':')[0] if settings.engine == 'local' else stream.device,
        'versions': {'wristworld_ros': __version__} | {name: version(name) for name in _PACKAGES},
    }


def episode_key(run: dict[str, Any], depends: dict[str, Any]) -> str:
    """Key of an episode's result: 32 hexadecimal digits that change with anything that it depends on.

    Args:
        run: Of `run_identity`.
        depends: Of `AugmentSource.depends`.
    """
    known = json.dumps({'run': run, **depends}, sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()[:32]


def group_key(key: str, keys: list[str]) -> str:
    """Key of an episode's result in a batch, whose last bits depend on who is in it; its own where it is alone."""
    return key if len(keys) == 1 else hashlib.sha256(' '.join([key, *keys]).encode()).hexdigest()[:32]
