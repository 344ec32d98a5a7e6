"""The lifecycle node `virtual_wrist`: anchor images in, a wrist camera out."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import wraps

import rclpy
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool, Trigger

from wristworld_ros.msg import VirtualWristStatus
from wristworld_ros.pipeline import VirtualWrist
from wristworld_ros.pipeline.worker import ModelWorker, Stream
from wristworld_ros.ros import environment
from wristworld_ros.ros.gpu_loss import STATUS, GpuLoss
from wristworld_ros.ros.image_inputs import ImageInputs
from wristworld_ros.ros.loading import load
from wristworld_ros.ros.metrics import Metrics
from wristworld_ros.ros.parameters import Parameters
from wristworld_ros.ros.status_publisher import StatusPublisher
from wristworld_ros.ros.wrist_publisher import WristPublisher
from wristworld_ros.settings import NodeSettings
from wristworld_ros.types import AnchorSet, WristFrame

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR


def logged(transition: Callable) -> Callable:
    """A transition whose exceptions reach the log; rclpy turns them into an error state without a word."""

    @wraps(transition)
    def run(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception:
            self.get_logger().error(f'{transition.__name__} failed:\n{traceback.format_exc()}')
            raise

    return run


class VirtualWristNode(LifecycleNode):
    """See docs/ros.md for topics, services, frames, parameters."""

    def __init__(self, **kwargs):
        super().__init__('virtual_wrist', **kwargs)
        self.worker: ModelWorker | None = None
        self.outputs: WristPublisher | None = None
        self.stream: Stream | None = None
        self.active = False
        self.parameters = Parameters(self, NodeSettings(), fixed=lambda: self.worker is not None)
        self.add_post_set_parameters_callback(self._pass_on)
        self._abandoned: list[ModelWorker] = []
        self.gpu = GpuLoss(self, self._on_gpu_lost)
        self.exit_status = 0
        self._reports = StatusPublisher(self)
        self._clear_run()
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_timer(self.settings.diagnostics_period, self._report)
        back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jumps = self.get_clock().create_jump_callback(back, post_callback=self._on_jump)

    @property
    def settings(self) -> NodeSettings:
        return self.parameters.settings

    def _clear_run(self) -> None:
        """Counters and all that was seen, as for a node that was never configured."""
        self.metrics = Metrics()
        self.anchors: ImageInputs | None = None
        self.device = ''
        self.enabled = True
        self._reports.clear()

    # Lifecycle

    @logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and warm it up."""
        self._clear_run()
        settings = self.settings
        if not settings.anchors or len(set(settings.anchors)) < len(settings.anchors):
            self.get_logger().error(f'anchors is {settings.anchors}; give at least one name, and no name twice.')
            return FAILURE

        def make() -> Stream:
            self.stream, self.device = load(settings, self.get_logger().info)
            return self.stream

        worker = ModelWorker(make, self._on_frames, self._on_model_error)
        try:
            worker.start(alive=self.context.ok)
        except Exception as error:  # ModelError is one sentence with file and fix; others name themselves
            text = str(error) if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'
            if self.context.ok():
                self.get_logger().error(f'Cannot configure: {text}')
            self.metrics.reason = text
            self.stream = None
            self._abandoned += [] if worker.stop() else [worker]
            return ERROR if self.gpu.caused(error) else FAILURE
        self.worker = worker
        self.outputs = WristPublisher(self, settings, self.metrics)
        self.anchors = ImageInputs(self, self._submit, self._forget)
        return super().on_configure(state)

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen to the cameras."""
        self._forget()
        self.anchors.listen()
        self.active = True
        return super().on_activate(state)

    @logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening; the weights stay."""
        if self.gpu.why:
            return ERROR
        self._quiet()
        return super().on_deactivate(state)

    @logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        if self.gpu.why:
            return ERROR
        self.stop()
        return super().on_cleanup(state)

    @logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.stop()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unexpected exception in a transition back to unconfigured; without its GPU the node is finalized."""
        self.stop()
        if not self.gpu.why:
            return SUCCESS
        self.get_logger().error(self.gpu.why)
        return FAILURE

    def _on_gpu_lost(self) -> None:
        """Leave whatever state it is by its error path."""
        if self.active:
            self.trigger_deactivate()
        elif self.worker:
            self.trigger_cleanup()
        self._report()
        if self.settings.exit_on_gpu_loss:
            self.exit_status = STATUS
            self.create_timer(0.3, lambda: rclpy.try_shutdown(context=self.context))  # when the report has left

    def autostart(self) -> bool:
        """Configure and activate; False when either failed (the log says why)."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def _quiet(self) -> None:
        self.active = False
        if self.anchors:
            self.anchors.close()
        self._forget()

    def stop(self) -> bool:
        """Quiet, and without the model; False when a model's thread is still busy with its last push."""
        self._quiet()
        if self.worker and not self.worker.stop():
            self._abandoned.append(self.worker)
        self.worker = self.stream = None
        if self.outputs:
            self.outputs.destroy()
            self.outputs = None
        self._abandoned = [worker for worker in self._abandoned if worker.busy]
        return not self._abandoned

    def _submit(self, anchors: AnchorSet) -> None:
        self.worker.submit(anchors)

    # Out, in the model's thread

    def _on_frames(self, frames: list[WristFrame]) -> None:
        for frame in frames:
            settings = self.settings
            age = (self.now() - frame.stamp_ns) * 1e-9
            reason = frame.reason or self._why_stale(age, settings)
            if reason:
                self.metrics.add('frames_invalid')
            else:
                self.metrics.tick('frames_published')
                self.metrics.latency(age)
            if not frame.finite:
                self._on_failure(frame.reason, frame.reason)
            self.metrics.reason = reason
            self.outputs.send(frame, reason, age, self.anchors.frame, settings)

    @staticmethod
    def _why_stale(age: float, settings: NodeSettings) -> str:
        if age > settings.freshness:
            hint = '; does the node share the clock of the stamps (use_sim_time)?' if age > 60 else ''
            return f'The anchors it shows are {age:.2f} s old; at most {settings.freshness:g} s are allowed (freshness){hint}'
        if age < -settings.freshness:
            return f'Its stamp lies {-age:.2f} s in the future; does the node share the clock of the stamps (use_sim_time)?'
        return ''

    def _on_model_error(self, error: Exception) -> None:
        if self.gpu.caused(error):
            self.metrics.add('model_errors')
            return
        self._on_failure(f'The model failed on an anchor set: {type(error).__name__}: {error}', type(error).__name__)

    def _on_failure(self, reason: str, kind: str) -> None:
        """A set was lost to the model. kind: what is logged only now and then."""
        self.metrics.add('model_errors')
        self.metrics.reason = self.metrics.failure = reason
        if self.metrics.should_log('model', kind):
            self.get_logger().error(reason)

    # Services, time, reports

    def _forget(self, why: str = '', keep_sync: bool = False) -> None:
        """Empty every buffer and cache. why: logged and counted as a reset."""
        if self.anchors:
            self.anchors.reset(keep_sync)
        if self.worker:
            self.worker.reset()
        if why:
            self.metrics.add('resets')
            if self.metrics.should_log('forget', why):
                self.get_logger().info(f'Starting afresh: {why}.')

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self.worker is not None
        response.message = 'Everything seen so far is forgotten.' if response.success else 'The node is not configured.'
        if response.success:
            self._forget('asked to by ~/reset')
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if self.enabled != request.data:
            self.enabled = request.data
            self._forget()
        response.success = True
        response.message = 'Wrist frames are made.' if request.data else 'No wrist frames are made.'
        return response

    def _on_jump(self, jump) -> None:
        if jump.delta.nanoseconds < -self.settings.jump_back * 1e9:
            self._forget('the clock was set back')
            if self.anchors:
                self.anchors.restart_clock()

    def _pass_on(self, parameters) -> None:
        """Live settings reach the stream too."""
        if isinstance(self.stream, VirtualWrist):
            self.stream.settings = self.settings

    def now(self) -> int:
        """The node's clock, nanoseconds."""
        return self.get_clock().now().nanoseconds

    def status(self) -> VirtualWristStatus:
        """The present counters as a message."""
        return self._reports.status()

    def _report(self) -> None:
        if self.anchors:
            self.anchors.watch(self.active and self.enabled)
        self._reports.publish()


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop."""
    environment.prepare()
    rclpy.init(args=args)
    try:
        node = VirtualWristNode()
    except ValueError as error:
        print(f'virtual_wrist: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    code = 0
    if node.settings.autostart and not node.autostart():
        code = int(rclpy.ok())  # stopped while it loaded is no failure
    else:
        environment.spin(executor)
        code = node.exit_status
    ended = node.stop()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    if not ended:
        environment.leave(code)
    return code


if __name__ == '__main__':
    environment.leave(main())
