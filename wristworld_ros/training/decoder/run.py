"""The whole of `wristworld train tiny-decoder`: clips, training, figures, and the model directory at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from wristworld_ros.models.config import AUTOENCODER, ModelError, find_model
from wristworld_ros.models.state_dict import named_tensors
from wristworld_ros.models.wan.autoencoders import WanAutoencoder
from wristworld_ros.pipeline.model_directory import choose_device, load_autoencoder
from wristworld_ros.training.decoder.clips import ClipSettings, Recorded, prepare_clips, recordings, split
from wristworld_ros.training.decoder.cost import decoding_cost
from wristworld_ros.training.decoder.install import DecoderResult, install, stored
from wristworld_ros.training.decoder.train import (
    DecoderTraining,
    held_out_losses,
    picture_figures,
    train_tiny_decoder,
)


@dataclass(frozen=True)
class DecoderData:
    """What is learned from. episodes, held_out: folders of episodes, or None; without held_out a tenth of the recordings
    is kept back. videos: files beside the episodes. limit: episodes at most, 0 for all. frames, most: see `ClipSettings`.
    """

    episodes: Path | None = None
    videos: tuple[str, ...] = ()
    held_out: Path | None = None
    limit: int = 0
    frames: int = 17
    most: int = 4

    def recordings(self) -> tuple[list[Recorded], list[Recorded]]:
        """To train on, and held out; errors as in `light_clips.recordings` and `split`."""
        found = recordings(self.episodes, self.videos, self.limit)
        return (found, recordings(self.held_out, ())) if self.held_out else split(found)

    def __str__(self) -> str:
        parts = [f'the episodes of `{self.episodes.name}`'] if self.episodes else []
        parts += [f'{len(self.videos)} video{"s" * (len(self.videos) > 1)}'] if self.videos else []
        return ' and '.join(parts) + (f'; held out those of `{self.held_out.name}`' if self.held_out else '')


def make_tiny_decoder(
    model: str, data: DecoderData, out: Path, run: DecoderTraining, device: str = 'auto', start: Callable | None = None
) -> tuple[Path, DecoderResult]:
    """Train a light decoder for a model and put it into the model's directory; goes on where it was stopped.

    out: the run's folder, of clips and checkpoints. start: calls the training with its arguments (in several processes,
    say); None calls it here. Returns the model's directory and the figures that its card now tells.
    Raises ModelError where the model has no video autoencoder; ValueError or OSError, one sentence, for data that do not do.
    """
    folder, device = find_model(model), choose_device(device)
    config, autoencoder = load_autoencoder(model)
    if not isinstance(autoencoder, WanAutoencoder):
        raise ModelError(
            f'{folder} has no video autoencoder (its latents are the pixels themselves), so a light decoder has nothing to '
            'learn; give the directory of a converted model.'
        )
    training, held_out = data.recordings()
    autoencoder = autoencoder.requires_grad_(False).to(device)
    settings = ClipSettings(config.wrist_hw, data.frames, data.most)
    clips, held_clips = (
        prepare_clips(part, out / 'clips' / name, autoencoder, folder / AUTOENCODER, settings, device)
        for part, name in ((training, 'train'), (held_out, 'held_out'))
    )
    arguments = (clips, held_clips, out, run, autoencoder.cpu(), device)
    (start or (lambda function, *given: function(*given)))(train_tiny_decoder, *arguments)

    untrained = run.decoder(autoencoder).to(device)
    decoder = run.decoder(autoencoder)
    decoder.load_state_dict(torch.load(out / 'model.pt', weights_only=True))
    rounded = {name: tensor.float() for name, tensor in stored(decoder).items()}  # what a stream will have
    with torch.no_grad():
        for name, tensor in named_tensors(decoder).items():
            tensor.copy_(rounded[name])
    decoder = decoder.to(device)
    result = DecoderResult(
        data=str(data),
        steps=torch.load(out / 'last.pt', weights_only=True, map_location='cpu')['step'],
        clips=len(clips),
        held_out=len(held_clips),
        frames=data.frames,
        start=held_out_losses(untrained, held_clips, run),
        loss=held_out_losses(decoder, held_clips, run),
        pictures=picture_figures(decoder, held_clips),
        cost=decoding_cost(autoencoder, decoder, config.wrist_hw, device),
    )
    install(decoder, run.width, run.blocks, folder, result)
    return folder, result
