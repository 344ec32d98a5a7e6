"""`WristCamera`: the virtual wrist camera of a running node, read over ROS like any other camera."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from wristworld_ros.policy.frames import MAX_AGE_S, FrameReader, LatestFrame, Silence


class WristCamera(FrameReader):
    """Reads the images that a `virtual_wrist` node publishes, from the moment it is made until it is closed.

    It has a ROS context and a thread of its own: nothing need be initialised or spun. It always counts what the newest frame
    is; with the node's setting `publish_invalid` an invalid one raises at once and says why, without it the images before
    it are given until they are too old.

    Args:
        namespace: Of the node, as in 'left_arm'; '' for none.
        node: Its name.
        max_age: The oldest image that is ever given, seconds from its stamp.
        use_sim_time: Whether stamps are those of /clock.
        ros_args: Remappings and the like, as after `--ros-args`: ('-r', 'wrist/view:=/other/view').

    Attributes:
        latest: The newest frame; further `FrameReader`s of this camera read it too.

    Raises:
        UserError: The names or ROS arguments cannot be read.
    """

    def __init__(
        self,
        namespace: str = '',
        node: str = 'virtual_wrist',
        max_age: float = MAX_AGE_S,
        use_sim_time: bool = False,
        ros_args: Sequence[str] = (),
    ):
        from wristworld_ros.ros.wrist_listener import WristListener

        self.latest = LatestFrame()
        super().__init__(self, max_age)
        self._listener = WristListener(self.latest.put, namespace, node, use_sim_time, ros_args)

    def now_ns(self) -> int:
        """The ROS clock, nanoseconds."""
        return self._listener.now_ns()

    def why_silent(self) -> Silence:
        """Why no frame comes, as far as the node and the graph say."""
        return Silence(*self._listener.why_silent())

    def close(self) -> None:
        """Leave the ROS graph; whoever waits gets a CameraClosedError."""
        self.latest.close()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
