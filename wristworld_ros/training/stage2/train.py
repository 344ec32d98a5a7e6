"""Training of stage 2 on condition maps of predicted geometry (`wristworld train stage2`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wristworld_ros.data.formats.native import ROBOT
from wristworld_ros.evaluation.baselines import MEAN_WRIST
from wristworld_ros.geometry.poses import mounted_elsewhere
from wristworld_ros.input_files import json_text
from wristworld_ros.models.wan import SIM_TINY, WristGenerator, block_causal_predict, chunk_contexts
from wristworld_ros.models.wan.autoencoders import shuffle, unshuffle
from wristworld_ros.models.wan.condition_planes import condition_planes
from wristworld_ros.models.wan.sampling import add_noise, shared_noise
from wristworld_ros.runtime.files import write_text
from wristworld_ros.training.parallel import rank
from wristworld_ros.training.part import need_samples, note_run, train_part
from wristworld_ros.training.parts import TrainedParts
from wristworld_ros.training.stage2.conditions import ConditionSettings, prepare_conditions
from wristworld_ros.training.stage2.data import Stage2Clips, Stage2Sampling, collate_clips, sample_clip
from wristworld_ros.training.trainer import Step, TrainerConfig

MOUNT = 'mount.json'  # of a run: where the wrist cameras that it learns from are mounted, or null


@dataclass(frozen=True)
class Stage2Training:
    """One training run of stage 2.

    last_level: share of chunks trained at the last noise level, where few-step sampling starts. history: share of
    batches that attend to their history, after the share `history_from` of the run: only then is the model's output worth
    attending to, and without history a step takes half the time. noise_share: variance that all frames' noise has in
    common. structure, gradient, square: weights of 1 - SSIM, of the image gradient's L1 and of the mean squared error beside the L1
    of the sample. objects: weight of a pixel that shows an object; others count 1.
    condition, anchor_tokens: false for the paper's ablations. start: another run's folder, or a file of weights, that this one begins with.
    """

    model: dict = field(default_factory=lambda: dict(SIM_TINY))
    sampling: Stage2Sampling = field(default_factory=Stage2Sampling)
    config: TrainerConfig = field(default_factory=lambda: TrainerConfig(minutes=35, average=0.99))
    last_level: float = 0.5
    history: float = 0.6
    history_from: float = 0.5
    noise_share: float = 0.5
    structure: float = 0.25
    gradient: float = 0.3
    square: float = 0.0
    objects: float = 5.0
    condition: bool = True
    anchor_tokens: bool = True
    seed: int = 0
    workers: int = 1
    start: Path | None = None


def noise_levels(batch: int, chunks: int, last_level: float, device: torch.device | str = 'cpu') -> Tensor:
    """sigma of each chunk, [batch, chunks]: 1 for a share of them, uniform for the rest (0.02 keeps it off zero)."""
    sigma = 0.02 + 0.98 * torch.rand(batch, chunks, device=device)
    return torch.where(torch.rand(batch, chunks, device=device) < last_level, torch.ones_like(sigma), sigma)


def structure_loss(a: Tensor, b: Tensor) -> Tensor:
    """1 - SSIM with an 8 x 8 box window, mean over [N, 3, H, W] in [-1, 1]."""

    def mean(x):
        return F.avg_pool2d(x, 8, 2)

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    ssim = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return 1 - ssim.mean()


def image_losses(image: Tensor, truth: Tensor, objects: Tensor, run: Stage2Training) -> dict[str, Tensor]:
    """Terms between videos [B, 3, T, H, W] in [-1, 1], pixels weighted by what they show ([B, T, H, W], see `CameraTrack`); "total"
    is minimized, the mean squared errors are for the log."""
    image, truth = image.transpose(1, 2).flatten(0, 1), truth.transpose(1, 2).flatten(0, 1)
    difference, objects = image - truth, objects.flatten(0, 1)[:, None]
    held = (objects > 0) & (objects != ROBOT)
    weight = torch.where(held, run.objects, 1.0)
    weight = weight / weight.mean()
    l1 = ((difference.square() + 1e-4).sqrt() * weight).mean()
    edges = sum((difference.diff(dim=d).abs() * weight.narrow(d, 1, weight.shape[d] - 1)).mean() for d in (-1, -2))
    structure = structure_loss(image, truth)
    mse = difference.square().mean()
    total = l1 + run.gradient * edges + run.structure * structure + run.square * mse
    return {
        'total': total,
        'l1': l1,
        'edges': edges,
        'structure': structure,
        'mse': mse.detach(),
        'object_mse': (difference.detach().square() * held).sum() / (3 * held.sum()).clamp(min=1),
    }


class ClipTrainer:
    """Losses of one batch of clips: every chunk is denoised with the model's own earlier output as its history.

    Training on *true* history would let it copy the last frame, which no stream ever has; its own one-step output is
    what a stream will have.
    """

    def __init__(self, run: Stage2Training, device: str):
        self.run, self.device = run, device

    def inputs(self, gen: WristGenerator, batch: dict) -> tuple[Tensor, Tensor | None, Tensor]:
        """Clean latents, condition latents (None for the ablation) and contexts of a batch."""
        factor = self.run.model['autoencoder']['factor']
        clean = unshuffle(batch['wrist'].to(self.device), factor)
        condition = None
        if self.run.condition:
            trust = batch['trust'] if gen.settings.condition_confidence else None
            planes = condition_planes(batch['condition'], batch['depth'], trust).transpose(1, 2)
            condition = unshuffle(planes.to(self.device), factor)
        frames = [batch['chunk']] * (clean.shape[2] // batch['chunk'])
        features = gen.anchor_features(batch['anchors'].to(self.device)) if self.run.anchor_tokens else None
        contexts = chunk_contexts(gen, features, frames)
        return clean, condition, contexts.expand(len(clean), -1, -1, -1)

    def __call__(self, gen: WristGenerator, batch: dict, step: Step) -> dict[str, Tensor]:
        clean, condition, contexts = self.inputs(gen, batch)
        chunk, chunks = batch['chunk'], contexts.shape[1]
        share, device = self.run.noise_share, clean.device
        sigma = noise_levels(len(clean), chunks, self.run.last_level, device)
        noise, base = shared_noise(clean.shape, share, device=device)
        noisy = add_noise(clean, noise, sigma.repeat_interleave(chunk, 1))
        if uses_history(self.run, step):
            with torch.no_grad():
                noise, _ = shared_noise(clean.shape, share, base, device=device)
                first = predict_independent(gen, noise, condition, torch.ones_like(sigma), contexts)
            predicted = block_causal_predict(gen, noisy, first.float(), condition, 1000 * sigma, contexts, chunk)
        else:
            predicted = predict_independent(gen, noisy, condition, sigma, contexts)
        factor = self.run.model['autoencoder']['factor']
        with torch.autocast(self.device, enabled=False):
            truth, objects = batch['wrist'].to(self.device), batch['objects'].to(self.device)
            return image_losses(shuffle(predicted.float(), factor), truth, objects, self.run)


def uses_history(run: Stage2Training, step: Step) -> bool:
    """Whether a step attends to history: every so many, by number, so that all processes take the long steps together."""
    if step.progress < run.history_from:
        return False
    return int((step.number + 1) * run.history) > int(step.number * run.history)


def predict_independent(
    gen: WristGenerator, noisy: Tensor, condition: Tensor | None, sigma: Tensor, contexts: Tensor
) -> Tensor:
    """Predictions of a clip's chunks, each as the first of a stream: `block_causal_predict` without any history.

    Args:
        gen: The generator.
        noisy: [B, C, T, h, w].
        condition: [B, C', T, h, w], or None.
        sigma: [B, G] of the G chunks.
        contexts: [B, G, S, text_dim].

    Returns:
        [B, C, T, h, w].
    """
    chunks = sigma.shape[1]

    def split(x: Tensor) -> Tensor:
        return x.unflatten(2, (chunks, -1)).transpose(1, 2).flatten(0, 1)

    condition = None if condition is None else split(condition)
    predicted = gen.predict(split(noisy), condition, 1000 * sigma.flatten(), contexts.flatten(0, 1))
    return predicted.unflatten(0, (-1, chunks)).transpose(1, 2).flatten(2, 3)


def prepare_for(
    run: Stage2Training, episodes: Path, folder: Path, parts: TrainedParts, limit: int | None, workers: int
) -> list[Path]:
    """The condition maps that a run trains on, made where they are missing; see `prepare_conditions`."""
    settings = ConditionSettings(run.model['anchor_encoder']['image_size'])
    return prepare_conditions(episodes, folder, parts, settings, run.model, limit, workers)


def train_stage2(
    conditions: list[Path], held_out: list[Path], folder: Path, run: Stage2Training, device: str = 'cpu'
) -> WristGenerator:
    """Train the generator; leaves `folder/config.json`, `folder/model.safetensors` with the averaged weights, the mean wrist
    image of the training set, a baseline of the evaluation, and where its wrist cameras are mounted.

    Args:
        conditions: Files of `prepare_conditions` to train on.
        held_out: Such files to validate on; may be empty.
        folder: Of the run, which continues where it was stopped.
        run: What is trained, and how.
        device: cpu or cuda.

    Raises:
        UserError: There are no files, or training diverged.
    """
    need_samples(conditions)
    folder = Path(folder)
    note_run(folder, run)
    if rank() == 0:
        cv2.imwrite(str(folder / MEAN_WRIST), mean_wrist_image(conditions)[..., ::-1])
        mount = common_mount(conditions)
        write_text(folder / MOUNT, json_text(None if mount is None else mount.tolist()))
    losses = ClipTrainer(run, device)

    def clips(gen: WristGenerator) -> Stage2Clips:
        return Stage2Clips(conditions, run.sampling, run.seed, rank(), gen.settings.max_views)

    return train_part(
        lambda: WristGenerator.from_config(run.model), run.model, clips, losses, _held_out_batches(held_out, run.sampling),
        lambda gen, batch: one_step_figures(gen, losses, batch), folder, run, device,
    )  # fmt: skip


def mean_wrist_image(conditions: list[Path]) -> np.ndarray:
    """Mean over all wrist images of prepared episodes, uint8 [h, w, 3]."""
    total, count = 0.0, 0
    for path in conditions:
        with np.load(path) as f:
            total, count = total + f['wrist'].astype(np.float64).sum(0), count + len(f['wrist'])
    return (total / count).round().astype(np.uint8)


def common_mount(conditions: list[Path]) -> np.ndarray | None:
    """T_hand_wrist [4, 4] of prepared episodes, the first's; None where one does not say it, or they differ."""
    mounts = []
    for path in conditions:
        with np.load(path) as f:
            if 'mount' not in f:
                return None
            mounts.append(f['mount'])
    same = not any(mounted_elsewhere(mount, mounts[0]) for mount in mounts)
    return mounts[0] if same else None


@torch.no_grad()
def one_step_figures(gen: WristGenerator, trainer: ClipTrainer, batch: dict) -> dict[str, float]:
    """PSNR of one-step images without history and of their objects, and of the filled warp that they started from, dB."""
    clean, condition, contexts = trainer.inputs(gen, batch)
    ones = torch.ones(len(clean), contexts.shape[1], device=clean.device)
    noise, _ = shared_noise(clean.shape, trainer.run.noise_share, device=clean.device)
    guess = predict_independent(gen, noise, condition, ones, contexts)

    objects = batch['objects'].to(clean.device)
    held = ((objects > 0) & (objects != ROBOT))[:, None].float()
    factor = trainer.run.model['autoencoder']['factor']

    def psnr(latents: Tensor, name: str) -> dict[str, float]:
        error = (shuffle((latents.float().clamp(-1, 1) - clean), factor) / 2).square()
        whole = -10 * error.mean((1, 2, 3, 4)).log10()
        there = held.sum((1, 2, 3, 4)) > 0
        object_mse = (error * held).sum((1, 2, 3, 4))[there] / (3 * held.sum((1, 2, 3, 4))[there])
        return {
            name: float(whole.mean()),
            f'object_{name}': float((-10 * object_mse.log10()).mean()) if len(object_mse) else 0.0,
        }

    figures = psnr(guess, 'psnr')
    if condition is not None:
        figures |= psnr(condition[:, : clean.shape[1]], 'warp_psnr')
    return figures


def _held_out_batches(paths: list[Path], sampling: Stage2Sampling, size: int = 4) -> list[dict]:
    rng = np.random.default_rng(0)
    clips = [sample_clip(p, 1, sampling.frames, rng) for p in paths]
    chunk = max(sampling.chunks)
    return [collate_clips(clips[i : i + size]) | {'chunk': chunk} for i in range(0, len(clips), size)]
