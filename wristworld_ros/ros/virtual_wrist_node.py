"""The lifecycle node `virtual_wrist`: anchor images in, wrist images out. docs/ros.md lists topics, services and frames."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any

import rclpy
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.validate_topic_name import validate_topic_name
from std_srvs.srv import SetBool, Trigger

from wristworld_ros.errors import UserError
from wristworld_ros.models.config import ModelError
from wristworld_ros.msg import VirtualWristStatus
from wristworld_ros.pipeline import VirtualWrist, load_model
from wristworld_ros.pipeline.memory_check import check_memory
from wristworld_ros.pipeline.oom_fallback import OomFallback
from wristworld_ros.pipeline.worker import ModelWorker
from wristworld_ros.ros import environment
from wristworld_ros.ros.conversions import to_stamp
from wristworld_ros.ros.image_inputs import ImageInputs
from wristworld_ros.ros.metrics import Metrics
from wristworld_ros.ros.parameters import Parameters
from wristworld_ros.ros.status_publisher import StatusPublisher, set_counters
from wristworld_ros.ros.wrist_publisher import WristPublisher
from wristworld_ros.runtime.gpu_errors import first_sentence, is_device_lost, is_out_of_memory
from wristworld_ros.runtime.machine import resident_bytes
from wristworld_ros.settings import NodeSettings
from wristworld_ros.types import FrameStatus, Verdict, WristFrame

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR
GPU_LOST_STATUS = 3  # exit status of a process that ends because its GPU is lost
WARM_UP_HW = (240, 320)  # usual size of anchor images, rows and columns


def logged(transition: Callable) -> Callable:
    """A transition whose exceptions reach the log; rclpy turns them into an error state silently."""

    @wraps(transition)
    def run(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception:
            self.get_logger().error(f'{transition.__name__} failed:\n{traceback.format_exc()}')
            raise

    return run


class VirtualWristNode(LifecycleNode):
    """Owns the parts: `inputs` submits anchor sets to `worker`, which runs `stream` in threads of its own and calls
    `deliver` with the frames, which `wrist_publisher` publishes; `status_publisher` reports `metrics` of all of them.

    exit_status: of the process. gpu_lost: one sentence once the GPU is gone, which nothing in the process can change.
    """

    def __init__(self, **kwargs: Any):
        super().__init__('virtual_wrist', **kwargs)
        self.worker: ModelWorker | None = None
        self.stream: VirtualWrist | None = None
        self.inputs: ImageInputs | None = None
        self.wrist_publisher: WristPublisher | None = None
        self.metrics = Metrics()
        self.device = ''
        self.active, self.enabled = False, True
        self.exit_status, self.gpu_lost = 0, ''
        self._abandoned: list[ModelWorker] = []
        self.parameters = Parameters(self, self, NodeSettings())
        self.status_publisher = StatusPublisher(self, self.metrics)
        self._gpu_guard = self.create_guard_condition(self._on_gpu_lost)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_timer(self.settings.diagnostics_period, self._report)
        back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jumps = self.get_clock().create_jump_callback(back, post_callback=self._on_jump)

    # Settings

    @property
    def settings(self) -> NodeSettings:
        """The present settings."""
        return self.parameters.settings

    @property
    def is_configured(self) -> bool:
        """Whether a model is loaded; settings that are not live may not change then."""
        return self.worker is not None

    def apply_settings(self, settings: NodeSettings) -> None:
        """Pass changed live settings on to the parts that use them."""
        for part in (self.inputs, self.wrist_publisher, self.stream):
            if part is not None:
                part.settings = settings

    # Lifecycle

    @logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and warm it up."""
        self.metrics.reset()
        self.status_publisher.reset()
        self.inputs, self.device, self.enabled = None, '', True
        worker = ModelWorker(self._load_stream, self.deliver, self._on_model_error)
        try:
            check_anchor_names(self.settings.anchors)
            worker.start(alive=self.context.ok)
        except Exception as error:  # a UserError is one sentence with its fix; others name their type
            text = str(error) if isinstance(error, UserError) else f'{type(error).__name__}: {error}'
            if self.context.ok():
                self.get_logger().error(f'Cannot configure: {text}')
            self.metrics.reason = text
            self.stream = None
            self._abandoned += [] if worker.stop() else [worker]
            return ERROR if self._is_gpu_lost(error) else FAILURE
        self.worker = worker
        self.wrist_publisher = WristPublisher(self, self.settings, self.metrics)
        self.inputs = ImageInputs(self, self.settings, worker, self.metrics)
        return super().on_configure(state)

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras."""
        self.inputs.restart()
        self.inputs.subscribe()
        self.active = True
        return super().on_activate(state)

    @logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; the weights stay."""
        if self.gpu_lost:
            return ERROR
        self._unsubscribe()
        return super().on_deactivate(state)

    @logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        if self.gpu_lost:
            return ERROR
        self.stop()
        return super().on_cleanup(state)

    @logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model, for good."""
        self.stop()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unexpected exception in a transition back to unconfigured; without its GPU the node is finalized."""
        self.stop()
        if not self.gpu_lost:
            return SUCCESS
        self.get_logger().error(self.gpu_lost)
        return FAILURE

    def autostart(self) -> bool:
        """Configure and activate; False when either failed (the log says why)."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def stop(self) -> bool:
        """Unsubscribe and free the model; False when a thread of a model is still busy with its last anchor set."""
        self._unsubscribe()
        if self.worker and not self.worker.stop():
            self._abandoned.append(self.worker)
        self.worker = self.stream = None
        if self.wrist_publisher:
            self.wrist_publisher.destroy()
            self.wrist_publisher = None
        self._abandoned = [worker for worker in self._abandoned if worker.busy]
        return not self._abandoned

    def _unsubscribe(self) -> None:
        self.active = False
        if self.inputs:
            self.inputs.unsubscribe()
            self.inputs.restart()

    # In the model's threads

    def _load_stream(self) -> VirtualWrist:
        self.stream = load_stream(self.settings, self.get_logger())
        self.device = str(self.stream.model.device)
        return self.stream

    def deliver(self, frames: list[WristFrame]) -> None:
        """Judge and publish the frames that became ready; called by the worker."""
        for frame in frames:
            age_s = (self.now() - frame.stamp_ns) * 1e-9
            verdict = frame.verdict if not frame.valid else self._freshness_verdict(age_s)
            if verdict.status is FrameStatus.VALID:
                self.metrics.count('frames_published')
                self.metrics.add_latency(age_s)
            else:
                self.metrics.count('frames_invalid')
            if verdict.status.is_blank:
                self._fail(verdict.reason, verdict.reason)
            self.metrics.reason = verdict.reason
            self.wrist_publisher.publish(frame, verdict, age_s, self.inputs.anchor_frame)

    def _freshness_verdict(self, age_s: float) -> Verdict:
        """Whether anchor images of that age may still be used, by the node's clock."""
        limit = self.settings.freshness
        if age_s > limit:
            hint = '; does the node share the clock of the stamps (use_sim_time)?' if age_s > 60 else '.'
            reason = f'The anchor images it shows are {age_s:.2f} s old, and freshness allows {limit:g} s{hint}'
            return Verdict(FrameStatus.STALE, reason)
        if age_s < -limit:
            reason = f'Its stamp lies {-age_s:.2f} s in the future; does the node share the clock of the stamps (use_sim_time)?'
            return Verdict(FrameStatus.STAMP_IN_FUTURE, reason)
        return Verdict()

    def _on_model_error(self, error: Exception) -> None:
        if self._is_gpu_lost(error):
            self.metrics.count('model_errors')
            return
        self._fail(f'The model failed on an anchor set: {type(error).__name__}: {error}', type(error).__name__)

    def _fail(self, reason: str, kind: str) -> None:
        """An anchor set was lost to the model. kind: what is logged only now and then."""
        self.metrics.fail(reason)
        if self.metrics.should_log('model', kind):
            self.get_logger().error(reason)

    def _is_gpu_lost(self, error: BaseException) -> bool:
        """Whether an error means that the GPU is gone; the executor then acts on it. For any thread."""
        if not is_device_lost(error):
            return False
        if not self.gpu_lost:
            self.gpu_lost = (
                f'The GPU is lost ({first_sentence(error)}), which no process survives; start the node again, and see '
                'nvidia-smi and the kernel log if it happens again.'
            )
            self._gpu_guard.trigger()
        return True

    # Services, clock, reports

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self.is_configured
        response.message = 'All buffers and caches are cleared.' if response.success else 'The node is not configured.'
        if response.success:
            self.inputs.restart('~/reset was called')
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if self.enabled != request.data:
            self.enabled = request.data
            if self.is_configured:
                self.inputs.enabled = request.data
                self.inputs.restart()
        response.success = True
        response.message = 'Wrist frames are generated.' if request.data else 'No wrist frames are generated.'
        return response

    def _on_jump(self, jump: Any) -> None:
        if self.is_configured and jump.delta.nanoseconds < -self.settings.jump_back * 1e9:
            self.inputs.restart('the clock was set back')
            self.inputs.restart_clock()

    def _on_gpu_lost(self) -> None:
        """Leave the present state by its error path."""
        if self.active:
            self.trigger_deactivate()
        elif self.worker:
            self.trigger_cleanup()
        self._report()
        if self.settings.exit_on_gpu_loss:
            self.exit_status = GPU_LOST_STATUS
            self.create_timer(0.3, self._shut_down)  # when the report has left

    def _shut_down(self) -> None:
        rclpy.try_shutdown(context=self.context)

    def now(self) -> int:
        """The node's clock, nanoseconds."""
        return self.get_clock().now().nanoseconds

    def status(self) -> VirtualWristStatus:
        """The present state and counters as a message."""
        idle = VirtualWristStatus.FINALIZED if self.gpu_lost else VirtualWristStatus.UNCONFIGURED
        state = VirtualWristStatus.INACTIVE if self.worker else idle
        status = VirtualWristStatus(stamp=to_stamp(self.now()), enabled=self.enabled)
        status.state = VirtualWristStatus.ACTIVE if self.active else state
        status.model, status.device, status.memory = self.settings.model, self.device, resident_bytes()
        set_counters(status, self.metrics)
        if self.inputs:
            self.inputs.fill_status(status)
        if self.worker:
            status.sets_used, status.sets_replaced = self.worker.used, self.worker.replaced
        problem = self.inputs.problem if self.inputs else ''
        status.reason = self.gpu_lost or self.metrics.failure or problem or self.metrics.reason or str(self._fallback() or '')
        return status

    def _report(self) -> None:
        if self.inputs:
            self.inputs.check(self.active and self.enabled)
        self.status_publisher.publish(self.status(), self._fallback())

    def _fallback(self) -> OomFallback | None:
        stream = self.stream
        return stream.oom_fallback if stream is not None else None


