"""From settings to a stream that is ready to run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wristworld_ros.nodes.worker import Stream
from wristworld_ros.settings import NodeSettings
from wristworld_ros.streaming import VirtualWrist, load_model
from wristworld_ros.streaming.failures import first_sentence, is_out_of_memory
from wristworld_ros.streaming.model import ModelError
from wristworld_ros.streaming.room import require_room
from wristworld_ros.types import AnchorSet


def load(settings: NodeSettings, say: Callable[[str], object]) -> tuple[Stream, str]:
    """The stream, warmed up, and the device it runs on.

    Raises ModelError, one sentence: before weights are loaded where memory cannot suffice, later where it did not.
    """
    if tight := require_room(settings, len(settings.anchors)):
        say(tight)
    try:
        model = load_model(settings.model, settings.device, settings.precision)
        stream = VirtualWrist(model, settings)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f'{settings.model} does not fit into memory ({first_sentence(error)}); end other programs, or take fewer '
            'anchors, a smaller chunk or history, or a smaller model.'
        ) from None
    say(f'warming up {settings.model} on {model.device}')
    warm_up(stream, settings)
    return stream, str(model.device)


def warm_up(stream: VirtualWrist, settings: NodeSettings) -> None:
    """One chunk of nothing, so that memory is taken and libraries are ready, again after every step down the ladder.

    Raises ModelError where memory ran out and nothing was left to give up.
    """
    blank = np.zeros((len(settings.anchors), 240, 320, 3), np.uint8)
    stamp = 0
    while True:
        said = str(stream.ladder)
        for _ in range(stream.chunk_frames):
            frames = stream.push(AnchorSet(stamp_ns=stamp, names=tuple(settings.anchors), images=blank))
            stamp += 1
            if frames:
                break
        if not stream.ladder.fell:
            break
        if str(stream.ladder) == said:
            raise ModelError(frames[-1].reason)
    stream.reset()
