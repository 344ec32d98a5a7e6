"""Wrist images, and a source of frames whose clock and silence the test decides."""

import threading
import time

import numpy as np
import pytest

from wristworld_ros.policy.frames import LatestFrame, Silence
from wristworld_ros.types import Camera, FrameStatus, Geometry, ReceivedFrame, Verdict, WristImage

S = 1_000_000_000


def pattern(height, width):
    """uint8 [height, width, 3] with edges and slopes in every direction; the numbers of the fixtures are of it."""
    y, x, c = np.ogrid[:height, :width, :3]
    return ((x * x * 3 + y * y * 5 + x * y * 7 + c * 83 + (x // 5 % 2) * 90) % 256).astype(np.uint8)


def wrist_image(height=96, width=128, stamp_ns=0, image=None):
    K = np.array([[100.0, 0, (width - 1) / 2], [0, 100.0, (height - 1) / 2], [0, 0, 1]])
    T = np.eye(4)
    T[:3, 3] = 0.1, 0.2, 0.3
    image = pattern(height, width) if image is None else image
    return WristImage(
        image, stamp_ns, Camera(K, T, width, height), world='fr3_link0', frame_id='virtual_wrist_optical_frame',
        geometry=Geometry.RGBD, coverage=0.75, confidence=0.5, agreement=float('nan'), residuals=np.array([0.001, 0.002]),
    )  # fmt: skip


class Source:
    """Frames that the test puts, at a time that the test sets."""

    def __init__(self):
        self.latest, self.time_ns = LatestFrame(), 0

    def now_ns(self):
        return self.time_ns

    def why_silent(self):
        return Silence('the test sends nothing', 'send something')

    def put(self, stamp_ns=None, status=FrameStatus.VALID, **kwargs):
        """A frame of now, or of another time."""
        stamp_ns = self.time_ns if stamp_ns is None else stamp_ns
        if status is FrameStatus.VALID:
            self.latest.put(ReceivedFrame(stamp_ns, Verdict(), wrist_image(stamp_ns=stamp_ns, **kwargs)))
        else:
            self.latest.put(ReceivedFrame(stamp_ns, Verdict(status, 'The cup is in the way.')))
        return stamp_ns


@pytest.fixture
def in_a_thread():
    """Starts a function that waits; returns a way to get its result or its error."""

    def started(function):
        got = []

        def run():
            try:
                got.append(function())
            except Exception as error:
                got.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.1)

        def result():
            thread.join(10)
            assert not thread.is_alive()
            return got[0]

        return result

    return started


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def make_wrist():
    return wrist_image


@pytest.fixture
def make_pattern():
    return pattern
