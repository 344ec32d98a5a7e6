"""Checks a set of episodes of any format: every frame is decoded, every number looked at, and every fault told with its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wristworld_ros.data.episode import DataSet, Episode
from wristworld_ros.errors import UserError

_ROTATION_OFF = 1e-3  # of R R^T from the identity


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, a sentence; `episode` is the place in the set, None where it is the set itself."""

    what: str
    episode: int | None = None

    def __str__(self) -> str:
        return self.what


def check_data_set(data: DataSet, frames: bool = True) -> Iterator[Problem]:
    """Look for faults, in order of the episodes; a fault never ends the check.

    Args:
        data: The set.
        frames: Whether every image and depth map is decoded; else only tables and heads are read.
    """
    yield from map(Problem, data.problems())
    for index in range(len(data)):
        yield from check_episode_at(data, index, frames)


def check_episode_at(data: DataSet, index: int, frames: bool = True) -> Iterator[Problem]:
    """Faults of one episode of a set."""
    try:
        episode = data.episode(index)
    except UserError as error:
        yield Problem(f'Episode {index}: {error.what}.', index)
        return
    name = episode.name[0].upper() + episode.name[1:]
    own = episode.problems()
    numbers = _not_finite(episode) if own is None else own
    for sentence in (*episode.counts(), *numbers, *_impossible(episode), *(_frames(episode) if frames else ())):
        yield Problem(f'{name}: {sentence}', index)


def _not_finite(episode: Episode) -> Iterator[str]:
    named = {'joints': episode.joints, 'gripper': episode.gripper, 'actions': episode.actions}
    named |= _poses(episode) | {f"K of camera '{c.name}'": episode.K(c.name) for c in episode.cameras}
    for name, values in named.items():
        if values is None:
            continue
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))
        if len(bad):
            yield f'{name} of frame {bad[0]} is not finite{_more(len(bad))}.'


def _impossible(episode: Episode) -> Iterator[str]:
    """Times that do not rise, and poses that no rigid body has."""
    falls = np.flatnonzero(np.diff(episode.stamps_ns) <= 0)
    if len(falls):
        yield f'the time of frame {falls[0] + 1} is not after that of frame {falls[0]}.'
    for name, poses in _poses(episode).items():
        if poses is None:
            continue
        R = np.where(np.isfinite(poses).all((1, 2), keepdims=True), poses, np.eye(4))[:, :3, :3]
        off = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
        bad = np.flatnonzero((off > _ROTATION_OFF) | (np.linalg.det(R) < 0))
        if len(bad):
            yield f'{name} of frame {bad[0]} is no rigid motion{_more(len(bad))}.'


def _poses(episode: Episode) -> dict[str, np.ndarray | None]:
    return {'the pose of the hand': episode.T_base_hand} | {
        f"the pose of camera '{camera.name}'": episode.T_camera_world(camera.name) for camera in episode.cameras
    }


def _frames(episode: Episode) -> Iterator[str]:
    """Frames without an image: those that follow one another are one sentence."""
    for camera in episode.cameras:
        try:
            broken = episode.broken_frames(camera.name)
        except UserError as error:
            yield f"camera '{camera.name}' cannot be read: {error.what}."
            continue
        for first, last, why in _runs(broken):
            which = f'frame {first} has' if first == last else f'frames {first} to {last} have'
            yield f"{which} no image of camera '{camera.name}' ({why})."


def _runs(broken: list[tuple[int, str]]) -> Iterator[tuple[int, int, str]]:
    start = 0
    for i in range(1, len(broken) + 1):
        if i == len(broken) or broken[i][0] > broken[i - 1][0] + 1:
            yield broken[start][0], broken[i - 1][0], broken[start][1]
            start = i


def _more(count: int) -> str:
    return f', and of {count - 1} more' if count > 1 else ''
