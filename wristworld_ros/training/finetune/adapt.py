"""The generator of a small model adapts to condition maps of recordings, for as long as it helps with episodes it does not learn from.

A handful of episodes is soon learnt by heart. So it is trained twice: first without some of the episodes, which show after how many
steps it is best; then from the same weights on all of them, for so many steps. The rate is constant and the weights are averaged,
so that every step is a state that one may stop at. Before the first step the mean wrist image is put below the condition maps (`prior`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from wristworld_ros.evaluation import metrics
from wristworld_ros.input_files import json_text, read_json, read_json_lines
from wristworld_ros.models.config import ModelConfig
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.autoencoders import shuffle
from wristworld_ros.models.wan.sampling import shared_noise
from wristworld_ros.pipeline.prior import WristPrior
from wristworld_ros.runtime.files import write_text
from wristworld_ros.training.checkpoint import read_weights, weights_file
from wristworld_ros.training.finetune.prior import fit_prior, mean_image, with_prior
from wristworld_ros.training.finetune.settings import FinetuneSettings
from wristworld_ros.training.monitor import LOG
from wristworld_ros.training.parallel import rank
from wristworld_ros.training.part import train_part
from wristworld_ros.training.run_state import read_counts
from wristworld_ros.training.stage2.data import Stage2Clips, Stage2Sampling, collate_clips
from wristworld_ros.training.stage2.train import ClipTrainer, Stage2Training, predict_independent
from wristworld_ros.training.trainer import TrainerConfig

CHOICE, CHOOSE, ADAPT, MAPS = 'choice.json', 'choose', 'adapt', 'maps'
_CHECK_EVERY = 20  # steps
_SMOOTHED = 3  # figures in a row whose mean counts: one by itself is luck
_CLIPS = 4  # of each episode that chooses
_FRAMES = 4  # of a clip


@dataclass(frozen=True)
class Curve:
    """steps, psnr: dB of one-step images of the episodes that choose, at each check. before: of the model as it was. floor: of the mean
    image of the episodes it learnt from. best: steps that were chosen, 0 for the mean image below the maps alone; None where nothing was
    better than before."""

    before: float
    floor: float | None
    best: int | None
    steps: list[int] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)

    @property
    def best_psnr(self) -> float:
        """The figure at the chosen step."""
        return self.before if self.best is None else dict(zip(self.steps, self.psnr, strict=True))[self.best]


def stage2_training(settings: FinetuneSettings, model: ModelConfig, device: str) -> Stage2Training:
    """How a model's generator is trained; the lengths of chunks are those that a stream may run with."""
    config = model.generator
    chunks = tuple(n for n in (1, 2, 4) if n <= config.get('chunk_frames', _FRAMES))
    sampling = Stage2Sampling(settings.batch, _FRAMES, chunks, color=settings.color, mirror=0.0, permute=0.0)
    optimizer = TrainerConfig(
        steps=settings.step_count, minutes=None if settings.minutes is None else settings.minutes / 2,
        learning_rate=settings.learning_rate, schedule='constant', warm_up=10, average=0.98, bf16=False,
        checkpoint_every=_CHECK_EVERY if settings.minutes else min(_CHECK_EVERY, max(1, settings.step_count // 4)),
    )  # fmt: skip
    return Stage2Training(
        model=config, sampling=sampling, config=optimizer, history=0.3, history_from=0.0, noise_share=model.noise_share,
        structure=0.1, gradient=0.1, square=2.0, objects=1.0, condition=model.use_condition, anchor_tokens=model.use_anchor_tokens,
        seed=settings.seed, workers=0 if device == 'cpu' else 2,
    )  # fmt: skip


def adapt_generator(
    generator: WristGenerator, own: WristPrior | None, training: Sequence[Path], validation: Sequence[Path], folder: Path,
    run: Stage2Training, device: str,
) -> tuple[WristGenerator, WristPrior | None, Curve]:  # fmt: skip
    """Choose how long to train, then train; both continue where they were stopped.

    Args:
        generator: To start from; it is not changed.
        own: The mean image that the model had before; it takes part in what was before alone.
        training: Files of `prepare_recordings` to learn from in both trainings.
        validation: Such files that choose when to stop, and are learnt from only then.
        folder: Of the run.
        run: What is trained, and how.
        device: cpu or cuda.

    Returns:
        The adapted generator and the mean image that lies below its condition maps, or a copy of what was given where nothing
        helped; and how it went.

    Raises:
        UserError: An episode is shorter than a clip, or training diverged.
    """
    curve = _choose(generator, own, list(training), list(validation), folder, run, device)
    if curve.best is None:
        return _copy(generator, run), own, curve
    files = [*training, *validation]
    prior = fit_prior(files)
    if not curve.best:
        return _copy(generator, run), prior, curve
    whole = replace(run, config=replace(run.config, steps=curve.best, minutes=None))
    trained = _train(generator, with_prior(files, prior, folder / ADAPT / MAPS), [], folder / ADAPT, whole, device)
    return trained, prior, curve


def _choose(
    generator: WristGenerator, own: WristPrior | None, training: list[Path], validation: list[Path], folder: Path,
    run: Stage2Training, device: str,
) -> Curve:  # fmt: skip
    path = folder / CHOICE
    if path.exists():
        return read_json(path, Curve)
    losses, start = ClipTrainer(run, device), generator.to(device).eval()
    as_before = validation if own is None else with_prior(validation, own, folder / CHOOSE / MAPS)
    plain = [batch for file in as_before for batch in fixed_batches(file, run)]
    before, floor = _mean_psnr(start, losses, plain), float(np.mean(metrics.psnr(*_floor(training, plain))))
    prior = fit_prior(training)  # of what is known without the episodes that choose
    training, validation = (with_prior(files, prior, folder / CHOOSE / MAPS) for files in (training, validation))
    fixed = [batch for file in validation for batch in fixed_batches(file, run)]
    checks = [(0, _mean_psnr(start, losses, fixed))]
    trained = _train(generator, training, fixed, folder / CHOOSE, run, device)
    checks += _checks(folder / CHOOSE)
    if (last := read_counts(folder / CHOOSE).step) not in dict(checks):
        checks.append((last, _mean_psnr(trained.eval(), losses, fixed)))
    curve = best_stop(before, floor, checks)
    write_text(path, json_text(asdict(curve)))
    return curve


def _checks(folder: Path) -> list[tuple[int, float]]:
    """Step and figure of each check in the log of a training."""
    lines, _ = read_json_lines(folder / LOG, dict)
    return [(int(line['step']), float(line['val_psnr'])) for line in lines if 'val_psnr' in line]


def best_stop(before: float, floor: float | None, checks: Sequence[tuple[int, float]]) -> Curve:
    """The step to stop at: in the middle of the best run of neighbouring figures, if that is better than before."""
    steps, psnr = [step for step, _ in checks], [value for _, value in checks]
    half = _SMOOTHED // 2
    smooth = [float(np.mean(psnr[max(0, i - half) : i + half + 1])) for i in range(len(psnr))]
    best = int(np.argmax(smooth)) if smooth else -1
    chosen = steps[best] if smooth and smooth[best] > before else None
    return Curve(before, floor, chosen, steps, psnr)


def _train(
    generator: WristGenerator, files: list[Path], fixed: list[dict], folder: Path, run: Stage2Training, device: str
) -> WristGenerator:  # fmt: skip
    """One training from the generator's weights; a finished one is read back."""
    losses = ClipTrainer(run, device)
    if not weights_file(folder).exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / 'run.json', json_text(asdict(run), indent=2))

        def clips(gen: WristGenerator) -> Stage2Clips:
            return Stage2Clips(files, run.sampling, run.seed, rank(), gen.settings.max_views)

        train_part(
            lambda: _copy(generator, run), run.model, clips, losses, fixed,
            lambda gen, batch: {'psnr': float(np.mean(one_step_psnr(gen, losses, batch)))}, folder, run, device,
        )  # fmt: skip
    trained = _copy(generator, run)
    read_weights(trained, folder)
    return trained.to(device)


def _copy(generator: WristGenerator, run: Stage2Training) -> WristGenerator:
    """The same weights in another generator. What anchors look like is not learnt from a few scenes: it would tell them apart by
    heart."""
    copied = WristGenerator.from_config(run.model)
    copied.load_state_dict({name: value.float() for name, value in generator.state_dict().items()})
    if copied.anchor_encoder is not None:
        copied.anchor_encoder.requires_grad_(False)
    return copied


def fixed_batches(path: Path, run: Stage2Training) -> list[dict]:
    """Clips of one file of `prepare_recordings`, spread evenly, as they are: its first maps, all its anchors."""
    with np.load(path) as f:
        arrays = {name: f[name] for name in f.files}
    spare = len(arrays['wrist']) - run.sampling.frames
    starts = np.unique(np.linspace(0, spare, min(_CLIPS, spare + 1)).round().astype(int))
    views = run.model['max_views']
    clips = []
    for part in (slice(start, start + run.sampling.frames) for start in starts):
        clip = {name: arrays[name][0, part] for name in ('condition', 'depth', 'trust')}
        clip |= {name: arrays[name][part] for name in ('wrist', 'objects')}
        clips.append(clip | {'anchors': arrays['anchors'][:views, part]})
    chunk = max(run.sampling.chunks)
    return [collate_clips(clips[i : i + 4]) | {'chunk': chunk} for i in range(0, len(clips), 4)]


@torch.no_grad()
def one_step_psnr(gen: WristGenerator, trainer: ClipTrainer, batch: dict) -> np.ndarray:
    """PSNR of each frame of a batch, dB, generated in one step without history, [B T]."""
    clean, condition, contexts = trainer.inputs(gen, batch)
    ones = torch.ones(len(clean), contexts.shape[1], device=clean.device)
    noise, _ = shared_noise(clean.shape, trainer.run.noise_share, generator=torch.Generator().manual_seed(0))
    guess = predict_independent(gen, noise.to(clean.device), condition, ones, contexts)
    factor = trainer.run.model['autoencoder']['factor']
    images, truth = (_pixels(shuffle(latents.float(), factor)) for latents in (guess, clean))
    return metrics.psnr(images, truth)


def _mean_psnr(gen: WristGenerator, trainer: ClipTrainer, batches: Sequence[dict]) -> float:
    return float(np.mean([np.mean(one_step_psnr(gen, trainer, batch)) for batch in batches]))


def _floor(training: Sequence[Path], fixed: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """The mean image of the training episodes, and the true frames it stands for."""
    videos = []
    for path in training:
        with np.load(path) as f:
            videos.append(f['wrist'])
    truth = np.concatenate([_pixels(batch['wrist']) for batch in fixed])
    return np.repeat(mean_image(videos)[None], len(truth), 0), truth


def _pixels(video: torch.Tensor) -> np.ndarray:
    """Videos [B, 3, T, h, w], -1 to 1, as images uint8 [B T, h, w, 3]."""
    frames = video.transpose(1, 2).flatten(0, 1).permute(0, 2, 3, 1)
    return ((frames + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
