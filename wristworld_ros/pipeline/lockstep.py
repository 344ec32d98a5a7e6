"""Streams side by side on one model: what several of them ask of the same network becomes one batch.

The code of a stream stays that of a single one. Each stream's turn is a call in a thread of its own, of which one at a time is awake: it
runs until it asks for a network or ends. When all have asked or ended, the earliest network of the model is run for those that wait
for it. So a batch depends on what the streams do and never on how fast they do it, and a run gives the same bits each time.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from wristworld_ros.models.vggt import ReconstructionOutput
from wristworld_ros.models.wan.kv_cache import KVCache
from wristworld_ros.pipeline.model import WristModel

Result = TypeVar('Result')
_current = threading.local()
_SECOND = {'camera_pose_enc', 'wrist_pose_enc', 'track'}  # of ReconstructionOutput: rounds come first, then the batch


@dataclass(frozen=True)
class _Request:
    """What a stream asks for: a call of a network. order: of the network in the model. key: what calls of one batch have in common."""

    call: Callable[..., Any]
    order: int
    key: Hashable
    arguments: tuple[Any, ...]


class Lockstep:
    """Runs calls side by side.

    Args:
        size: Calls at most.
    """

    def __init__(self, size: int):
        self._threads = ThreadPoolExecutor(size, 'lockstep')

    def run(self, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        """Results of the calls, in their order. What they ask of networks of a `lockstep_model` is batched.

        Raises:
            Exception: What the first of the calls that failed raised, after all have ended.
        """
        if len(calls) < 2:
            return [call() for call in calls]
        members = [_Member(call) for call in calls]
        for member in members:
            self._threads.submit(member.live)
            member.resume(None)
        while waiting := [member for member in members if member.request is not None]:
            first = min((member.request for member in waiting), key=lambda request: request.order)
            joined = [member for member in waiting if member.request.key == first.key]
            try:
                answers: Sequence[Any] = _batched(first.call, [member.request.arguments for member in joined])
            except Exception as error:  # each stream decides what it does without the network
                answers = [_Failure(error)] * len(joined)
            for member, answer in zip(joined, answers, strict=True):
                member.resume(answer)
        return [member.result() for member in members]

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()


@dataclass(frozen=True)
class _Failure:
    error: Exception


class _Member(Generic[Result]):
    """A call in a thread of its own, and the two turns: the thread's, and that of whoever resumes it."""

    def __init__(self, call: Callable[[], Result]):
        self._call = call
        self._own_turn, self._others_turn = threading.Semaphore(0), threading.Semaphore(0)
        self._answer: Any = None
        self._error: BaseException | None = None
        self.request: _Request | None = None

    def live(self) -> None:
        """The call, in its thread."""
        self._own_turn.acquire()
        _current.member = self
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error
        finally:
            _current.member = None
            self._others_turn.release()

    def ask(self, request: _Request) -> Any:
        """Wait for an answer; in the call's thread."""
        self.request = request
        self._others_turn.release()
        self._own_turn.acquire()
        answer, self._answer = self._answer, None
        if isinstance(answer, _Failure):
            raise answer.error
        return answer

    def resume(self, answer: Any) -> None:
        """Give an answer, and wait until the call asks again or has ended."""
        self.request, self._answer = None, answer
        self._own_turn.release()
        self._others_turn.acquire()

    def result(self) -> Result:
        if self._error is not None:
            raise self._error
        return self._result


def lockstep_model(model: WristModel) -> WristModel:
    """The same model, with the same weights, for streams that run in a `Lockstep`; outside of one it works as before."""
    joined = copy.copy(model)
    joined.stage1 = _Joined(model.stage1, 0)
    joined.hand = None if model.hand is None else _Joined(model.hand, 1)
    joined.sweep = None if model.sweep is None else _Joined(model.sweep, 2)
    joined.autoencoder = model.autoencoder
    if next(model.autoencoder.parameters(), None) is not None:
        joined.autoencoder = _Joined(model.autoencoder, 3, ('encode_next', 'decode_next'))
    joined.generator = generator = copy.copy(model.generator)
    generator._modules = dict(generator._modules)  # a shallow copy shares it
    if generator.anchor_encoder is not None:
        generator.anchor_encoder = _Joined(generator.anchor_encoder, 4, ('features',))
    generator.transformer = _Joined(generator.transformer, 5)
    if generator.decoder is not None:
        generator.decoder = _Joined(generator.decoder, 6)
    return joined


