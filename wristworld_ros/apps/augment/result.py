"""What is kept of an episode that is finished: a folder with a video, columns, statistics and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wristworld_ros.data.formats.lerobot.columns import camera_column
from wristworld_ros.errors import UserError

VIDEO, COLUMNS, STATS, RESULT = 'video.mp4', 'columns.npz', 'stats.json', 'result.json'
_OF_FRAMES = ('valid', 'status', 'confidence')
_OF_CAMERA = ('K', 'T_camera_anchor', 'T_camera_base')
LOSSLESS = 'video.mkv'  # in place of VIDEO where a format holds images as they are
DEPTH_CODES, DEPTH = 'depth.mp4', 'depth.mkv'  # as LeRobot codes it, and in millimetres


def depth_key(key: str) -> str:
    """Key of the depth video of a camera."""
    return f'{key}_depth'


@dataclass(frozen=True)
class EpisodeResult:
    """What became of an episode.

    folder: name of its folder in the work folder. width, height: of the images. valid: frames that a policy may use.
    confidence, coverage: means over all frames. step: farthest that the camera moved from one frame to the next, metres.
    statuses: frames by name of their status. in_base: whether the robot's base is the world of every frame that has a camera,
    None where none has. problem: why it has black images only, a sentence, or ''. doubts: about calibration that the set has
    and that was not used, for it does not fit, a line each. seconds: what it took. reused: whether an earlier run had made it.
    """

    episode: int
    folder: str
    frames: int
    width: int
    height: int
    valid: int
    confidence: float
    coverage: float
    step: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    in_base: bool | None = None
    problem: str = ''
    doubts: tuple[str, ...] = ()
    seconds: float = 0.0
    reused: bool = False


def column_names(key: str) -> dict[str, str]:
    """Names of the columns of a camera, by what they hold."""
    return {what: f'{key}.{what}' for what in _OF_FRAMES} | {what: camera_column(key, what) for what in _OF_CAMERA}


def read_columns(folder: Path, key: str) -> dict[str, np.ndarray]:
    """Columns [T, N] of a finished episode, by what they hold; see `column_names`.

    Raises:
        UserError: The file is damaged.
    """
    try:
        with np.load(folder / COLUMNS) as file:
            return {kind: file[name] for kind, name in column_names(key).items()}
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f'{folder / COLUMNS} cannot be read ({error})', 'remove its folder and start again') from None
