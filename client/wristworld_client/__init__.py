"""The virtual wrist camera of wristworld_ros, read without ROS: the newest image, or an error that says why there is none."""

from wristworld_client.client import WristClient, WristImage
from wristworld_client.errors import (
    CameraClosedError,
    ConnectionFailedError,
    FrameTimeoutError,
    InvalidFrameError,
    StaleFrameError,
    WristCameraError,
)
from wristworld_client.status import FrameStatus, Geometry

__version__ = '0.1.0'
__all__ = [
    'CameraClosedError', 'ConnectionFailedError', 'FrameStatus', 'FrameTimeoutError', 'Geometry', 'InvalidFrameError',
    'StaleFrameError', 'WristCameraError', 'WristClient', 'WristImage',
]  # fmt: skip
