"""`wristworld train STAGE`: by a configuration (reconstruction, generation, causal, decoder), or a part of the small model by options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import check_folder
from wristworld_ros.options import add_options, from_options
from wristworld_ros.setting import check
from wristworld_ros.training.settings import TrainSettings

if TYPE_CHECKING:
    from wristworld_ros.data.packed import PackedEpisode
    from wristworld_ros.training.causal.train import CausalTraining
    from wristworld_ros.training.decoder.train import DecoderTraining
    from wristworld_ros.training.parts import TrainedParts
    from wristworld_ros.training.recipes import Config
    from wristworld_ros.training.stage2.train import Stage2Training
    from wristworld_ros.training.trainer import TrainerConfig

CACHE = 'frames'
CONFIGURED = ('reconstruction', 'generation', 'causal', 'decoder')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        'what', choices=(*CONFIGURED, 'stage1', 'sweep', 'hand', 'stage2', 'package', 'tiny-decoder', 'teacher', 'sim-fvd'),
        help='reconstruction, generation, decoder: by a configuration (--config), at any size. stage1: geometry and wrist pose. sweep: the wrist view of known cameras. hand: the wrist pose as anchors see the hand. '
        'stage2: the generator, after those. package: all of them as a model directory. '
        "tiny-decoder: a cheap decoder of a model's own video autoencoder. teacher: a model's generator as a flow over whole clips. "
        'causal: a causal few-step student of such a model, by teacher forcing and then by its own roll-outs; by a configuration, or for '
        'small models by options, of which --minutes and --steps are those of each of the two parts. sim-fvd: the small network of the evaluation\'s sim-FVD.',
    )  # fmt: skip
    parser.add_argument(
        'episodes', type=Path, nargs='?', help='Folder of episodes (`wristworld simulate` records them).'
    )
    parser.add_argument(
        '--config',
        type=Path,
        help='reconstruction, generation, causal, decoder: YAML file, one of config/train or a copy of yours.',
    )
    parser.add_argument(
        '--dry-run', action='store_true',
        help='With --config: run one step without memory for it, and say what is trained and what a GPU needs.',
    )  # fmt: skip
    parser.add_argument(
        '--rate',
        type=float,
        help='With --dry-run: steps a second of one process, as measured; adds how many days a run takes.',
    )
    parser.add_argument('--stage2', type=Path, help='package: folder of the stage 2 run.')
    parser.add_argument('--name', default='my_model', help='package: name of the model. Default: my_model.')
    add_options(parser, TrainSettings)


def run(args: argparse.Namespace) -> int:
    """Run one step of training and say where its result lies."""
    settings = from_options(TrainSettings, args)
    check(settings)
    check_folder(settings.out)
    by_options = args.what == 'causal' and args.config is None and not args.dry_run
    if args.what in CONFIGURED and not by_options:
        return _configured_stage(args, settings)
    if args.config is not None or args.dry_run:
        raise UserError(
            f'train {args.what} takes no --config and no --dry-run', f'they belong to {", ".join(CONFIGURED)}'
        )
    if args.what == 'package':
        return _package(args, settings)
    if args.episodes is None and not (args.what == 'tiny-decoder' and settings.videos):
        raise UserError(f'train {args.what} needs the folder of episodes', 'record some with `wristworld simulate`')
    if settings.processes > 1 and settings.device == 'cuda':
        raise UserError(
            f'--processes is {settings.processes} and --device is cuda', 'use one process on a GPU, or --device cpu'
        )
    steps = {
        'stage1': _stage1, 'sweep': _sweep, 'hand': _hand, 'stage2': _stage2, 'tiny-decoder': _tiny_decoder,
        'teacher': _teacher, 'causal': _causal, 'sim-fvd': _sim_fvd,
    }  # fmt: skip
    steps[args.what](args.episodes, settings)
    print(f'\n{settings.out}')
    return 0


def _configured_stage(args: argparse.Namespace, settings: TrainSettings) -> int:
    """A stage by its configuration, which is checked before anything else is read."""
    from wristworld_ros.training.config_reading import read_config

    if args.config is None:
        raise UserError(
            f'train {args.what} needs --config', 'give one of config/train, e.g. config/train/droid/reconstruction.yaml'
        )
    config = read_config(args.config, args.what)
    if args.dry_run:
        from wristworld_ros.training.dry_run import report

        print(report(config, args.rate))
        return 0
    if args.episodes is None:
        raise UserError(f'train {args.what} needs the folder of episodes', 'record some with `wristworld simulate`')
    _run_configured(args.episodes, settings, config)
    print(f'\n{settings.out}')
    return 0


def _run_configured(episodes: Path, settings: TrainSettings, config: Config) -> None:
    """Hand a configuration to its training."""
    from wristworld_ros.training.config import GenerationConfig, ImagesConfig
    from wristworld_ros.training.config_causal import CausalConfig, CausalImagesConfig
    from wristworld_ros.training.config_stage1 import GeometryConfig, ReconstructionConfig
    from wristworld_ros.training.configured import (
        ANCHOR_SIZE,
        WRIST_HW,
        causal_training,
        decoder_training,
        geometry_training,
        images_training,
    )

    start, out, held_out = _path(settings.start), Path(settings.out), _path(settings.held_out)
    if isinstance(config, ReconstructionConfig):
        from wristworld_ros.training.stage1.published import train_published

        _train(settings, train_published, episodes, held_out, out, config, start)
    elif isinstance(config, GenerationConfig):
        from wristworld_ros.training.stage2.flow import train_flow

        _train(settings, train_flow, episodes, held_out, out, config, start)
    elif isinstance(config, GeometryConfig):
        from wristworld_ros.training.stage1.train import train_stage1

        width, height = (round(n * 21 / 16) for n in ANCHOR_SIZE[config.model.network])  # room for zoom and roll
        _train(
            settings, train_stage1, *_packed(episodes, settings, (width, height)), out, geometry_training(config, start)
        )
    elif isinstance(config, ImagesConfig):
        sizes = {'anchor_width': ANCHOR_SIZE[config.model.network][0], 'wrist_hw': WRIST_HW[config.model.network]}
        _train_stage2(
            episodes, settings, images_training(config, start), replace(_parts(settings, 'train generation'), **sizes)
        )
    elif isinstance(config, CausalConfig | CausalImagesConfig):
        training = causal_training(config, _teacher_model(settings, config.model.model))
        if isinstance(config, CausalConfig):
            from wristworld_ros.training.causal.train import train_causal_on_latents

            _train(settings, train_causal_on_latents, episodes, held_out, out, config.data, training)
        else:
            from wristworld_ros.training.causal.train import train_causal

            _on_conditions(episodes, settings, train_causal, training)
    else:
        settings = replace(
            settings, model=settings.model or config.model.model, limit=settings.limit or config.data.episodes
        )
        _make_decoder(episodes, settings, decoder_training(config))


def _config(settings: TrainSettings, default: TrainerConfig) -> TrainerConfig:
    return replace(
        default, steps=settings.steps, minutes=settings.minutes, learning_rate=settings.learning_rate,
        max_skipped=settings.max_skipped,
    )  # fmt: skip


def _configured(run, settings: TrainSettings):
    """A training, any of those with `config` and `sampling`, as the options ask for."""
    run = replace(run, config=_config(settings, run.config))
    if settings.batch is None:
        return run
    return replace(run, sampling=replace(run.sampling, batch=settings.batch))


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _parts(settings: TrainSettings, command: str) -> TrainedParts:
    from wristworld_ros.training.parts import TrainedParts

    if settings.stage1 is None:
        raise UserError(f'{command} needs --stage1', 'give the folder of the stage 1 run')
    return TrainedParts(Path(settings.stage1), _path(settings.sweep), _path(settings.hand))


def _train(settings: TrainSettings, function: Callable, *args) -> None:
    """Call a training with its arguments and the device, in as many processes as are asked for."""
    from wristworld_ros.pipeline.model_directory import choose_device
    from wristworld_ros.training.parallel import launched, run_parallel

    if launched():  # by torchrun or `accelerate launch`, in as many processes as it was told
        function(*args, choose_device(settings.device))
        return
    device = 'cpu' if settings.processes > 1 else choose_device(settings.device)
    run_parallel(settings.processes, settings.threads, function, *args, device)


def _first_before_others(settings: TrainSettings) -> AbstractContextManager:
    """Among processes that a launcher started, the first prepares the data."""
    from wristworld_ros.pipeline.model_directory import choose_device
    from wristworld_ros.training.parallel import first_process_before_others, launched

    return first_process_before_others(choose_device(settings.device)) if launched() else nullcontext()


def _packed(
    episodes: Path, settings: TrainSettings, size: tuple[int, int]
) -> tuple[list[PackedEpisode], list[PackedEpisode]]:
    """Episodes to train on and to validate on, with anchors of a size (width, height)."""
    from wristworld_ros.data.formats.native import list_episodes
    from wristworld_ros.data.packed import pack_episodes
    from wristworld_ros.training.stage1.train import WRIST_SIZE

    for folder in filter(None, (episodes, settings.held_out)):
        if not list_episodes(folder):
            raise UserError(f'{folder} holds no episodes', 'record some with `wristworld simulate`')
    cache = Path(settings.out) / CACHE
    with _first_before_others(settings):
        train = pack_episodes(episodes, cache / 'train', size, WRIST_SIZE, settings.workers)
        if not settings.held_out:
            return train, []
        return train, pack_episodes(Path(settings.held_out), cache / 'held_out', size, WRIST_SIZE, settings.workers)


def _stage1(episodes: Path, settings: TrainSettings) -> None:
    from wristworld_ros.training.stage1.train import PACKED_SIZE, Stage1Training, train_stage1

    train, held_out = _packed(episodes, settings, PACKED_SIZE)
    only = None if settings.only == 'all' else settings.only
    run = Stage1Training(seed=settings.seed, start=_path(settings.start), only=only)
    run = _configured(run, settings)
    if not settings.spc:
        run = replace(run, weights=replace(run.weights, spc=0.0))
    _train(settings, train_stage1, train, held_out, Path(settings.out), run)


def _sweep(episodes: Path, settings: TrainSettings) -> None:
    from wristworld_ros.training.sweep.train import PACKED_SIZE, SweepTraining, train_sweep

    run = _configured(SweepTraining(seed=settings.seed, start=_path(settings.start)), settings)
    _train(settings, train_sweep, *_packed(episodes, settings, PACKED_SIZE), Path(settings.out), run)


def _hand(episodes: Path, settings: TrainSettings) -> None:
    from wristworld_ros.training.hand.train import HandTraining, train_hand
    from wristworld_ros.training.sweep.train import PACKED_SIZE

    run = _configured(HandTraining(seed=settings.seed, start=_path(settings.start)), settings)
    _train(settings, train_hand, *_packed(episodes, settings, PACKED_SIZE), Path(settings.out), run)


def _stage2(episodes: Path, settings: TrainSettings) -> None:
    from wristworld_ros.training.stage2.train import Stage2Training

    parts = _parts(settings, 'train stage2')
    run = Stage2Training(
        seed=settings.seed,
        start=_path(settings.start),
        condition=settings.condition,
        anchor_tokens=settings.anchor_tokens,
    )
    _train_stage2(episodes, settings, _configured(run, settings), parts)


def _train_stage2(episodes: Path, settings: TrainSettings, run: Stage2Training, parts: TrainedParts) -> None:
    from wristworld_ros.training.stage2.train import prepare_for, train_stage2

    def conditions(folder: Path, name: str, limit: int | None) -> list[Path]:
        return prepare_for(run, folder, Path(settings.out) / name, parts, limit, settings.workers)

    with _first_before_others(settings):
        train = conditions(episodes, 'conditions', settings.limit)
        held_out = conditions(Path(settings.held_out), 'conditions_held_out', None) if settings.held_out else []
    _train(settings, train_stage2, train, held_out, Path(settings.out), run)


def _teacher(episodes: Path, settings: TrainSettings) -> None:
    from wristworld_ros.training.causal.train import train_teacher

    _on_clips(episodes, settings, train_teacher)


def _causal(episodes: Path, settings: TrainSettings) -> None:
    from wristworld_ros.training.causal.train import train_causal

    _on_clips(episodes, settings, train_causal)


def _teacher_model(settings: TrainSettings, configured: str | None = None) -> str:
    """The model that causal training starts from."""
    model = settings.model or configured
    if model is None:
        raise UserError('train teacher and train causal need --model', 'give the model that they start from')
    if settings.start:
        raise UserError('train teacher and train causal take no --start', 'give the model to start from with --model')
    return model


def _on_clips(episodes: Path, settings: TrainSettings, train: Callable) -> None:
    """A training of causal/ by options."""
    from wristworld_ros.training.causal.train import CausalTraining

    run = CausalTraining(
        _teacher_model(settings),
        seed=settings.seed,
        timesteps=_timesteps(settings.timesteps),
        clip_chunks=settings.clip_chunks,
    )
    _on_conditions(episodes, settings, train, _configured(run, settings))


def _on_conditions(episodes: Path, settings: TrainSettings, train: Callable, run: CausalTraining) -> None:
    """A training that starts from a model directory, on condition maps of that model's own stage 1."""
    from wristworld_ros.training.causal.train import prepare_for

    def conditions(folder: Path, name: str, limit: int | None) -> list[Path]:
        return prepare_for(run, folder, Path(settings.out) / name, limit, settings.workers)

    with _first_before_others(settings):
        made = conditions(episodes, 'conditions', settings.limit)
        held_out = conditions(Path(settings.held_out), 'conditions_held_out', None) if settings.held_out else []
    _train(settings, train, made, held_out, Path(settings.out), run)


