"""What the writers of all formats have in common: the loop over episodes, the report, and names that files and topics can have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wristworld_ros.data.episode import Episode, EpisodeCamera
from wristworld_ros.errors import UserError
from wristworld_ros.runtime.files import WriteError

Opened = Callable[[], Episode]
_BLOCK = 16  # frames that are decoded at once
_PREFIXES = ('observation.images.', 'observation.')  # of LeRobot's keys: what all cameras have in common


@dataclass
class WriteReport:
    """What became of the episodes: how many episodes and frames there are, and a sentence about each episode that was left out and about
    each thing that a set of this kind cannot hold."""

    episodes: int = 0
    frames: int = 0
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Add a sentence to `notes`, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)


def write_each(
    path: Path,
    episodes: Iterable[Opened],
    add: Callable[[Episode], None],
    report: WriteReport,
    on_episode: Callable[[], object] = lambda: None,
) -> None:
    """Hand episodes to a writer, one by one.

    Args:
        path: Where the set goes, for messages.
        episodes: What opens each of them.
        add: Adds an episode whole, or raises UserError and adds nothing of it; that one is left out and told.
        report: Takes what is left out; `add` counts the rest.
        on_episode: Called after each episode.

    Raises:
        UserError: No episode could be written, or the disk refuses.
    """
    for number, opened in enumerate(episodes):
        try:
            add(opened())
        except WriteError:
            raise
        except UserError as error:
            report.left_out.append(f'Episode {number} is left out: {error.what}.')
        on_episode()
    if not report.episodes:
        why = report.left_out[0] if report.left_out else 'There are none.'
        raise UserError(f'No episode could be written to {path} ({why.rstrip(".")})', 'give other episodes')


def plain_names(episode: Episode) -> dict[str, str]:
    """Names of cameras -> names of letters, digits and underscores, for files and topics; LeRobot's keys without their beginning.

    Raises:
        UserError: Two cameras would have one name.
    """
    found: dict[str, str] = {}
    for camera in episode.cameras:
        name = camera.name
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        name = re.sub(r'[^A-Za-z0-9_]', '_', name)
        if name in found.values():
            raise UserError(f'{episode.name} has two cameras that would be called {name}', 'rename one of them')
        found[camera.name] = name
    return found


def colour_cameras(episode: Episode) -> list[EpisodeCamera]:
    """The cameras that have images, and not depth alone."""
    return [camera for camera in episode.cameras if camera.has_color]


def image_blocks(read: Callable[[str, np.ndarray], np.ndarray], camera: str, count: int) -> Iterator[np.ndarray]:
    """Images or depth maps of the first `count` frames one by one; a few are decoded at once."""
    for start in range(0, count, _BLOCK):
        yield from read(camera, np.arange(start, min(start + _BLOCK, count)))


def plain_meta(value: Any) -> Any:
    """What an episode's `meta` says, of dictionaries, lists, texts and numbers alone, as JSON can hold it."""
    if isinstance(value, dict):
        return {str(key): plain_meta(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_meta(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
