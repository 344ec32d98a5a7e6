"""`wristworld train stage1|stage2|package|tiny-decoder`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from wristworld_ros.options import add_options, from_options
from wristworld_ros.training.settings import TrainSettings

CACHE = 'frames'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        'what', choices=('stage1', 'stage2', 'package', 'tiny-decoder'),
        help='stage1: geometry and wrist pose. stage2: the generator, after stage1. package: both as a model directory. '
        "tiny-decoder: a cheap decoder of a model's own video autoencoder.",
    )  # fmt: skip
    parser.add_argument('episodes', type=Path, nargs='?', help='Folder of episodes (`wristworld simulate` makes them).')
    parser.add_argument('--stage2', type=Path, help='package: folder of the stage 2 run.')
    parser.add_argument('--name', default='my_model', help='package: name of the model. Default: my_model.')
    add_options(parser, TrainSettings)


def run(args: argparse.Namespace) -> int:
    """Run one step of training and say where its result lies."""
    settings: TrainSettings = from_options(TrainSettings, args)
    if args.what == 'package':
        return _package(args, settings)
    if args.episodes is None and not (args.what == 'tiny-decoder' and settings.videos):
        raise ValueError(f'train {args.what} needs the folder of episodes; make some with `wristworld simulate`.')
    if settings.processes > 1 and settings.device == 'cuda':
        raise ValueError('train --processes is for the CPU; with --device cuda use one process.')
    steps = {'stage1': _stage1, 'stage2': _stage2, 'tiny-decoder': _tiny_decoder}
    steps[args.what](args.episodes, settings)
    print(f'\n{settings.out}')
    return 0


def _optimisation(settings: TrainSettings, default):
    return replace(default, steps=settings.steps, minutes=settings.minutes, learning_rate=settings.learning_rate)


def _train(settings: TrainSettings, function: Callable, *args) -> None:
    from wristworld_ros.pipeline.model_directory import choose_device
    from wristworld_ros.training.parallel import run_parallel

    device = 'cpu' if settings.processes > 1 else choose_device(settings.device)
    run_parallel(settings.processes, settings.threads, function, *args, device)


def _stage1(episodes: Path, settings: TrainSettings) -> None:
    from wristworld_ros.data.packed import pack_episodes
    from wristworld_ros.training.stage1.train import PACKED_SIZE, WRIST_SIZE, Stage1Training, train_stage1

    out = Path(settings.out)
    pack_episodes(episodes, out / CACHE / 'train', PACKED_SIZE, WRIST_SIZE, settings.workers)
    held_out = []
    if settings.held_out:
        held_out = pack_episodes(
            Path(settings.held_out), out / CACHE / 'held_out', PACKED_SIZE, WRIST_SIZE, settings.workers
        )
    start = Path(settings.start) if settings.start else None
    run = Stage1Training(seed=settings.seed, start=start, only=settings.only)
    run = replace(run, optimisation=_optimisation(settings, run.optimisation))
    if settings.batch:
        run = replace(run, sampling=replace(run.sampling, batch=settings.batch))
    if not settings.spc:
        run = replace(run, weights=replace(run.weights, spc=0.0))
    _train(settings, train_stage1, out / CACHE / 'train', held_out, out, run)


def _stage2(episodes: Path, settings: TrainSettings) -> None:
    from wristworld_ros.training.stage2.train import Stage2Training, prepare_for, train_stage2

    if not settings.stage1:
        raise ValueError('train stage2 needs --stage1, the folder of the stage 1 run.')
    out, stage1 = Path(settings.out), Path(settings.stage1)
    start = Path(settings.start) if settings.start else None
    run = Stage2Training(
        seed=settings.seed,
        start=start,
        condition=settings.condition,
        anchor_tokens=settings.anchor_tokens,
    )
    run = replace(run, optimisation=_optimisation(settings, run.optimisation))
    if settings.batch:
        run = replace(run, sampling=replace(run.sampling, batch=settings.batch))
    train = prepare_for(run, episodes, stage1 / 'conditions', stage1, settings.limit or None, settings.workers)
    held_out = []
    if settings.held_out:
        held_out = prepare_for(
            run, Path(settings.held_out), stage1 / 'conditions_held_out', stage1, None, settings.workers
        )
    _train(settings, train_stage2, train, held_out, out, run)


def _tiny_decoder(episodes: Path | None, settings: TrainSettings) -> None:
    from wristworld_ros.training.decoder.run import DecoderData, make_tiny_decoder
    from wristworld_ros.training.decoder.train import DecoderTraining

    if not settings.model:
        raise ValueError('train tiny-decoder needs --model, the model directory whose autoencoder it learns from.')
    if settings.start:
        raise ValueError('train tiny-decoder takes no --start; a run goes on in its own --out.')
    held_out = Path(settings.held_out) if settings.held_out else None
    data = DecoderData(episodes, tuple(settings.videos), held_out, settings.limit)
    run = DecoderTraining(settings.width, settings.blocks, seed=settings.seed)
    run = replace(run, optimisation=_optimisation(settings, run.optimisation), batch=settings.batch or run.batch)

    def start(function: Callable, *args) -> None:
        _train(settings, function, *args[:-1])

    folder, result = make_tiny_decoder(settings.model, data, Path(settings.out), run, settings.device, start)
    print(
        f'\n{folder / "tiny_decoder.safetensors"}: L1 {result.loss["l1"]:.4f} from the full decoder on held-out clips, '
        f'{result.cost.operations_ratio:.1f} times fewer operations, {result.cost.time_ratio:.1f} times faster.'
    )


def _package(args: argparse.Namespace, settings: TrainSettings) -> int:
    from wristworld_ros.training.package import package_model

    if not (settings.stage1 and args.stage2):
        raise ValueError('train package needs --stage1 and --stage2, the folders of both runs.')
    hashes = package_model(Path(settings.stage1), args.stage2, Path(settings.out), args.name)
    for name, digest in hashes.items():
        print(f'{digest}  {name}')
    print(f'\n{settings.out}')
    return 0