def _sim_fvd(episodes: Path, settings: TrainSettings) -> None:
    from wristworld_ros.training.sim_fvd import SimFvdTraining, read_videos, train_sim_fvd

    run = SimFvdTraining(seed=settings.seed, start=_path(settings.start))
    run = replace(run, config=_config(settings, run.config), batch=settings.batch or run.batch)
    held_out = read_videos(Path(settings.held_out)) if settings.held_out else []
    _train(settings, train_sim_fvd, read_videos(episodes, settings.limit), held_out, Path(settings.out), run)


def _timesteps(text: str) -> tuple[float, ...]:
    from wristworld_ros.models.wan.config import RenoiseSampler

    try:
        return RenoiseSampler(tuple(float(t) for t in text.split(','))).timesteps
    except UserError:
        raise
    except ValueError:
        raise UserError(
            f'--timesteps is {text!r}', 'give numbers with commas between, as in 1000,750,500,250'
        ) from None


def _tiny_decoder(episodes: Path | None, settings: TrainSettings) -> None:
    from wristworld_ros.training.decoder.train import DecoderTraining

    run = DecoderTraining(settings.width, settings.blocks, seed=settings.seed)
    _make_decoder(
        episodes, settings, replace(run, config=_config(settings, run.config), batch=settings.batch or run.batch)
    )


def _make_decoder(episodes: Path | None, settings: TrainSettings, run: DecoderTraining) -> None:
    from wristworld_ros.training.decoder.data import DecoderData
    from wristworld_ros.training.decoder.install import make_tiny_decoder

    if settings.model is None:
        raise UserError('train tiny-decoder needs --model', 'give the model directory whose autoencoder it learns from')
    if settings.start:
        raise UserError('train tiny-decoder takes no --start', 'leave it out; a run continues in its own --out')
    data = DecoderData(episodes, tuple(settings.videos), _path(settings.held_out), settings.limit)
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

    if not args.stage2:
        raise UserError('train package needs --stage2', 'give the folder of the stage 2 run')
    hashes = package_model(_parts(settings, 'train package'), args.stage2, Path(settings.out), args.name)
    for name, digest in hashes.items():
        print(f'{digest}  {name}')
    print(f'\n{settings.out}')
    return 0
