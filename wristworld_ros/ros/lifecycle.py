"""A lifecycle node that keeps answering while it configures, and the bond that a lifecycle manager keeps with it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from importlib import import_module
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.task import Future

from wristworld_ros.errors import UserError
from wristworld_ros.ros.conversions import to_stamp

BOND_TIMEOUT_S = 4.0  # after which the other side of a bond counts as dead; that of Nav2's nodes
CLOCK_PATIENCE_S = 2.0  # until a /clock that does not come is worth a warning
STEADY = Clock(clock_type=ClockType.STEADY_TIME)  # goes on where use_sim_time waits for a /clock that never comes


def clock_missing(node: Node) -> str:
    """One sentence where a node waits for a /clock that does not come, otherwise ''."""
    if node.get_clock().now().nanoseconds or not node.get_parameter('use_sim_time').value:
        return ''
    return (
        'use_sim_time is set and nothing comes on /clock, so time stands still; start the simulator or '
        '`ros2 bag play --clock`, or set use_sim_time to false.'
    )


class ResponsiveLifecycleNode(LifecycleNodeMixin, Node):
    """`on_configure` runs in a thread of its own, so that timers and services go on; all else runs in the executor.

    A transition that is requested meanwhile is refused. The answer to the request comes when the thread has ended.

    configuring: whether that thread runs.
    """

    def __init__(self, name: str, **kwargs: Any):
        self.configuring = False
        Node.__init__(self, name, **kwargs)
        # Reentrant: a request whose answer is awaited would otherwise hold up every other callback of the node.
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self._change_state_now: Callable = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state
        self._wake = self.create_guard_condition(lambda: None)
        self._thread: threading.Thread | None = None

    async def configure_in_thread(self) -> TransitionCallbackReturn:
        """`trigger_configure`, while the executor goes on. To be awaited in the executor."""
        return await self._in_thread(self.trigger_configure)

    def join_configuring(self, timeout: float) -> bool:
        """Wait for the thread that configures; False when it still runs after so many seconds."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    async def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        if self.configuring:
            self.get_logger().warning('A transition was refused, for the node is still configuring.')
            response.success = False
            return response
        wanted = request.transition
        if wanted.label == 'configure' or (not wanted.label and wanted.id == Transition.TRANSITION_CONFIGURE):
            return await self._in_thread(lambda: self._change_state_now(request, response))
        return self._change_state_now(request, response)

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        done: Future = Future()

        def run() -> None:
            try:
                result = function()
            except Exception as error:
                done.set_exception(error)
            else:
                done.set_result(result)
            finally:
                self.configuring = False
                self._wake.trigger()  # the executor looks at what it awaits only when something wakes it

        self.configuring = True
        self._thread = threading.Thread(target=run, name='configure', daemon=True)
        self._thread.start()
        return await done


class Bond:
    """Tells a lifecycle manager, on the topic `bond`, that this node lives, as Nav2's nodes do while they are active.

    Args:
        node: Whose name is the bond's id.
        period: Seconds between heartbeats.

    Raises:
        UserError: The package bond is not installed.
    """

    def __init__(self, node: Node, period: float):
        self._node, self._period, self._kind = node, period, self.require()
        self._instance = str(uuid.uuid4())
        self._publisher: Any = node.create_publisher(self._kind, 'bond', 100)
        self._timer = node.create_timer(period, self._beat, clock=STEADY)

    @staticmethod
    def require() -> type:
        """The type of its messages.

        Raises:
            UserError: The package bond is not installed.
        """
        try:
            return import_module('bond.msg').Status
        except ModuleNotFoundError:
            raise UserError(
                'Setting bond_heartbeat is set, but the messages of the package bond are not there',
                'install ros-$ROS_DISTRO-bond, or set bond_heartbeat to never',
            ) from None

    def end(self) -> None:
        """Break the bond, which tells the manager that this was meant, and take it off the graph."""
        self._timer.cancel()
        self._node.destroy_timer(self._timer)
        self._send(active=False)
        self._node.destroy_publisher(self._publisher)

    def _beat(self) -> None:
        self._send(active=True)

    def _send(self, active: bool) -> None:
        message = self._kind(id=self._node.get_name(), instance_id=self._instance, active=active)
        message.header.stamp = to_stamp(self._node.get_clock().now().nanoseconds)
        message.heartbeat_timeout, message.heartbeat_period = BOND_TIMEOUT_S, self._period
        try:
            self._publisher.publish(message)
        except Exception as error:  # where the context shuts down meanwhile
            self._node.get_logger().debug(f'No heartbeat was sent: {error}')
