"""`wristworld train teacher` and `wristworld train causal`: from a model directory to one with a windowed teacher, or a student."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.baselines import MEAN_WRIST
from wristworld_ros.input_files import json_text
from wristworld_ros.models.config import ModelConfig
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.autoencoders import Autoencoder
from wristworld_ros.models.wan.config import RenoiseSampler
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.model_directory import (
    find_model,
    load_close_up,
    load_prior,
    load_stage1,
    load_stage2,
    save_model,
)
from wristworld_ros.runtime.files import write_text
from wristworld_ros.training.causal.clips import ClipEncoder, clip_shape
from wristworld_ros.training.causal.losses import ConsistencyLoss, ForcingLoss, WindowedLoss, roll_out
from wristworld_ros.training.checkpoint import read_weights, weights_file
from wristworld_ros.training.parallel import rank
from wristworld_ros.training.part import need_samples, train_part
from wristworld_ros.training.parts import PackagedParts
from wristworld_ros.training.stage2.conditions import ConditionSettings, prepare_conditions
from wristworld_ros.training.stage2.data import Stage2Clips, Stage2Sampling, collate_clips, sample_clip
from wristworld_ros.training.trainer import Losses, TrainerConfig

MODEL = 'model'  # folder of the finished model in that of the run
STEPS = (1000.0, 750.0, 500.0, 250.0)  # timesteps of a student before the model's shift


@dataclass(frozen=True)
class CausalTraining:
    """One training run of a teacher or of a student's two parts.

    model: name or directory of the model that it starts from. config: of each part. sampling: augmentation and batch; length and
    chunks of clips follow from the model and from clip_chunks, how many of its own chunks a clip has. timesteps: what a student is distilled to, before the model's shift.
    substeps: Euler steps of the teacher between two of them. maps: condition maps of each frame, of different knowledge.
    """

    model: str = 'sim_tiny'
    sampling: Stage2Sampling = field(default_factory=lambda: Stage2Sampling(batch=2))
    config: TrainerConfig = field(default_factory=lambda: TrainerConfig(average=0.99, warm_up=50, bf16=False))
    timesteps: tuple[float, ...] = STEPS
    substeps: int = 4
    clip_chunks: int = 2
    maps: int = 2
    seed: int = 0
    workers: int = 1
    start: Path | None = None


@dataclass(frozen=True)
class _Source:
    """The model that a run starts from, and its data."""

    folder: Path
    config: ModelConfig
    generator: WristGenerator
    autoencoder: Autoencoder
    encoder: ClipEncoder
    sampling: Stage2Sampling


def prepare_for(run: CausalTraining, episodes: Path, folder: Path, limit: int | None, workers: int) -> list[Path]:
    """The condition maps that a run trains on, by the model's own stage 1; see `prepare_conditions`."""
    model = find_model(run.model)
    config = ModelConfig.read(model / 'config.json')
    if not config.use_anchor_tokens or not config.generator.get('anchor_encoder'):
        size = ConditionSettings.token_size
    else:
        size = config.generator['anchor_encoder']['image_size']
    return prepare_conditions(
        episodes, folder, PackagedParts(model), ConditionSettings(size, maps=run.maps), config.generator, limit, workers
    )


def train_teacher(
    conditions: list[Path], held_out: list[Path], folder: Path, run: CausalTraining, device: str = 'cpu'
) -> None:
    """Train the model's generator as a flow over whole clips; leaves `folder/model`, a model directory.

    Args:
        conditions: Files of `prepare_for` to train on.
        held_out: Such files to validate on; may be empty.
        folder: Of the run, which continues where it was stopped.
        run: What is trained, and how.
        device: cpu or cuda.

    Raises:
        UserError: There are no files, the model cannot be trained so, or training diverged.
    """
    source = _source(conditions, run, device)
    losses = WindowedLoss(source.encoder, source.config.noise_share)

    @torch.no_grad()
    def figures(gen: WristGenerator, batch: dict) -> dict[str, float]:
        return {'loss': float(losses(gen, batch, None)['total'])}

    generator = _part(source, source.generator, source.generator.settings.to_config(), conditions, held_out, losses, figures,
                      folder / 'windowed', run, device)  # fmt: skip
    if rank() == 0:
        _write_model(
            source, generator, source.generator.settings.to_config(), folder, f'a windowed teacher, from {run.model}'
        )


def train_causal(
    conditions: list[Path], held_out: list[Path], folder: Path, run: CausalTraining, device: str = 'cpu'
) -> None:
    """Make a causal few-step student of a windowed teacher in two parts; leaves `folder/model`, a model directory.

    `folder/forcing` is teacher forcing, started from the teacher; `folder/distilled` is distillation by the student's own
    roll-outs, started from that. Arguments and errors as in `train_teacher`.
    """
    source = _source(conditions, run, device)
    teacher = source.generator
    config = _student_config(teacher, run)
    forcing = ForcingLoss(source.encoder, source.config.noise_share)
    distilling = ConsistencyLoss(
        source.encoder, teacher, source.config.noise_share, run.substeps, teacher.settings.cfg_scale
    )

    @torch.no_grad()
    def forced(gen: WristGenerator, batch: dict) -> dict[str, float]:
        return {'loss': float(forcing(gen, batch, None)['total'])}

    @torch.no_grad()
    def streamed(gen: WristGenerator, batch: dict) -> dict[str, float]:
        return {f'psnr_{n}': _stream_psnr(gen, source, batch, n) for n in (1, len(run.timesteps))}

    causal = _part(source, teacher, config, conditions, held_out, forcing, forced, folder / 'forcing', run, device)
    student = _part(
        source, causal, config, conditions, held_out, distilling, streamed, folder / 'distilled', run, device
    )
    if rank() == 0:
        _write_model(
            source,
            student,
            config,
            folder,
            f'a causal student of {run.model}, at timesteps {config["sampler"]["timesteps"]}',
        )


