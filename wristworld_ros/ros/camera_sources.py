"""What the node `camera` plays: the simulated desk with all that it knows, or videos, which know nothing but images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from wristworld_ros.data.anchor_sources import SynchronizedVideos
from wristworld_ros.errors import UserError
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.settings import CameraSettings
from wristworld_ros.sim.sensor import EXACT, SensorSettings, displaced_pose, measured_depth
from wristworld_ros.types import Camera

if TYPE_CHECKING:  # MuJoCo need not be installed where videos are played
    from wristworld_ros.sim.robot_description import LinkPose

WRIST = 'wrist'  # name of the true wrist camera among the images of a moment
CONTROL_HZ = 20  # of the simulated arm, at least
DEPTH_RANGE_M = 10.0  # what is farther is not measured


@dataclass(frozen=True)
class ArmState:
    """A robot at one time. joints: positions by name, radians and metres. links: where each is in its parent, by name."""

    joints: dict[str, float]
    links: dict[str, LinkPose]


@dataclass(frozen=True)
class Moment:
    """What was taken at one time, by camera name.

    images: uint8 [H, W, 3] RGB. cameras: as far as they are known; their world is the source's `base`. depth: float32 [H, W] of
    anchors that measure it, metres along the optical axis, registered to the image, 0 where unknown. arm: None where there
    is no robot. objects: uint8 [H, W], which object each pixel of the true wrist image shows, or None.
    """

    images: dict[str, np.ndarray]
    cameras: dict[str, Camera] = field(default_factory=dict)
    depth: dict[str, np.ndarray] = field(default_factory=dict)
    arm: ArmState | None = None
    objects: np.ndarray | None = None


class Source(Protocol):
    """Something to play.

    rate: its own frames per second. base: TF frame of the robot's base, '' where there is no robot. damage: sentences about
    what the last pass could not decode.
    """

    rate: float
    base: str

    @property
    def damage(self) -> list[str]: ...

    def moments(self, rate: float) -> Iterator[Moment]:
        """One pass from the beginning, at `rate` frames per second of its own time."""
        ...

    def robot_description(self, folder: Path) -> str:
        """URDF of the robot, whose meshes are written into the folder; '' where there is none."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Videos:
    """Video files that were started together and run side by side; the shortest one ends a pass."""

    base = ''

    def __init__(self, files: dict[str, Path], width: int | None, height: int | None):
        self._names, self._videos = tuple(files), SynchronizedVideos(list(files.values()))
        self._hw = (height, width) if width and height else None
        self.rate = self._videos.rate

    def moments(self, rate: float) -> Iterator[Moment]:
        """Each moment shows every video's newest frame: frames are skipped or repeated where the rates differ."""
        for _, images in self._videos.resampled(rate):
            shown = (image if self._hw is None else resize_images(image[None], self._hw)[0] for image in images)
            yield Moment(dict(zip(self._names, shown, strict=True)))

    @property
    def damage(self) -> list[str]:
        """What the last pass could not decode."""
        return self._videos.damage

    def robot_description(self, folder: Path) -> str:
        """Videos show a robot and do not know it."""
        return ''

    def close(self) -> None:
        """Files are closed at the end of a pass."""


class Simulator:
    """The simulated robot at work, without end. Its cameras are calibrated; its base is the world."""

    def __init__(self, settings: CameraSettings):
        from wristworld_ros.sim.robot_description import BASE_FRAME
        from wristworld_ros.sim.stream import LIVE_SETTINGS, SimulatorStream

        self.rate, self.base = 10.0, BASE_FRAME
        fps = whole_rate(settings.rate or self.rate)
        live = replace(LIVE_SETTINGS, anchors=len(settings.anchors), fps=fps, control_hz=-(-CONTROL_HZ // fps) * fps)
        if settings.width and settings.height:
            live = replace(live, anchor_width=settings.width, anchor_height=settings.height)
        self._names = {f'anchor{i}': name for i, name in enumerate(settings.anchors)} | {'wrist': WRIST}
        self._settings = settings
        self._sensor = SensorSettings() if settings.sensor_errors else EXACT
        self._stream = SimulatorStream(live, settings.seed)
        self.damage: list[str] = []

    def moments(self, rate: float) -> Iterator[Moment]:
        """One moment per simulated frame."""
        stream, given = self._stream, self._settings
        stream.reset(given.seed)
        rng = np.random.default_rng([given.seed, 2])
        calibrated = {name: displaced_pose(np.eye(4), self._sensor, rng) for name in given.anchors}
        while True:
            images = self._named(stream.step(given.depth))
            yield Moment(
                images,
                {name: _off(camera, calibrated.get(name)) for name, camera in self._named(stream.cameras()).items()},
                {name: self._measured(depth, rng) for name, depth in self._named(stream.depth).items()},
                ArmState(stream.env.joint_positions(), stream.env.link_poses()),
                stream.wrist_objects() if given.objects else None,
            )

    def _measured(self, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return measured_depth(np.where(depth < DEPTH_RANGE_M, depth, np.float32(0)), self._sensor, rng)

    def robot_description(self, folder: Path) -> str:
        """URDF of the simulated arm."""
        from wristworld_ros.sim.robot_description import robot_description

        return robot_description(self._stream.env.model, folder)

    def close(self) -> None:
        """Free the renderer."""
        self._stream.close()

    def _named(self, values: dict) -> dict:
        return {self._names[name]: value for name, value in values.items()}


class Prerendered:
    """The first moments of a source, kept and played to and fro without end, as fast as they are asked for."""

    def __init__(self, source: Source, count: int):
        self.rate, self.base, self._source = source.rate, source.base, source
        self._count = count
        self._kept: list[Moment] = []

    def moments(self, rate: float) -> Iterator[Moment]:
        """The kept moments forth and back; they are made when the first one is asked for."""
        if not self._kept:
            self._kept = list(islice(self._source.moments(rate), self._count))
        return cycle([*self._kept, *self._kept[-2:0:-1]])

    @property
    def damage(self) -> list[str]:
        """What the source could not decode."""
        return self._source.damage

    def robot_description(self, folder: Path) -> str:
        """That of the source."""
        return self._source.robot_description(folder)

    def close(self) -> None:
        """Free the source."""
        self._source.close()


def _off(camera: Camera, error: np.ndarray | None) -> Camera:
    """A camera as a calibration has it that errs by T_found_true, float64 [4, 4]; None: it does not."""
    return camera if error is None else replace(camera, T_camera_world=error @ camera.T_camera_world)


def whole_rate(rate: float) -> int:
    """Frames per second of the simulator, each a whole number of control periods, so that the arm moves at its own speed.

    Raises:
        UserError: It is not a whole number.
    """
    if rate < 1 or rate != int(rate):
        raise UserError(
            f'Setting rate is {rate:g}, and the simulator gives whole frames per second', 'give rate as 1 to 240'
        )
    return int(rate)


def open_source(settings: CameraSettings) -> Source:
    """The source that the settings name.

    Raises:
        UserError: It is not there, or not everything it needs was given.
    """
    if settings.source == 'simulator':
        desk = Simulator(settings)
        return desk if settings.prerender is None else Prerendered(desk, settings.prerender)
    if len(settings.videos) != len(settings.anchors):
        raise UserError(
            f'{len(settings.videos)} videos for {len(settings.anchors)} anchors',
            'give one per camera (videos, anchors)',
        )
    files = {name: Path(path) for name, path in zip(settings.anchors, settings.videos, strict=True)}
    if settings.wrist_video:
        files[WRIST] = Path(settings.wrist_video)
    return Videos(files, settings.width, settings.height)
