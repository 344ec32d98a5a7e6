"""The lifecycle node `virtual_wrist`: anchor images in, wrist images out. docs/ros.md lists topics, services and frames."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any

import rclpy
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool, Trigger

from wristworld_ros.errors import UserError
from wristworld_ros.msg import VirtualWristStatus
from wristworld_ros.pipeline import VirtualWrist
from wristworld_ros.pipeline.oom_fallback import OomFallback
from wristworld_ros.pipeline.worker import ModelWorker
from wristworld_ros.ros import environment
from wristworld_ros.ros.conversions import to_stamp
from wristworld_ros.ros.image_inputs import ImageInputs
from wristworld_ros.ros.knowledge import Knowledge
from wristworld_ros.ros.lifecycle import CLOCK_PATIENCE_S, STEADY, Bond, ResponsiveLifecycleNode, clock_missing
from wristworld_ros.ros.metrics import Metrics
from wristworld_ros.ros.model_loading import load_stream
from wristworld_ros.ros.parameters import Parameters
from wristworld_ros.ros.status_publisher import StatusPublisher, set_counters
from wristworld_ros.ros.wrist_publisher import ValidityLog, WristPublisher
from wristworld_ros.runtime.gpu_errors import first_sentence, is_device_lost
from wristworld_ros.runtime.machine import resident_bytes
from wristworld_ros.settings import NodeSettings
from wristworld_ros.types import FrameStatus, Verdict, WristFrame

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR
GPU_LOST_STATUS = 3  # exit status of a process that ends because its GPU is lost


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


class VirtualWristNode(ResponsiveLifecycleNode):
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
        self.bond: Bond | None = None
        self.metrics = Metrics()
        self.last_frame: WristFrame | None = None
        self.validity_log = ValidityLog(self.get_logger())
        self.device = ''
        self.active, self.finalized, self.enabled = False, False, True
        self.exit_status, self.gpu_lost = 0, ''
        self._abandoned: list[ModelWorker] = []
        self._started = time.monotonic()
        self.parameters = Parameters(self, self, NodeSettings())
        self.status_publisher = StatusPublisher(self, self.metrics)
        self._gpu_guard = self.create_guard_condition(self._on_gpu_lost)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_timer(self.settings.diagnostics_period, self._report, clock=STEADY)
        back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jumps = self.get_clock().create_jump_callback(back, post_callback=self._on_jump)

    # Settings

    @property
    def settings(self) -> NodeSettings:
        """The present settings."""
        return self.parameters.settings

    @property
    def is_configured(self) -> bool:
        """Whether a model is loaded or loading; settings that are not live may not change then."""
        return self.worker is not None or self.configuring

    def apply_settings(self, settings: NodeSettings) -> None:
        """Pass changed live settings on to the parts that use them."""
        knowledge = self.inputs.knowledge if self.inputs else None
        for part in (self.inputs, knowledge, self.wrist_publisher, self.stream):
            if part is not None:
                part.settings = settings

    # Lifecycle

    @logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and warm it up. It runs in a thread of its own."""
        self.metrics.reset()
        self.status_publisher.reset()
        self.inputs, self.device, self.enabled = None, '', True
        self.metrics.reason = f'{self.settings.model} is being loaded.'
        self.last_frame = None
        worker = ModelWorker(self._load_stream, self.deliver, self._on_model_error)
        try:
            if self.settings.bond_heartbeat:
                Bond.require()
            worker.start(alive=self.context.ok)
            knowledge = Knowledge(self, self.settings, self.metrics, self.stream.model.config.wrist_hw)
        except Exception as error:  # a UserError is one sentence with its fix; others name their type
            text = str(error) if isinstance(error, UserError) else f'{type(error).__name__}: {error}'
            if self.context.ok():
                self.get_logger().error(f'Cannot configure: {text}')
            self.metrics.reason = text
            self.stream = None
            self._abandoned += [] if worker.stop() else [worker]
            return ERROR if self._is_gpu_lost(error) else FAILURE
        self.metrics.reason = ''
        self.worker = worker
        self.wrist_publisher = WristPublisher(self, self.settings, self.metrics, knowledge.calibration)
        self.inputs = ImageInputs(self, self.settings, worker, self.metrics, knowledge)
        self.apply_settings(self.settings)  # live ones that changed while it loaded
        return super().on_configure(state)

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras."""
        self.inputs.restart()
        self.validity_log.reset()
        self.inputs.subscribe()
        self.active = True
        if self.settings.bond_heartbeat:
            self.bond = Bond(self, self.settings.bond_heartbeat)
        names = ', '.join(f'anchor_{name}' for name in self.settings.anchors)
        self.get_logger().info(
            f'Active on {self.device}: waiting for images of {names}; wrist images go to '
            f'{self.resolve_topic_name("wrist/image_raw")}.'
        )
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
        self.finalized = True
        self.metrics.reason = ''
        self._report()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unexpected exception in a transition back to unconfigured; without its GPU the node is finalized."""
        self.stop()
        if not self.gpu_lost:
            return SUCCESS
        self.get_logger().error(self.gpu_lost)
        return FAILURE

    def autostart(self) -> bool:
        """Configure and activate; False when either failed (the log says why). Nothing else goes on meanwhile."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    async def autostart_or_end(self) -> None:
        """Configure and activate while the executor goes on; where either fails the process ends with status 1."""
        if await self.configure_in_thread() != SUCCESS or self.trigger_activate() != SUCCESS:
            self.exit_status = int(self.context.ok())  # stopped while it loaded is not a failure
            self._shut_down()

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
        if self.bond:
            self.bond.end()
            self.bond = None
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
            verdict = self._verdict(frame, age_s)
            self.last_frame = frame
            if verdict.status.is_blank:
                self._fail(verdict.reason, verdict.reason)
            self.metrics.reason = verdict.reason
            sent = self.wrist_publisher.publish(frame, verdict, age_s, self.inputs.anchor_frame)
            if verdict.status is not FrameStatus.VALID:
                self.metrics.count('frames_invalid')
            elif sent:
                self.metrics.count('frames_published')
                self.metrics.add_latency(age_s)
            self.validity_log.add(verdict)

    def _verdict(self, frame: WristFrame, age_s: float) -> Verdict:
        """Whether a frame of that age is valid: as it was generated, with all that is required, and fresh."""
        if not frame.valid:
            return frame.verdict
        if unmet := self.inputs.knowledge.unmet(frame.stamp_ns):
            return Verdict(FrameStatus.REQUIRED_MISSING, unmet)
        return self._freshness_verdict(age_s)

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
        response.success = self.inputs is not None and not self.configuring
        response.message = 'All buffers and caches are cleared.' if response.success else 'The node is not configured.'
        if response.success:
            self.inputs.restart('~/reset was called')
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if self.enabled != request.data:
            self.enabled = request.data
            if self.inputs:
                self.inputs.enabled = request.data
                self.inputs.restart()
        response.success = True
        response.message = 'Wrist frames are generated.' if request.data else 'No wrist frames are generated.'
        return response

    def _on_jump(self, jump: Any) -> None:
        if self.inputs and jump.delta.nanoseconds < -self.settings.jump_back * 1e9:
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
            self.create_timer(0.3, self._shut_down, clock=STEADY)  # when the report has left

    def _shut_down(self) -> None:
        rclpy.try_shutdown(context=self.context)

    def now(self) -> int:
        """The node's clock, nanoseconds."""
        return self.get_clock().now().nanoseconds

    def status(self) -> VirtualWristStatus:
        """The present state and counters as a message."""
        gone = self.finalized or self.gpu_lost
        idle = VirtualWristStatus.FINALIZED if gone else VirtualWristStatus.UNCONFIGURED
        state = VirtualWristStatus.INACTIVE if self.worker else idle
        status = VirtualWristStatus(stamp=to_stamp(self.now()), enabled=self.enabled)
        status.state = VirtualWristStatus.ACTIVE if self.active else state
        status.model, status.device, status.memory = self.settings.model, self.device, resident_bytes()
        set_counters(status, self.metrics)
        if self.inputs:
            self.inputs.fill_status(status)
        if frame := self.last_frame:
            status.geometry, status.residuals = int(frame.geometry), [float(v) for v in frame.residuals]
            status.missing = [*status.missing, *frame.missing]
        if self.worker:
            status.sets_used, status.sets_replaced = self.worker.used, self.worker.replaced
        problem = self.inputs.problem if self.inputs else ''
        no_clock = '' if self.finalized else clock_missing(self)
        failed = self.gpu_lost or no_clock or self.metrics.failure
        status.reason = failed or problem or self.metrics.reason or str(self._fallback() or '')
        return status

    def _report(self) -> None:
        if (missing := clock_missing(self)) and time.monotonic() - self._started > CLOCK_PATIENCE_S:
            self.get_logger().warning(missing, once=True)
        if self.inputs:
            self.inputs.check(self.active and self.enabled)
        self.status_publisher.publish(self.status(), self._fallback())

    def _fallback(self) -> OomFallback | None:
        stream = self.stream
        return stream.oom_fallback if stream is not None else None


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop."""
    environment.prepare()
    try:
        environment.init(args)
        node = environment.make(VirtualWristNode)
    except UserError as error:
        print(f'virtual_wrist: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    if node is None:
        return 0
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    if node.settings.autostart:
        executor.create_task(node.autostart_or_end)
    environment.spin(executor)
    ended = node.join_configuring(1.0) and node.stop()
    executor.shutdown(timeout_sec=0.2)  # a transition whose answer is awaited would otherwise hold it up for ever
    code = node.exit_status
    if not ended:
        environment.leave(code)
    node.destroy_node()
    rclpy.try_shutdown()
    return code


if __name__ == '__main__':
    environment.leave(main())
