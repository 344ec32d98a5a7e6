"""The loop that all trainings share: schedule, clipping, moving average, checkpoints, log.

What a step computes depends on the seed, the process's rank and the number of the batch alone: batches are looked up by
number, and random numbers are seeded with it. So a run that was interrupted continues as if it had not been, to the bit
on a CPU where it is trained by steps.
"""

from __future__ import annotations

import copy
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import decode_json, json_text
from wristworld_ros.models.state_dict import load_strict
from wristworld_ros.runtime.files import clear_leftovers, write_text
from wristworld_ros.training.checkpoint import read_checkpoint, read_safetensors, write_checkpoint
from wristworld_ros.training.parallel import average_gradients, from_first, rank

logger = logging.getLogger(__name__)

_CHECKPOINT, _LOG = 'last.pt', 'log.jsonl'
_LOG_EVERY = 20  # steps
_SMALLEST_MATRIX = 32  # a matrix with fewer rows or columns (pose outputs, embeddings) is AdamW's


@dataclass(frozen=True)
class TrainerConfig:
    """Muon for the matrices and AdamW for the rest, with a linear warm-up and a cosine to zero.

    Muon needs markedly fewer steps, which is what counts on a CPU; its updates are scaled to AdamW's size, so one
    learning rate serves both.

    minutes: end the run by the clock; the schedule then follows the time spent, so that a run on a slow or busy machine
    still reaches the end of its cosine. None trains for `steps`. warm_up: steps. clip: norm of the gradient. average:
    decay of the moving average. max_skipped: steps in a row whose gradient may be NaN or infinite; one more ends the run.
    checkpoint_every: steps.
    """

    steps: int = 10_000
    minutes: float | None = None
    learning_rate: float = 6e-4
    weight_decay: float = 0.03
    betas: tuple[float, float] = (0.9, 0.98)
    warm_up: int = 150
    clip: float = 5.0
    average: float = 0.995
    max_skipped: int = 20
    bf16: bool = True
    checkpoint_every: int = 500


@dataclass(frozen=True)
class Step:
    """Where in its run a step is. number: batches before it, the same in all processes. progress: 0 to 1 of the run."""

    number: int
    progress: float


Losses = Callable[[nn.Module, object, Step], dict[str, torch.Tensor]]


class ExponentialMovingAverage:
    """Exponential moving average of a module's parameters, with a shorter memory at the start."""

    def __init__(self, module: nn.Module, decay: float):
        self.module, self.decay, self.updates = copy.deepcopy(module).requires_grad_(False), decay, 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the parameters as they are after a step."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        ours, theirs = list(self.module.parameters()), [p.detach() for p in module.parameters()]
        torch._foreach_lerp_(ours, theirs, weight)


class FilterMuon:
    """Muon over matrices and over convolutions' filters, each a matrix of one row per output channel.

    Raises:
        UserError: This torch has no Muon.
    """

    def __init__(self, params: list[nn.Parameter], **options):
        if not hasattr(torch.optim, 'Muon'):
            raise UserError(
                f'Training needs the Muon optimizer of torch 2.9 or newer, and this is torch {torch.__version__}',
                "install it with: pip install 'wristworld-ros[train]'",
            )
        self._pairs = [(p, nn.Parameter(_as_matrix(p.data), requires_grad=False)) for p in params]
        if any(p.data_ptr() != matrix.data_ptr() for p, matrix in self._pairs):
            raise ValueError('FilterMuon needs parameters that lie in memory without gaps.')
        self._muon = torch.optim.Muon([matrix for _, matrix in self._pairs], **options)

    @property
    def param_groups(self) -> list[dict]:
        """As of any optimizer."""
        return self._muon.param_groups

    def state_dict(self) -> dict:
        """As of any optimizer."""
        return self._muon.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """As of any optimizer."""
        self._muon.load_state_dict(state)

    def step(self) -> None:
        """One update of the parameters, in their own memory, from their gradients."""
        for parameter, matrix in self._pairs:
            matrix.grad = None if parameter.grad is None else _as_matrix(parameter.grad)
        self._muon.step()


