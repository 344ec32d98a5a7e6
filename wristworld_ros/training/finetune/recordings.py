"""Which episodes a model adapts to, which choose when to stop, and which it is measured on; all checked before anything heavy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wristworld_ros.data.episode import Episode
from wristworld_ros.data.ground_truth import GroundTruth, read_ground_truth
from wristworld_ros.data.real_clips import mounted_camera, wrist_mount
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.knowledge import LEVELS, KnowledgeLevel, known_sets, levels_of
from wristworld_ros.training.finetune.settings import FinetuneSettings
from wristworld_ros.types import AnchorSet

_BLOCK = 16  # frames that are decoded at once
LEAST_FRAMES = 8  # of an episode: shorter ones have no clip to learn from
_VALIDATION_SHARE = 0.25  # of the episodes to adapt to
_LEAST_RATE = 2.0  # frames a second that thinning leaves
# What recordings say of their cameras has the errors that it has; none are added.
_CALIBRATED = replace(LEVELS['calibrated-exact'], title='CALIBRATED')
_RGBD = replace(LEVELS['exact'], title='RGBD')


@dataclass(frozen=True)
class Recording:
    """One episode as it is used.

    episode: with the wrist camera and the anchors in their roles, whatever the format calls them. indices: int64 [T], its frames
    that are taken. robot: of the settings.
    """

    episode: Episode
    indices: np.ndarray
    robot: str | None

    @property
    def name(self) -> str:
        return self.episode.name

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def content(self) -> str:
        """Changes with the images of some frames, of all cameras, and with which frames are taken; 16 hexadecimal digits."""
        digest = hashlib.sha256(self.indices.tobytes())
        some = self.indices[[0, len(self.indices) // 2, -1]]
        for camera in (*self.episode.anchors(), *self.episode.names('wrist')):
            digest.update(self.episode.read(camera, some).tobytes())
        return digest.hexdigest()[:16]

    def check(self) -> None:
        """Decode every image that is used.

        Raises:
            UserError: One is missing or cannot be decoded.
        """
        for camera in (*self.episode.anchors(), *self.episode.names('wrist')):
            for start in range(0, len(self), _BLOCK):
                self.episode.read(camera, self.indices[start : start + _BLOCK])

    def truth(self, wrist_hw: tuple[int, int]) -> GroundTruth:
        """Its images and whatever it says of its cameras, the wrist at the model's size."""
        return read_ground_truth(self.episode, wrist_hw, need_calibration=False, indices=self.indices)

    @property
    def levels(self) -> list[KnowledgeLevel]:
        """What can be told of it: images alone first, with the mount of the wrist camera where that is known, then more."""
        known = levels_of(self.episode)
        mounted = self.robot is not None or LEVELS['mounted'] in known
        more = {'calibrated-exact': _CALIBRATED, 'exact': _RGBD}
        return [
            LEVELS['mounted' if mounted else 'rgb'], *(level for name, level in more.items() if LEVELS[name] in known)
        ]  # fmt: skip

    def sets(self, truth: GroundTruth, level: KnowledgeLevel, seed: int = 0) -> list[AnchorSet]:
        """Its anchor sets with what a level knows."""
        if truth.calibrated or not level.mount:
            return known_sets(truth, level, seed)
        camera = mounted_camera(wrist_mount(), (truth.wrist.shape[1], truth.wrist.shape[2]))
        return [replace(truth.anchor_set(i), mounted=camera) for i in range(len(truth))]


@dataclass(frozen=True)
class Split:
    """adapt: episodes to learn from. validation: those of them that choose when to stop. held_out: those that are measured.
    too_short: names of episodes that are left out. damaged: of others that are, with what is wrong with them."""

    adapt: tuple[Recording, ...]
    validation: tuple[Recording, ...]
    held_out: tuple[Recording, ...]
    too_short: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def training(self) -> tuple[Recording, ...]:
        """Episodes to adapt to without those that choose when to stop."""
        return tuple(recording for recording in self.adapt if not any(recording is other for other in self.validation))

    def record(self) -> dict[str, list[str]]:
        """Names, for JSON."""
        return {
            part: [r.name for r in getattr(self, part)] for part in ('adapt', 'validation', 'held_out')
        } | {'too_short': list(self.too_short), 'damaged': list(self.damaged)}  # fmt: skip


def split_recordings(settings: FinetuneSettings) -> Split:
    """Open the recordings and share them out; of one set, the last episodes are held out.

    Raises:
        UserError: There are too few episodes, a camera is missing, sizes of anchors differ, or `held_out` means nothing.
    """
    if not settings.data:
        raise UserError('finetune needs --data', 'give recordings with a wrist camera')
    damaged: list[str] = []
    recordings, short = _open(settings.data, settings, damaged)
    other = _other_set(settings)
    if other is not None:
        held_out, more = _open(str(other), settings, damaged)
        short += more
    else:
        count = _count(settings, len(recordings))
        recordings, held_out = recordings[: len(recordings) - count], recordings[len(recordings) - count :]
    adapt, held_out = (_readable(some, damaged) for some in (recordings[: settings.limit], held_out))
    if len(adapt) < 2:
        raise UserError(
            f'{settings.data} leaves {len(adapt)} episode{"s" if len(adapt) != 1 else ""} of {LEAST_FRAMES} frames or more to adapt to, '
            f'and 2 are needed: one to learn from, one to choose when to stop{_told(damaged)}', 'record more, or hold fewer out',
        )  # fmt: skip
    if not held_out:
        where = other or settings.data
        raise UserError(
            f'{where} leaves no episode of {LEAST_FRAMES} frames or more to hold out{_told(damaged)}', 'hold others out'
        )
    count = max(1, round(_VALIDATION_SHARE * len(adapt)))
    places = np.unique(np.linspace(0, len(adapt) - 1, count + 2).round().astype(int)[1:-1])
    return Split(tuple(adapt), tuple(adapt[i] for i in places), tuple(held_out), tuple(short), tuple(damaged))


