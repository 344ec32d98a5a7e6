"""The loop that all trainings share, on one process or on many machines.

What a step computes depends on the seed, the process's rank and the number of the batch alone: batches are looked up by
number, and random numbers are seeded with it. So a run that was interrupted continues as if it had not been, to the bit
on a CPU where it is trained by steps: the order of the data and the random state are part of the number.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import json_text
from wristworld_ros.models.state_dict import check_shapes
from wristworld_ros.runtime.files import write_text
from wristworld_ros.training.checkpoint import EARLIER_CHECKPOINT, read_tensors
from wristworld_ros.training.monitor import Monitor, TermMeans
from wristworld_ros.training.optimizers import OptimizerConfig, make_optimizers, set_rates
from wristworld_ros.training.parallel import join, process_count, rank
from wristworld_ros.training.run_state import RunState, clear_unfinished

logger = logging.getLogger(__name__)

_LOG_EVERY = 20  # steps


@dataclass(frozen=True)
class TrainerConfig(OptimizerConfig):
    """How a network is trained, whatever it is.

    minutes: end the run by the clock; the schedule then follows the time spent, so that a run on a slow or busy machine
    still reaches the end of its cosine. None trains for `steps`. accumulate: batches whose gradients make one step, on every
    process. clip: norm of the gradient. average: decay of the moving average. max_skipped: steps in a row whose gradient may be NaN
    or infinite; one more ends the run. bf16: mixed precision. sharding: 'full' gives every process a part of parameters,
    gradients and optimizer state (FSDP2), 'none' all of them (DDP). checkpoint_every: steps. keep: newest checkpoints.
    samples_every: steps from one sample picture to the next; 0 makes none.
    """

    steps: int = 10_000
    minutes: float | None = None
    accumulate: int = 1
    clip: float = 5.0
    average: float = 0.995
    max_skipped: int = 20
    bf16: bool = True
    sharding: Literal['none', 'full'] = 'none'
    checkpoint_every: int = 500
    keep: int = 2
    samples_every: int | None = None
    tensorboard: bool = False


@dataclass(frozen=True)
class Step:
    """Where in its run a step is. number: batches before it, the same in all processes. progress: 0 to 1 of the run."""

    number: int
    progress: float


Losses = Callable[[Any, Any, Step], dict[str, Tensor]]


class _Callable(nn.Module):
    """Runs any function of the network as a forward pass, which is where DDP and FSDP hook in."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, function: Callable, *args: Any) -> Any:
        """function(network, *args)."""
        return function(self.network, *args)


def train(
    module: nn.Module,
    batches: Dataset,
    losses: Losses,
    config: TrainerConfig,
    folder: Path,
    *,
    seed: int = 0,
    workers: int = 1,
    validate: Callable[[Any], dict[str, float]] | None = None,
    picture: Callable[[Any], np.ndarray] | None = None,
    start: Path | None = None,
) -> nn.Module:
    """Train a module in place; a run that was stopped continues at its last checkpoint.

    Args:
        module: On the device to train on; its parameters that need no gradient stay as they are.
        batches: Batch number -> batch of this process; the same number must give the same batch.
        losses: Terms by name of a module, a batch and a `Step`; "total" is minimized.
        config: Schedule and optimizers.
        folder: Of the run.
        seed: Of all random numbers that `losses` takes from torch.
        workers: Processes that prepare batches; 0 prepares them here.
        validate: Results by name of the averaged module, at every checkpoint.
        picture: A sample of the averaged module, uint8 [H, W, 3] RGB.
        start: Another run's folder or file of weights, which this run begins with.

    Returns:
        The module, with the averaged parameters, which need no gradient any more.

    Raises:
        UserError: More than `config.max_skipped` steps in a row had a gradient that was NaN or infinite, or the configuration
            does not fit the module.
    """
    device = next(module.parameters()).device.type
    join(device)
    _open_run(folder, config)
    if start is not None:
        start_from(module, start)
    accelerator = Accelerator(
        cpu=device == 'cpu', mixed_precision='no',
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )  # fmt: skip
    step_module, sharded = _distributed(module, config, accelerator)
    run = RunState(module, make_optimizers(module, config), config.average, folder, sharded)
    monitor = Monitor(folder, run.counts.step, config.steps if config.minutes is None else None, config.tensorboard)
    loop = _Loop(step_module, losses, config, run, accelerator, seed)
    extras = _Extras(step_module, run, config, validate, picture, monitor)
    module.train()
    try:
        _run_steps(loop, extras, monitor, _stream(batches, run.counts.batches, workers))
    finally:
        monitor.close()
    run.average.swap()
    return module.requires_grad_(False)