def check_anchor_names(anchors: list[str]) -> None:
    """Raise UserError unless the names are there, differ, and can be part of a topic's name."""
    if not anchors or len(set(anchors)) < len(anchors):
        raise UserError(f'Setting anchors is {anchors}', 'give at least one name, and no name twice')
    for name in anchors:
        try:
            validate_topic_name(f'anchor_{name}/image_raw')
        except InvalidTopicNameException:
            raise UserError(
                f'Setting anchors is {anchors}, and anchor_{name}/image_raw cannot be the name of a topic',
                'use letters, digits and underscores',
            ) from None


def load_stream(settings: NodeSettings, logger: Any) -> VirtualWrist:
    """A stream that is warmed up. It also sets threads and allocator of the process.

    Raises:
        ModelError: The model cannot be used; before weights are loaded where memory cannot suffice.
    """
    if tight := check_memory(settings, len(settings.anchors)):
        logger.info(tight)
    try:
        model = load_model(settings.model, settings.device, settings.precision, settings.decoder)
        model.configure_process(settings.threads)
        stream = VirtualWrist(model, settings)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f'{settings.model} does not fit into memory ({first_sentence(error)})',
            'end other programs, or take fewer anchors, a smaller chunk or history, or a smaller model',
        ) from None
    logger.info(f'warming up {settings.model} on {model.device}')
    warm_up(stream, settings)
    return stream


def warm_up(stream: VirtualWrist, settings: NodeSettings) -> None:
    """Push blank anchor sets, so that memory is taken and libraries are ready; again after every fallback step.

    Raises:
        ModelError: Memory ran out and nothing was left to give up.
    """
    while True:
        before = stream.oom_fallback.applied, stream.history
        stream.warm_up(tuple(settings.anchors), WARM_UP_HW)
        if not stream.oom_fallback.triggered():
            return
        if (stream.oom_fallback.applied, stream.history) == before:
            raise ModelError(
                f'Memory ran out while {settings.model} was warmed up, and on_out_of_memory names nothing more to give up',
                'end other programs, or take fewer anchors, a smaller chunk or a smaller model',
            )


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop."""
    environment.prepare()
    rclpy.init(args=args)
    try:
        node = VirtualWristNode()
    except UserError as error:
        print(f'virtual_wrist: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    code = 0
    if node.settings.autostart and not node.autostart():
        code = int(rclpy.ok())  # stopped while it loaded is not a failure
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
