"""Motion of recorded episodes, of any format, replayed by the simulated arm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.interpolate import PchipInterpolator

from wristworld_ros.data.episode import Episode
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.errors import UserError
from wristworld_ros.sim.grippers import Gripper

MARGIN_S = 0.5  # more than what is stored, of the motion
AT_GRASP = 0.6  # share of windows that have a grasp in them, where the episode has one
CLOSES = 0.25  # of the gripper's width: a grasp closes by so much within CLOSING_S
CLOSING_S = 0.8
_FIX = 'give a folder of episodes with joint angles and a gripper, as docs/datasets.md lists'


@dataclass(frozen=True)
class Motion:
    """A piece of an episode, at the control rate.

    name: of the episode. text: what the robot was told, '' where that is not known. joints: float64 [N, 7], radians. openings: float64 [N],
    metres between the fingers. grasp: the first step at which the gripper closes; None where it does not.
    """

    name: str
    text: str
    joints: np.ndarray
    openings: np.ndarray
    grasp: int | None


class Recordings:
    """Recorded episodes whose motion is replayed.

    Args:
        folder: A data set of any format.
        gripper: That replays them.
        control_hz: Commands per second.

    Raises:
        UserError: There is no data set, or none of its episodes has seven joint angles and a gripper in metres or as a share.
    """

    def __init__(self, folder: str | Path, gripper: Gripper, control_hz: int):
        self._set, self._gripper, self._control_hz = open_data_set(folder), gripper, control_hz
        if not len(self._set):
            raise UserError(f'{folder} holds no episodes to replay', _FIX)
        self._check(self._set.episode(0))

    def sample(self, rng: np.random.Generator, seconds: float) -> Motion:
        """A window of a random episode, `seconds` long where that lasts so long.

        Raises:
            UserError: The episode that was chosen cannot be replayed.
        """
        return self.motion(int(rng.integers(len(self._set))), seconds + MARGIN_S, rng)

    def motion(self, index: int, seconds: float | None = None, rng: np.random.Generator | None = None) -> Motion:
        """An episode's motion.

        Args:
            index: Its place in the set.
            seconds: Length of a random window of it; None takes the whole.
            rng: Chooses the window.

        Raises:
            UserError: The episode cannot be replayed.
        """
        episode = self._set.episode(index)
        self._check(episode)
        assert episode.joints is not None and episode.gripper is not None
        times = (episode.stamps_ns - episode.stamps_ns[0]) * 1e-9
        steps = np.arange(0, times[-1] + 1e-9, 1 / self._control_hz)
        joints = PchipInterpolator(times, episode.joints)(steps)
        openings = np.interp(steps, times, self._openings(episode))
        closing = self._closing(openings)
        if seconds is not None and rng is not None:
            count = min(int(seconds * self._control_hz), len(steps))
            start = int(rng.integers(0, len(steps) - count + 1))
            if len(closing) and rng.random() < AT_GRASP:
                start = int(closing[rng.integers(len(closing))]) - int(
                    rng.integers(count // 5, max(count * 4 // 5, 1) + 1)
                )
                start = int(np.clip(start, 0, len(steps) - count))
            joints, openings = joints[start : start + count], openings[start : start + count]
            closing = closing[(closing >= start) & (closing < start + count)] - start
        return Motion(episode.name, episode.task, joints, openings, int(closing[0]) if len(closing) else None)

    def _openings(self, episode: Episode) -> np.ndarray:
        assert episode.gripper is not None
        if episode.gripper_unit == 'closed':
            return self._gripper.width * (1 - np.clip(episode.gripper, 0, 1))
        return np.clip(episode.gripper, 0, self._gripper.width)

    def _closing(self, openings: np.ndarray) -> np.ndarray:
        """Steps at which the gripper begins to close."""
        ahead = int(CLOSING_S * self._control_hz)
        later = np.concatenate([openings[ahead:], np.full(min(ahead, len(openings)), openings[-1])])[: len(openings)]
        closes = openings - later > CLOSES * self._gripper.width
        return np.flatnonzero(closes & ~np.concatenate([[False], closes[:-1]]))

    @staticmethod
    def _check(episode: Episode) -> None:
        joints, lacks = episode.joints, ''
        if len(episode) < 2:
            lacks = 'has fewer than two frames'
        elif joints is None or joints.shape[1] != 7:
            lacks = f'has {"no" if joints is None else joints.shape[1]} joint angles, and the arm has 7'
        elif episode.gripper is None or episode.gripper_unit == 'unknown':
            lacks = 'does not say how far its gripper is open'
        elif not (np.isfinite(joints).all() and np.isfinite(episode.gripper).all()):
            lacks = 'has a joint angle or gripper position that is not finite'
        if lacks:
            raise UserError(f'{episode.name} of {episode.path} {lacks}', _FIX)


class ReplayPolicy:
    """Commands of a motion: `command()` is called at control_hz until it returns None."""

    def __init__(self, motion: Motion):
        self._motion, self._step = motion, 0

    def command(self) -> tuple[np.ndarray, float] | None:
        """The next joint angles [7], radians, and finger opening, metres each; None at the end."""
        self._step += 1
        if self._step >= len(self._motion.joints):
            return None
        return self._motion.joints[self._step], float(self._motion.openings[self._step]) / 2