class _Joined(nn.Module):
    """A network whose calls are batched over the streams of a lockstep. It has all other attributes of the network.

    Args:
        network: The network.
        order: Among those of the model, in the order in which a stream uses them.
        methods: Names of the methods that take and give batches.
    """

    def __init__(self, network: nn.Module, order: int, methods: tuple[str, ...] = ('forward',)):
        super().__init__()
        self.network, self._order = network, order
        for name in methods:
            self.__dict__[name] = partial(self._ask, name)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__('network'), name)

    def _ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        call = self.network if method == 'forward' else getattr(self.network, method)  # hooks run in a call alone
        member: _Member | None = getattr(_current, 'member', None)
        if member is None:
            return call(*arguments, **named)
        key = (self._order, method, _likeness(arguments), _likeness(named))
        return member.ask(
            _Request(partial(_called, call, tuple(named)), self._order, key, (*arguments, *named.values()))
        )


def _called(call: Callable[..., Any], names: tuple[str, ...], *arguments: Any) -> Any:
    count = len(arguments) - len(names)
    return call(*arguments[:count], **dict(zip(names, arguments[count:], strict=True)))


def _batched(call: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The results of several calls of the same key, by one."""
    sizes = [_batch_size(one) for one in arguments]
    with torch.inference_mode():
        return _split(call(*_join(arguments)), sizes)


def _likeness(value: Any) -> Hashable:
    """Equal for values that can be joined along their first axis."""
    if isinstance(value, Tensor):
        return value.dtype, value.device, tuple(value.shape[1:])
    if isinstance(value, KVCache):
        return value.state, value.start, value.keys.shape[2:]
    if is_dataclass(value):
        return type(value), *(_likeness(getattr(value, f.name)) for f in fields(value))
    if isinstance(value, list | tuple):
        return type(value), *map(_likeness, value)
    if isinstance(value, dict):
        return tuple((name, _likeness(one)) for name, one in value.items())
    return frozenset(value) if isinstance(value, set) else value


def _join(values: Sequence[Any]) -> Any:
    """Values of one likeness as one, along their first axis."""
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if isinstance(first, KVCache):
        return _JoinedCaches(values)
    if is_dataclass(first):
        return type(first)(**{f.name: _join([getattr(one, f.name) for one in values]) for f in fields(first)})
    if isinstance(first, list | tuple):
        return type(first)(_join(parts) for parts in zip(*values, strict=True))
    return first


def _split(value: Any, sizes: list[int], axis: int = 0) -> list[Any]:
    """The opposite of `_join`, for what a network gives."""
    if isinstance(value, Tensor):
        return list(value.split(sizes, dim=axis))
    if is_dataclass(value):
        second = _SECOND if isinstance(value, ReconstructionOutput) else ()
        parts = [_split(getattr(value, f.name), sizes, int(f.name in second)) for f in fields(value)]
        names = [f.name for f in fields(value)]
        return [type(value)(**dict(zip(names, one, strict=True))) for one in zip(*parts, strict=True)]
    if isinstance(value, list | tuple):
        parts = [_split(one, sizes) for one in value]
        return [type(value)(one) for one in zip(*parts, strict=True)] if parts else [value] * len(sizes)
    return [value] * len(sizes)


def _batch_size(value: Any) -> int:
    """Length of the first axis of the first tensor in a value; 0 where it has none."""
    if isinstance(value, Tensor):
        return len(value)
    if isinstance(value, list | tuple):
        return next((size for one in value if (size := _batch_size(one))), 0)
    return _batch_size([getattr(value, f.name) for f in fields(value)]) if is_dataclass(value) else 0


class _JoinedCaches:
    """Caches of several streams in the same state, as the one of all of them: what `AttentionPlan` needs of a `KVCache`."""

    def __init__(self, caches: Sequence[KVCache]):
        self._caches, self._sizes = caches, [cache.batch for cache in caches]

    @property
    def positions(self) -> Tensor:
        """Of the next chunk's frames, the same in all."""
        return self._caches[0].positions

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """As `KVCache.append`, into the caches of all."""
        parts = zip(self._caches, keys.split(self._sizes), values.split(self._sizes), strict=True)
        kept = [cache.append(layer, own_keys, own_values) for cache, own_keys, own_values in parts]
        return torch.cat([one[0] for one in kept]), torch.cat([one[1] for one in kept])
