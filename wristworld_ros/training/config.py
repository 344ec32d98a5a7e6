"""Configurations of trainings: sections, each a settings record, by stage and recipe.

Here are the schedule, stage 2 and the tiny decoder; `config_stage1` and `config_causal` hold the others. `config_reading` reads
and checks them; `presets` has those that the package brings; what each key means stands with its field, and from there in the
comments of `config/train` and in docs/training_settings.md. `recipes` lists all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.errors import UserError
from wristworld_ros.setting import setting


@dataclass(frozen=True)
class Schedule:
    """How long and how fast, on what and with what precision: the same keys in every stage."""

    steps: int = setting(10_000, 'Optimizer steps, where no minutes are given.', low=1)
    minutes: float | None = setting(
        None, 'Train for so many minutes; the schedule follows the clock.', low=0.01, none='none'
    )
    batch: int = setting(4, 'Samples of one process in one pass.', low=1)
    accumulate: int = setting(
        1, 'Passes whose gradients make one step; the samples of a step are batch x accumulate x processes.', low=1
    )
    optimizer: str = setting(
        'adamw',
        'adamw; or muon for matrices and filters beside it, which needs fewer steps from scratch.',
        choices=('adamw', 'muon'),
    )
    learning_rate: float = setting(1e-4, 'Peak learning rate, of what has none of its own.', low=0.0)
    weight_decay: float = setting(0.01, 'Of matrices and filters.', low=0.0)
    beta1: float = setting(0.9, "AdamW's memory of gradients.", low=0.0, high=0.9999)
    beta2: float = setting(0.999, "AdamW's memory of their squares.", low=0.0, high=0.99999)
    warm_up: int = setting(0, 'Steps of linear warm-up.', low=0)
    warm_up_share: float = setting(
        0.0, 'Share of the run of linear warm-up, after which the schedule begins.', low=0.0, high=0.9
    )
    schedule: str = setting(
        'cosine', 'How the rate falls to zero, or that it stays.', choices=('cosine', 'linear', 'constant')
    )
    clip: float = setting(1.0, 'Largest norm of the gradient.', low=1e-6)
    average: float = setting(
        0.999, 'Decay of the moving average that becomes the result; 0 takes the last weights.', low=0.0, high=0.999999
    )
    precision: str = setting(
        'bf16', 'Of activations; weights, gradients and optimizer stay in float32.', choices=('bf16', 'float32')
    )
    gradient_checkpointing: bool = setting(
        False, 'Compute blocks again in the backward pass, which saves most of the memory of activations.'
    )
    sharding: str = setting(
        'none',
        'full: every process holds a part of parameters, gradients and optimizer (FSDP2); none: all of them (DDP).',
        choices=('none', 'full'),
    )
    max_skipped: int = setting(
        20, 'Steps in a row whose gradient may be NaN or infinite; they are skipped, and one more ends the run.', low=0
    )
    checkpoint_every: int = setting(500, 'Steps from one checkpoint, with validation, to the next.', low=1)
    keep: int = setting(2, 'Newest checkpoints that are kept.', low=1)
    samples_every: int | None = setting(None, 'Steps from one sample picture to the next.', low=1, none='never')
    tensorboard: bool = setting(False, 'Write event files for TensorBoard too.')
    seed: int = setting(0, 'Of weights, samples and noise.', low=0)
    workers: int = setting(2, 'Processes that prepare batches, of each training process; 0 prepares them in it.', low=0)


@dataclass(frozen=True)
class GenerationModel:
    """Which generator learns the video, where it begins and what of it is trained."""

    network: str = setting('wristworld_1_3b', 'Sizes of the generator.', choices=('wristworld_1_3b', 'miniature'))
    model: str | None = setting(
        None,
        'Model directory (`wristworld convert`) whose generator, autoencoder, anchor encoder and stage 1 are used; none begins at random, with stored latents.',
        none='none',
    )
    adapt: str = setting(
        'lora',
        'lora: low-rank adapters (peft) beside what `also` names. full: every parameter.',
        choices=('lora', 'full'),
    )
    rank: int = setting(4, 'lora: rank of the adapters.', low=1)
    alpha: float = setting(4.0, 'lora: their scale is alpha / rank.', low=0.0)
    targets: list = setting(
        ['q', 'k', 'v', 'o', 'ffn.0', 'ffn.2'],
        "lora: layers of every block that get adapters, by Wan's names.",
        choices=('q', 'k', 'v', 'o', 'ffn.0', 'ffn.2'),
    )
    also: list = setting(
        ['patch_embedding', 'anchors'],
        'lora: what is trained in full beside the adapters: the embedding of latents and condition, and the projection of anchor features.',
        choices=('patch_embedding', 'anchors', 'head'),
    )


@dataclass(frozen=True)
class GenerationData:
    """Clips, as they are encoded once before training."""

    width: int = setting(
        832,
        "Width of wrist video and condition video, pixels; a multiple of the autoencoder's stride and of the patch.",
        low=16,
    )
    height: int = setting(480, 'Height of both, pixels.', low=16)
    frames: int = setting(81, 'Frames of a clip.', low=1)
    clips: int = setting(4, 'Clips of an episode at most, spread evenly over it.', low=1)
    anchors: int = setting(2, 'Anchor cameras whose tokens the generator is given.', low=1)
    condition: str = setting(
        'reconstruction',
        "What the condition video shows: the anchors' points as the wrist sees them, by the model's own stage 1; or the first anchor's images as they are, which needs none.",
        choices=('reconstruction', 'anchor'),
    )
    knowledge: str = setting(
        'images',
        'What stage 1 is told: the images alone, or also the cameras and the depth that are recorded.',
        choices=('images', 'recorded'),
    )
    shard_mb: int = setting(512, 'Size of a shard of encoded clips, megabytes.', low=1)


@dataclass(frozen=True)
class FlowLosses:
    """Flow matching (arXiv 2510.07313; the training loop was never released, so these choices are ours)."""

    shift: float = setting(5.0, 'Timesteps s are shifted to shift s / (1 + (shift - 1) s), as in sampling.', low=0.01)
    timesteps: str = setting(
        'uniform',
        'How s is sampled before the shift: uniform, or logit_normal, which favours the middle.',
        choices=('uniform', 'logit_normal'),
    )
    drop_anchors: float = setting(
        0.1,
        'Share of samples without anchor tokens and with the negative text: what guidance needs.',
        low=0.0,
        high=1.0,
    )
    drop_condition: float = setting(0.0, 'Share of samples without condition latents.', low=0.0, high=1.0)
    condition_noise: float = setting(
        0.1,
        "Largest share of noise in a sample's condition latents; how much each gets is uniform up to it.",
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True)
class GenerationConfig:
    """Stage 2 as published: flow matching on the latents of a video autoencoder."""

    model: GenerationModel
    data: GenerationData
    losses: FlowLosses
    schedule: Schedule

    def check_together(self) -> None:
        """Raise UserError where sections contradict each other."""
        for name, stride in (('width', 16), ('height', 16)):
            if getattr(self.data, name) % stride:
                raise UserError(f'data.{name} is {getattr(self.data, name)}', f'give a multiple of {stride}')
        if self.model.network == 'wristworld_1_3b' and self.data.frames % 4 != 1:
            raise UserError(f'data.frames is {self.data.frames}', 'give 4 n + 1, as 81')


@dataclass(frozen=True)
class ImagesModel:
    """The small generator, whose latents are the pixels themselves."""

    network: str = setting('sim_tiny', 'Sizes of the generator.', choices=('sim_tiny', 'sim_base'))
    weights: str | None = setting(
        None, 'Run of this stage, or file, that this one begins with; none begins at random.', none='none'
    )
    condition: bool = setting(True, 'Use the condition map; false is the ablation.')
    anchor_tokens: bool = setting(True, 'Use the anchor tokens; false is the ablation.')


@dataclass(frozen=True)
class ImagesData:
    """Clips of condition maps, wrist images and anchors."""

    frames: int = setting(8, 'Frames of a clip.', low=1)
    chunks: list = setting(
        ['1', '2', '4'], 'Frames of a chunk, of which each batch takes one at random.', choices=('1', '2', '4', '8')
    )
    color: float = setting(1.0, 'Strength of recoloring; 0 is none.', low=0.0)
    mirror: float = setting(0.5, 'Share of clips that are mirrored left to right.', low=0.0, high=1.0)
    permute: float = setting(0.3, 'Share of clips whose colour channels are permuted.', low=0.0, high=1.0)


@dataclass(frozen=True)
class ImagesLosses:
    """Weights of what the small generator learns, on images."""

    last_level: float = setting(
        0.5, 'Share of chunks trained at the last noise level, where few-step sampling starts.', low=0.0, high=1.0
    )
    history: float = setting(0.6, 'Share of batches that attend to their history.', low=0.0, high=1.0)
    history_from: float = setting(0.5, 'Share of the run after which they do.', low=0.0, high=1.0)
    noise_share: float = setting(0.5, "Variance that all frames' noise has in common.", low=0.0, high=1.0)
    structure: float = setting(0.25, 'Weight of 1 - SSIM beside the L1.', low=0.0)
    gradient: float = setting(0.3, 'Weight of the L1 of image gradients.', low=0.0)
    objects: float = setting(5.0, 'Weight of a pixel that shows an object; others count 1.', low=0.0)


@dataclass(frozen=True)
class ImagesConfig:
    """Stage 2 of the small model, on images: x-prediction over a condition map, from scratch."""

    model: ImagesModel
    data: ImagesData
    losses: ImagesLosses
    schedule: Schedule


@dataclass(frozen=True)
class DecoderModel:
    """The tiny decoder, and the model whose video autoencoder it learns from."""

    model: str | None = setting(
        None, 'Model directory that it learns from and is installed in; --model names it too.', none='none'
    )
    width: int = setting(64, "Channels at half the image's resolution, twice as many at each coarser level.", low=1)
    blocks: int = setting(2, 'Residual blocks of each level.', low=1)


@dataclass(frozen=True)
class DecoderData:
    """Clips that go through the full autoencoder once."""

    episodes: int | None = setting(None, 'Only the first so many episodes.', low=1, none='all')


@dataclass(frozen=True)
class DecoderLosses:
    """Weights beside the L1 of the pixels, against the full decoder's output."""

    edges: float = setting(1.0, 'L1 of differences between neighbouring pixels at three scales.', low=0.0)
    motion: float = setting(0.5, 'L1 of differences between frames.', low=0.0)


@dataclass(frozen=True)
class DecoderConfig:
    """A tiny decoder for a model with a video autoencoder."""

    model: DecoderModel
    data: DecoderData
    losses: DecoderLosses
    schedule: Schedule
