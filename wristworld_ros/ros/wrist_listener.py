"""Hears what a `virtual_wrist` node publishes about its frames and itself, in a thread and a ROS context of its own.

`policy.WristCamera` reads through it; whoever has a node already need not spin anything for it.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter

from wristworld_ros.errors import UserError
from wristworld_ros.msg import VirtualWristStatus, WristView
from wristworld_ros.ros import environment
from wristworld_ros.ros.conversions import to_ns, to_rgb
from wristworld_ros.ros.image_header import ImageLimits
from wristworld_ros.ros.image_subscription import ImageSubscription
from wristworld_ros.ros.lifecycle import STEADY, clock_missing
from wristworld_ros.ros.names import STATE_NAMES
from wristworld_ros.ros.transforms import pose_matrix
from wristworld_ros.types import Camera, FrameStatus, Geometry, ReceivedFrame, Verdict, WristImage

VIEW = 'wrist/view'
REFRESH_S = 0.5  # between looks at what publishers offer
STATUS_COUNTS_S = 5.0  # for so long what the node said of itself is news; it does once per diagnostics_period
RUN = 'start it (`wristworld run`), or name its namespace'


class WristListener:
    """Subscribes to `wrist/view` and `<node>/status` until it is closed.

    Args:
        on_frame: Called in the listener's thread with everything that arrives on `wrist/view`.
        namespace: Of the node, as in 'left_arm'; '' for none.
        node: Its name.
        use_sim_time: Whether stamps are those of /clock.
        ros_args: Remappings and the like, as after `--ros-args`.

    Raises:
        UserError: The ROS arguments or names cannot be read.
    """

    def __init__(
        self,
        on_frame: Callable[[ReceivedFrame], None],
        namespace: str = '',
        node: str = 'virtual_wrist',
        use_sim_time: bool = False,
        ros_args: Sequence[str] = (),
    ):
        environment.prepare()
        self._on_frame, self._name, self._limits = on_frame, node, ImageLimits()
        self._status: VirtualWristStatus | None = None
        self._status_at, self._bad = float('-inf'), ''
        self._context = rclpy.Context()
        try:
            rclpy.init(args=['--ros-args', *ros_args] if ros_args else [], context=self._context)
            self._node = rclpy.create_node(
                f'wrist_camera_{os.getpid()}_{id(self):x}', context=self._context, namespace=namespace or None,
                parameter_overrides=[Parameter('use_sim_time', value=use_sim_time)], start_parameter_services=False,
            )  # fmt: skip
            self._view = ImageSubscription(self._node, WristView, VIEW, self.take_view, depth=1)
            self._node.create_subscription(VirtualWristStatus, f'{node}/status', self.take_status, 1)
        except Exception as error:  # rclpy has an exception of its own for each kind of name
            rclpy.try_shutdown(context=self._context)
            what = ' '.join(str(error).split()).rstrip('.')
            fix = 'check namespace, node and remappings: names are letters, digits and underscores between slashes'
            raise UserError(f'The wrist camera cannot be opened ({what})', fix) from error
        self._node.create_timer(REFRESH_S, self._view.refresh, clock=STEADY)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name='wrist_listener', daemon=True)
        self._thread.start()
        # A thread of rclpy that is cut off at the end of the interpreter aborts the process.
        atexit.register(self.close)

    def close(self) -> None:
        """Leave the graph; nothing is called after that."""
        atexit.unregister(self.close)
        rclpy.try_shutdown(context=self._context)
        if threading.current_thread() is not self._thread:
            self._thread.join(5.0)
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()

    def now_ns(self) -> int:
        """The ROS clock, nanoseconds."""
        return self._node.get_clock().now().nanoseconds

    def why_silent(self) -> tuple[str, str]:
        """Why no frame comes, and what to do: halves of a sentence."""
        try:
            publishers = self._node.count_publishers(self._view.topic)
            no_clock = clock_missing(self._node)
        except Exception:  # the context is gone
            return 'the wrist camera is closed', 'open it again'
        if no_clock:
            return (
                'use_sim_time is set and nothing comes on /clock',
                'start what publishes it, or leave use_sim_time off',
            )
        if not publishers:
            return f'nothing publishes {self._view.topic}; the node {self._name} does not run there', RUN
        status, heard = self._status, time.monotonic() - self._status_at
        if self._bad:
            return f'the last message could not be used: {self._bad}', 'run one version of the package everywhere'
        if status is None or heard > STATUS_COUNTS_S:
            since = 'yet' if status is None else f'for {heard:.0f} s'
            return (
                f'the node {self._name} has said nothing of itself {since}',
                f'see its log, whether it hangs; or {RUN}',
            )
        if status.state != VirtualWristStatus.ACTIVE:
            return f'the node is {STATE_NAMES.get(status.state, "in an unknown state")}', 'activate it'
        if not status.enabled:
            return 'the node is switched off by ~/enable', 'switch it on'
        if status.reason:
            return f'the node says: {status.reason.rstrip(".")}', 'see `wristworld doctor`'
        return (
            f'the node is active, at {status.frame_rate:.1f} frames/s and {status.latency_p50:.2f} s behind its cameras',
            'wait longer, or allow a greater age',
        )

    def take_view(self, msg: WristView) -> None:
        """Called by rclpy with everything about a frame."""
        try:
            frame = received_frame(msg, self._limits)
        except UserError as error:
            self._bad = str(error).rstrip('.')
            return
        self._bad = ''
        self._on_frame(frame)

    def take_status(self, msg: VirtualWristStatus) -> None:
        """Called by rclpy with what the node says of itself."""
        self._status, self._status_at = msg, time.monotonic()

    def _spin(self) -> None:
        try:
            while self._context.ok():
                self._executor.spin_once(timeout_sec=0.5)
        except ExternalShutdownException:
            pass
        except Exception:
            if self._context.ok():
                raise


def received_frame(msg: WristView, limits: ImageLimits) -> ReceivedFrame:
    """What a message says, with the image only where that is valid; the image is a view of the message's own memory.

    Raises:
        UserError: It says that it is valid and holds no usable image or status.
    """
    try:
        status = FrameStatus(msg.status)
    except ValueError:
        raise UserError(
            f'wrist/view has status {msg.status}, which is none of FrameStatus', 'update the reader'
        ) from None
    stamp_ns = to_ns(msg.header.stamp)
    if status is not FrameStatus.VALID:
        return ReceivedFrame(stamp_ns, Verdict(status, msg.reason))
    rgb = to_rgb(msg.image, limits)
    rgb.flags.writeable = False
    p, q = msg.pose.pose.position, msg.pose.pose.orientation
    T_world_wrist = pose_matrix((p.x, p.y, p.z, q.x, q.y, q.z, q.w))
    if T_world_wrist is None:
        raise UserError(
            'wrist/view has a pose with numbers that are not finite or no unit quaternion', 'see its publisher'
        )
    K, (height, width) = np.array(msg.camera_info.k, np.float64).reshape(3, 3), rgb.shape[:2]
    image = WristImage(
        rgb, stamp_ns, Camera(K, np.linalg.inv(T_world_wrist), width, height), world=msg.pose.header.frame_id,
        frame_id=msg.header.frame_id, geometry=Geometry(msg.geometry), coverage=msg.coverage, confidence=msg.confidence,
        agreement=msg.agreement, residuals=np.array(msg.residuals, np.float64),
    )  # fmt: skip
    return ReceivedFrame(stamp_ns, Verdict(), image)
