"""A tiny decoder for a model, from clips to its directory: `make_tiny_decoder` trains, measures and installs one."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from wristworld_ros.errors import UserError
from wristworld_ros.models.config import AUTOENCODER, TINY_DECODER, ModelConfig, ModelError
from wristworld_ros.models.state_dict import named_tensors
from wristworld_ros.models.wan.autoencoders import Autoencoder, WanAutoencoder
from wristworld_ros.models.wan.tiny_decoder import TinyAutoencoder, TinyDecoder
from wristworld_ros.pipeline.model_directory import choose_device, find_model, load_autoencoder
from wristworld_ros.pipeline.model_saving import save_weights
from wristworld_ros.runtime.files import file_sha256, write_atomically
from wristworld_ros.training.checkpoint import read_weights
from wristworld_ros.training.decoder.data import ClipSettings, DecoderData, prepare_clips
from wristworld_ros.training.decoder.train import (
    DecoderTraining,
    held_out_losses,
    held_out_psnr,
    train_tiny_decoder,
)
from wristworld_ros.training.parallel import run_parallel
from wristworld_ros.training.run_state import read_counts

HEADING = '## Tiny decoder'


@dataclass(frozen=True)
class DecodingCost:
    """Of one latent frame in the middle of a stream.

    full_operations, tiny_operations: multiplications and additions of convolutions and matrix products. full_seconds,
    tiny_seconds: medians on `machine`. hw: height and width of the images.
    """

    full_operations: int
    tiny_operations: int
    full_seconds: float
    tiny_seconds: float
    hw: tuple[int, int]
    machine: str

    @property
    def operations_ratio(self) -> float:
        """How many times as many operations the full decoder takes."""
        return self.full_operations / self.tiny_operations

    @property
    def time_ratio(self) -> float:
        """How many times as long the full decoder takes."""
        return self.full_seconds / self.tiny_seconds


@dataclass(frozen=True)
class DecoderResult:
    """Results of a run.

    data: in words. steps: of the optimizer. clips, held_out: how many. frames: of a clip. start, loss: terms of
    `decoder_losses` on the held-out clips, untrained and trained. psnr: of `held_out_psnr`. cost: beside the full decoder.
    """

    data: str
    steps: int
    clips: int
    held_out: int
    frames: int
    start: dict[str, float]
    loss: dict[str, float]
    psnr: dict[str, float]
    cost: DecodingCost


def make_tiny_decoder(
    model: str, data: DecoderData, out: Path, run: DecoderTraining, device: str = 'auto', processes: int = 1,
    threads: int | None = None,
) -> tuple[Path, DecoderResult]:  # fmt: skip
    """Train a tiny decoder for a model and install it in the model's directory; continues where it was stopped.

    Args:
        model: Name or directory.
        data: What it learns from.
        out: The run's folder, of clips and checkpoints.
        run: What is trained, and how.
        device: auto, cpu or cuda.
        processes: That train together, on the CPU.
        threads: CPU threads of each; see `run_parallel`.

    Returns:
        The model's directory, and the results that its card now states.

    Raises:
        UserError: The model has no video autoencoder (ModelError), the data do not do, or training diverged.
    """
    folder, device = find_model(model), choose_device(device)
    config, autoencoder = load_autoencoder(model)
    if not isinstance(autoencoder, WanAutoencoder):
        raise ModelError(
            f'{folder} has no video autoencoder (its latents are the pixels themselves), so there is nothing for a tiny '
            'decoder to learn',
            'give the directory of a converted model',
        )
    training, held_out = data.recordings()
    autoencoder = autoencoder.requires_grad_(False).to(device)
    settings = ClipSettings(config.wrist_hw, data.frames, data.per_camera)
    clips, held_clips = (
        prepare_clips(part, out / 'clips' / name, autoencoder, folder / AUTOENCODER, settings, device)
        for part, name in ((training, 'train'), (held_out, 'held_out'))
    )
    run_parallel(processes, threads, train_tiny_decoder, clips, held_clips, out, run, autoencoder.cpu(), device)
    decoder = _finished(out, run, autoencoder).to(device)
    result = DecoderResult(
        data=str(data),
        steps=read_counts(out).step,
        clips=len(clips),
        held_out=len(held_clips),
        frames=data.frames,
        start=held_out_losses(run.decoder(autoencoder).to(device), held_clips, run),
        loss=held_out_losses(decoder, held_clips, run),
        psnr=held_out_psnr(decoder, held_clips),
        cost=decoding_cost(autoencoder, decoder, config.wrist_hw, device),
    )
    install(decoder, run.width, run.blocks, folder, result)
    return folder, result


def _finished(out: Path, run: DecoderTraining, autoencoder: Autoencoder) -> TinyDecoder:
    """The trained decoder, rounded as it will be stored: what is measured is what a stream will have."""
    decoder = run.decoder(autoencoder)
    read_weights(decoder, out)
    rounded = half_tensors(decoder)
    with torch.no_grad():
        for name, tensor in named_tensors(decoder).items():
            tensor.copy_(rounded[name])
    return decoder


# What it costs


@torch.no_grad()
def decoding_cost(
    full: WanAutoencoder, tiny: TinyDecoder, hw: tuple[int, int], device: str = 'cpu', seconds: float = 5.0
) -> DecodingCost:
    """Count the operations of both decoders on random latents, and time them.

    Args:
        full: The model's own autoencoder.
        tiny: Its tiny decoder.
        hw: Height and width of the images, pixels.
        device: cpu or cuda.
        seconds: That timing takes, about, each.
    """
    full, tiny = full.eval().to(device), tiny.eval().to(device)
    shape = (1, full.latent_channels, 1, hw[0] // full.spatial_stride, hw[1] // full.spatial_stride)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    (full_operations, full_seconds), (tiny_operations, tiny_seconds) = (
        _measure(autoencoder, latents, seconds) for autoencoder in (full, TinyAutoencoder(full, tiny))
    )
    return DecodingCost(full_operations, tiny_operations, full_seconds, tiny_seconds, hw, _machine(device))


def _measure(autoencoder: Autoencoder, latents: torch.Tensor, seconds: float) -> tuple[int, float]:
    """Operations and median seconds of one latent frame; not of a stream's first, whose work is different."""
    _, state = autoencoder.decode_next(latents, None)
    with FlopCounterMode(display=False) as counter:
        _, state = autoencoder.decode_next(latents, state)
    spent: list[float] = []
    while len(spent) < 3 or (sum(spent) < seconds and len(spent) < 100):
        started = time.perf_counter()
        _, state = autoencoder.decode_next(latents, state)
        if latents.device.type == 'cuda':
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - started)
    return counter.get_total_flops(), sorted(spent)[len(spent) // 2]


def _machine(device: str) -> str:
    if device == 'cuda':
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f'a CPU with {threads} thread{"s" * (threads > 1)}'


# Into the model's directory


def half_tensors(decoder: TinyDecoder) -> dict[str, torch.Tensor]:
    """The decoder's tensors as they are stored, float16.

    Raises:
        UserError: One of them is not finite.
    """
    tensors = {name: t.detach().to('cpu', torch.float16).contiguous() for name, t in named_tensors(decoder).items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f'{TINY_DECODER}: {name} is not finite', 'train again with a lower --learning-rate')
    return tensors


def install(decoder: TinyDecoder, width: int, blocks: int, folder: Path, result: DecoderResult) -> str:
    """Write the weights, the configuration and the card's section; returns the weights' sha256.

    Each file is replaced as a whole, and in between `config.json` names no tiny decoder: what loads the model meanwhile
    finds the old one, none, or the new one, never a mixture.
    """
    config = ModelConfig.read(folder / 'config.json')
    weights = folder / TINY_DECODER
    with write_atomically(weights) as part:
        save_weights(half_tensors(decoder), part)
        part.chmod(0o644)  # safetensors makes it readable for its owner alone
        digest = file_sha256(part)
        if config.tiny_decoder:
            _write_config(replace(config, tiny_decoder={}), folder)
    _write_config(replace(config, tiny_decoder={'width': width, 'blocks': blocks}), folder)
    card = folder / 'README.md'
    text = card.read_text() if card.is_file() else f'# {config.name}\n'
    text = with_section(text, section(result, width, blocks, digest, weights.stat().st_size))
    with write_atomically(card) as part:
        part.write_text(text)
    return digest


def section(result: DecoderResult, width: int, blocks: int, digest: str, size: int) -> str:
    """The card's section as Markdown. size: bytes of the weights."""
    r, c, p = result, result.cost, result.psnr
    return '\n'.join(
        [
            HEADING,
            '',
            "Trained by `wristworld train tiny-decoder` on the output of this model's own autoencoder. "
            'The setting `decoder` chooses it (`tiny`).',
            '',
            '| file | size | sha256 |',
            '| --- | --- | --- |',
            f'| `{TINY_DECODER}` | {size / 1e6:.1f} MB | `{digest}` |',
            '',
            f'- Sizes: width {width}, {blocks} block{"s" * (blocks > 1)} per level.',
            f'- Data: {r.data}; {r.clips} clips of {r.frames} frames to train on, {r.held_out} held out, images '
            f'{c.hw[1]}x{c.hw[0]}. {r.steps} steps.',
            f'- Operations of a latent frame: full {c.full_operations / 1e9:.3g} G, tiny {c.tiny_operations / 1e9:.3g} G, '
            f'ratio {c.operations_ratio:.1f}.',
            f'- Time of a latent frame on {c.machine}: full {c.full_seconds * 1e3:.3g} ms, tiny '
            f'{c.tiny_seconds * 1e3:.3g} ms, ratio {c.time_ratio:.1f}.',
            '',
            'On the held-out clips, images in -1 to 1:',
            '',
            '| against the full decoder | untrained | trained |',
            '| --- | --- | --- |',
            f'| L1 | {r.start["l1"]:.4f} | {r.loss["l1"]:.4f} |',
            f'| L1 of edges | {r.start["edges"]:.4f} | {r.loss["edges"]:.4f} |',
            f'| L1 of changes between frames | {r.start["motion"]:.4f} | {r.loss["motion"]:.4f} |',
            '',
            '| PSNR, dB | tiny | full |',
            '| --- | --- | --- |',
            f'| against the full decoder | {p["tiny_full"]:.2f} | |',
            f'| against the recorded images | {p["tiny_original"]:.2f} | {p["full_original"]:.2f} |',
            '',
        ]
    )


def with_section(card: str, section: str) -> str:
    """A card with the section in the place of its older one, or at its end."""
    older = re.compile(rf'^{re.escape(HEADING)}\n.*?(?=^## |\Z)', re.MULTILINE | re.DOTALL)
    if older.search(card):
        after = '\n' if older.search(card).end() < len(card) else ''
        return older.sub(lambda _: section + after, card, count=1)
    return card.rstrip('\n') + '\n\n' + section


def _write_config(config: ModelConfig, folder: Path) -> None:
    with write_atomically(folder / 'config.json') as part:
        config.write(part)
