"""What a stream gives up, step by step, when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.runtime.gpu_errors import asked_bytes, is_out_of_memory
from wristworld_ros.runtime.memory_estimate import release_unused
from wristworld_ros.runtime.offload import StageScheduler
from wristworld_ros.settings import OOM_STEPS, StreamSettings


class Stream(Protocol):
    """What of a `VirtualWrist` a fallback step may change."""

    model: WristModel
    settings: StreamSettings
    scheduler: StageScheduler
    history: int
    graphs: bool

    def release_steps(self) -> None:
        """Free everything beside the weights; it is made again when it is needed."""

    def share_queue(self) -> None:
        """Run both stages on one CUDA stream."""


def disable_graphs(stream: Stream) -> str:
    """CUDA graphs hold the memory of every step they have captured."""
    if stream.model.device.type != 'cuda' or not stream.graphs:
        return ''
    stream.graphs = False
    return 'CUDA graphs were switched off (graphs false)'


def halve_history(stream: Stream) -> str:
    """Half the ring of keys and values, down to one chunk."""
    if stream.history <= 1:
        return ''
    stream.history //= 2
    return f'the history was shortened (history {stream.history} instead of {stream.settings.history})'


def use_tiny_decoder(stream: Stream) -> str:
    """The tiny decoder, where the model has one that is not in use."""
    tiny = stream.model.tiny_autoencoder
    if tiny is None or stream.model.autoencoder is tiny:
        return ''
    stream.model.use_tiny_decoder()
    return 'the tiny decoder replaced the full one (decoder tiny)'


def offload(stream: Stream) -> str:
    """Idle weights in RAM, stages in turn. A captured graph would read weights where they no longer are."""
    model = stream.model
    if model.device.type != 'cuda' or stream.scheduler.offloaded is not None:
        return ''
    stream.graphs = False
    stream.share_queue()
    second = [model.generator, model.autoencoder, model.tiny_autoencoder]
    stream.scheduler.offload([model.stage1], second, model.device)
    return 'the weights of the idle stage moved to RAM (CPU offload)'


# A step changes the stream and says what it did, or '' where it has nothing (more) to give up.
STEPS: dict[str, Callable[[Stream], str]] = dict(
    zip(OOM_STEPS, (disable_graphs, halve_history, use_tiny_decoder, offload), strict=True)
)


class OomFallback:
    """The fallback steps of one stream, in the order of the setting `on_out_of_memory`.

    Args:
        names: Of the steps allowed.
    """

    def __init__(self, names: list[str]):
        self._names = list(names)
        self._done: dict[str, str] = {}
        self._triggered = False

    @property
    def applied(self) -> tuple[str, ...]:
        """Names of the steps applied so far, each once."""
        return tuple(self._done)

    def triggered(self) -> bool:
        """Whether memory ran out since this was last asked."""
        triggered, self._triggered = self._triggered, False
        return triggered

    def __str__(self) -> str:
        """One sentence for diagnostics, '' while nothing was given up."""
        return f'Memory ran out while running, so {"; ".join(self._done.values())}.' if self._done else ''

    def apply(self, stream: Stream) -> str:
        """Apply the next step; returns what it did, '' when nothing is left. For the thread that generates."""
        self._triggered = True
        done = ''
        with stream.scheduler.exclusive():
            stream.release_steps()
            for name in self._names:
                done = _try(STEPS[name], stream)
                if done:
                    self._done[name] = done
                    break
            release_unused(stream.model.device)
        return done


def _try(step: Callable[[Stream], str], stream: Stream) -> str:
    try:
        return step(stream)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return ''  # e.g. no room in RAM for the weights


def what_ran_out(error: BaseException, device: torch.device, stage: str) -> str:
    """Which memory ran out where, as the beginning of a sentence."""
    asked = asked_bytes(error)
    kind = 'GPU memory' if device.type == 'cuda' and not isinstance(error, MemoryError) else 'Memory'
    return f'{kind} ran out in {stage}' + (f' ({asked} more were needed)' if asked else '')


def out_of_memory_reason(what: str, done: str) -> str:
    """Why a frame is invalid, one sentence.

    Args:
        what: Of `what_ran_out`.
        done: Of `OomFallback.apply`.
    """
    if done:
        return f'{what}; {done}.'
    return (
        f'{what}, and on_out_of_memory names nothing more to give up; end other programs, or configure again with fewer '
        'anchors, a smaller chunk or a smaller model.'
    )
