"""Episodes side by side through one model: decoded, reconstructed and generated in threads of their own, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial

from wristworld_ros.apps.augment.anchors import AnchorEpisode
from wristworld_ros.errors import UserError
from wristworld_ros.pipeline.lockstep import Lockstep, lockstep_model
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.observation import Observation
from wristworld_ros.pipeline.virtual_wrist import VirtualWrist
from wristworld_ros.runtime.overlap import ahead
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet, FrameStatus, WristFrame


class EpisodeStreams:
    """A stream for each of several episodes, in lockstep: frame n of all is made at once, by networks that run as batches.

    What a stream gives does not depend on the others but for the last bits, which differ with the size of a batch. Every episode begins a
    stream, and its frames go through it in order.

    Args:
        model: Which all share.
        settings: Of every stream.
        size: Episodes at once, at most.
    """

    def __init__(self, model: WristModel, settings: StreamSettings, size: int):
        self._size = size
        if size == 1:
            self._wrists = [VirtualWrist(model, settings)]
        else:  # memory that runs out is that of the batch, so no stream gives anything up for it
            settings = replace(settings, graphs=False, on_out_of_memory=[])
            shared = lockstep_model(model)
            self._wrists = [VirtualWrist(shared, settings) for _ in range(size)]
            for wrist in self._wrists:
                wrist.use_callers_queue()
        self._reconstruction, self._generation = Lockstep(size), Lockstep(size)

    @property
    def gave_something_up(self) -> bool:
        """Whether memory ran out, and later frames would differ for it."""
        return any(wrist.oom_fallback.triggered() for wrist in self._wrists)

    def frames(self, sources: Mapping[int, AnchorEpisode]) -> Iterator[dict[int, list[WristFrame] | UserError]]:
        """The frames of some episodes, at least as many as each has, as streams give them that begin with it.

        Where the last chunk of an episode is not full, its last anchor set fills it; those frames are beyond its end.

        Args:
            sources: The episodes by any number, `size` at most.

        Yields:
            What became ready together, by number. An episode that cannot be read further ends with the error.

        Raises:
            UserError: Memory ran out in a batch.
        """
        wrists = dict(zip(sources, self._wrists, strict=False))
        for wrist in wrists.values():
            wrist.reset()
        # Frames that a chunk may take beyond an episode's end: a chunk is one latent frame.
        extra = self._wrists[0].model.autoencoder.temporal_stride * self._wrists[0].settings.chunk - 1
        padded = {number: _padded(source, extra) for number, source in sources.items()}
        with closing(ahead(self._reconstructed(padded, wrists))) as observations:
            for found in observations:
                errors, ready = _errors(found)
                calls = [partial(wrists[number].generate, one) for number, one in ready.items()]
                made = dict(zip(ready, self._generation.run(calls), strict=True))
                if self._size > 1:
                    _check_memory(made, self._size)
                yield {**errors, **made}

    def close(self) -> None:
        """End the threads."""
        self._reconstruction.close()
        self._generation.close()

    def _reconstructed(
        self, episodes: dict[int, Iterator[AnchorSet]], wrists: Mapping[int, VirtualWrist]
    ) -> Iterator[dict[int, Observation | UserError]]:
        with closing(ahead(_rounds(episodes))) as rounds:
            for found in rounds:
                errors, sets = _errors(found)
                calls = [partial(wrists[number].reconstruct, one) for number, one in sets.items()]
                yield {**errors, **dict(zip(sets, self._reconstruction.run(calls), strict=True))}


def _padded(source: AnchorEpisode, extra: int) -> Iterator[AnchorSet]:
    """The anchor sets of an episode, and the last one some more times, as if it went on."""
    last, step = None, round(1e9 / source.episode.fps)
    for last in source.sets():
        yield last
    for _ in range(extra if last is not None else 0):
        last = replace(last, stamp_ns=last.stamp_ns + step)
        yield last


def _rounds(iterators: dict[int, Iterator[AnchorSet]]) -> Iterator[dict[int, AnchorSet | UserError]]:
    """The next anchor set of every episode that has one; one that cannot be read ends with the error."""
    while iterators:
        found: dict[int, AnchorSet | UserError] = {}
        for number, sets in list(iterators.items()):
            try:
                found[number] = next(sets)
            except StopIteration:
                del iterators[number]
            except UserError as error:
                found[number] = error
                del iterators[number]
        if found:
            yield found


def _errors(found: Mapping[int, object]) -> tuple[dict, dict]:
    """Errors, and what is none."""
    errors = {number: one for number, one in found.items() if isinstance(one, UserError)}
    return errors, {number: one for number, one in found.items() if number not in errors}


def _check_memory(made: Mapping[int, list[WristFrame]], size: int) -> None:
    for frames in made.values():
        for frame in frames:
            if frame.verdict.status is FrameStatus.OUT_OF_MEMORY:
                raise UserError(
                    f'Memory ran out with {size} episodes side by side: {frame.verdict.reason.rstrip(".")}',
                    'start again with a smaller --batch',
                )
