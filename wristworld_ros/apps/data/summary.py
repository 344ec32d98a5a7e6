"""What a data set holds, in numbers and in a few lines of text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from wristworld_ros.data.episode import DataSet, Episode
from wristworld_ros.errors import UserError
from wristworld_ros.robot.claims import check_claims, claimed_cameras
from wristworld_ros.robot.episode_kinematics import EpisodeKinematics
from wristworld_ros.robot.pair_agreement import check_pairs


@dataclass
class CameraSummary:
    """One camera. rate: its images per second; jitter: the most by which a step between two of them differs from the usual one, seconds.
    latest: the most by which an image is older or newer than its frame's time, seconds."""

    name: str
    role: str
    width: int
    height: int
    has_depth: bool
    has_intrinsics: bool
    has_pose: bool
    rate: float
    jitter: float
    latest: float


@dataclass
class Summary:
    """A data set, as far as some of its episodes tell.

    opened: how many episodes were looked at. frames, seconds: theirs. shortest, longest: frames of one. successes, failures:
    those that the set calls so; of the rest it says nothing. robot: what is known of the robot, name -> what it is. damage:
    sentences about episodes that could not be opened, and about the set. claims: cameras whose place the recordings claim.
    checked: by episode what a check of these and of the hand's pose found, a line each; bad: the episodes of which something
    does not fit. pairs: by episode how the places of every two cameras fit together, a line each. unlike: sentences about
    episodes whose cameras are others than the first one's.
    """

    path: str
    format: str
    episodes: int
    opened: int
    frames: int
    seconds: float
    fps: float
    tasks: dict[str, int]
    cameras: list[CameraSummary] = field(default_factory=list)
    robot: dict[str, str] = field(default_factory=dict)
    shortest: int = 0
    longest: int = 0
    successes: int = 0
    failures: int = 0
    unlike: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    checked: dict[int, list[str]] = field(default_factory=dict)
    bad: list[int] = field(default_factory=list)
    pairs: dict[int, list[str]] = field(default_factory=dict)

    def text(self) -> str:
        """The same for a terminal."""
        seen = '' if self.opened == self.episodes else f' ({self.opened} of them looked at)'
        lines = [
            f'{self.path}: {self.format}, {self.episodes} episodes{seen}',
            f'{self.frames} frames, {self.seconds:.1f} s, {self.fps:g} frames a second' + self._lengths(),
        ]
        if self.successes or self.failures:
            silent = self.opened - self.successes - self.failures
            rest = f'; nothing is said of {silent}' if silent else ''
            lines.append(f'Success: {self.successes} of {self.successes + self.failures} episodes{rest}')
        if self.tasks:
            told = [f'{text!r} ({count})' for text, count in list(self.tasks.items())[:5]]
            rest = len(self.tasks) - len(told)
            silent = self.opened - sum(self.tasks.values())
            lines.append(
                f'Tasks: {", ".join(told)}'
                + (f' and {rest} more' if rest > 0 else '')
                + (f'; none is told of {silent} episode{"s" * (silent > 1)}' if silent else '')
            )
        width = max((len(camera.name) for camera in self.cameras), default=0)
        lines += [_camera_line(camera, width) for camera in self.cameras]
        lines.append(
            'Robot: ' + ('; '.join(f'{name} {what}' for name, what in self.robot.items()) or 'nothing is known')
        )
        if self.pairs:
            lines += ['Places of the cameras, compared with each other:', *_by_episode(self.pairs)]
        if self.checked:
            lines += [f'Calibration of {len(self.checked)} episodes, checked by the arm:', *_by_episode(self.checked)]
        elif self.claims:
            lines.append(f'Calibration of {", ".join(self.claims)} is told and not checked by the arm: give --urdf')
        if self.pairs or self.checked:
            lines.append(f'Do not use the calibration of episodes: {", ".join(map(str, self.bad)) or "none of them"}')
        return '\n'.join([*lines, *self.unlike, *self.damage])

    def _lengths(self) -> str:
        if self.opened < 2:
            return ''
        if self.shortest == self.longest:
            return f', {self.longest} in each episode'
        return f', {self.shortest} to {self.longest} in an episode'