def _as_matrix(x: torch.Tensor) -> torch.Tensor:
    """[rows, ...] as [rows, columns]: a view wherever the memory allows one; the order of columns does not matter."""
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)
    return x.flatten(1)


def make_optimizers(module: nn.Module, config: TrainerConfig) -> list[torch.optim.Optimizer | FilterMuon]:
    """Muon over the large matrices and filters, AdamW over all else; vectors do not decay."""
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim in (2, 4, 5) and min(p.flatten(1).shape) >= _SMALLEST_MATRIX]
    taken = {id(p) for p in matrices}
    rest = [p for p in trained if id(p) not in taken]
    groups = [
        {'params': [p for p in rest if p.ndim > 1], 'weight_decay': config.weight_decay},
        {'params': [p for p in rest if p.ndim <= 1], 'weight_decay': 0.0},
    ]
    adam = torch.optim.AdamW([g for g in groups if g['params']], lr=config.learning_rate, betas=config.betas)
    if not matrices:
        return [adam]
    muon = FilterMuon(
        matrices, lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn='match_rms_adamw'
    )
    return [adam, muon]


def train(
    module: nn.Module,
    batches: Dataset,
    losses: Losses,
    config: TrainerConfig,
    folder: Path,
    *,
    seed: int = 0,
    workers: int = 0,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    start: Path | None = None,
) -> nn.Module:
    """Train in place and return the moving average; continues at `folder/last.pt` where there is one.

    In several processes (`parallel.run_parallel`) gradients are averaged, and the first process logs, validates and
    saves. `folder/log.jsonl` gets a line every 20 steps, with the validation's results at each checkpoint.

    Args:
        module: On the device to train on.
        batches: Batch number -> batch; the same number must give the same batch.
        losses: Terms by name of a module, a batch and a `Step`; "total" is minimized.
        config: Schedule and optimizers.
        folder: Of the run.
        seed: Of all random numbers that `losses` takes from torch.
        workers: Processes that prepare batches; 0 prepares them here.
        validate: Results by name of the averaged module.
        start: Another run's last.pt, or a model directory's safetensors, to take the weights from when this run begins.

    Raises:
        UserError: More than `config.max_skipped` steps in a row had a gradient that was NaN or infinite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if rank() == 0:
        clear_leftovers(folder)
        write_text(folder / 'optimization.json', json_text(asdict(config), indent=2))
    run = _Run(module, config, folder, start)
    first, device = rank() == 0, next(module.parameters()).device.type
    log = _Log(folder / _LOG, run.step) if first else None
    stream = _stream(batches, run.batches, workers)
    total = config.steps if config.minutes is None else None
    bar = tqdm(total=total, initial=run.step, desc=folder.name, unit='step', mininterval=5, disable=not first)
    skipped_in_a_row = 0
    module.train()
    while (progress := from_first(run.progress())) < 1:
        step = Step(run.batches, progress)
        torch.manual_seed(_step_seed(seed, rank(), step.number))
        rate = run.set_learning_rate(progress)
        module.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=config.bf16), _attention_for_gradients(device):
            terms = losses(module, next(stream), step)
        terms['total'].backward()
        average_gradients(module)
        norm = nn.utils.clip_grad_norm_(module.parameters(), config.clip)
        run.batches += 1
        if not torch.isfinite(norm):
            run.skipped, skipped_in_a_row = run.skipped + 1, skipped_in_a_row + 1
            logger.warning('Step %d: the gradient is not finite; the batch is skipped.', run.step)
            if skipped_in_a_row > config.max_skipped:
                raise _diverged(run, skipped_in_a_row, folder)
            continue
        skipped_in_a_row = 0
        run.update()
        bar.update()
        if log is None:
            continue
        log.add(terms)
        checkpoint = run.step % config.checkpoint_every == 0
        if checkpoint:
            run.save()
        if checkpoint or run.step % _LOG_EVERY == 0:
            results = validate(run.average.module) if checkpoint and validate else {}
            module.train()
            bar.set_postfix({k: f'{v:.3g}' for k, v in results.items()}, refresh=False)
            log.write(run, rate, results)
    if first:
        run.save()
    bar.close()
    return run.average.module


class _Run:
    """What a run has reached: weights, their average, optimizers and counts; as in `folder/last.pt`.

    step: updates so far. batches: batches so far, those that were skipped included. skipped: of them.
    """

    def __init__(self, module: nn.Module, config: TrainerConfig, folder: Path, start: Path | None):
        self.module, self.config, self.path = module, config, folder / _CHECKPOINT
        self.optimizers = make_optimizers(module, config)
        if start is not None and not self.path.exists():
            _start_from(module, start)
        self.average = ExponentialMovingAverage(module, config.average)
        self.step = self.batches = self.skipped = 0
        spent = self._load() if self.path.exists() else 0.0
        self._started = time.monotonic() - spent

    @property
    def spent(self) -> float:
        """Seconds of training, those before an interruption included."""
        return time.monotonic() - self._started

    def progress(self) -> float:
        """Share of the run that is over."""
        minutes = self.config.minutes
        return self.step / self.config.steps if minutes is None else self.spent / (60 * minutes)

    def set_learning_rate(self, progress: float) -> float:
        """Follow the schedule; returns the learning rate."""
        warm_up = min(1, (self.step + 1) / self.config.warm_up)
        rate = self.config.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * progress))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group['lr'] = rate
        return rate

    def update(self) -> None:
        """One step along the gradients that the parameters have."""
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.module)
        self.step += 1

    def save(self) -> None:
        """Write the checkpoint; it is replaced as a whole."""
        state = {
            'module': self.module.state_dict(),
            'average': self.average.module.state_dict(),
            'optimisers': [optimizer.state_dict() for optimizer in self.optimizers],
            'step': self.step,
            'batches': self.batches,
            'skipped': self.skipped,
            'spent': self.spent,
        }
        write_checkpoint(self.path, state)

    def _load(self) -> float:
        device = next(self.module.parameters()).device
        state = read_checkpoint(self.path, device)
        self.module.load_state_dict(state['module'])
        self.average.module.load_state_dict(state['average'])
        for optimizer, kept in zip(self.optimizers, state['optimisers'], strict=True):
            optimizer.load_state_dict(kept)
        self.step = self.average.updates = state['step']
        self.batches, self.skipped = state.get('batches', self.step), state.get('skipped', 0)
        return state['spent']


def _start_from(module: nn.Module, path: Path) -> None:
    """Take the averaged weights of another run's last.pt, or those of a model directory."""
    average = read_safetensors(path) if path.suffix == '.safetensors' else read_checkpoint(path).get('average')
    if not isinstance(average, dict):
        raise UserError(f'{path} holds no averaged weights', "give another run's last.pt with --start")
    load_strict(module.state_dict(), average, str(path))


