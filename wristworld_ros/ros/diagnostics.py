"""The node's state as /diagnostics."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from wristworld_ros.msg import VirtualWristStatus


def verdict(status: VirtualWristStatus, before: VirtualWristStatus | None, given_up: str = '') -> tuple[bytes, str]:
    """Level and one sentence. What only adds up is judged by what it added since the status before.

    given_up: one sentence of what the stream does without since memory ran out, or ''.
    """

    def new(*names: str) -> int:
        return sum(getattr(status, n) - (getattr(before, n) if before else 0) for n in names)

    if status.state == 'finalized':
        return DiagnosticStatus.ERROR, status.reason
    if status.state != 'active':
        return DiagnosticStatus.OK, f'The node is {status.state}.'
    if not status.enabled:
        return DiagnosticStatus.OK, 'Switched off by ~/enable.'
    if failures := new('model_errors'):
        return (
            DiagnosticStatus.ERROR,
            status.reason or f'The model failed on {failures} anchor sets since the last report.',
        )
    if status.silent_anchors:
        return DiagnosticStatus.ERROR, f'No images from: {", ".join(status.silent_anchors)}.'
    if bad := new('images_bad_encoding', 'images_bad_step', 'images_bad_size', 'images_bad_data'):
        return (
            DiagnosticStatus.WARN,
            status.reason or f'{bad} malformed anchor images were dropped since the last report.',
        )
    if lost := new('publish_errors'):
        return DiagnosticStatus.WARN, status.reason or f'Publishing failed {lost} times since the last report.'
    if not new('frames_published'):
        return DiagnosticStatus.WARN, status.reason or 'No wrist frame was made since the last report.'
    if given_up:
        return DiagnosticStatus.WARN, given_up
    return DiagnosticStatus.OK, f'{status.frame_rate:.1f} frames/s, {status.latency_p50:.2f} s behind the anchors.'


def to_array(
    status: VirtualWristStatus, before: VirtualWristStatus | None, name: str, given_up: str = '',
    steps_applied: tuple[str, ...] = (),
) -> DiagnosticArray:  # fmt: skip
    """name: the node's full name. given_up: as in `verdict`. rungs: of `on_out_of_memory` that were taken."""
    level, message = verdict(status, before, given_up)
    values = []
    for key in status.get_fields_and_field_types():
        value = getattr(status, key)
        if key == 'stamp':
            continue
        if isinstance(value, float):
            value = f'{value:.3f}'
        values.append(KeyValue(key=key, value=', '.join(value) if isinstance(value, list) else str(value)))
    values.append(KeyValue(key='given_up', value=', '.join(steps_applied)))
    entry = DiagnosticStatus(
        level=level, name=f'{name}: virtual wrist', message=message, hardware_id=status.device, values=values
    )
    return DiagnosticArray(header=Header(stamp=status.stamp), status=[entry])
