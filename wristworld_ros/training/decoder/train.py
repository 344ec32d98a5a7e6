"""Training of a tiny decoder on the output of the full one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.metrics import psnr
from wristworld_ros.input_files import json_text, read_json
from wristworld_ros.models.wan.autoencoders import Autoencoder
from wristworld_ros.models.wan.tiny_decoder import TinyDecoder, TinyDecoderSizes, tiny_decoder_for
from wristworld_ros.pipeline.generate import to_pixels
from wristworld_ros.runtime.files import write_text
from wristworld_ros.training.checkpoint import WEIGHTS, write_weights
from wristworld_ros.training.decoder.data import DecoderClips, read_clip
from wristworld_ros.training.parallel import rank
from wristworld_ros.training.run_state import last_checkpoint
from wristworld_ros.training.trainer import Step, TrainerConfig, full_state_dict, train


@dataclass(frozen=True)
class DecoderTraining:
    """One training run of a tiny decoder.

    width, blocks: of the decoder. edges, motion: weights of the L1 of differences between neighbouring pixels (at three
    scales, which keeps contours) and between frames (which keeps it from flickering) beside the L1 of the pixels.
    batch: clips a step. workers: processes that read clips.
    """

    width: int = 64
    blocks: int = 2
    edges: float = 1.0
    motion: float = 0.5
    batch: int = 2
    seed: int = 0
    workers: int = 1
    config: TrainerConfig = field(default_factory=lambda: TrainerConfig(steps=10_000, average=0.99))

    def decoder(self, autoencoder: Autoencoder) -> TinyDecoder:
        """The decoder as the run begins with it; the same seed gives the same weights."""
        torch.manual_seed(self.seed)
        return tiny_decoder_for(autoencoder, self.width, self.blocks)


def decoder_losses(video: Tensor, target: Tensor, run: DecoderTraining) -> dict[str, Tensor]:
    """Terms between videos [B, 3, T, H, W] in -1..1; "total" is minimized."""
    difference = video - target
    l1 = difference.abs().mean()
    images = difference.transpose(1, 2).flatten(0, 1)
    edges = images.new_zeros(())
    for scale in (1, 2, 4):
        coarse = F.avg_pool2d(images, scale) if scale > 1 else images
        edges = edges + sum(coarse.diff(dim=d).abs().mean() for d in (-1, -2)) / 6
    motion = difference.diff(dim=2).abs().mean() if difference.shape[2] > 1 else difference.new_zeros(())
    return {'total': l1 + run.edges * edges + run.motion * motion, 'l1': l1, 'edges': edges, 'motion': motion}


def train_tiny_decoder(
    clips: list[Path], held_out: list[Path], folder: Path, run: DecoderTraining, autoencoder: Autoencoder,
    device: str = 'cpu',
) -> TinyDecoder:  # fmt: skip
    """Train a tiny decoder; leaves `folder/run.json` and `folder/model.safetensors` with the averaged weights.

    Args:
        clips: Files of `prepare_clips` to train on.
        held_out: Such files to validate on.
        folder: Of the run, which continues where it was stopped.
        run: What is trained, and how.
        autoencoder: Whose strides and latent channels the decoder has.
        device: cpu or cuda.

    Raises:
        UserError: The folder holds a run of a decoder of another size, or training diverged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / 'run.json'
    if note.exists() and last_checkpoint(folder) is not None:
        before = read_json(note, TinyDecoderSizes, 'give another --out')
        if (before.width, before.blocks) != (run.width, run.blocks):
            raise UserError(
                f'{folder} holds a run of width {before.width} and {before.blocks} blocks, not of {run.width} and '
                f'{run.blocks}',
                'give another --out',
            )
    decoder = run.decoder(autoencoder).to(device)
    if rank() == 0:
        write_text(note, json_text(asdict(run), indent=2))

    def losses(module: TinyDecoder, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        video, _ = module(batch['latents'].to(device))
        with torch.autocast(device, enabled=False):
            return decoder_losses(video.float(), batch['target'].to(device), run)

    def validate(module: TinyDecoder) -> dict[str, float]:
        return {f'val_{name}': value for name, value in held_out_losses(module, held_out, run).items()}

    # Where a CPU has no bfloat16 of its own, convolutions in it take three times as long.
    config = replace(run.config, bf16=run.config.bf16 and device != 'cpu')
    average = train(
        decoder, DecoderClips(clips, run.batch, run.seed, rank()), losses, config, folder, seed=run.seed,
        workers=run.workers, validate=validate,
    )  # fmt: skip
    weights = full_state_dict(average)
    if rank() == 0:
        write_weights(folder / WEIGHTS, weights)
    return average


@torch.no_grad()
def held_out_losses(decoder: TinyDecoder, clips: list[Path], run: DecoderTraining) -> dict[str, float]:
    """The terms of `decoder_losses`, means over whole clips, in float32."""
    device, found = next(decoder.parameters()).device, []
    for path in clips:
        clip = read_clip(path)
        video, _ = decoder.eval()(clip['latents'].to(device))
        found.append(decoder_losses(video.clamp(-1, 1), clip['target'].to(device), run))
    return {name: float(np.mean([float(terms[name]) for terms in found])) for name in found[0]}


@torch.no_grad()
def held_out_psnr(decoder: TinyDecoder, clips: list[Path]) -> dict[str, float]:
    """PSNR of 8-bit images, dB, mean over frames: `tiny_full` of the tiny decoder's against the full one's,
    `tiny_original` and `full_original` of both against the recorded images."""
    device = next(decoder.parameters()).device
    figures: dict[str, list[np.ndarray]] = {'tiny_full': [], 'tiny_original': [], 'full_original': []}
    for path in clips:
        clip = read_clip(path)
        video, _ = decoder.eval()(clip['latents'].to(device))
        tiny, full = (to_pixels(v).cpu().numpy() for v in (video.clamp(-1, 1), clip['target']))
        with np.load(path) as f:
            original = f['original']
        figures['tiny_full'].append(psnr(tiny, full))
        figures['tiny_original'].append(psnr(tiny, original))
        figures['full_original'].append(psnr(full, original))
    return {name: float(np.mean(np.concatenate(values))) for name, values in figures.items()}
