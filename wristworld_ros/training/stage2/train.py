"""Training of stage 2 on condition maps of predicted geometry (`wristworld train stage2`)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from wristworld_ros.geometry.cloud import CloudSettings
from wristworld_ros.models.wan import SIM_TINY, WristGenerator, block_causal_predict, chunk_contexts
from wristworld_ros.models.wan.autoencoders import shuffle, unshuffle
from wristworld_ros.models.wan.condition_planes import condition_planes
from wristworld_ros.models.wan.sampling import add_noise, shared_noise
from wristworld_ros.training.parallel import rank
from wristworld_ros.training.stage2.conditions import prepare_conditions
from wristworld_ros.training.stage2.data import Stage2Clips, Stage2Sampling, collate_clips, sample_clip
from wristworld_ros.training.trainer import TrainerConfig, train

ANCHOR_WIDTH = 128
WRIST_HW = (128, 128)
CLOUD = CloudSettings(upsample=3, edge=0.06, radius=1, near=0.10)


@dataclass(frozen=True)
class Stage2Training:
    """One training run of stage 2.

    last_level: share of chunks trained at the last noise level, where few-step sampling starts. history: share of
    batches that see their history, once the run's share `history_from` is over: the pictures that it is made of must be
    worth seeing, and without it a step takes half the time. noise_share: variance that all frames' noise has in common. condition,
    anchor_tokens: false for the paper's ablations. start: another run's last.pt to take the weights from. structure, gradient: weights of 1 - SSIM and of the image gradient's
    L1 beside the L1 of the sample.
    """

    model: dict = field(default_factory=lambda: dict(SIM_TINY))
    sampling: Stage2Sampling = field(default_factory=Stage2Sampling)
    optimisation: TrainerConfig = field(default_factory=lambda: TrainerConfig(minutes=35, average=0.99))
    last_level: float = 0.5
    history: float = 0.6
    history_from: float = 0.5
    noise_share: float = 0.5
    structure: float = 0.25
    gradient: float = 0.3
    condition: bool = True
    anchor_tokens: bool = True
    seed: int = 0
    workers: int = 1
    start: Path | None = None


def noise_levels(batch: int, chunks: int, last_level: float) -> Tensor:
    """sigma of each chunk, [batch, chunks]: 1 for a share of them, uniform for the rest (0.02 keeps it off zero)."""
    sigma = 0.02 + 0.98 * torch.rand(batch, chunks)
    return torch.where(torch.rand(batch, chunks) < last_level, torch.ones_like(sigma), sigma)


def structure_loss(a: Tensor, b: Tensor) -> Tensor:
    """1 - SSIM with an 8 x 8 box window, mean over [N, 3, H, W] in [-1, 1]."""

    def mean(x):
        return F.avg_pool2d(x, 8, 2)

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    ssim = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return 1 - ssim.mean()


def image_losses(image: Tensor, truth: Tensor, run: Stage2Training) -> dict[str, Tensor]:
    """Terms between videos [B, 3, T, H, W] in [-1, 1]; "mse" is there to be read, not descended."""
    image, truth = image.transpose(1, 2).flatten(0, 1), truth.transpose(1, 2).flatten(0, 1)
    difference = image - truth
    l1 = (difference.square() + 1e-4).sqrt().mean()
    edges = sum((difference.diff(dim=d)).abs().mean() for d in (-1, -2))
    structure = structure_loss(image, truth)
    total = l1 + run.gradient * edges + run.structure * structure
    return {
        'total': total,
        'l1': l1,
        'edges': edges,
        'structure': structure,
        'mse': difference.detach().square().mean(),
    }


class ClipTrainer:
    """Losses of one batch of clips: every chunk is denoised with the model's own earlier pictures as its history.

    Training on *true* history would let it copy the last frame, which no stream ever has; its own one-step pictures are
    what a stream will have.
    """

    def __init__(self, run: Stage2Training, device: str):
        self.run, self.device, self._calls = run, device, 0

    def inputs(self, gen: WristGenerator, batch: dict) -> tuple[Tensor, Tensor | None, Tensor]:
        """Clean latents, condition latents (None for the ablation) and contexts of a batch."""
        factor = self.run.model['autoencoder']['factor']
        clean = unshuffle(batch['wrist'].to(self.device), factor)
        condition = None
        if self.run.condition:
            planes = condition_planes(batch['condition'], batch['depth']).transpose(1, 2)
            condition = unshuffle(planes.to(self.device), factor)
        frames = [batch['chunk']] * (clean.shape[2] // batch['chunk'])
        features = gen.anchor_features(batch['anchors'].to(self.device)) if self.run.anchor_tokens else None
        contexts = chunk_contexts(gen, features, frames)
        return clean, condition, contexts.expand(len(clean), -1, -1, -1)

    def __call__(self, gen: WristGenerator, batch: dict, progress: float) -> dict[str, Tensor]:
        clean, condition, contexts = self.inputs(gen, batch)
        chunk, chunks = batch['chunk'], contexts.shape[1]
        sigma = noise_levels(len(clean), chunks, self.run.last_level)
        noise, base = shared_noise(clean.shape, self.run.noise_share)
        noisy = add_noise(clean, noise, sigma.repeat_interleave(chunk, 1))
        if self._with_history(progress):
            with torch.no_grad():
                noise, _ = shared_noise(clean.shape, self.run.noise_share, base)
                first = predict_apart(gen, noise, condition, torch.ones_like(sigma), contexts)
            predicted = block_causal_predict(gen, noisy, first.float(), condition, 1000 * sigma, contexts, chunk)
        else:
            predicted = predict_apart(gen, noisy, condition, sigma, contexts)
        factor = self.run.model['autoencoder']['factor']
        with torch.autocast(self.device, enabled=False):
            return image_losses(shuffle(predicted.float(), factor), batch['wrist'].to(self.device), self.run)

    def _with_history(self, progress: float) -> bool:
        """Every so many calls; counted, not drawn, so that all processes take the long steps together."""
        if progress < self.run.history_from:
            return False
        self._calls += 1
        return int(self._calls * self.run.history) > int((self._calls - 1) * self.run.history)


def predict_apart(
    gen: WristGenerator, noisy: Tensor, condition: Tensor | None, sigma: Tensor, contexts: Tensor
) -> Tensor:
    """Predictions of a clip's chunks, each as the first of a stream: `block_causal_predict` without any history.

    noisy, condition: [B, C, T, h, w]. sigma: [B, G] of the G chunks. contexts: [B, G, S, text_dim].
    """
    chunks = sigma.shape[1]

    def apart(x: Tensor) -> Tensor:
        return x.unflatten(2, (chunks, -1)).transpose(1, 2).flatten(0, 1)

    condition = None if condition is None else apart(condition)
    predicted = gen.predict(apart(noisy), condition, 1000 * sigma.flatten(), contexts.flatten(0, 1))
    return predicted.unflatten(0, (-1, chunks)).transpose(1, 2).flatten(2, 3)


def prepare_for(
    run: Stage2Training, episodes: Path, folder: Path, stage1: Path, limit: int | None, workers: int
) -> list[Path]:
    """The condition maps that a run trains on, made where they are missing; see `prepare_conditions`."""
    size = run.model['anchor_encoder']['image_size']
    return prepare_conditions(episodes, folder, stage1, ANCHOR_WIDTH, WRIST_HW, CLOUD, size, limit, workers=workers)


def train_stage2(
    conditions: list[Path], held_out: list[Path], folder: Path, run: Stage2Training, device: str = 'cpu'
) -> WristGenerator:
    """Train the generator; leaves `folder/config.json` and `folder/model.pt` with the averaged weights.

    conditions, held_out: files of `prepare_conditions`.
    """
    torch.manual_seed(run.seed)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(run.model, indent=2))
    (folder / 'run.json').write_text(json.dumps(asdict(run), indent=2, default=str))
    gen = WristGenerator.from_config(run.model).to(device)
    torch.manual_seed(run.seed + rank())  # equal weights, other noise in each process
    losses = ClipTrainer(run, device)
    loader = DataLoader(
        Stage2Clips(conditions, run.sampling, run.seed + rank()), batch_size=None, num_workers=run.workers,
        prefetch_factor=4 if run.workers else None,
    )  # fmt: skip
    fixed = _held_out_batches(held_out, run.sampling)

    @torch.no_grad()
    def validate(module):
        module.eval()
        state = torch.get_rng_state()
        torch.manual_seed(0)
        figures: dict[str, list[float]] = {}
        for batch in fixed:
            for name, value in one_step_figures(module, losses, batch).items():
                figures.setdefault(f'val_{name}', []).append(value)
        torch.set_rng_state(state)
        return {k: float(np.mean(v)) for k, v in figures.items()}

    average = train(gen, loader, losses, run.optimisation, folder, validate if fixed else None, run.start)
    if rank() == 0:
        torch.save(average.state_dict(), folder / 'model.pt')
    return average


@torch.no_grad()
def one_step_figures(gen: WristGenerator, trainer: ClipTrainer, batch: dict) -> dict[str, float]:
    """PSNR of one-step pictures without history, and of the filled warp that they started from, dB."""
    clean, condition, contexts = trainer.inputs(gen, batch)
    ones = torch.ones(len(clean), contexts.shape[1])
    noise, _ = shared_noise(clean.shape, trainer.run.noise_share)
    guess = predict_apart(gen, noise, condition, ones, contexts)

    def psnr(latents):
        mse = ((latents.float().clamp(-1, 1) - clean) / 2).square().mean((1, 2, 3, 4))
        return float((-10 * mse.log10()).mean())

    figures = {'psnr': psnr(guess)}
    if condition is not None:
        figures['warp_psnr'] = psnr(condition[:, : clean.shape[1]])
    return figures


def _held_out_batches(paths: list[Path], sampling: Stage2Sampling, size: int = 4) -> list[dict]:
    rng = np.random.default_rng(0)
    clips = [sample_clip(p, 1, sampling.frames, rng) for p in paths]
    chunk = max(sampling.chunks)
    return [collate_clips(clips[i : i + size]) | {'chunk': chunk} for i in range(0, len(clips), size)]
