"""What the schedule of a configuration means to the trainer."""

from __future__ import annotations

from wristworld_ros.training.config import Config, Schedule
from wristworld_ros.training.trainer import TrainerConfig


def trainer_config(config: Config) -> TrainerConfig:
    """The trainer's part of a configuration, with the rates of parts that have one of their own."""
    s: Schedule = config.schedule
    rates = {
        f'{part}_head': rate
        for part in ('wrist', 'camera')
        if (rate := getattr(config.model, f'{part}_rate', None)) is not None
    }
    return TrainerConfig(
        optimizer=s.optimizer, learning_rate=s.learning_rate, rates=rates, weight_decay=s.weight_decay, betas=(s.beta1, s.beta2),
        warm_up=s.warm_up, warm_up_share=s.warm_up_share, schedule=s.schedule, steps=s.steps, minutes=s.minutes,
        accumulate=s.accumulate, clip=s.clip, average=s.average, max_skipped=s.max_skipped, bf16=s.precision == 'bf16',
        sharding=s.sharding, checkpoint_every=s.checkpoint_every, keep=s.keep, samples_every=s.samples_every,
        tensorboard=s.tensorboard,
    )  # fmt: skip
