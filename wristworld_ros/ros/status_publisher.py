"""What the node tells of itself: ~/status and /diagnostics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray

from wristworld_ros.msg import VirtualWristStatus
from wristworld_ros.pipeline import VirtualWrist
from wristworld_ros.ros import diagnostics
from wristworld_ros.ros.metrics import resident_bytes
from wristworld_ros.ros.wrist_publisher import to_stamp

if TYPE_CHECKING:
    from wristworld_ros.ros.virtual_wrist_node import VirtualWristNode

COUNTED = (
    'images_received', 'images_bad_encoding', 'images_bad_step', 'images_bad_size', 'images_bad_data', 'sets_matched',
    'sets_over_rate', 'frames_published', 'frames_invalid', 'publish_errors', 'model_errors', 'resets',
)  # fmt: skip


class StatusPublisher:
    """Publishes the state of a node, and what has changed since it did so before."""

    def __init__(self, node: VirtualWristNode):
        self._node = node
        self._status = node.create_publisher(VirtualWristStatus, '~/status', 10)
        self._diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._before: VirtualWristStatus | None = None

    def clear(self) -> None:
        """Compare with nothing next time: the counters begin anew."""
        self._before = None

    def publish(self) -> None:
        """Both messages. A failure is counted, not raised."""
        node, status = self._node, self.status()
        told = diagnostics.to_array(status, self._before, node.get_fully_qualified_name(), *self._given_up())
        for publisher, message in ((self._status, status), (self._diagnostics, told)):
            try:
                publisher.publish(message)
            except Exception as error:
                node.metrics.add('publish_errors')
                node.metrics.reason = f'Publishing on {publisher.topic_name} failed: {error}'
        self._before = status
        if node.metrics.failure == status.reason:
            node.metrics.failure = ''

    def status(self) -> VirtualWristStatus:
        """The present counters as a message."""
        node, metrics = self._node, self._node.metrics
        idle = 'finalized' if node.gpu.why else 'unconfigured'
        state = 'active' if node.active else 'inactive' if node.worker else idle
        status = VirtualWristStatus(stamp=to_stamp(node.now()), state=state, enabled=node.enabled)
        status.model, status.device = node.settings.model, node.device
        for name in COUNTED:
            setattr(status, name, metrics[name])
        if node.anchors:
            status.images_late, status.images_unmatched = node.anchors.counts.late, node.anchors.counts.unmatched
            status.silent_anchors = sorted(node.anchors.silent)
        if node.worker:
            status.sets_used, status.sets_replaced = node.worker.used, node.worker.replaced
        status.set_rate, status.frame_rate = metrics.rate('sets_matched'), metrics.rate('frames_published')
        status.latency_p50, status.latency_p95 = metrics.percentile(50), metrics.percentile(95)
        status.memory = resident_bytes()
        status.reason = node.gpu.why or metrics.failure or metrics.reason or self._given_up()[0]
        return status

    def _given_up(self) -> tuple[str, tuple[str, ...]]:
        """What the stream does without since memory ran out: one sentence, and the rungs."""
        stream = self._node.stream
        return (str(stream.oom_fallback), stream.taken) if isinstance(stream, VirtualWrist) else ('', ())
