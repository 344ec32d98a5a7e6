"""Subscriptions to images whose reliability follows what the publishers of the topic offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

CHOICES = {'reliable': ReliabilityPolicy.RELIABLE, 'best_effort': ReliabilityPolicy.BEST_EFFORT}


class ImageSubscription:
    """A subscription that may be made again when publishers come or go.

    A reliable subscription receives nothing from a best-effort publisher, and over a best-effort one large images are lost
    where the transport is short of memory: half of 640x480 with Fast DDS's defaults. So `auto` is reliable where all
    publishers are, and best effort otherwise, also where there is none yet.

    Args:
        node: Whose subscription it is.
        kind: Type of the messages.
        topic: Its name before remapping.
        callback: Called with every message.
        reliability: auto, reliable or best_effort.
        depth: Messages that the middleware queues.
    """

    def __init__(
        self,
        node: Node,
        kind: type,
        topic: str,
        callback: Callable[[Any], None],
        reliability: str = 'auto',
        depth: int = 5,
    ):
        self._node, self._kind, self._topic, self._callback = node, kind, topic, callback
        self._reliability, self._depth = reliability, depth
        self.topic = node.resolve_topic_name(topic)
        self.policy = self._wanted()
        self._subscription = self._subscribe()

    def refresh(self) -> None:
        """Subscribe again where publishers have come or gone and now call for another reliability."""
        policy = self._wanted()
        if policy is not self.policy:
            self.policy = policy
            old, self._subscription = self._subscription, self._subscribe()
            self._node.destroy_subscription(old)

    def destroy(self) -> None:
        """Receive nothing more."""
        self._node.destroy_subscription(self._subscription)

    def why_silent(self) -> str:
        """What of the topic's publishers explains that nothing comes, without a full stop; '' where nothing does."""
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        if not publishers:
            return 'nothing publishes it; start the camera, or remap the topic'
        kinds = {info.topic_type for info in publishers}
        wanted = f'{self._kind.__module__.split(".")[0]}/msg/{self._kind.__name__}'
        if wanted not in kinds:
            return f'it carries {", ".join(sorted(kinds))}, not {wanted}; set transport, or remap the topic'
        if self._reliability == 'reliable' and best_reliability(publishers) is ReliabilityPolicy.BEST_EFFORT:
            return 'its publisher offers best effort, and input_reliability is reliable; set input_reliability to auto'
        return ''

    def _wanted(self) -> ReliabilityPolicy:
        if self._reliability != 'auto':
            return CHOICES[self._reliability]
        return best_reliability(self._node.get_publishers_info_by_topic(self.topic))

    def _subscribe(self) -> Any:
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=self._depth, reliability=self.policy)
        return self._node.create_subscription(self._kind, self._topic, self._callback, qos)


def best_reliability(publishers: Iterable[Any]) -> ReliabilityPolicy:
    """The best reliability that all publishers of a topic (`TopicEndpointInfo`) offer; best effort without any."""
    offered = {info.qos_profile.reliability for info in publishers}
    return ReliabilityPolicy.RELIABLE if offered == {ReliabilityPolicy.RELIABLE} else ReliabilityPolicy.BEST_EFFORT
