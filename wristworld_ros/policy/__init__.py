"""How policies read the wrist camera: the newest image or an error, over ROS or a socket, in the form that each of them takes.

In come the frames that the node publishes; out go `WristImage`s of `WristCamera`, replies of the `FrameServer`, and the
observations of the adapters (`lerobot`, `openpi`, `octo`). It may use everything below; the messages themselves are read by
`ros.wrist_listener`, which is imported when a camera is opened, and no package of a policy is imported at all.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    'WristCamera': 'wrist_camera',
    'CameraClosedError': 'errors',
    'FrameTimeoutError': 'errors',
    'InvalidFrameError': 'errors',
    'StaleFrameError': 'errors',
    'WristCameraError': 'errors',
}
__all__ = [
    'CameraClosedError', 'FrameTimeoutError', 'InvalidFrameError', 'StaleFrameError', 'WristCamera', 'WristCameraError',
]  # fmt: skip

if TYPE_CHECKING:
    from wristworld_ros.policy.errors import (
        CameraClosedError,
        FrameTimeoutError,
        InvalidFrameError,
        StaleFrameError,
        WristCameraError,
    )
    from wristworld_ros.policy.wrist_camera import WristCamera


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