def _open_run(folder: Path, config: TrainerConfig) -> None:
    """Make a run's folder, or clear what an interrupted run left unfinished there.

    Raises:
        UserError: It holds a run that cannot be continued.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / EARLIER_CHECKPOINT).exists():
        raise UserError(
            f'{folder} holds a run of an earlier version ({EARLIER_CHECKPOINT}), which cannot be continued',
            'give another --out, and this folder as --start to begin with its weights',
        )
    if rank() == 0:
        clear_unfinished(folder)
        write_text(folder / 'optimization.json', json_text(asdict(config), indent=2))


def _run_steps(loop: _Loop, extras: _Extras, monitor: Monitor, stream: Iterator) -> None:
    """Steps until the run is over, with checkpoints, log and samples at their times."""
    config, run, counts, means = loop.config, loop.run, loop.run.counts, TermMeans()
    while (progress := loop.progress()) < 1:
        rate = set_rates(run.optimizers, config.factor(counts.step, progress))
        terms = loop.step(stream, progress)
        if terms is None:
            continue
        monitor.advance(None if config.minutes is None else max(60 * config.minutes - run.spent, 0))
        means.add(terms)
        checkpoint = counts.step % config.checkpoint_every == 0
        if checkpoint:
            extras.save()
        if checkpoint or counts.step % _LOG_EVERY == 0:
            results = extras.validate() if checkpoint else {}
            record = {'step': counts.step, 'minutes': run.spent / 60, 'rate': rate, 'skipped': counts.skipped}
            monitor.write(record | means.take() | results)
        if config.samples_every and counts.step % config.samples_every == 0:
            extras.show()
    if counts.step % config.checkpoint_every:
        extras.save()


class _Loop:
    """One step of training after the other."""

    def __init__(
        self,
        module: nn.Module,
        losses: Losses,
        config: TrainerConfig,
        run: RunState,
        accelerator: Accelerator,
        seed: int,
    ):
        self.module, self.losses, self.config, self.run, self.seed = module, losses, config, run, seed
        self.accelerator, self.device = accelerator, accelerator.device.type
        self.in_a_row = 0

    def progress(self) -> float:
        """Share of the run that is over, the first process's where it goes by the clock."""
        if self.config.minutes is None:
            return self.run.counts.step / self.config.steps
        value = torch.tensor([self.run.spent / (60 * self.config.minutes)], device=self.accelerator.device)
        return float(broadcast(value)) if process_count() > 1 else float(value)

    def step(self, stream: Iterator, progress: float) -> dict[str, Tensor] | None:
        """Accumulate gradients and update; None where they were not finite, and nothing was updated."""
        counts, share = self.run.counts, 1 / self.config.accumulate
        self.module.zero_grad(set_to_none=True)
        found: list[dict[str, Tensor]] = []
        for part in range(self.config.accumulate):
            step = Step(counts.batches, progress)
            torch.manual_seed(_step_seed(self.seed, rank(), step.number))
            # Gradient checkpointing computes blocks again in the backward pass, by the same attention.
            with self._syncing(part == self.config.accumulate - 1), _attention_for_gradients(self.device):
                terms = self.module(self._terms, next(stream), step)
                (terms['total'] * share).backward()
            counts.batches += 1
            found.append({name: value.detach() for name, value in terms.items()})
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip)
        norm = norm.full_tensor() if hasattr(norm, 'full_tensor') else norm
        if not torch.isfinite(norm):
            return self._skip()
        self.in_a_row = 0
        self.run.update()
        return {name: torch.stack([terms[name] for terms in found]).mean() for name in found[0]}

    def _terms(self, network: nn.Module, batch: Any, step: Step) -> dict[str, Tensor]:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.config.bf16):
            terms = self.losses(network, batch, step)
        # DDP waits for a gradient of whatever any result depends on.
        return {name: value if name == 'total' else value.detach() for name, value in terms.items()}

    def _syncing(self, last: bool):
        """Gradients are averaged over the processes after the last batch of a step; shards always are."""
        return nullcontext() if last or self.run.sharded else self.accelerator.no_sync(self.module)

    def _skip(self) -> None:
        counts = self.run.counts
        counts.skipped, self.in_a_row = counts.skipped + 1, self.in_a_row + 1
        logger.warning('Step %d: the gradient is not finite; the batch is skipped.', counts.step)
        if self.in_a_row > self.config.max_skipped:
            raise UserError(
                f'Training in {self.run.folder.parent} diverged: {self.in_a_row} gradients in a row were NaN or infinite '
                f'after step {counts.step}, and {self.config.max_skipped} are allowed (max_skipped)',
                'check the episodes, or start again with a lower --learning-rate and another --out',
            )