def _source(conditions: list[Path], run: CausalTraining, device: str) -> _Source:
    need_samples(conditions)
    folder = find_model(run.model)
    config, generator, autoencoder = load_stage2(str(folder), device)
    if generator.settings.sampler is not None:
        raise UserError(f'{run.model} is a few-step student itself', 'give the teacher that it was distilled from')
    if config.untrained:
        raise UserError(
            f'{run.model} has parts without trained weights: {", ".join(config.untrained)}', 'train them first'
        )
    autoencoder.requires_grad_(False)
    frames, chunks = clip_shape(generator, autoencoder.temporal_stride, run.clip_chunks)
    sampling = replace(run.sampling, frames=frames, chunks=chunks)
    encoder = ClipEncoder(autoencoder, device, config.use_condition, config.use_anchor_tokens)
    return _Source(folder, config, generator, autoencoder, encoder, sampling)


def _student_config(teacher: WristGenerator, run: CausalTraining) -> dict[str, Any]:
    """The teacher's configuration with the student's sampler; its guidance is distilled."""
    shift = teacher.settings.shift
    levels = [t / 1000 for t in RenoiseSampler(run.timesteps).timesteps]
    timesteps = [1000 * shift * s / (1 + (shift - 1) * s) for s in levels]
    sampler = {'kind': 'renoise', 'timesteps': timesteps}
    return teacher.settings.to_config() | {'sampler': sampler, 'sampling_steps': len(timesteps), 'cfg_scale': 1.0}


def _part(
    source: _Source, start: WristGenerator, config: dict[str, Any], conditions: list[Path], held_out: list[Path], losses: Losses,
    figures: Callable[[WristGenerator, dict], dict[str, float]], folder: Path, run: CausalTraining, device: str,
) -> WristGenerator:  # fmt: skip
    """One part: a generator of `config` that starts with the weights of `start`; its averaged weights, read back."""

    def build() -> WristGenerator:
        gen = WristGenerator.from_config(config)
        gen.load_state_dict(start.state_dict())
        if gen.anchor_encoder is not None:  # features are what the teacher knows
            gen.anchor_encoder.requires_grad_(False)
        return gen

    def clips(gen: WristGenerator) -> Stage2Clips:
        return Stage2Clips(conditions, source.sampling, run.seed, rank(), gen.settings.max_views)

    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        record = asdict(run) | {'start': None if run.start is None else str(run.start)}
        write_text(folder / 'run.json', json_text(record, indent=2))
    if not weights_file(folder).exists():
        train_part(build, config, clips, losses, _fixed(held_out, source), figures, folder, run, device)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # the first process writes what all read
    trained = build()
    read_weights(trained, folder)
    return trained.to(device).eval()


def _fixed(held_out: list[Path], source: _Source, size: int = 4) -> list[dict]:
    """Batches to validate on."""
    rng = np.random.default_rng(0)
    clips = [sample_clip(path, 1, source.sampling.frames, rng) for path in held_out]
    chunk = min(source.sampling.chunks)
    return [collate_clips(clips[i : i + size]) | {'chunk': chunk} for i in range(0, len(clips), size)]


def _stream_psnr(gen: WristGenerator, source: _Source, batch: dict, steps: int) -> float:
    """PSNR of clips that the student streams with its first so many steps, latents decoded, dB."""
    clip = source.encoder(gen, batch)
    made = roll_out(gen, clip, clip.contexts(gen), clip.noise(source.config.noise_share, steps)).made
    error = (source.autoencoder.decode(made) - batch['wrist'].to(made.device)).square() / 4
    return float((-10 * error.mean((1, 2, 3, 4)).log10()).mean())


def _write_model(source: _Source, generator: WristGenerator, config: dict[str, Any], folder: Path, what: str) -> None:
    """The source's model directory with another generator, and a card that says what it is."""
    own, stage1 = load_stage1(str(source.folder))
    sweep, hand = load_close_up(source.folder, own)
    model = WristModel(
        replace(own, name=folder.name, generator=config),
        stage1,
        generator,
        'cpu',
        source.autoencoder,
        sweep,
        hand,
        load_prior(source.folder, own),
    )
    hashes = save_model(model, folder / MODEL)
    if (source.folder / MEAN_WRIST).exists():
        shutil.copyfile(source.folder / MEAN_WRIST, folder / MODEL / MEAN_WRIST)
    lines = [
        f'# {folder.name}',
        '',
        f'Made by `wristworld train`: {what}. Licence: {own.licence}.',
        '',
        '| file | sha256 |',
    ]
    lines += ['| --- | --- |', *(f'| `{name}` | `{digest}` |' for name, digest in hashes.items())]
    write_text(folder / MODEL / 'README.md', '\n'.join(lines) + '\n')