def _other_set(settings: FinetuneSettings) -> Path | None:
    """The data set that `held_out` names; None where it is a number."""
    try:
        float(settings.held_out)
    except ValueError:
        pass
    else:
        return None
    path = Path(settings.held_out).expanduser()
    if not path.exists():
        raise UserError(
            f'--held-out is {settings.held_out!r}, and there is no such data set',
            'give a number of episodes, a share of them, or a data set',
        )
    if path.resolve() == Path(settings.data).expanduser().resolve():
        raise UserError(f'--held-out and --data are both {settings.data}', 'hold other recordings out, or some of them')
    return path


def _count(settings: FinetuneSettings, episodes: int) -> int:
    """How many episodes are held out: a whole number of them, or a share below 1."""
    given = float(settings.held_out)
    count = max(1, round(given * episodes)) if 0 < given < 1 else int(given) if given.is_integer() else 0
    if not 1 <= count <= episodes - 2:
        raise UserError(
            f'--held-out is {settings.held_out}, and {settings.data} has {episodes} episodes of {LEAST_FRAMES} frames or more',
            f'give 1 to {episodes - 2} episodes, or a share below 1' if episodes > 2 else 'record three or more',
        )
    return count


def _readable(recordings: list[Recording], damaged: list[str]) -> list[Recording]:
    """Those whose images can all be decoded; what is wrong with the others goes to `damaged`."""
    found = []
    for recording in recordings:
        try:
            recording.check()
        except UserError as error:
            damaged.append(f'{recording.name} ({error.what})')
        else:
            found.append(recording)
    return found


def _told(damaged: list[str]) -> str:
    return f' (left out, damaged: {"; ".join(damaged)})' if damaged else ''


def _open(path: str, settings: FinetuneSettings, damaged: list[str]) -> tuple[list[Recording], list[str]]:
    """The episodes of a set that are long enough, in order, and the names of those that are not; those that cannot be opened go to `damaged`."""
    data, found, short = open_data_set(path), [], []
    for index in range(len(data)):
        try:
            opened = data.episode(index)
        except UserError as error:
            damaged.append(f'episode {index} ({error.what})')
            continue
        episode = _with_roles(opened, settings)
        indices = _thinned(len(episode), episode.fps, settings.frames)
        if len(indices) < LEAST_FRAMES:
            short.append(episode.name)
        else:
            found.append(Recording(episode, indices, settings.robot))
    return found, short


def _with_roles(episode: Episode, settings: FinetuneSettings) -> Episode:
    """The episode with the wrist camera and the anchors that were asked for, and nothing else in these roles."""
    where, names = f'{episode.name} of {episode.path}', [camera.name for camera in episode.cameras]
    there = f'it has {", ".join(names)}'
    wrists = episode.names('wrist') if settings.wrist is None else (settings.wrist,)
    if not wrists:
        raise UserError(f'{where} has no wrist camera, and --wrist names none', f'name one; {there}')
    if len(wrists) > 1:
        raise UserError(f'{where} has several wrist cameras ({", ".join(wrists)})', 'choose one with --wrist')
    chosen = episode.names('anchor') if settings.anchors is None else tuple(settings.anchors.split(','))
    anchors = tuple(name for name in chosen if name not in wrists) if settings.anchors is None else chosen
    for option, given in (('--wrist', wrists), ('--anchors', anchors)):
        for name in given:
            if name not in names:
                raise UserError(f'{option} names {name}, and {where} has no such camera', there)
    if wrists[0] in anchors:
        raise UserError(f'--anchors names {wrists[0]}, the wrist camera', 'name the cameras beside the robot')
    if not anchors:
        raise UserError(f'{where} has no camera beside the robot', 'name one with --anchors')
    if len(set(anchors)) < len(anchors):
        raise UserError(f'--anchors names a camera twice: {settings.anchors}', 'name each once')
    order = {name: place for place, name in enumerate((*anchors, wrists[0]))}
    cameras = sorted(episode.cameras, key=lambda camera: order.get(camera.name, len(order)))
    roles = dict.fromkeys(anchors, 'anchor') | {wrists[0]: 'wrist'}
    episode = replace(episode, cameras=tuple(replace(c, role=roles.get(c.name, 'other')) for c in cameras))
    episode.anchors()  # of one size
    return episode


def _thinned(length: int, fps: float, most: int) -> np.ndarray:
    """At most so many frames of an episode: every so many-th, of the middle where that leaves more."""
    step = min(max(1, length // most), max(1, int(fps / _LEAST_RATE)))
    indices = np.arange(0, length, step)
    first = max(0, (len(indices) - most) // 2)
    return indices[first : first + most]
