"""Why no anchor sets are made: the first cause, as one sentence with the topic, its figures and the fix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wristworld_ros.pipeline.frame_sync import FrameSync
from wristworld_ros.ros.anchor_camera import AnchorCamera
from wristworld_ros.settings import NodeSettings


@dataclass(frozen=True)
class InputProblem:
    """What keeps images from becoming sets. kind, topic: by which it is logged once. sentence: for people."""

    kind: str
    topic: str
    sentence: str


def input_problem(
    anchors: Sequence[AnchorCamera], silent: Sequence[str], sync: FrameSync, settings: NodeSettings
) -> InputProblem | None:
    """The first problem of cameras from which no set was made lately.

    Args:
        anchors: All cameras.
        silent: Names of those that are silent.
        sync: Where their images wait.
        settings: Of the node.
    """
    for anchor in anchors:
        if anchor.name in silent:
            why = anchor.why_silent()
            sentence = f'No images on {anchor.topic} for more than {settings.freshness:g} s (freshness){": " if why else ""}{why}.'
            return InputProblem('silent', anchor.topic, sentence)
    for anchor in anchors:
        if anchor.fault:
            return InputProblem('dropped', anchor.topic, anchor.fault)
        if anchor.stamp_fault:
            return InputProblem('stamp', anchor.topic, f'{anchor.stamp_fault}.')
    return _apart(anchors, sync, settings)


def flickering(anchors: Sequence[AnchorCamera]) -> InputProblem | None:
    """A camera whose images change size again and again, which ruins sets that are made."""
    found = next((anchor for anchor in anchors if anchor.size_fault), None)
    return found and InputProblem('size', found.topic, f'{found.size_fault}.')


def _apart(anchors: Sequence[AnchorCamera], sync: FrameSync, settings: NodeSettings) -> InputProblem | None:
    """The camera whose stamps are farthest from the others'. Images of every camera must wait, or one is merely slow."""
    if not all(sync.waiting.values()):
        return None
    lags = {name: lag or 0.0 for name, lag in sync.lags().items()}
    last, first = max(lags, key=lags.__getitem__), min(lags, key=lags.__getitem__)
    topics = {anchor.name: anchor.topic for anchor in anchors}
    if lags[last] > settings.sync_window:
        sentence = (
            f'Stamps on {topics[last]} are {lags[last]:.2f} s behind those on {topics[first]}, and images wait for their partners '
            f'for {settings.sync_window:g} s (sync_window); synchronise the clocks of the cameras (chrony or PTP), or raise sync_window.'
        )
        return InputProblem('lag', topics[last], sentence)
    gaps = {anchor.name: sync.gap(anchor.name) or 0.0 for anchor in anchors[1:]}
    worst = max(gaps, key=gaps.__getitem__, default=None)
    if worst is None or gaps[worst] <= settings.slop:
        return None
    sentence = (
        f'Stamps on {topics[worst]} are at least {gaps[worst]:.3f} s from those on {anchors[0].topic} (its newest is '
        f'{lags[worst]:.3f} s behind), and slop allows {settings.slop:g} s; trigger the cameras together, synchronise their '
        'clocks, run them at one rate, or raise slop.'
    )
    return InputProblem('gap', topics[worst], sentence)
