"""From settings to a stream that is loaded and warmed up, or one sentence that says why not. No node in it."""

from __future__ import annotations

from typing import Any

from wristworld_ros.models.config import ModelError
from wristworld_ros.pipeline import VirtualWrist, load_model
from wristworld_ros.pipeline.memory_check import check_memory
from wristworld_ros.runtime.gpu_errors import first_sentence, is_out_of_memory
from wristworld_ros.settings import NodeSettings

WARM_UP_HW = (240, 320)  # usual size of anchor images, rows and columns


def load_stream(settings: NodeSettings, logger: Any) -> VirtualWrist:
    """A stream that is warmed up. It also sets threads and allocator of the process.

    Raises:
        ModelError: The model cannot be used; before weights are loaded where memory cannot suffice.
    """
    if tight := check_memory(settings, len(settings.anchors)):
        logger.info(tight)
    try:
        model = load_model(settings.model, settings.device, settings.precision, settings.decoder)
        model.configure_process(settings.threads)
        stream = VirtualWrist(model, settings)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f'{settings.model} does not fit into memory ({first_sentence(error)})',
            'end other programs, or take fewer anchors, a smaller chunk or history, or a smaller model',
        ) from None
    logger.info(f'warming up {settings.model} on {model.device}')
    warm_up(stream, settings)
    return stream


def warm_up(stream: VirtualWrist, settings: NodeSettings) -> None:
    """Push blank anchor sets, so that memory is taken and libraries are ready; again after every fallback step.

    Raises:
        ModelError: Memory ran out and nothing was left to give up.
    """
    while True:
        before = stream.oom_fallback.applied, stream.history
        stream.warm_up(tuple(settings.anchors), WARM_UP_HW)
        if not stream.oom_fallback.triggered():
            return
        if (stream.oom_fallback.applied, stream.history) == before:
            raise ModelError(
                f'Memory ran out while {settings.model} was warmed up, and on_out_of_memory names nothing more to give up',
                'end other programs, or take fewer anchors, a smaller chunk or a smaller model',
            )
