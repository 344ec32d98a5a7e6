"""From settings to a stream that is ready to run."""

from __future__ import annotations

from collections.abc import Callable

from wristworld_ros.models.config import ModelError
from wristworld_ros.pipeline import VirtualWrist, load_model
from wristworld_ros.pipeline.check_memory import check_memory
from wristworld_ros.pipeline.worker import Stream
from wristworld_ros.runtime.gpu_errors import first_sentence, is_out_of_memory
from wristworld_ros.settings import NodeSettings


def load(settings: NodeSettings, say: Callable[[str], object]) -> tuple[Stream, str]:
    """The stream, warmed up, and the device it runs on.

    Raises ModelError, one sentence: before weights are loaded where memory cannot suffice, later where it did not.
    """
    if tight := check_memory(settings, len(settings.anchors)):
        say(tight)
    try:
        model = load_model(settings.model, settings.device, settings.precision, settings.decoder)
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
    """Blank anchor sets, so that memory is taken and libraries are ready; again after every step down the ladder.

    Raises ModelError where memory ran out and nothing was left to give up.
    """
    while True:
        said = str(stream.oom_fallback)
        frames = stream.warm_up(tuple(settings.anchors), (240, 320))
        if not stream.oom_fallback.fell:
            return
        if str(stream.oom_fallback) == said:
            raise ModelError(frames[-1].reason)
