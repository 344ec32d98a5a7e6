"""Optimizers of the trainings, and how their learning rates go through a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from wristworld_ros.errors import UserError

_SMALLEST_MATRIX = 32  # a matrix with fewer rows or columns (pose outputs, embeddings) is AdamW's


@dataclass(frozen=True)
class OptimizerConfig:
    """What moves the parameters, and how fast.

    Muon for the matrices and AdamW for the rest needs markedly fewer steps than AdamW alone, which is what counts on a CPU; its
    updates are scaled to AdamW's size, so one learning rate serves both. Pretrained networks are fine-tuned with AdamW, as published.

    optimizer: see above. learning_rate: peak. rates: peak of parameters whose name begins so, in place of `learning_rate`; the
    longest beginning counts. weight_decay: of matrices and filters; vectors do not decay. betas: of AdamW.
    warm_up: steps of linear warm-up. warm_up_share: share of the run of linear warm-up, after which the schedule begins.
    schedule: how the rate falls to zero, or that it does not.
    """

    optimizer: Literal['muon', 'adamw'] = 'muon'
    learning_rate: float = 6e-4
    rates: dict[str, float] = field(default_factory=dict)
    weight_decay: float = 0.03
    betas: tuple[float, float] = (0.9, 0.98)
    warm_up: int = 150
    warm_up_share: float = 0.0
    schedule: Literal['cosine', 'linear', 'constant'] = 'cosine'

    def factor(self, step: int, progress: float) -> float:
        """What every peak rate is multiplied with.

        Args:
            step: Updates so far.
            progress: Share of the run that is over.
        """
        warm = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        if progress < self.warm_up_share:
            return warm * progress / self.warm_up_share
        rest = (progress - self.warm_up_share) / (1 - self.warm_up_share)
        if self.schedule == 'cosine':
            return warm * 0.5 * (1 + math.cos(math.pi * rest))
        return warm * (1 - rest) if self.schedule == 'linear' else warm


class FilterMuon:
    """Muon over matrices and over convolutions' filters, each a matrix of one row per output channel.

    Raises:
        UserError: This torch has no Muon.
    """

    def __init__(self, groups: list[dict], **options):
        if not hasattr(torch.optim, 'Muon'):
            raise UserError(
                f'Training needs the Muon optimizer of torch 2.9 or newer, and this is torch {torch.__version__}',
                "install it with: pip install 'wristworld-ros[train]'",
            )
        own, self._pairs = [], []
        for group in groups:
            pairs = [(p, nn.Parameter(_as_matrix(p.data), requires_grad=False)) for p in group['params']]
            self._pairs += pairs
            own.append(group | {'params': [matrix for _, matrix in pairs]})
        if any(p.data_ptr() != matrix.data_ptr() for p, matrix in self._pairs):
            raise ValueError('FilterMuon needs parameters that lie in memory without gaps.')
        self._muon = torch.optim.Muon(own, **options)

    @property
    def param_groups(self) -> list[dict]:
        """As of any optimizer."""
        return self._muon.param_groups

    @property
    def state(self) -> dict[nn.Parameter, dict[str, torch.Tensor]]:
        """As of any optimizer, under the parameters themselves; the values are those of the matrices."""
        return {p: self._muon.state[matrix] for p, matrix in self._pairs if matrix in self._muon.state}

    def stored_like(self, parameter: nn.Parameter) -> torch.Tensor | None:
        """A tensor of the form that a parameter's state has; None for a parameter of another optimizer."""
        return next((matrix for p, matrix in self._pairs if p is parameter), None)

    def set_state(self, parameter: nn.Parameter, values: dict[str, torch.Tensor]) -> None:
        """Continue with the state of one parameter."""
        self._muon.state[self.stored_like(parameter)] = values

    def step(self) -> None:
        """One update of the parameters, in their own memory, from their gradients."""
        for parameter, matrix in self._pairs:
            matrix.grad = None if parameter.grad is None else _as_matrix(parameter.grad)
        self._muon.step()


class AdamW(torch.optim.AdamW):
    """torch's, with the one way to continue that all optimizers here have."""

    def stored_like(self, parameter: nn.Parameter) -> torch.Tensor | None:
        """A tensor of the form that a parameter's state has; None for a parameter of another optimizer."""
        return parameter if any(p is parameter for group in self.param_groups for p in group['params']) else None

    def set_state(self, parameter: nn.Parameter, values: dict[str, torch.Tensor]) -> None:
        """Continue with the state of one parameter."""
        self.state[parameter] = values


Optimizer = AdamW | FilterMuon


def _as_matrix(x: torch.Tensor) -> torch.Tensor:
    """[rows, ...] as [rows, columns]: a view wherever the memory allows one; the order of columns does not matter."""
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)
    return x.flatten(1)


def make_optimizers(module: nn.Module, config: OptimizerConfig) -> list[Optimizer]:
    """Muon over the large matrices and filters and AdamW over all else, or AdamW over all; vectors do not decay.

    Every parameter group has its peak learning rate under 'peak'.

    Raises:
        UserError: `config.rates` names what no trained parameter's name begins with.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for prefix in config.rates:
        if not any(name.startswith(prefix) for name in trained):
            tops = ', '.join(sorted({name.split('.')[0] for name in trained}))
            raise UserError(f'No trained parameter begins with {prefix!r}, which has a rate of its own', f'give {tops}')
    with_muon = config.optimizer == 'muon'
    matrices = {n for n, p in trained.items() if with_muon and _is_matrix(p)}
    plain = {n for n in trained if n not in matrices}
    made: list[Optimizer] = (
        [AdamW(_groups(plain, trained, config), lr=config.learning_rate, betas=config.betas)] if plain else []
    )
    if matrices:
        groups = _groups(matrices, trained, config)
        made.append(FilterMuon(groups, lr=config.learning_rate, adjust_lr_fn='match_rms_adamw'))
    return made


def set_rates(optimizers: Iterable[Optimizer], factor: float) -> float:
    """Set every group's rate to its peak times a factor; returns the highest."""
    highest = 0.0
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group['lr'] = group['peak'] * factor
            highest = max(highest, group['lr'])
    return highest


def _is_matrix(p: nn.Parameter) -> bool:
    return p.ndim in (2, 4, 5) and min(p.flatten(1).shape) >= _SMALLEST_MATRIX


def _groups(names: Iterable[str], trained: Mapping[str, nn.Parameter], config: OptimizerConfig) -> list[dict]:
    """Parameter groups: one for every rate and decay that occurs, in the order of the module's parameters."""
    chosen, groups = set(names), {}
    for name, p in trained.items():
        if name in chosen:
            prefix = max((q for q in config.rates if name.startswith(q)), key=len, default=None)
            peak = config.learning_rate if prefix is None else config.rates[prefix]
            decay = config.weight_decay if p.ndim > 1 else 0.0
            groups.setdefault((peak, decay), []).append(p)
    return [
        {'params': params, 'lr': peak, 'peak': peak, 'weight_decay': decay} for (peak, decay), params in groups.items()
    ]
