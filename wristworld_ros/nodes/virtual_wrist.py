"""The lifecycle node `virtual_wrist`: anchor images in, a wrist camera out."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import partial, wraps

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from wristworld_ros.msg import VirtualWristStatus
from wristworld_ros.nodes import diagnostics, environment
from wristworld_ros.nodes.anchor_sync import AnchorSync, Stamped
from wristworld_ros.nodes.camera_info import intrinsics, scaled
from wristworld_ros.nodes.gpu_loss import STATUS, GpuLoss
from wristworld_ros.nodes.health import Health, resident_bytes
from wristworld_ros.nodes.image_conversion import ImageError, compressed_to_rgb, to_rgb
from wristworld_ros.nodes.loading import load
from wristworld_ros.nodes.outputs import Outputs, to_ns, to_stamp
from wristworld_ros.nodes.parameters import Parameters
from wristworld_ros.nodes.worker import ModelWorker, Stream
from wristworld_ros.settings import NodeSettings
from wristworld_ros.streaming import VirtualWrist
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
        self._worker: ModelWorker | None = None
        self._outputs: Outputs | None = None
        self._stream: Stream | None = None
        self._active = False
        self.parameters = Parameters(self, NodeSettings(), fixed=lambda: self._worker is not None)
        self.add_post_set_parameters_callback(self._pass_on)
        self._abandoned: list[ModelWorker] = []
        self._gpu = GpuLoss(self, self._on_gpu_lost)
        self.exit_status = 0
        self._clear_run()
        self._status = self.create_publisher(VirtualWristStatus, '~/status', 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
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
        self.health = Health()
        self._sync: AnchorSync | None = None
        self._device = ''
        self._enabled = True
        self._inputs: list = []
        self._infos: dict[str, CameraInfo] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._heard: dict[str, int] = {}
        self._silent: list[str] = []
        self._anchor_frame = ''
        self._last_used: int | None = None
        self._before: VirtualWristStatus | None = None

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
            self._stream, self._device = load(settings, self.get_logger().info)
            return self._stream

        worker = ModelWorker(make, self._on_frames, self._on_model_error)
        try:
            worker.start(alive=self.context.ok)
        except Exception as error:  # ModelError is one sentence with file and fix; others name themselves
            text = str(error) if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'
            if self.context.ok():
                self.get_logger().error(f'Cannot configure: {text}')
            self.health.reason = text
            self._stream = None
            self._abandoned += [] if worker.stop() else [worker]
            return ERROR if self._gpu.caused(error) else FAILURE
        self._worker = worker
        self._outputs = Outputs(self, settings, self.health)
        slop, jump = (round(s * 1e9) for s in (settings.slop, settings.jump_back))
        self._sync = AnchorSync(tuple(settings.anchors), slop, jump)
        return super().on_configure(state)

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen to the cameras."""
        self._forget()
        kind, suffix = (CompressedImage, '/compressed') if self.settings.transport == 'compressed' else (Image, '')
        for name in self.settings.anchors:
            self._listen(kind, f'anchor_{name}/image_raw{suffix}', partial(self._on_image, name))
            self._listen(CameraInfo, f'anchor_{name}/camera_info', partial(self._on_info, name))
        self._heard = dict.fromkeys(self.settings.anchors, self._now())
        self._active = True
        return super().on_activate(state)

    @logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening; the weights stay."""
        if self._gpu.why:
            return ERROR
        self._quiet()
        return super().on_deactivate(state)

    @logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        if self._gpu.why:
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
        if not self._gpu.why:
            return SUCCESS
        self.get_logger().error(self._gpu.why)
        return FAILURE

    def _on_gpu_lost(self) -> None:
        """Leave whatever state it is by its error path."""
        if self._active:
            self.trigger_deactivate()
        elif self._worker:
            self.trigger_cleanup()
        self._report()
        if self.settings.exit_on_gpu_loss:
            self.exit_status = STATUS
            self.create_timer(0.3, lambda: rclpy.try_shutdown(context=self.context))  # when the report has left

    def autostart(self) -> bool:
        """Configure and activate; False when either failed (the log says why)."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def _quiet(self) -> None:
        self._active = False
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        self._forget()

    def stop(self) -> bool:
        """Quiet, and without the model; False when a model's thread is still busy with its last push."""
        self._quiet()
        if self._worker and not self._worker.stop():
            self._abandoned.append(self._worker)
        self._worker = self._stream = None
        if self._outputs:
            self._outputs.destroy()
            self._outputs = None
        self._abandoned = [worker for worker in self._abandoned if worker.busy]
        return not self._abandoned

    # In

    def _listen(self, kind: type, topic: str, callback: Callable) -> None:
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        options = QoSOverridingOptions.with_default_policies()
        self._inputs.append(self.create_subscription(kind, topic, callback, qos, qos_overriding_options=options))

    def _on_info(self, name: str, msg: CameraInfo) -> None:
        self._infos[name] = msg

    def _on_image(self, name: str, msg: Image | CompressedImage) -> None:
        self.health.add('images_received')
        self._heard[name] = self._now()
        if not self._enabled:
            return
        try:
            rgb = compressed_to_rgb(msg) if isinstance(msg, CompressedImage) else to_rgb(msg)
        except ImageError as error:
            self.health.add(f'images_bad_{error.cause}')
            topic = self.resolve_topic_name(f'anchor_{name}/image_raw')
            self.health.reason = f'An image on {topic} was dropped: {error}.'
            if self.health.may_say('bad image', topic):
                self.get_logger().warning(self.health.reason)
            return
        if self._sizes.setdefault(name, rgb.shape[:2]) != rgb.shape[:2]:
            self._forget(f'anchor_{name} now sends {rgb.shape[1]}x{rgb.shape[0]} images')
            self._sizes[name] = rgb.shape[:2]
        if name == self.settings.anchors[0]:
            self._anchor_frame = self.settings.anchor_frame or msg.header.frame_id or f'anchor_{name}_optical_frame'
        matched, jumped = self._sync.add(name, to_ns(msg.header.stamp), rgb)
        if jumped:
            self._forget(f'stamps on anchor_{name} jumped back', keep_sync=True)
        if matched:
            self._submit(matched)

    def _submit(self, matched: list[Stamped]) -> None:
        self.health.tick('sets_matched')
        stamp, rate = matched[0].stamp_ns, self.settings.max_rate
        if rate and self._last_used is not None and stamp - self._last_used < 0.95e9 / rate:
            self.health.add('sets_over_rate')
            return
        self._last_used = stamp
        self._worker.submit(self._anchor_set(matched))

    def _anchor_set(self, matched: list[Stamped]) -> AnchorSet:
        """All images at the size of the first, with calibrations where every camera has one."""
        height, width = matched[0].item.shape[:2]
        images, calibrations = [], []
        for name, (_, rgb) in zip(self.settings.anchors, matched, strict=True):
            size = rgb.shape[1], rgb.shape[0]
            K = intrinsics(self._infos[name], *size) if name in self._infos else None
            if size != (width, height):
                rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
                K = None if K is None else scaled(K, size, (width, height))
            images.append(rgb)
            calibrations.append(K)
        known = [K for K in calibrations if K is not None]
        calibration = np.stack(known) if len(known) == len(images) else None
        return AnchorSet(matched[0].stamp_ns, tuple(self.settings.anchors), np.stack(images), calibration)

    # Out, in the model's thread

    def _on_frames(self, frames: list[WristFrame]) -> None:
        for frame in frames:
            settings = self.settings
            age = (self._now() - frame.stamp_ns) * 1e-9
            reason = frame.reason or self._why_stale(age, settings)
            if reason:
                self.health.add('frames_unfit')
            else:
                self.health.tick('frames_published')
                self.health.latency(age)
            if not frame.finite:
                self._on_failure(frame.reason, frame.reason)
            self.health.reason = reason
            self._outputs.send(frame, reason, age, self._anchor_frame, settings)

    @staticmethod
    def _why_stale(age: float, settings: NodeSettings) -> str:
        if age > settings.freshness:
            hint = '; does the node share the clock of the stamps (use_sim_time)?' if age > 60 else ''
            return f'The anchors it shows are {age:.2f} s old; at most {settings.freshness:g} s are allowed (freshness){hint}'
        if age < -settings.freshness:
            return f'Its stamp lies {-age:.2f} s in the future; does the node share the clock of the stamps (use_sim_time)?'
        return ''

    def _on_model_error(self, error: Exception) -> None:
        if self._gpu.caused(error):
            self.health.add('model_errors')
            return
        self._on_failure(f'The model failed on an anchor set: {type(error).__name__}: {error}', type(error).__name__)

    def _on_failure(self, reason: str, kind: str) -> None:
        """A set was lost to the model. kind: what is logged only now and then."""
        self.health.add('model_errors')
        self.health.reason = self.health.failure = reason
        if self.health.may_say('model', kind):
            self.get_logger().error(reason)

    # Services, time, reports

    def _forget(self, why: str = '', keep_sync: bool = False) -> None:
        """Empty every buffer and cache. why: logged and counted as a reset."""
        if self._sync and not keep_sync:
            self._sync.reset()
        if self._worker:
            self._worker.reset()
        self._sizes.clear()
        self._last_used = None
        if why:
            self.health.add('resets')
            if self.health.may_say('forget', why):
                self.get_logger().info(f'Starting afresh: {why}.')

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._worker is not None
        response.message = 'Everything seen so far is forgotten.' if response.success else 'The node is not configured.'
        if response.success:
            self._forget('asked to by ~/reset')
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if self._enabled != request.data:
            self._enabled = request.data
            self._forget()
        response.success = True
        response.message = 'Wrist frames are made.' if request.data else 'No wrist frames are made.'
        return response

    def _on_jump(self, jump) -> None:
        if jump.delta.nanoseconds < -self.settings.jump_back * 1e9:
            self._forget('the clock was set back')
            self._heard = dict.fromkeys(self._heard, self._now())

    def _pass_on(self, parameters) -> None:
        """Live settings reach the stream too."""
        if isinstance(self._stream, VirtualWrist):
            self._stream.settings = self.settings

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds

    def _report(self) -> None:
        self._watch()
        status = self.status()
        name = self.get_fully_qualified_name()
        told = diagnostics.to_array(status, self._before, name, *self._given_up())
        for publisher, message in ((self._status, status), (self._diagnostics, told)):
            try:
                publisher.publish(message)
            except Exception as error:
                self.health.add('publish_errors')
                self.health.reason = f'Publishing on {publisher.topic_name} failed: {error}'
        self._before = status
        if self.health.failure == status.reason:
            self.health.failure = ''

    def _watch(self) -> None:
        """Notice cameras that fall silent or come back."""
        limit = self._now() - self.settings.freshness * 1e9
        silent = [n for n in self._heard if self._heard[n] < limit] if self._active and self._enabled else []
        for name in set(silent) - set(self._silent):
            self.get_logger().warning(f'No images on {self.resolve_topic_name(f"anchor_{name}/image_raw")}.')
        for name in set(self._silent) - set(silent):
            self.get_logger().info(f'Images on {self.resolve_topic_name(f"anchor_{name}/image_raw")} again.')
        self._silent = silent

    def _given_up(self) -> tuple[str, tuple[str, ...]]:
        """What the stream does without since memory ran out: one sentence, and the rungs."""
        stream = self._stream
        return (str(stream.ladder), stream.taken) if isinstance(stream, VirtualWrist) else ('', ())

    def status(self) -> VirtualWristStatus:
        """The present counters as a message."""
        h, counts, worker = self.health, self._sync.counts if self._sync else None, self._worker
        idle = 'finalized' if self._gpu.why else 'unconfigured'
        state = 'active' if self._active else 'inactive' if worker else idle
        status = VirtualWristStatus(stamp=to_stamp(self._now()), state=state, enabled=self._enabled)
        status.model, status.device = self.settings.model, self._device
        for name in (
            'images_received', 'images_bad_encoding', 'images_bad_step', 'images_bad_size', 'images_bad_data', 'sets_matched',
            'sets_over_rate', 'frames_published', 'frames_unfit', 'publish_errors', 'model_errors', 'resets',
        ):  # fmt: skip
            setattr(status, name, h[name])
        if counts:
            status.images_late, status.images_unmatched = counts.late, counts.unmatched
        if worker:
            status.sets_used, status.sets_replaced = worker.used, worker.replaced
        status.set_rate, status.frame_rate = h.rate('sets_matched'), h.rate('frames_published')
        status.latency_p50, status.latency_p95 = h.percentile(50), h.percentile(95)
        status.memory = resident_bytes()
        status.silent_anchors = sorted(self._silent)
        status.reason = self._gpu.why or h.failure or h.reason or self._given_up()[0]
        return status


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
