"""What a result depends on, as hashes: the model, the settings, the versions, and the files that an episode is read from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wristworld_ros import __version__
from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.data.formats.lerobot.layout import EpisodeRow
from wristworld_ros.data.formats.lerobot.reader import LeRobotSet
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
    return {
        'format': _FORMAT,
        'model': {'name': find_model(stream.model).name, 'sha256': model_sha256(stream.model)},
        'settings': chosen | {'anchors': list(anchors)},
        'stream': {name: value for name, value in asdict(stream).items() if name not in ('model', 'device')},
        'device': choose_device(stream.device).partition(':')[0] if settings.engine == 'local' else stream.device,
        'versions': {'wristworld_ros': __version__} | {name: version(name) for name in _PACKAGES},
    }


def episode_key(run: dict[str, Any], data: LeRobotSet, row: EpisodeRow, anchors: tuple[str, ...]) -> str:
    """Key of an episode's result: 32 hexadecimal digits that change with anything that it depends on.

    Raises:
        OSError: A file of the episode cannot be read.
    """
    keys = [*anchors, *(data.depth_of[key] for key in anchors if key in data.depth_of)]
    parts = {key: row.videos[key] for key in keys if key in row.videos}
    names = sorted({row.data_file, *(part.file for part in parts.values())})
    content = {name: _sha256(data.path / name) for name in names if (data.path / name).is_file()}
    at = {key: [part.file, part.start, part.end] for key, part in parts.items()}
    known = {
        'run': run,
        'episode': row.index,
        'length': row.length,
        'fps': data.info.fps,
        'videos': at,
        'files': content,
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


def group_key(key: str, keys: list[str]) -> str:
    """Key of an episode's result in a batch, whose last bits depend on who is in it; its own where it is alone."""
    return key if len(keys) == 1 else hashlib.sha256(' '.join([key, *keys]).encode()).hexdigest()[:32]


@lru_cache(maxsize=256)
def _sha256(path: Path) -> str:
    """Many episodes share a file, which does not change while a run lasts."""
    return file_sha256(path)
