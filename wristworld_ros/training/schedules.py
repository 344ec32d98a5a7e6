"""What the schedule of a configuration means to the trainer."""

from __future__ import annotations

from wristworld_ros.training.config import Schedule
from wristworld_ros.training.config_causal import CausalConfig, CausalImagesConfig
from wristworld_ros.training.recipes import Config
from wristworld_ros.training.trainer import TrainerConfig


def part_schedules(config: Config) -> tuple[Schedule, ...]:
    """The schedules of a configuration's parts, one after the other; most have one part."""
    if isinstance(config, CausalConfig | CausalImagesConfig):
        return config.forcing.of(config.schedule), config.distillation.of(config.schedule)
    return (config.schedule,)


def trainer_config(config: Config, part: int = 0) -> TrainerConfig:
    """The trainer's part of a configuration, with the rates of parts of the network that have one of their own.

    Args:
        config: Of any stage.
        part: Which of `part_schedules`.
    """
    s = part_schedules(config)[part]
    rates = {
        f'{head}_head': rate
        for head in ('wrist', 'camera')
        if (rate := getattr(config.model, f'{head}_rate', None)) is not None
    }
    return TrainerConfig(
        optimizer=s.optimizer, learning_rate=s.learning_rate, rates=rates, weight_decay=s.weight_decay, betas=(s.beta1, s.beta2),
        warm_up=s.warm_up, warm_up_share=s.warm_up_share, schedule=s.schedule, steps=s.steps, minutes=s.minutes,
        accumulate=s.accumulate, clip=s.clip, average=s.average, max_skipped=s.max_skipped, bf16=s.precision == 'bf16',
        sharding=s.sharding, checkpoint_every=s.checkpoint_every, keep=s.keep, samples_every=s.samples_every,
        tensorboard=s.tensorboard,
    )  # fmt: skip
