"""What a stream gives up, step by step, when memory runs out."""

from __future__ import annotations

from collections.abc import Callable

import torch

from wristworld_ros.runtime.gpu_errors import asked_bytes, is_out_of_memory
from wristworld_ros.runtime.memory_estimate import release
from wristworld_ros.settings import OOM_STEPS

# A rung is tried on a `VirtualWrist` and says what it did, or '' where there is nothing (more) to give up.
OomStep = Callable[..., str]


def give_up_graphs(wrist) -> str:
    """CUDA graphs hold the memory of every step they have recorded."""
    if wrist.model.device.type != 'cuda' or not wrist.graphs:
        return ''
    wrist.graphs = False
    return 'CUDA graphs were given up (graphs false)'


def halve_history(wrist) -> str:
    """Half the ring of keys and values, down to one chunk."""
    if wrist.history <= 1:
        return ''
    wrist.history //= 2
    return f'the window was made smaller (history {wrist.history} instead of {wrist.settings.history})'


def tiny_decoder(wrist) -> str:
    """The light decoder, where the model has one that is not in use."""
    light = wrist.model.tiny_autoencoder
    if light is None or wrist.model.autoencoder is light:
        return ''
    wrist.model.use_tiny_decoder()
    return 'the light decoder was taken (decoder light)'


def offload(wrist) -> str:
    """Weights in RAM, stages in turn. A recorded graph would read weights where they no longer are."""
    model = wrist.model
    if model.device.type != 'cuda' or wrist.turns.offloaded is not None:
        return ''
    wrist.graphs = False
    wrist.share_queue()
    wrist.turns.park([model.stage1], [model.generator, model.autoencoder, model.tiny_autoencoder], model.device)
    return 'the weights of the stage that rests now wait in RAM (CPU offload)'


STEPS: dict[str, OomStep] = dict(zip(OOM_STEPS, (give_up_graphs, halve_history, tiny_decoder, offload), strict=True))


class OomFallback:
    """The rungs of one stream, in the order of the setting `on_out_of_memory`.

    taken: names of those taken, each once. said: what the last step of each did. fell: whether memory ran out since
    this was last asked.
    """

    def __init__(self, names: list[str]):
        self._names = list(names)
        self.said: dict[str, str] = {}
        self._fell = False

    @property
    def fell(self) -> bool:
        fell, self._fell = self._fell, False
        return fell

    @property
    def taken(self) -> tuple[str, ...]:
        return tuple(self.said)

    def __str__(self) -> str:
        """One sentence for who watches, '' while nothing was given up."""
        return f'Memory ran out while running, so {"; ".join(self.said.values())}.' if self.said else ''

    def step(self, wrist) -> str:
        """One step down for a `VirtualWrist`, whose `restart` then makes what it needs anew; returns what was done, ''
        when nothing is left. For the thread that draws."""
        self._fell = True
        with wrist.turns.exclusive():
            wrist.release_steps()
            for name in self._names:
                try:
                    done = STEPS[name](wrist)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    done = ''  # no room in RAM for the weights, for one
                if done:
                    self.said[name] = done
                    break
            else:
                done = ''
            release(wrist.model.device)
        return done


def what_ran_out(error: BaseException, device: torch.device, stage: str) -> str:
    """The beginning of a sentence. stage: where it happened."""
    asked = asked_bytes(error)
    kind = 'GPU memory' if device.type == 'cuda' and not isinstance(error, MemoryError) else 'Memory'
    return f'{kind} ran out in {stage}' + (f' ({asked} more were wanted)' if asked else '')


def sentence(what: str, done: str) -> str:
    """Why a frame is not fit. what: of `what_ran_out`. done: of `OomFallback.step`."""
    if done:
        return f'{what}; {done}.'
    return (
        f'{what}, and on_out_of_memory names nothing more to give up; end other programs, or configure again with fewer '
        'anchors, a smaller chunk or a smaller model.'
    )