class _Extras:
    """What happens from time to time: checkpoints, validation, sample pictures.

    Where every process holds a part of the network, all of them take part; otherwise only the first does.
    """

    def __init__(self, module: nn.Module, run: RunState, config: TrainerConfig, validate, picture, monitor: Monitor):
        self.module, self.run, self.config = module, run, config
        self._validate, self._picture, self._monitor = validate, picture, monitor
        self._takes_part = run.sharded or rank() == 0

    def save(self) -> None:
        """Write a checkpoint."""
        if self._takes_part:
            self.run.save(self.config.keep)

    def validate(self) -> dict[str, float]:
        """Results of the averaged network."""
        return self._averaged(self._validate) if self._validate and self._takes_part else {}

    def show(self) -> None:
        """Show a sample of the averaged network."""
        if self._picture and self._takes_part:
            self._monitor.show(self.run.counts.step, self._averaged(self._picture))

    def _averaged(self, function: Callable) -> Any:
        # DDP's own forward pass would wait for the other processes.
        call = self.module if self.run.sharded else _Callable(self.run.module)
        with self.run.average.applied(), torch.no_grad():
            result = call(function)
            if isinstance(self.module, FSDPModule):
                self.module.reshard()
        self.run.module.train()
        return result


def start_from(module: nn.Module, path: Path) -> None:
    """Take weights of another run's folder or of a file, such as one of a model directory, whose generator has the released
    checkpoint's names; parameters that it does not have are an error.

    Raises:
        UserError: It cannot be read, or its tensors are not the module's.
    """
    weights, targets = read_tensors(path), module.state_dict()
    if not targets.keys() <= weights.keys():
        targets = getattr(module, 'release_tensors', module.state_dict)()
    check_shapes(targets, weights, str(path))
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(weights[name])


def _distributed(module: nn.Module, config: TrainerConfig, accelerator: Accelerator) -> tuple[nn.Module, bool]:
    """The network as DDP or FSDP2 run it, and whether every process holds only a part."""
    whole = _Callable(module)
    if process_count() == 1:
        return whole, False
    if config.sharding == 'none':
        return accelerator.prepare_model(whole), False
    if config.optimizer == 'muon':
        raise UserError(
            'Muon needs whole matrices, and sharding is full', 'set sharding to none, or optimizer to adamw'
        )
    for parameter in module.parameters():  # FSDP2 takes no channels_last
        parameter.data = parameter.data.contiguous()
    mesh = init_device_mesh(accelerator.device.type, (process_count(),))
    for block in _blocks(module):
        fully_shard(block, mesh=mesh)
    fully_shard(whole, mesh=mesh, reshard_after_forward=True)
    return whole, True


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The units that are gathered one at a time: members of the outermost lists of layers."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from (layer for layer in child if any(True for _ in layer.parameters()))
        else:
            yield from _blocks(child)


def full_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """All tensors of a module, whole and on the CPU; every process calls it together where they are sharded."""
    return {
        name: (t.full_tensor() if hasattr(t, 'full_tensor') else t).detach().cpu()
        for name, t in module.state_dict().items()
    }


def _stream(batches: Dataset, first: int, workers: int) -> Iterator:
    """Batches from number `first` on, in order, whatever the number of workers."""
    return iter(
        DataLoader(
            batches, batch_size=None, sampler=range(first, sys.maxsize), num_workers=workers,
            prefetch_factor=4 if workers else None, generator=torch.Generator(),
        )
    )  # fmt: skip


def _step_seed(seed: int, process: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, process, number)).generate_state(1, np.uint64)[0])


def _attention_for_gradients(device: str):
    """The fused kernel's gradient is several times slower on a CPU than that of plain matrix products."""
    return sdpa_kernel(SDPBackend.MATH) if device == 'cpu' else nullcontext()
