"""What the node says of itself: ~/status with all counters, and /diagnostics with a level and one sentence."""

from __future__ import annotations

from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from std_msgs.msg import Header

from wristworld_ros.msg import VirtualWristStatus
from wristworld_ros.pipeline.oom_fallback import OomFallback
from wristworld_ros.ros.metrics import Metrics, publish_counted
from wristworld_ros.ros.names import STATE_NAMES
from wristworld_ros.types import Geometry

# Fields of the status that are counters of `Metrics`.
COUNTERS = (
    'images_received', 'images_bad_encoding', 'images_bad_step', 'images_bad_size', 'images_bad_data', 'images_over_limit',
    'decoder_messages', 'sets_matched',
    'sets_over_rate', 'frames_published', 'frames_invalid', 'publish_errors', 'model_errors', 'resets',
)  # fmt: skip
BAD_IMAGES = (
    'images_bad_encoding', 'images_bad_step', 'images_bad_size', 'images_bad_data', 'images_over_limit',
)  # fmt: skip


class StatusPublisher:
    """Publishes the status of a node; diagnostics judge counters by what they gained since the status before."""

    def __init__(self, node: Node, metrics: Metrics):
        self._node, self._metrics = node, metrics
        self._status = node.create_publisher(VirtualWristStatus, '~/status', 10)
        self._diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._before: VirtualWristStatus | None = None

    def reset(self) -> None:
        """Counters start from zero: there is no status before the next one."""
        self._before = None

    def publish(self, status: VirtualWristStatus, fallback: OomFallback | None) -> None:
        """Both messages.

        Args:
            status: Of now.
            fallback: What the stream gave up since memory ran out; None without a stream.
        """
        name, logger = self._node.get_fully_qualified_name(), self._node.get_logger()
        diagnostics = diagnostic_array(status, self._before, name, fallback)
        publish_counted(self._status, status, self._metrics, logger)
        publish_counted(self._diagnostics, diagnostics, self._metrics, logger)
        self._before = status
        self._metrics.failures_reported(status.model_errors)


def set_counters(status: VirtualWristStatus, metrics: Metrics) -> None:
    """Fill in what `Metrics` knows: counters, rates, latencies."""
    for name in COUNTERS:
        setattr(status, name, metrics[name])
    status.set_rate, status.frame_rate = metrics.rate('sets_matched'), metrics.rate('frames_published')
    status.latency_p50, status.latency_p95 = metrics.latency_percentile(50), metrics.latency_percentile(95)


def diagnostic_array(
    status: VirtualWristStatus, before: VirtualWristStatus | None, name: str, fallback: OomFallback | None = None
) -> DiagnosticArray:
    """A status as diagnostics: level, one sentence and every field.

    Args:
        status: Of now.
        before: The one published before it, None for none.
        name: The node's full name.
        fallback: What the stream gave up since memory ran out; None without a stream.
    """
    given_up, applied = (str(fallback), fallback.applied) if fallback is not None else ('', ())
    level, message = assess(status, before, given_up)
    values = []
    for key in status.get_fields_and_field_types():
        if key != 'stamp':
            values.append(KeyValue(key=key, value=_shown(key, getattr(status, key))))
    values.append(KeyValue(key='oom_steps_applied', value=', '.join(applied)))
    entry = DiagnosticStatus(
        level=level, name=f'{name}: virtual wrist', message=message, hardware_id=status.device, values=values
    )
    return DiagnosticArray(header=Header(stamp=status.stamp), status=[entry])


def assess(status: VirtualWristStatus, before: VirtualWristStatus | None, given_up: str = '') -> tuple[bytes, str]:
    """Level and one sentence.

    Args:
        status: Of now.
        before: The one published before it; counters are judged by what they gained since.
        given_up: One sentence on what the stream gave up since memory ran out, or ''.
    """

    def new(*names: str) -> int:
        return sum(getattr(status, n) - (getattr(before, n) if before else 0) for n in names)

    error, warning, ok = DiagnosticStatus.ERROR, DiagnosticStatus.WARN, DiagnosticStatus.OK
    if status.state == VirtualWristStatus.FINALIZED and status.reason:
        return error, status.reason
    if status.state != VirtualWristStatus.ACTIVE:
        what = f'The node is {STATE_NAMES[status.state]}'
        return ok, f'{what}: {status.reason}' if status.reason else f'{what}.'
    if not status.enabled:
        return ok, 'Switched off by ~/enable.'
    if failures := new('model_errors'):
        return error, status.reason or f'The model failed on {failures} anchor sets since the last report.'
    if status.silent_anchors:
        return error, status.reason or f'No images from: {", ".join(status.silent_anchors)}.'
    if bad := new(*BAD_IMAGES):
        return warning, status.reason or f'{bad} unusable anchor images were dropped since the last report.'
    if lost := new('publish_errors'):
        return warning, status.reason or f'Publishing failed {lost} times since the last report.'
    if not new('frames_published'):
        return warning, status.reason or 'No wrist frame was published since the last report.'
    if given_up:
        return warning, given_up
    return ok, f'{status.frame_rate:.1f} frames/s, {status.latency_p50:.2f} s behind the anchors.'


def _shown(key: str, value: Any) -> str:
    if key == 'state':
        return STATE_NAMES[value]
    if isinstance(value, float):
        return f'{value:.3f}'
    if key == 'geometry':
        return Geometry(value).name
    if key in ('anchor_lags', 'residuals'):
        return ', '.join(f'{number:.3f}' for number in value)
    if key == 'missing':
        return ' '.join(value)
    return ', '.join(value) if isinstance(value, list) else str(value)
