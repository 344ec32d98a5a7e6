"""The wrist camera in LeRobot's terms: an observation with its keys, and a camera that its robots read; LeRobot is not imported.

LeRobot asks for the size and rate of the data set that a policy was trained on: images stay as they are unless a size is given.
It resizes images itself where a policy wants another size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from wristworld_ros.errors import UserError
from wristworld_ros.policy.fitting import check_image, check_vector, stretch_wrist
from wristworld_ros.types import WristImage

NAME = 'wrist_virtual'  # of the camera, as in data sets that `wristworld` added it to
IMAGES, STATE = 'observation.images.', 'observation.state'
EXAMPLE_HW = (480, 640)
FIRST_S = 5.0  # for the first image: programs on the ROS graph need a second to find each other


def observation(
    wrist: WristImage, images: Mapping[str, np.ndarray], state: np.ndarray, name: str = NAME
) -> dict[str, np.ndarray]:
    """What `prepare_observation_for_inference` takes; the task is another argument of it.

    Args:
        wrist: The wrist image.
        images: The other cameras by name, uint8 [H, W, 3], RGB.
        state: float [N], as in the data set.
        name: Of the wrist camera in the data set.

    Returns:
        observation.images.<camera> uint8 [H, W, 3] and observation.state float32 [N]; arrays of their own, which torch may
        take without a copy.

    Raises:
        UserError: An argument has another shape or type, or another camera has that name.
    """
    if name in images:
        raise UserError(f'images has a camera {name!r} already', 'give the wrist camera another name')
    found = {}
    for camera, image in images.items():
        check_image(f'The image of {camera}', image)
        found[IMAGES + camera] = np.array(image)
    found[IMAGES + name] = np.array(wrist.image)
    found[STATE] = check_vector('state', state, np.size(state)).astype(np.float32)
    return found


def make_example(seed: int = 0, cameras: tuple[str, ...] = ('left',), state: int = 8) -> dict[str, np.ndarray]:
    """A random observation with the keys and types of `observation`: for warming a policy up and for tests.

    Args:
        seed: Of the random numbers.
        cameras: Beside the wrist camera.
        state: Numbers of the state.
    """
    rng = np.random.default_rng(seed)
    images = {IMAGES + name: rng.integers(0, 256, (*EXAMPLE_HW, 3), np.uint8) for name in (*cameras, NAME)}
    return images | {STATE: rng.random(state, np.float32)}


class Promises(Protocol):
    """A camera that promises an image or an error: `WristCamera`, `FrameReader`."""

    def read(self, timeout: float = ...) -> WristImage:
        """The next frame."""

    def async_read(self, timeout: float = ...) -> WristImage:
        """The newest frame that was not read yet, or the next."""

    def read_latest(self, max_age: float | None = ...) -> WristImage:
        """The newest frame."""


class LeRobotCamera:
    """The methods of LeRobot's `Camera`, for `robot.cameras['wrist_virtual'] = LeRobotCamera(WristCamera())`.

    Images are uint8 [height, width, 3] arrays of their own. The errors are those of `WristCamera`; what LeRobot expects as a
    TimeoutError is one.

    Args:
        camera: The wrist camera, open.
        height: Of the images, pixels; None as they come. Other sizes are resized whole.
        width: Likewise.
        fps: Of the data set; only said, for images come when the node has them.
    """

    def __init__(self, camera: Promises, height: int | None = None, width: int | None = None, fps: int | None = None):
        if (height is None) != (width is None):
            raise UserError('One of height and width is given', 'give both, or neither')
        self.height, self.width, self.fps = height, width, fps
        self.is_connected = True
        self._camera = camera

    def connect(self, warmup: bool = True) -> None:
        """Wait up to 5 s for a first image, unless told not to."""
        self.is_connected = True
        if warmup:
            self._camera.read(FIRST_S)

    def disconnect(self) -> None:
        """Close the wrist camera where that can be closed."""
        self.is_connected = False
        if close := getattr(self._camera, 'close', None):
            close()

    def read(self) -> np.ndarray:
        """The next image; see `FrameReader.read`."""
        return self._array(self._camera.read())

    def async_read(self, timeout_ms: float = 200) -> np.ndarray:
        """The newest image not read yet, or the next; see `FrameReader.async_read`. timeout_ms: milliseconds."""
        return self._array(self._camera.async_read(timeout_ms / 1e3))

    def read_latest(self, max_age_ms: float = 500) -> np.ndarray:
        """The newest image; see `FrameReader.read_latest`. max_age_ms: milliseconds."""
        return self._array(self._camera.read_latest(max_age_ms / 1e3))

    def _array(self, wrist: WristImage) -> np.ndarray:
        if self.height is not None and self.width is not None:
            wrist = stretch_wrist(wrist, self.height, self.width)
        return np.array(wrist.image)

    def __enter__(self) -> LeRobotCamera:
        self.connect()
        return self

    def __exit__(self, *_: Any) -> None:
        self.disconnect()
