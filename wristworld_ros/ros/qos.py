"""Qualities of service that several nodes ask for."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

TF_DEPTH = 100  # messages of /tf, and of /tf_static, that wait for a node: many broadcasters share these topics


def best_effort(depth: int) -> QoSProfile:
    """Receives from every publisher, reliable ones too. depth: messages that wait for the node."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def latched(depth: int = 1) -> QoSProfile:
    """For what is said once, and reaches those too who come later. depth: messages that are kept for them.

    One profile for each call: rclpy writes a user's overrides into the object that it is given.
    """
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )  # fmt: skip
