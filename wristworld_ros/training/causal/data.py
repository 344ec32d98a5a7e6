"""What causal training learns from: clips of a small model's condition maps as images, or clips that were encoded before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from wristworld_ros.errors import UserError
from wristworld_ros.models.config import ModelConfig
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.autoencoders import Autoencoder
from wristworld_ros.pipeline.model_directory import find_model, load_model, load_stage2
from wristworld_ros.training.causal.clips import ClipEncoder, Encoder, StoredClips, check_frames, clip_shape
from wristworld_ros.training.config import GenerationData
from wristworld_ros.training.parallel import join, process_count, rank
from wristworld_ros.training.part import need_samples
from wristworld_ros.training.stage2.data import Stage2Clips, Stage2Sampling, collate_clips, sample_clip
from wristworld_ros.training.stage2.latents import (
    ClipEncoder as LatentEncoder,
)
from wristworld_ros.training.stage2.latents import (
    EncodedClips,
    list_clips,
    prepare_clips,
    weights_identity,
)

_MOST_FIXED = 16  # held-out clips that a run is validated on


@dataclass(frozen=True)
class Teacher:
    """The model that a run starts from. folder: its directory. generator, autoencoder: on the device, in evaluation mode."""

    folder: Path
    config: ModelConfig
    generator: WristGenerator
    autoencoder: Autoencoder


@dataclass(frozen=True)
class Clips:
    """batches: of a generator, by number, for this process. fixed: batches to validate on. encoder: makes either latents."""

    batches: Callable[[WristGenerator], Dataset]
    fixed: list[dict]
    encoder: Encoder


def load_teacher(model: str, device: str) -> Teacher:
    """A windowed flow model, whose generator a run starts from.

    Args:
        model: Name or directory.
        device: cpu or cuda.

    Raises:
        UserError: It is a student itself, or has parts without trained weights.
    """
    folder = find_model(model)
    config, generator, autoencoder = load_stage2(str(folder), device)
    if generator.settings.sampler is not None:
        raise UserError(f'{model} is a few-step student itself', 'give the teacher that it was distilled from')
    if config.untrained:
        raise UserError(f'{model} has parts without trained weights: {", ".join(config.untrained)}', 'train them first')
    autoencoder.requires_grad_(False)
    return Teacher(folder, config, generator, autoencoder)


def image_clips(
    teacher: Teacher,
    conditions: list[Path],
    held_out: list[Path],
    sampling: Stage2Sampling,
    clip_chunks: int,
    seed: int,
    device: str,
) -> Clips:
    """Clips of condition maps (`prepare_conditions`), recolored and mirrored, encoded in every step.

    Args:
        teacher: Whose autoencoder and anchor encoder are used.
        conditions: Files to train on.
        held_out: Such files to validate on; may be empty.
        sampling: Batch and augmentation; length and chunks of clips follow from the model and from `clip_chunks`.
        clip_chunks: Chunks of the model's own length in a clip.
        seed: Of the choice.
        device: cpu or cuda.

    Raises:
        UserError: There are no files, or the model does not take such clips.
    """
    need_samples(conditions)
    config = teacher.config
    frames, chunks = clip_shape(teacher.generator, teacher.autoencoder.temporal_stride, clip_chunks)
    sampled = Stage2Sampling(sampling.batch, frames, chunks, sampling.color, sampling.mirror, sampling.permute)
    rng = np.random.default_rng(0)
    held = [sample_clip(path, 1, frames, rng) for path in held_out]
    fixed = [collate_clips(held[i : i + 4]) | {'chunk': min(chunks)} for i in range(0, len(held), 4)]
    return Clips(
        lambda gen: Stage2Clips(conditions, sampled, seed, rank(), gen.settings.max_views), fixed,
        ClipEncoder(teacher.autoencoder, device, config.use_condition, config.use_anchor_tokens),
    )  # fmt: skip


def encoded_clips(
    teacher: Teacher,
    episodes: Path,
    held_out: Path | None,
    data: GenerationData,
    folder: Path,
    batch: int,
    seed: int,
    device: str,
) -> Clips:
    """Clips of recordings of any format, encoded once by the teacher's own networks; see `stage2.latents`.

    Args:
        teacher: Whose directory encodes.
        episodes: Recordings to train on.
        held_out: Others to validate on; None for none.
        data: How clips are cut.
        folder: Of the shards.
        batch: Clips of one process.
        seed: Of their order.
        device: cpu or cuda.

    Raises:
        UserError: The recordings lack what clips need, or the clips are not whole chunks of the model.
    """
    stride, config = teacher.autoencoder.temporal_stride, teacher.config
    check_frames(teacher.generator, stride, data.frames)
    if (
        data.condition == 'anchor'
        and teacher.generator.settings.condition_channels != teacher.autoencoder.latent_channels
    ):
        raise UserError(
            f'data.condition is anchor, and {teacher.folder} takes more planes than images', 'set it to reconstruction'
        )
    place, parts = join(device), (rank(), process_count())
    listed = [list_clips(source, data) if source is not None else [] for source in (episodes, held_out)]
    model = load_model(str(teacher.folder), device)
    encode = LatentEncoder(model.generator, model.autoencoder, data, weights_identity(str(teacher.folder)), model)
    keys, held_keys = (prepare_clips(clips, encode, folder, *parts) for clips in listed)
    place.wait_for_everyone()
    need_samples(keys)
    held = EncodedClips(folder, held_keys, 1, 0)
    chunk = teacher.generator.settings.chunk_frames
    return Clips(
        lambda _: EncodedClips(folder, keys, batch, seed, *parts), [held.clip(i) for i in range(min(len(held), _MOST_FIXED))],
        StoredClips(chunk, stride, device, config.use_condition, config.use_anchor_tokens),
    )  # fmt: skip