def summarise(data: DataSet, limit: int, kinematics: EpisodeKinematics | None = None) -> Summary:
    """Look at some episodes of a set, evenly spread; images are decoded only to check calibration, some of each camera whose place is told.

    Args:
        data: The set.
        limit: Episodes at most.
        kinematics: Of the robot, by which claimed calibration is checked; None checks none.
    """
    chosen = np.unique(np.linspace(0, len(data) - 1, min(limit, len(data))).round().astype(int)).tolist()
    opened: list[Episode] = []
    damage = list(data.problems())
    checked: dict[int, list[str]] = {}
    pairs: dict[int, list[str]] = {}
    bad = []
    for index in chosen:
        try:
            opened.append(data.episode(index))
            compared = check_pairs(opened[-1])
            found = check_claims(opened[-1], kinematics) if kinematics else []
        except UserError as error:
            damage.append(f'Episode {index}: {error.what}.')
            continue
        if found:
            checked[index] = [one.sentence for one in found]
        if compared:
            pairs[index] = [one.sentence for one in compared]
        if any(one.doubt for one in (*found, *compared)):
            bad.append(index)
    tasks = Counter(episode.task for episode in opened if episode.task)
    return Summary(
        path=str(data.path),
        format=data.format,
        episodes=len(data),
        opened=len(opened),
        frames=sum(map(len, opened)),
        seconds=round(sum(len(episode) / episode.fps for episode in opened), 3),
        fps=opened[0].fps if opened else 0.0,
        tasks=dict(tasks.most_common()),
        cameras=_cameras(opened[0]) if opened else [],
        robot=_robot(opened[0]) if opened else {},
        shortest=min(map(len, opened), default=0),
        longest=max(map(len, opened), default=0),
        successes=sum(episode.success is True for episode in opened),
        failures=sum(episode.success is False for episode in opened),
        unlike=_unlike(opened),
        claims=sorted({name for episode in opened for name in claimed_cameras(episode)}),
        checked=checked,
        pairs=pairs,
        bad=bad,
        damage=damage,
    )


def _unlike(opened: list[Episode]) -> list[str]:
    """Sentences about episodes whose cameras, or their sizes, are others than the first one's."""
    if not opened:
        return []
    told = [', '.join(f'{c.name} {c.width}x{c.height}' for c in episode.cameras) for episode in opened]
    return [
        f'{episode.name[:1].upper()}{episode.name[1:]} has other cameras than the first: {cameras}.'
        for episode, cameras in zip(opened, told, strict=True) if cameras != told[0]
    ]  # fmt: skip


def _by_episode(lines: dict[int, list[str]]) -> list[str]:
    return [f'  episode {number}, {line}' for number, found in lines.items() for line in found]


def _cameras(episode: Episode) -> list[CameraSummary]:
    found = []
    for camera in episode.cameras:
        times = episode.times_ns(camera.name)
        steps = np.diff(times) / 1e9
        usual = float(np.median(steps)) if len(steps) else 0.0
        found.append(
            CameraSummary(
                name=camera.name,
                role=camera.role,
                width=camera.width,
                height=camera.height,
                has_depth=camera.has_depth,
                has_intrinsics=episode.K(camera.name) is not None,
                has_pose=episode.T_camera_world(camera.name) is not None,
                rate=round(1 / usual, 3) if usual > 0 else 0.0,
                jitter=round(float(np.abs(steps - usual).max(initial=0)), 6),
                latest=round(float(np.abs(times - episode.stamps_ns).max(initial=0)) / 1e9, 6),
            )
        )
    return found


def _robot(episode: Episode) -> dict[str, str]:
    found = {}
    if episode.joints is not None:
        found['joints'] = str(episode.joints.shape[1])
    if episode.gripper is not None:
        units = {'metres': 'in metres', 'closed': 'from 0 (open) to 1', 'unknown': 'in a unit that is not told'}
        found['gripper'] = units[episode.gripper_unit]
    if episode.T_base_hand is not None:
        own = ", the gripper's own frame" if episode.gripper_link and episode.gripper_link == episode.hand_link else ''
        found['pose'] = f'of {episode.hand_link or "a link that is not told"}{own}'
    if episode.actions is not None:
        found['actions'] = str(episode.actions.shape[1])
    return found


def _camera_line(camera: CameraSummary, width: int) -> str:
    known = [
        word
        for word, has in (
            ('depth', camera.has_depth), ('intrinsics', camera.has_intrinsics), ('pose', camera.has_pose),
        )
        if has
    ]  # fmt: skip
    jitter = f', steps differ by up to {1000 * camera.jitter:.1f} ms' if camera.jitter > 0.001 else ''
    late = f', up to {1000 * camera.latest:.1f} ms from the frames' if camera.latest > 0.001 else ''
    return (
        f'  {camera.name:{width}}  {camera.role:7}{camera.width}x{camera.height}, {camera.rate:.4g} a second{jitter}{late}; '
        f'{", ".join(known) or "no depth, no calibration"}'
    )
