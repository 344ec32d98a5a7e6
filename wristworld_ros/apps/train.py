"""`wristworld train stage1|stage2|package|tiny-decoder`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import check_folder
from wristworld_ros.options import add_options, from_options
from wristworld_ros.setting import check
from wristworld_ros.training.settings import TrainSettings

if TYPE_CHECKING:
    from wristworld_ros.training.trainer import TrainerConfig

CACHE = 'frames'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        'what', choices=('stage1', 'stage2', 'package', 'tiny-decoder'),
        help='stage1: geometry and wrist pose. stage2: the generator, after stage1. package: both as a model directory. '
        "tiny-decoder: a cheap decoder of a model's own video autoencoder.",
    )  # fmt: skip
    parser.add_argument(
        'episodes', type=Path, nargs='?', help='Folder of episodes (`wristworld simulate` records them).'
    )
    parser.add_argument('--stage2', type=Path, help='package: folder of the stage 2 run.')
    parser.add_argument('--name', default='my_model', help='package: name of the model. Default: my_model.')
    add_options(parser, TrainSettings)


def run(args: argparse.Namespace) -> int:
    """Run one step of training and say where its result lies."""
    settings = from_options(TrainSettings, args)
    check(settings)
    check_folder(settings.out)
    if args.what == 'package':
        return _package(args, settings)
    if args.episodes is None and not (args.what == 'tiny-decoder' and settings.videos):
        raise UserError(f'train {args.what} needs the folder of episodes', 'record some with `wristworld simulate`')
    if settings.processes > 1 and settings.device == 'cuda':
        raise UserError(
            f'--processes is {settings.processes} and --device is cuda', 'use one process on a GPU, or --device cpu'
        )
    steps = {'stage1': _stage1, 'stage2': _stage2, 'tiny-decoder': _tiny_decoder}
    steps[args.what](args.episodes, settings)
    print(f'\n{settings.out}')
    return 0


def _config(settings: TrainSettings, default: TrainerConfig) -> TrainerConfig:
    return replace(
        default, steps=settings.steps, minutes=settings.minutes, learning_rate=settings.learning_rate,
        max_skipped=settings.max_skipped,
    )  # fmt: skip


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _train(settings: TrainSettings, function: Callable, *args) -> None:
    """Call a training with its arguments and the device, in as many processes as are asked for."""
    from wristworld_ros.pipeline.model_directory import choose_device
    from wristworld_ros.training.parallel import run_parallel

    device = 'cpu' if settings.processes > 1 else choose_device(settings.device)
    run_parallel(settings.processes, settings.threads, function, *args, device)


def _stage1(episodes: Path, settings: TrainSettings) -> None:
    from wristworld_ros.data.formats.native import list_episodes
    from wristworld_ros.data.packed import PackedEpisode, pack_episodes
    from wristworld_ros.training.stage1.train import PACKED_SIZE, WRIST_SIZE, Stage1Training, train_stage1

    for folder in filter(None, (episodes, settings.held_out)):
        if not list_episodes(folder):
            raise UserError(f'{folder} holds no episodes', 'record some with `wristworld simulate`')
    out = Path(settings.out)

    def packed(folder: Path, name: str) -> list[PackedEpisode]:
        return pack_episodes(folder, out / CACHE / name, PACKED_SIZE, WRIST_SIZE, settings.workers)

    train = packed(episodes, 'train')
    held_out = packed(Path(settings.held_out), 'held_out') if settings.held_out else []
    only = None if settings.only == 'all' else settings.only
    run = Stage1Training(seed=settings.seed, start=_path(settings.start), only=only)
    run = replace(run, config=_config(settings, run.config))
    if settings.batch is not None:
        run = replace(run, sampling=replace(run.sampling, batch=settings.batch))
    if not settings.spc:
        run = replace(run, weights=replace(run.weights, spc=0.0))
    _train(settings, train_stage1, train, held_out, out, run)


def _stage2(episodes: Path, settings: TrainSettings) -> None:
    from wristworld_ros.training.stage2.train import Stage2Training, prepare_for, train_stage2

    if settings.stage1 is None:
        raise UserError('train stage2 needs --stage1', 'give the folder of the stage 1 run')
    stage1 = Path(settings.stage1)
    run = Stage2Training(
        seed=settings.seed,
        start=_path(settings.start),
        condition=settings.condition,
        anchor_tokens=settings.anchor_tokens,
    )
    run = replace(run, config=_config(settings, run.config))
    if settings.batch is not None:
        run = replace(run, sampling=replace(run.sampling, batch=settings.batch))

    def conditions(folder: Path, name: str, limit: int | None) -> list[Path]:
        return prepare_for(run, folder, stage1 / name, stage1, limit, settings.workers)

    train = conditions(episodes, 'conditions', settings.limit)
    held_out = conditions(Path(settings.held_out), 'conditions_held_out', None) if settings.held_out else []
    _train(settings, train_stage2, train, held_out, Path(settings.out), run)


def _tiny_decoder(episodes: Path | None, settings: TrainSettings) -> None:
    from wristworld_ros.training.decoder.data import DecoderData
    from wristworld_ros.training.decoder.install import make_tiny_decoder
    from wristworld_ros.training.decoder.train import DecoderTraining

    if settings.model is None:
        raise UserError('train tiny-decoder needs --model', 'give the model directory whose autoencoder it learns from')
    if settings.start:
        raise UserError('train tiny-decoder takes no --start', 'leave it out; a run continues in its own --out')
    data = DecoderData(episodes, tuple(settings.videos), _path(settings.held_out), settings.limit)
    run = DecoderTraining(settings.width, settings.blocks, seed=settings.seed)
    run = replace(run, config=_config(settings, run.config), batch=settings.batch or run.batch)
    device = 'cpu' if settings.processes > 1 else settings.device
    folder, result = make_tiny_decoder(
        settings.model, data, Path(settings.out), run, device, settings.processes, settings.threads
    )
    print(
        f'\n{folder / "tiny_decoder.safetensors"}: L1 {result.loss["l1"]:.4f} from the full decoder on held-out clips, '
        f'{result.cost.operations_ratio:.1f} times fewer operations, {result.cost.time_ratio:.1f} times faster.'
    )


def _package(args: argparse.Namespace, settings: TrainSettings) -> int:
    from wristworld_ros.training.package import package_model

    if not (settings.stage1 and args.stage2):
        raise UserError('train package needs --stage1 and --stage2', 'give the folders of both runs')
    hashes = package_model(Path(settings.stage1), args.stage2, Path(settings.out), args.name)
    for name, digest in hashes.items():
        print(f'{digest}  {name}')
    print(f'\n{settings.out}')
    return 0
