"""One recorded episode and one set of them, whatever format they lie in: what every reader gives, and what the package reads through.

Numbers of the robot are arrays that an episode holds; images and depth stay on disk and are decoded, frame by frame, when they
are asked for. The world of every pose is the robot's base. What a recording does not say is None.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from wristworld_ros.errors import UserError
from wristworld_ros.types import Camera

# Where a camera is: fixed beside the robot, on its wrist, placed elsewhere at every frame, or not known.
Role = Literal['anchor', 'wrist', 'random', 'other']
GripperUnit = Literal['metres', 'closed', 'unknown']
_BLOCK = 32  # frames that are decoded at once where all of them are wanted one by one
_WRIST_WORDS = ('wrist', 'gripper', 'hand', 'eye_in_hand')


@dataclass(frozen=True)
class EpisodeCamera:
    """One camera of an episode.

    name: as the episode's methods take it. width, height: pixels of its images, upright.
    has_depth: whether `Episode.read_depth` gives its depth.
    """

    name: str
    role: Role
    width: int
    height: int
    has_depth: bool

    @property
    def has_objects(self) -> bool:
        """Whether `Episode.objects` gives masks of the objects."""
        return False

    @property
    def has_color(self) -> bool:
        """Whether `Episode.read` gives its images; some cameras have depth alone."""
        return True


class DepthCamera(EpisodeCamera):
    """A camera that has depth alone."""

    @property
    def has_color(self) -> bool:
        """See `EpisodeCamera`."""
        return False


@dataclass(frozen=True, kw_only=True)
class Episode(ABC):
    """A recorded episode of T frames.

    A frame is one moment: the robot's numbers, and of every camera the image that was taken nearest to it.

    path: the file or directory that it was read from. name: what messages call it, as in 'episode 3'. fps: frames per second.
    stamps_ns: int64 [T], times of the frames, rising. language: what the robot is told, one text or several that mean the same.
    success: whether the task was done. joints: float64 [T, J], radians. gripper: float64 [T], in `gripper_unit`: metres between
    the fingers; closed, from 0 (open) to 1; or unknown. T_base_hand: float64 [T, 4, 4], the pose that the arm reports, of the
    link `hand_link` ('' where the format does not say which). gripper_link: the link that is the gripper's own frame, z to the
    fingertips and y along their opening ('' likewise). actions: float64 [T, A], as recorded. meta: whatever else the format
    says.
    """

    path: Path
    name: str
    cameras: tuple[EpisodeCamera, ...]
    fps: float
    stamps_ns: np.ndarray
    language: tuple[str, ...] = ()
    success: bool | None = None
    joints: np.ndarray | None = None
    gripper: np.ndarray | None = None
    gripper_unit: GripperUnit = 'unknown'
    T_base_hand: np.ndarray | None = None
    hand_link: str = ''
    gripper_link: str = ''
    actions: np.ndarray | None = None
    meta: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @abstractmethod
    def read(self, camera: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images of some frames, in any order, uint8 [N, H, W, 3] RGB.

        Args:
            camera: Its name.
            indices: Numbers of frames, 0 to T - 1.

        Raises:
            UserError: There is no such camera, or a frame of it is missing or cannot be decoded.
            IndexError: The episode has no such frame.
        """

    def read_depth(self, camera: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Depth of some frames, float32 [N, H, W], metres along the optical axis, 0 where unknown; errors as in `read`."""
        raise UserError(
            f"Camera '{self.camera(camera).name}' of episode {self.path} was stored without depth",
            'record it with depth',
        )

    def times_ns(self, camera: str) -> np.ndarray:
        """When a camera took its images, int64 [T], on the clock of `stamps_ns`."""
        self.camera(camera)
        return self.stamps_ns

    def K(self, camera: str) -> np.ndarray | None:
        """Intrinsics of a camera, float64 [T, 3, 3], pixels; pixel i's centre is coordinate i."""
        self.camera(camera)
        return None

    def T_camera_world(self, camera: str) -> np.ndarray | None:
        """Camera from world (robot base), float64 [T, 4, 4], OpenCV axes, metres."""
        self.camera(camera)
        return None

    def broken_frames(self, camera: str) -> list[tuple[int, str]]:
        """Which frames of a camera cannot be read, colour or depth, in order: their numbers, and why, as half a sentence.

        Raises:
            UserError: None of them can, for a reason that is not a frame's.
        """
        has_depth, found = self.camera(camera).has_depth, []
        for frame in range(len(self)):
            try:
                self.read(camera, [frame])
                if has_depth:
                    self.read_depth(camera, [frame])
            except UserError as error:
                found.append((frame, error.what))
        return found

    def counts(self) -> Iterator[str]:
        """What of the episode is longer or shorter than the rest, sentences without its name."""
        return iter(())

    def problems(self) -> Iterator[str] | None:
        """What is wrong with the episode's numbers, sentences without its name; None where `data.check` is to look for itself."""
        return None

    @property
    def task(self) -> str:
        """What the robot does, the first text of `language`; '' where that is not said."""
        return self.language[0] if self.language else ''

    def camera(self, name: str) -> EpisodeCamera:
        """The entry of one camera.

        Raises:
            UserError: There is none of that name.
        """
        for entry in self.cameras:
            if entry.name == name:
                return entry
        known = ', '.join(entry.name for entry in self.cameras)
        raise UserError(f"{self.name} of {self.path} has no camera '{name}'", f'give one of {known}')

    def names(self, role: Role) -> tuple[str, ...]:
        """Names of the cameras of a role, in stored order."""
        return tuple(entry.name for entry in self.cameras if entry.role == role)

    def anchors(self, count: int | None = None) -> tuple[str, ...]:
        """Names of the first `count` anchor cameras (None: all of them), which are of one size.

        Raises:
            UserError: There are fewer, or their sizes differ.
        """
        names = self.names('anchor')
        if len(names) < (count or 1):
            raise UserError(
                f'{self.name} of {self.path} has {len(names)} anchor cameras, and {count or 1} are asked for',
                f'set anchors to {len(names)} (--anchors), or give other episodes' if names else 'give other episodes',
            )
        names = names[: count or None]
        if len({(self.camera(name).width, self.camera(name).height) for name in names}) > 1:
            raise UserError(f'The anchor cameras of {self.path} differ in size', 'record them at one size')
        return names

    def rgb(self, camera: str, stop: int | None = None) -> np.ndarray:
        """The first `stop` images of a camera (None: all of them, at once), uint8 [T, H, W, 3]."""
        return self.read(camera, range(self._count(stop)))

    def rgb_frames(self, camera: str) -> Iterator[np.ndarray]:
        """Images of a camera one by one, uint8 [H, W, 3], decoded while they are asked for."""
        for start in range(0, len(self), _BLOCK):
            yield from self.read(camera, range(start, min(start + _BLOCK, len(self))))

    def depth(self, camera: str, stop: int | None = None) -> np.ndarray:
        """Depth of a camera's first `stop` frames (None: all of them, at once); as in `read_depth`."""
        return self.read_depth(camera, range(self._count(stop)))

    def objects(self, camera: str, stop: int | None = None) -> np.ndarray:
        """What each pixel of a camera's first `stop` frames shows, uint8 [T, H, W]; see `formats.native.CameraTrack`."""
        raise UserError(
            f"Camera '{self.camera(camera).name}' of episode {self.path} was stored without object masks",
            'record it with them',
        )

    def calibration(self, camera: str) -> tuple[np.ndarray, np.ndarray]:
        """K and T_camera_world of a camera, as the methods of these names give them.

        Raises:
            UserError: The episode does not say one of them.
        """
        K, T_camera_world = self.K(camera), self.T_camera_world(camera)
        if K is None or T_camera_world is None:
            raise UserError(
                f"Camera '{camera}' of episode {self.path} has no {'intrinsics' if K is None else 'pose'}",
                'calibrate it, or give an episode with calibrated cameras',
            )
        return K, T_camera_world

    def camera_at(self, camera: str, frame: int) -> Camera:
        """A camera's calibration at one frame; errors as in `calibration`."""
        entry, (K, T_camera_world) = self.camera(camera), self.calibration(camera)
        return Camera(K[frame], T_camera_world[frame], entry.width, entry.height)

    def _count(self, stop: int | None) -> int:
        return len(self) if stop is None else min(stop, len(self))


class DataSet(ABC):
    """Episodes that belong together; each is opened when it is asked for.

    path: the set's directory or file. format: what it is, as in 'LeRobot v3.0'.
    """

    path: Path
    format: str

    @property
    def root(self) -> Path:
        """Where its files lie, which need not be `path`."""
        return self.path

    @abstractmethod
    def __len__(self) -> int:
        """How many episodes there are."""

    @abstractmethod
    def episode(self, index: int) -> Episode:
        """Open one episode, 0 to `len(self)` - 1.

        Raises:
            UserError: It is damaged so that nothing of it can be used; the other episodes can be.
        """

    def problems(self) -> Iterator[str]:
        """What is wrong with the set as a whole, or between its files, a sentence each; episodes are checked by themselves."""
        return iter(())


class ChosenEpisodes(DataSet):
    """Episodes that are open already, as a set: some of another set, or with cameras in other roles.

    Args:
        path: Of the set that they are from.
        episodes: In order.
    """

    format = 'chosen episodes'

    def __init__(self, path: Path, episodes: Sequence[Episode]):
        self.path, self._episodes = path, tuple(episodes)

    def __len__(self) -> int:
        return len(self._episodes)

    def episode(self, index: int) -> Episode:
        """See `DataSet.episode`."""
        return self._episodes[index]


def role_of(name: str) -> Role:
    """What a camera's name says of its place: on the wrist, or beside the robot."""
    return 'wrist' if any(word in name.lower() for word in _WRIST_WORDS) else 'anchor'


def check_indices(indices: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
    """Frame numbers as int64 [N].

    Raises:
        IndexError: One is not between 0 and length - 1.
    """
    numbers = np.asarray(indices, np.int64).reshape(-1)
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= length):
        raise IndexError(f'Frames {numbers.min()} to {numbers.max()} are asked of an episode of {length}.')
    return numbers
