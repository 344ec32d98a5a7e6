"""`wristworld train STAGE --config FILE --dry-run`: one step without any memory for it, and what the real one would need.

The step runs on tensors that have a shape and no values (torch's fake tensors, whose kernels are those of the meta device), with made
samples of the configured size. Counted are parameters, gradients, optimizer state and average, all float32, and every tensor that
autograd keeps for the backward pass; with gradient checkpointing also what one block keeps when it is computed again; of a causal
student also its teacher, which every process holds whole, and the keys and values of a roll-out. What a GPU's allocator, its kernels'
work space and DDP's buckets take comes on top: `_SPARE`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from wristworld_ros.evaluation.table import markdown
from wristworld_ros.models.vggt import Matches
from wristworld_ros.models.vggt.aggregator import imagenet_statistics
from wristworld_ros.models.vggt.dense_head import uv_embedding
from wristworld_ros.models.vggt.layers import rotary_tables
from wristworld_ros.models.wan.anchor_encoder import clip_statistics
from wristworld_ros.training.config_reading import changed
from wristworld_ros.training.dry_run_steps import MadeStep, made_step
from wristworld_ros.training.optimizers import make_optimizers
from wristworld_ros.training.recipes import Config
from wristworld_ros.training.schedules import part_schedules, trainer_config

GPUS = (1, 2, 4, 8)
_SPARE = 1.15
_SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Estimate:
    """What one process needs. Bytes, but `trained` and `all`, which count parameters. teacher: of its weights, which are never
    sharded."""

    trained: int
    all: int
    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    largest_layer: int
    teacher: int

    def memory(self, processes: int, sharded: bool) -> int:
        """Bytes that a GPU needs when so many share the work."""
        state = self.weights + self.gradients + self.optimizer + self.average
        if sharded and processes > 1:
            state = state // processes + self.largest_layer
        return int(_SPARE * (state + self.teacher + self.activations))


def estimate(config: Config) -> Estimate:
    """Run one step of a configuration on fake tensors.

    Raises:
        UserError: The configuration's parts do not fit together.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of what only matters for tensors with memory
            return _estimate(config)
    finally:  # what the networks keep for the process must not be fake tensors
        for kept in (imagenet_statistics, clip_statistics, rotary_tables, uv_embedding):
            kept.cache_clear()


def _estimate(config: Config) -> Estimate:
    step, activations, total = _forward(config)
    module = step.module
    if config.schedule.gradient_checkpointing:
        # The backward pass computes one block after the other again, and holds what that block keeps.
        _, whole, _ = _forward(changed(config, schedule={'gradient_checkpointing': False}))
        activations += whole // max((len(m) for m in module.modules() if isinstance(m, nn.ModuleList)), default=1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        total.backward()
        optimizers = make_optimizers(module, trainer_config(config))
        for optimizer in optimizers:
            if isinstance(optimizer, torch.optim.Optimizer):
                optimizer.step()
    parameters = list(module.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    moments = sum(
        (1 if not isinstance(optimizer, torch.optim.Optimizer) else 2) * sum(p.numel() for g in optimizer.param_groups for p in g['params'])
        for optimizer in optimizers
    )  # fmt: skip
    every = sum(p.numel() for p in parameters)
    return Estimate(
        trained,
        every,
        4 * every,
        4 * trained,
        4 * moments,
        4 * trained,
        max(activations, step.streaming),
        4 * max(_layer_sizes(module), default=0),
        0 if step.teacher is None else 4 * sum(p.numel() for p in step.teacher.parameters()),
    )


def _forward(config: Config) -> tuple[MadeStep, int, Tensor]:
    """The step as far as its loss, the bytes that autograd keeps, and the loss."""
    with torch.device('meta'):
        step = made_step(config)
    kept: dict[int, Tensor] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        step.module.to_empty(device='cpu').train()
        batch = _on_cpu(step.batch)
        own = {p.untyped_storage()._cdata for p in step.module.parameters()}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = tensor
            return tensor

        # A GPU's attention keeps no matrix of scores; neither does this one.
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast('cpu', torch.bfloat16, enabled=config.schedule.precision == 'bf16'),
            sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]),
        ):
            total = step.losses(step.module, batch)
    return step, sum(t.untyped_storage().nbytes() for t in kept.values()), total


def report(config: Config, rate: float | None = None) -> str:
    """The text that `--dry-run` prints.

    Args:
        config: Of any stage.
        rate: Steps a second of one process, as measured; None leaves out the days.
    """
    found, schedule = estimate(config), config.schedule
    parts = (
        ('weights', found.weights), ('gradients', found.gradients), ('optimizer', found.optimizer), ('average', found.average),
        ('activations', found.activations), ('teacher', found.teacher),
    )  # fmt: skip
    lines = [
        f'Trained: {found.trained / 1e6:.2f} M of {found.all / 1e6:.2f} M parameters.',
        'One process, one pass: ' + ', '.join(f'{name} {size / 2**30:.2f} GiB' for name, size in parts if size) + '.',
        f'Estimates of memory hold {_SPARE - 1:.0%} beside these sums.',
        *(['Muon needs whole matrices, and so sharding none.'] if schedule.optimizer == 'muon' else []),
        '',
    ]
    rows = []
    for count in GPUS:
        samples = count * schedule.batch * schedule.accumulate
        rows.append(
            (
                str(count),
                f'{found.memory(count, False) / 2**30:.1f}',
                '-' if schedule.optimizer == 'muon' else f'{found.memory(count, True) / 2**30:.1f}',
                str(samples),
                *_days(rate, config, count),
            )
        )
    header = ('GPUs', 'GiB each, sharding none', 'GiB each, sharding full', 'samples a step')
    lines.append(markdown(header if rate is None else (*header, 'steps a day', 'samples a day', 'days'), rows))
    if rate is not None:
        lines.append(f'\nAt {rate:g} steps a second of one process; communication between processes comes on top.')
    return '\n'.join(lines)


def _days(rate: float | None, config: Config, count: int) -> tuple[str, ...]:
    if rate is None:
        return ()
    schedule, steps = config.schedule, rate * _SECONDS_A_DAY
    days = sum(part.steps / steps if part.minutes is None else part.minutes / 1440 for part in part_schedules(config))
    return f'{steps:.0f}', f'{steps * schedule.batch * schedule.accumulate * count:.0f}', f'{days:.2f}'


def _layer_sizes(module: nn.Module) -> list[int]:
    """Parameters of the largest unit that sharding gathers."""
    return [
        sum(p.numel() for p in layer.parameters())
        for child in module.modules()
        if isinstance(child, nn.ModuleList)
        for layer in child
    ]


def _on_cpu(value: Any) -> Any:
    """Tensors on the meta device as tensors without values on the CPU."""
    if isinstance(value, Tensor):
        return torch.empty_like(value, device='cpu')
    if isinstance(value, dict):
        return {key: _on_cpu(entry) for key, entry in value.items()}
    if isinstance(value, Matches):
        return Matches(**{key: _on_cpu(entry) for key, entry in vars(value).items()})
    return [_on_cpu(entry) for entry in value] if isinstance(value, list) else value
