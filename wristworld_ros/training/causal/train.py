"""`wristworld train teacher` and `wristworld train causal`: from a model directory to one with a windowed teacher, or a student."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wristworld_ros.evaluation.baselines import MEAN_WRIST
from wristworld_ros.models.config import HAND, STAGE1, SWEEP, ModelConfig
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.config import RenoiseSampler
from wristworld_ros.pipeline.generate import to_pixels
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.model_directory import find_model, load_close_up, load_prior, load_stage1
from wristworld_ros.pipeline.model_saving import save_model
from wristworld_ros.runtime.files import file_sha256, write_text
from wristworld_ros.training.causal.clips import LatentClip
from wristworld_ros.training.causal.data import Clips, Teacher, encoded_clips, image_clips, load_teacher
from wristworld_ros.training.causal.losses import ConsistencyLoss, ForcingLoss, WindowedLoss, roll_out
from wristworld_ros.training.checkpoint import read_weights, weights_file
from wristworld_ros.training.config import GenerationData, GenerationModel
from wristworld_ros.training.monitor import film_strips
from wristworld_ros.training.parallel import rank
from wristworld_ros.training.part import note_run, train_part
from wristworld_ros.training.parts import PackagedParts
from wristworld_ros.training.stage2.adapters import adapt, merged
from wristworld_ros.training.stage2.conditions import ConditionSettings, prepare_conditions
from wristworld_ros.training.stage2.data import Stage2Sampling
from wristworld_ros.training.trainer import Losses, TrainerConfig

MODEL = 'model'  # folder of the finished model in that of the run
STEPS = (1000.0, 750.0, 500.0, 250.0)  # timesteps of a student before the model's shift


@dataclass(frozen=True)
class CausalTraining:
    """One training run of a teacher or of a student's two parts.

    model: name or directory of the model that it starts from. sampling: augmentation and batch of clips of images; their length and
    chunks follow from the model and from clip_chunks, how many of its own chunks a clip has. config: of a teacher, of teacher
    forcing, and of distillation where that has none of its own. last_level, history_noise: see `ForcingLoss`. timesteps: what a
    student is distilled to, before the model's shift. substeps: Euler steps of the teacher between two of them. guidance: the
    teacher's, None for the model's. adapters: what of the network is trained. maps: condition maps of each frame, of different
    knowledge.
    """

    model: str = 'sim_tiny'
    sampling: Stage2Sampling = field(default_factory=lambda: Stage2Sampling(batch=2))
    config: TrainerConfig = field(default_factory=lambda: TrainerConfig(average=0.99, warm_up=50, bf16=False))
    distillation: TrainerConfig | None = None
    last_level: float = 0.25
    history_noise: float = 0.2
    timesteps: tuple[float, ...] = STEPS
    substeps: int = 4
    guidance: float | None = None
    adapters: GenerationModel = field(default_factory=lambda: GenerationModel(adapt='full'))
    gradient_checkpointing: bool = False
    clip_chunks: int = 2
    maps: int = 2
    seed: int = 0
    workers: int = 1
    start: Path | None = None


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
    teacher = load_teacher(run.model, device)
    clips = image_clips(teacher, conditions, held_out, run.sampling, run.clip_chunks, run.seed, device)
    losses, config = WindowedLoss(clips.encoder, teacher.config.noise_share), teacher.generator.settings.to_config()

    @torch.no_grad()
    def figures(gen: WristGenerator, batch: dict) -> dict[str, float]:
        return {'loss': float(losses(gen, batch, None)['total'])}

    generator = _part(teacher.generator, config, clips, losses, figures, folder / 'windowed', run, device)
    if rank() == 0:
        _write_model(teacher, generator, config, folder, f'a windowed teacher, from {run.model}')


def train_causal(
    conditions: list[Path], held_out: list[Path], folder: Path, run: CausalTraining, device: str = 'cpu'
) -> None:
    """Make a causal few-step student of a windowed teacher on images; leaves `folder/model`, a model directory.

    Arguments and errors as in `train_teacher`; parts as in `make_student`.
    """
    teacher = load_teacher(run.model, device)
    clips = image_clips(teacher, conditions, held_out, run.sampling, run.clip_chunks, run.seed, device)
    make_student(teacher, clips, folder, run, device)


def train_causal_on_latents(
    episodes: Path, held_out: Path | None, folder: Path, data: GenerationData, run: CausalTraining, device: str
) -> None:
    """The same on recordings of any format, whose clips lie as latents in `folder/latents`.

    Args:
        episodes: Recordings to train on.
        held_out: Others to validate on; None for none.
        folder: Of the run, which continues where it was stopped.
        data: How clips are cut.
        run: What is trained, and how.
        device: cpu or cuda.

    Raises:
        UserError: The recordings lack what clips need, the model cannot be trained so, or training diverged.
    """
    teacher = load_teacher(run.model, device)
    clips = encoded_clips(teacher, episodes, held_out, data, folder / 'latents', run.sampling.batch, run.seed, device)
    make_student(teacher, clips, folder, run, device)


def make_student(teacher: Teacher, clips: Clips, folder: Path, run: CausalTraining, device: str) -> None:
    """Two parts: `folder/forcing` is teacher forcing, started from the teacher; `folder/distilled` is distillation by the student's own
    roll-outs, started from that. Leaves `folder/model`."""
    share, config = teacher.config.noise_share, _student_config(teacher.generator, run)
    guidance = teacher.generator.settings.cfg_scale if run.guidance is None else run.guidance
    forcing = ForcingLoss(clips.encoder, share, run.last_level, run.history_noise)
    distilling = ConsistencyLoss(clips.encoder, teacher.generator, share, run.substeps, guidance)

    @torch.no_grad()
    def forced(gen: WristGenerator, batch: dict) -> dict[str, float]:
        return {'loss': float(forcing(gen, batch, None)['total'])}

    @torch.no_grad()
    def streamed(gen: WristGenerator, batch: dict) -> dict[str, float]:
        return {f'psnr_{n}': _stream_psnr(gen, teacher, clips.encoder(gen, batch), n) for n in (1, len(run.timesteps))}

    def picture(gen: WristGenerator) -> np.ndarray:
        batch = clips.fixed[0] if clips.fixed else clips.batches(gen)[0]
        return _stream_picture(gen.eval(), teacher, clips.encoder(gen, batch))

    second = replace(run, config=run.distillation or run.config)
    causal = _part(teacher.generator, config, clips, forcing, forced, folder / 'forcing', run, device, picture)
    student = _part(causal, config, clips, distilling, streamed, folder / 'distilled', second, device, picture)
    if rank() == 0:
        what = f'a causal student of {run.model}, at timesteps {config["sampler"]["timesteps"]}'
        _write_model(teacher, student, config, folder, what)


def _student_config(teacher: WristGenerator, run: CausalTraining) -> dict[str, Any]:
    """The teacher's configuration with the student's sampler; its guidance is distilled."""
    shift = teacher.settings.shift
    levels = [t / 1000 for t in RenoiseSampler(run.timesteps).timesteps]
    timesteps = [1000 * shift * s / (1 + (shift - 1) * s) for s in levels]
    sampler = {'kind': 'renoise', 'timesteps': timesteps}
    return teacher.settings.to_config() | {'sampler': sampler, 'sampling_steps': len(timesteps), 'cfg_scale': 1.0}


def _part(
    start: WristGenerator, config: dict[str, Any], clips: Clips, losses: Losses,
    figures: Callable[[WristGenerator, dict], dict[str, float]], folder: Path, run: CausalTraining, device: str,
    picture: Callable[[WristGenerator], np.ndarray] | None = None,
) -> WristGenerator:  # fmt: skip
    """One part: a generator of `config` that starts with the weights of `start`; its averaged weights, read back, without adapters, on the CPU."""

    def build() -> WristGenerator:
        gen = WristGenerator.from_config(config)
        gen.load_state_dict(start.state_dict())
        adapt(gen, run.adapters)  # which leaves the anchor encoder as it is: features are what the teacher knows
        if run.gradient_checkpointing:
            gen.transformer.enable_gradient_checkpointing()
        return gen

    note_run(folder, run)
    if not weights_file(folder).exists():
        train_part(build, config, clips.batches, losses, clips.fixed, figures, folder, run, device, picture)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # the first process writes what all read
    adapted, trained = build(), WristGenerator.from_config(config)
    read_weights(adapted, folder)
    trained.load_state_dict(merged(adapted.state_dict(), run.adapters))
    return trained.eval()


@torch.no_grad()
def _stream_video(gen: WristGenerator, teacher: Teacher, clip: LatentClip, steps: int) -> torch.Tensor:
    """Clips that the student streams with its first so many steps, [B, 3, F, H, W] in -1..1."""
    made = roll_out(gen, clip, clip.contexts(gen), clip.noise(teacher.config.noise_share, steps)).made
    return teacher.autoencoder.decode(made)


@torch.no_grad()
def _stream_psnr(gen: WristGenerator, teacher: Teacher, clip: LatentClip, steps: int) -> float:
    """Their PSNR against what the autoencoder makes of the true video, dB."""
    error = (_stream_video(gen, teacher, clip, steps) - teacher.autoencoder.decode(clip.clean)).square() / 4
    return float((-10 * error.mean((1, 2, 3, 4)).log10()).mean())


def _stream_picture(gen: WristGenerator, teacher: Teacher, clip: LatentClip) -> np.ndarray:
    """Streamed and true images of the first clip, one above the other; see `film_strips`."""
    videos = _stream_video(gen, teacher, clip, len(gen.sigmas())), teacher.autoencoder.decode(clip.clean)
    rows = [to_pixels(video[:1]).cpu().numpy() for video in videos]
    return film_strips(rows)


def _write_model(teacher: Teacher, generator: WristGenerator, config: dict[str, Any], folder: Path, what: str) -> None:
    """The teacher's model directory with another generator, and a card that says what it is."""
    own, stage1 = load_stage1(str(teacher.folder))
    sweep, hand = load_close_up(teacher.folder, own)
    model = WristModel(
        replace(own, name=folder.name, generator=config),
        stage1,
        generator,
        'cpu',
        teacher.autoencoder,
        sweep,
        hand,
        load_prior(teacher.folder, own),
    )
    hashes = save_model(model, folder / MODEL)
    for name in filter(lambda name: (teacher.folder / name).exists(), (STAGE1, SWEEP, HAND)):
        # To the byte, so that condition maps that one made serve the other.
        shutil.copyfile(teacher.folder / name, folder / MODEL / name)
        hashes[name] = file_sha256(folder / MODEL / name)
    if (teacher.folder / MEAN_WRIST).exists():
        shutil.copyfile(teacher.folder / MEAN_WRIST, folder / MODEL / MEAN_WRIST)
    lines = [
        f'# {folder.name}',
        '',
        f'Made by `wristworld train`: {what}. Licence: {own.licence}.',
        '',
        '| file | sha256 |',
    ]
    lines += ['| --- | --- |', *(f'| `{name}` | `{digest}` |' for name, digest in hashes.items())]
    write_text(folder / MODEL / 'README.md', '\n'.join(lines) + '\n')
