"""The loop both stages share: schedule, clipping, moving average, checkpoints, progress."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from wristworld_ros.training.parallel import average_gradients, from_first, rank


@dataclass(frozen=True)
class TrainerConfig:
    """Muon for the matrices and AdamW for the rest, with a linear warm-up and a cosine to zero.

    Muon learns from markedly fewer steps, which is what a CPU has few of; its updates are scaled to AdamW's size, so one
    learning rate serves both.

    `minutes` ends the run by the clock: the schedule then follows the time spent, so that a run on a slow or a busy
    machine still comes to its cosine's end. 0 leaves it to `steps`.
    """

    steps: int = 10_000
    minutes: float = 0.0
    learning_rate: float = 6e-4
    weight_decay: float = 0.03
    betas: tuple[float, float] = (0.9, 0.98)
    warm_up: int = 150
    clip: float = 5.0
    average: float = 0.995
    bf16: bool = True
    checkpoint_every: int = 500


class ExponentialMovingAverage(nn.Module):
    """Exponential moving average of a module's parameters, with a shorter memory at the start."""

    def __init__(self, module: nn.Module, decay: float):
        super().__init__()
        self.module, self.decay, self.updates = copy.deepcopy(module).requires_grad_(False), decay, 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        ours, theirs = list(self.module.parameters()), [p.detach() for p in module.parameters()]
        torch._foreach_lerp_(ours, theirs, weight)


class FilterMuon(torch.optim.Muon):
    """Muon over matrices and over convolutions' filters, each a matrix of one row an output channel."""

    def __init__(self, params: list[nn.Parameter], **options):
        self._pairs = [(p, nn.Parameter(_as_matrix(p.data), requires_grad=False)) for p in params]
        if any(p.data_ptr() != matrix.data_ptr() for p, matrix in self._pairs):
            raise ValueError('FilterMuon needs parameters that lie in memory without gaps.')
        super().__init__([matrix for _, matrix in self._pairs], **options)

    def step(self):
        """One update from the gradients of the parameters that were given, in their own memory."""
        for parameter, matrix in self._pairs:
            matrix.grad = None if parameter.grad is None else _as_matrix(parameter.grad)
        super().step()


def _as_matrix(x: torch.Tensor) -> torch.Tensor:
    """[rows, ...] as [rows, columns]: a view wherever the memory allows one; the columns' order is of no matter."""
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)
    return x.flatten(1)


_SMALLEST_MATRIX = 32  # a matrix with fewer rows or columns (pose outputs, embeddings) is AdamW's


def make_optimisers(module: nn.Module, o: TrainerConfig) -> list[torch.optim.Optimizer]:
    """Muon over the large matrices and filters, AdamW over all else; vectors do not decay."""
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim in (2, 4, 5) and min(p.flatten(1).shape) >= _SMALLEST_MATRIX]
    taken = {id(p) for p in matrices}
    rest = [p for p in trained if id(p) not in taken]
    groups = [
        {'params': [p for p in rest if p.ndim > 1], 'weight_decay': o.weight_decay},
        {'params': [p for p in rest if p.ndim <= 1], 'weight_decay': 0.0},
    ]
    adam = torch.optim.AdamW([g for g in groups if g['params']], lr=o.learning_rate, betas=o.betas)
    if not matrices:
        return [adam]
    muon = FilterMuon(matrices, lr=o.learning_rate, weight_decay=o.weight_decay, adjust_lr_fn='match_rms_adamw')
    return [adam, muon]


def _attention_for_gradients(device: str):
    """The fused kernel's gradient is several times slower on a CPU than the plain products'."""
    return sdpa_kernel(SDPBackend.MATH) if device == 'cpu' else nullcontext()


def train(
    module: nn.Module,
    batches: Iterable,
    losses: Callable[[nn.Module, object, float], dict[str, torch.Tensor]],
    optimisation: TrainerConfig,
    folder: Path,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    start: Path | None = None,
) -> nn.Module:
    """Train in place; returns the moving average. Resumes from `folder/last.pt` when it is there.

    start: another run's last.pt to take the averaged weights from, when this run begins.

    losses(module, batch, progress) gives the terms by name; "total" is descended. `folder/log.jsonl` gets a line every
    20 steps, with the validation's figures at each checkpoint. In several processes (`parallel.run_parallel`) gradients
    are averaged, and the first process logs, validates and saves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    o = optimisation
    (folder / 'optimisation.json').write_text(json.dumps(asdict(o), indent=2))
    optimisers = make_optimisers(module, o)
    if start is not None and not (folder / 'last.pt').exists():
        module.load_state_dict(torch.load(start, weights_only=True)['average'])
    average, step, spent = ExponentialMovingAverage(module, o.average), 0, 0.0
    if (folder / 'last.pt').exists():
        state = torch.load(folder / 'last.pt', weights_only=True)
        module.load_state_dict(state['module'])
        average.module.load_state_dict(state['average'])
        for optimiser, kept in zip(optimisers, state['optimisers'], strict=True):
            optimiser.load_state_dict(kept)
        step, spent, average.updates = state['step'], state['spent'], state['step']
    started = time.monotonic() - spent
    first = rank() == 0
    device = next(module.parameters()).device.type
    recent: dict[str, list[float]] = {}
    bar = tqdm(total=o.steps if not o.minutes else None, initial=step, desc=folder.name, unit='step', mininterval=5,
               disable=not first)  # fmt: skip
    stream = iter(batches)

    def save():
        state = {
            'module': module.state_dict(), 'average': average.module.state_dict(),
            'optimisers': [optimiser.state_dict() for optimiser in optimisers], 'step': step, 'spent': time.monotonic() - started,
        }  # fmt: skip
        torch.save(state, folder / 'last.pt.part')
        (folder / 'last.pt.part').rename(folder / 'last.pt')

    module.train()
    while True:
        progress = from_first((time.monotonic() - started) / (o.minutes * 60) if o.minutes else step / o.steps)
        if progress >= 1:
            break
        rate = o.learning_rate * min(1, (step + 1) / o.warm_up) * 0.5 * (1 + math.cos(math.pi * progress))
        module.zero_grad(set_to_none=True)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group['lr'] = rate
        with torch.autocast(device, torch.bfloat16, enabled=o.bf16), _attention_for_gradients(device):
            terms = losses(module, next(stream), progress)
        terms['total'].backward()
        average_gradients(module)
        norm = nn.utils.clip_grad_norm_(module.parameters(), o.clip)
        if not torch.isfinite(norm):
            tqdm.write(f'step {step}: the gradient is not finite; this batch is left out.')
            continue
        for optimiser in optimisers:
            optimiser.step()
        average.update(module)
        step += 1
        bar.update()
        if not first:
            continue
        for name, value in terms.items():
            recent.setdefault(name, []).append(float(value.detach()))
        if step % 20 == 0 or step % o.checkpoint_every == 0:
            record = {'step': step, 'minutes': (time.monotonic() - started) / 60, 'rate': rate}
            record |= {k: sum(v) / len(v) for k, v in recent.items()}
            recent.clear()
            if step % o.checkpoint_every == 0:
                save()
                if validate:
                    record |= validate(average.module)
                    module.train()
                    bar.set_postfix({k: f'{v:.3g}' for k, v in record.items() if k.startswith('val')})
            with open(folder / 'log.jsonl', 'a') as f:
                f.write(json.dumps(record) + '\n')
    if first:
        save()
    bar.close()
    return average.module
