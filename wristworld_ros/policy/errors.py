"""Why a policy gets no wrist image. Each is a sentence for people and a status for programs; none comes with an image."""

from __future__ import annotations

from wristworld_ros.errors import UserError
from wristworld_ros.types import FrameStatus


class WristCameraError(UserError):
    """There is no wrist image to act on.

    status: the `FrameStatus` that says why, or None where no frame was judged at all.
    """

    def __init__(self, what: str, fix: str, status: FrameStatus | None = None):
        super().__init__(what, fix)
        self.status = status

    def __reduce__(self):
        # A TimeoutError is an OSError, which only its own class may make.
        return type(self), (self.what, self.fix, self.status)


class InvalidFrameError(WristCameraError):
    """The newest frame is invalid; `status` says why."""


class StaleFrameError(WristCameraError, TimeoutError):
    """The newest frame is older than allowed; `status` is STALE."""


class FrameTimeoutError(WristCameraError, TimeoutError):
    """No frame came in time; `status` is None."""


class CameraClosedError(WristCameraError):
    """The camera was closed, maybe while somebody waited for it; `status` is None."""