@dataclass
class _LogLine:
    """What is read of a line of `log.jsonl`."""

    step: int


class _Log:
    """`log.jsonl` of a run: means of the terms since the last line. Lines after the checkpoint that a run continues at
    are dropped, for these steps come again."""

    def __init__(self, path: Path, step: int):
        self._path, self._recent = path, {}
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text(''.join(line for line in lines if self._step_of(line) <= step))

    @staticmethod
    def _step_of(line: str) -> float:
        try:
            return decode_json(line, _LogLine, 'log.jsonl').step
        except UserError:  # the last line of a run that was killed
            return math.inf

    def add(self, terms: dict[str, torch.Tensor]) -> None:
        """Take in the terms of one step."""
        for name, value in terms.items():
            self._recent.setdefault(name, []).append(float(value.detach()))

    def write(self, run: _Run, rate: float, results: dict[str, float]) -> None:
        """Append a line."""
        record = {'step': run.step, 'minutes': run.spent / 60, 'rate': rate, 'skipped': run.skipped}
        record |= {name: sum(values) / len(values) for name, values in self._recent.items()} | results
        self._recent.clear()
        with open(self._path, 'a') as f:
            f.write(json_text(record, indent=None))


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


def _diverged(run: _Run, skipped: int, folder: Path) -> UserError:
    return UserError(
        f'Training in {folder} diverged: {skipped} gradients in a row were NaN or infinite after step {run.step}, and '
        f'{run.config.max_skipped} are allowed (max_skipped)',
        'check the episodes, or start again with a lower --learning-rate and another --out',
    )
