"""Why there is no wrist image. Each is a sentence for people and a status for programs; none comes with an image."""

from __future__ import annotations

from wristworld_client.status import FrameStatus


class WristCameraError(ValueError):
    """There is no wrist image to act on.

    Args:
        what: What is wrong, without a full stop.
        fix: What to do about it, without a full stop.
        status: The `FrameStatus` that says why, or its number where this version does not know it; None where no frame was
            judged at all.
    """

    def __init__(self, what: str, fix: str, status: int | None = None):
        super().__init__(f'{what}; {fix}.')
        self.what, self.fix = what, fix
        known = status is not None and status in list(FrameStatus)
        self.status = FrameStatus(status) if known and status is not None else status

    def __reduce__(self):
        return type(self), (self.what, self.fix, self.status)


class InvalidFrameError(WristCameraError):
    """The newest frame is invalid; `status` says why."""


class StaleFrameError(WristCameraError, TimeoutError):
    """The newest frame is older than allowed; `status` is STALE."""


class FrameTimeoutError(WristCameraError, TimeoutError):
    """No frame came in time; `status` is None."""


class CameraClosedError(WristCameraError):
    """The server's camera, or this client, is closed; `status` is None."""


class ConnectionFailedError(WristCameraError, ConnectionError):
    """There is no server, it does not answer, or it speaks another protocol; the next call connects again."""
