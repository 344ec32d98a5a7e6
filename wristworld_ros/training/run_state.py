"""What a run has reached: weights, their average, optimizers and counts, and the directories that hold them on disk.

A checkpoint is a directory `checkpoints/00001000`: safetensors with every trained tensor, its average and its optimizer's state,
written by all processes where each holds a part, and `state.json` with the counts. It appears whole or not at all, and a run may
continue in another number of processes than wrote it. Frozen parameters are not in it: they come from where the run began.
"""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import json_text, read_json
from wristworld_ros.runtime.files import clear_leftovers, new_directory, write_text
from wristworld_ros.training.optimizers import Optimizer
from wristworld_ros.training.parallel import rank

CHECKPOINTS = 'checkpoints'
_STATE = 'state.json'
_DAMAGED = 'remove that checkpoint to continue from the one before'


class ExponentialMovingAverage:
    """Exponential moving average of a module's trained parameters, with a shorter memory at the start.

    Where parameters are sharded, so is their average.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self._trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.tensors = {name: p.detach().clone() for name, p in self._trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are after a step."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        ours, theirs = ([_local(t) for t in tensors] for tensors in (self.tensors.values(), self._trained.values()))
        torch._foreach_lerp_(ours, theirs, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module computes with the average meanwhile."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Parameters and average change places."""
        for name, p in self._trained.items():
            own, average = _local(p.data), _local(self.tensors[name])
            kept = own.clone()
            own.copy_(average)
            average.copy_(kept)


@dataclass
class Counts:
    """step: updates so far. batches: accumulated ones so far, those that were skipped included. skipped: of them.
    spent: seconds. optimizer: names of the tensors of the optimizers' state."""

    step: int = 0
    batches: int = 0
    skipped: int = 0
    spent: float = 0.0
    optimizer: list[str] = field(default_factory=list)


class RunState:
    """See the module.

    Args:
        module: The network, sharded already where it is to be.
        optimizers: Over its parameters.
        decay: Of the moving average.
        folder: Of the run.
        sharded: Whether each process holds a part of every parameter.
    """

    def __init__(self, module: nn.Module, optimizers: list[Optimizer], decay: float, folder: Path, sharded: bool):
        self.module, self.optimizers, self.folder, self.sharded = module, optimizers, folder / CHECKPOINTS, sharded
        self.average = ExponentialMovingAverage(module, decay)
        self.counts = Counts()
        if (last := last_checkpoint(folder)) is not None:
            self._load(last)
        self._started = time.monotonic() - self.counts.spent

    @property
    def spent(self) -> float:
        """Seconds of training, those before an interruption included."""
        return time.monotonic() - self._started

    def update(self) -> None:
        """One step along the gradients that the parameters have."""
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update()
        self.counts.step += 1

    def save(self, keep: int) -> None:
        """Write a checkpoint and remove all but the newest `keep`; every process calls it where the module is sharded."""
        named = self._weights() | self._optimizer_state()
        tensors = {name: t.contiguous() for name, t in named.items()}  # safetensors takes no channels_last
        self.counts.spent = self.spent
        self.counts.optimizer = [name for name in tensors if name.startswith('optimizer.')]
        target = self.folder / f'{self.counts.step:08d}'
        with ExitStack() as stack:
            if rank() == 0:
                stack.enter_context(new_directory(target, replace=True, marker=_STATE))
            self._wait()
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                writer = dcp.HuggingFaceStorageWriter(
                    str(target.with_name(f'.{target.name}.making').absolute()), save_distributed=self.sharded
                )
                dcp.save(tensors, storage_writer=writer, no_dist=not self.sharded)
            if rank() == 0:
                write_text(target.with_name(f'.{target.name}.making') / _STATE, json_text(vars(self.counts)))
            self._wait()
        self._wait()
        if rank() == 0:
            for old in _complete(self.folder)[:-keep]:
                shutil.rmtree(old, ignore_errors=True)

    def _wait(self) -> None:
        if self.sharded and dist.is_initialized():
            dist.barrier()

    def _weights(self) -> dict[str, Tensor]:
        trained = self.average.tensors
        buffers = dict(self.module.named_buffers())
        state = self.module.state_dict()
        named = {f'model.{n}': t.detach() for n, t in state.items() if n in trained or n in buffers}
        return named | {f'average.{n}': t for n, t in trained.items()}

    def _optimizer_state(self) -> dict[str, Tensor]:
        names = {id(p): n for n, p in self.module.named_parameters()}
        return {
            f'optimizer.{names[id(p)]}.{key}': torch.as_tensor(value)
            for optimizer in self.optimizers for p, values in optimizer.state.items() for key, value in values.items()
        }  # fmt: skip

    def _load(self, path: Path) -> None:
        self.counts = read_json(path / _STATE, Counts, _DAMAGED)
        tensors = self._weights()
        parameters = dict(self.module.named_parameters())
        for full in self.counts.optimizer:
            name, _, key = full.removeprefix('optimizer.').rpartition('.')
            if name not in parameters:
                raise UserError(f'{path} holds the state of {name}, which is not trained here', 'give another --out')
            tensors[full] = torch.zeros(()) if key == 'step' else self._state_like(parameters[name])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=not self.sharded)
        except Exception as error:  # a damaged file can raise almost anything in the reader
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1].rstrip('.')
            raise UserError(f'{path} cannot be read as a checkpoint of this run ({reason})', _DAMAGED) from None
        self.average.updates = self.counts.step
        self._set_optimizer_state(tensors, parameters)

    def _state_like(self, p: nn.Parameter) -> Tensor:
        return torch.zeros_like(self._stored_like(p).detach())

    def _stored_like(self, p: nn.Parameter) -> Tensor:
        """A parameter in the shape that its optimizer keeps state in."""
        for optimizer in self.optimizers:
            if (matrix := optimizer.stored_like(p)) is not None:
                return matrix
        raise ValueError('No optimizer has that parameter.')

    def _set_optimizer_state(self, tensors: dict[str, Tensor], parameters: dict[str, nn.Parameter]) -> None:
        found: dict[str, dict[str, Tensor]] = {}
        for full in self.counts.optimizer:
            name, _, key = full.removeprefix('optimizer.').rpartition('.')
            found.setdefault(name, {})[key] = tensors[full]
        for name, values in found.items():
            for optimizer in self.optimizers:
                if optimizer.stored_like(parameters[name]) is not None:
                    optimizer.set_state(parameters[name], values)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run; None where it has none."""
    found = _complete(folder / CHECKPOINTS)
    return found[-1] if found else None


def read_counts(folder: Path) -> Counts:
    """The counts of a run's newest checkpoint.

    Raises:
        UserError: It has none.
    """
    path = last_checkpoint(folder)
    if path is None:
        raise UserError(f'{folder} has no checkpoint', 'give the folder of a run')
    return read_json(path / _STATE, Counts, _DAMAGED)


def clear_unfinished(folder: Path) -> None:
    """Remove what killed runs left half written."""
    clear_leftovers(folder)
    clear_leftovers(folder / CHECKPOINTS)


def _complete(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob('[0-9]*') if (path / _STATE).is_file())


def _local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
