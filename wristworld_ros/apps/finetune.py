"""`wristworld finetune`: a model directory adapted to recordings that have a wrist camera."""

from __future__ import annotations

import argparse

from wristworld_ros.options import add_options, from_options
from wristworld_ros.training.finetune.settings import FinetuneSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_options(parser, FinetuneSettings)


def run(args: argparse.Namespace) -> int:
    """Adapt, measure, and say where the model lies."""
    from wristworld_ros.pipeline.model_directory import choose_device
    from wristworld_ros.training.finetune.run import EVALUATION, MODEL, plan_finetune, run_finetune
    from wristworld_ros.training.parallel import run_parallel

    settings = from_options(FinetuneSettings, args)
    plan = plan_finetune(settings)
    for what, recordings in (('adapt to', plan.split.adapt), ('held out', plan.split.held_out)):
        print(f'{what}: {", ".join(recording.name for recording in recordings)}', flush=True)
    if plan.split.too_short:
        print(f'left out, too short: {", ".join(plan.split.too_short)}', flush=True)
    for sentence in plan.split.damaged:
        print(f'left out, damaged: {sentence}', flush=True)
    run_parallel(1, settings.threads, run_finetune, plan, choose_device(settings.device))
    print(f'\n{(plan.out / EVALUATION / "table.txt").read_text()}\n{plan.out / EVALUATION}\n{plan.out / MODEL}')
    return 0
