"""What the camera node plays: videos or the simulator, as sets of images by camera name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import av
import cv2
import numpy as np

from wristworld_ros.settings import CameraSettings
from wristworld_ros.types import Camera

WRIST = 'wrist'  # the name of the true wrist camera in a set


@dataclass(frozen=True)
class Played:
    """Images of one moment, uint8 [H, W, 3] RGB by camera name, and what is known of the cameras (in the robot's base)."""

    images: dict[str, np.ndarray]
    cameras: dict[str, Camera]


class Source(Protocol):
    """Something to play. rate: its own frames a second."""

    rate: float

    def frames(self, rate: float) -> Iterator[Played]:
        """One pass from the beginning, at that many frames a second of its own time."""
        ...

    def close(self) -> None: ...


class Videos:
    """Video files that run side by side; the shortest one ends a pass."""

    def __init__(self, files: dict[str, Path], size: tuple[int, int]):
        """size: width and height to resize to; (0, 0) keeps each video's own."""
        self.files, self._size = files, size
        rates = {}
        for name, path in files.items():
            try:
                with av.open(str(path)) as container:
                    rates[name] = float(container.streams.video[0].average_rate or 0)
            except (OSError, IndexError) as error:
                raise ValueError(
                    f'The video of {name}, {path}, cannot be read ({error}); give a file that PyAV can decode.'
                ) from error
        self.rate = next(iter(rates.values())) or 10.0

    def frames(self, rate: float) -> Iterator[Played]:
        """Each moment shows every video's newest frame: frames are skipped or repeated where the rates differ."""
        videos = {name: self._moments(path, rate) for name, path in self.files.items()}
        for images in zip(*videos.values()):
            yield Played(dict(zip(videos, images, strict=True)), {})

    def _moments(self, path: Path, rate: float) -> Iterator[np.ndarray]:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            due, time, start, image = 0.0, 0.0, None, None
            for frame in container.decode(stream):
                start = frame.time if start is None else start
                time = frame.time - start
                while image is not None and due < time - 1e-4:
                    yield image
                    due += 1 / rate
                image = self._resized(frame.to_ndarray(format='rgb24'))
            if image is not None and due <= time + 1e-4:
                yield image

    def _resized(self, image: np.ndarray) -> np.ndarray:
        width, height = self._size
        if not width or not height or image.shape[:2] == (height, width):
            return image
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)

    def close(self) -> None:
        pass


class Simulator:
    """The simulated robot at work, without end. Its cameras are calibrated; its base is the world."""

    CONTROL_HZ = 20

    def __init__(self, settings: CameraSettings):
        from wristworld_ros.sim.stream import LIVE_SETTINGS, SimulatorStream

        self.rate = 10.0
        wanted = settings.rate or self.rate
        steps = [n for n in range(1, self.CONTROL_HZ + 1) if self.CONTROL_HZ % n == 0]
        fps = min(
            steps, key=lambda n: abs(n - wanted)
        )  # simulated frames a second; a whole number of control steps each
        live = replace(LIVE_SETTINGS, anchors=len(settings.anchors), fps=fps, control_hz=self.CONTROL_HZ)
        if settings.width and settings.height:
            live = replace(live, anchor_width=settings.width, anchor_height=settings.height)
        names = {f'anchor{i}': name for i, name in enumerate(settings.anchors)}
        self._names = {**names, 'wrist': WRIST}
        self._seed = settings.seed
        self._stream = SimulatorStream(live, settings.seed)

    def frames(self, rate: float) -> Iterator[Played]:
        self._stream.reset(self._seed)
        while True:
            images = self._stream.step()
            cameras = self._stream.cameras()
            yield Played(
                {self._names[k]: v for k, v in images.items()}, {self._names[k]: v for k, v in cameras.items()}
            )

    def close(self) -> None:
        self._stream.close()


def open_source(settings: CameraSettings) -> Source:
    """The source that the settings name; ValueError with one sentence when it is not there."""
    if settings.source == 'simulator':
        return Simulator(settings)
    if len(settings.videos) != len(settings.anchors):
        raise ValueError(
            f'{len(settings.videos)} videos for {len(settings.anchors)} anchors; give one a camera (videos, anchors).'
        )
    files = {name: Path(path) for name, path in zip(settings.anchors, settings.videos, strict=True)}
    if settings.wrist_video:
        files[WRIST] = Path(settings.wrist_video)
    return Videos(files, (settings.width, settings.height))
