"""Clips for the tiny decoder: what a model's own autoencoder makes of recorded images, on disk.

The tiny decoder learns the autoencoder's output, not the recorded images: it cannot know what the encoder lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from wristworld_ros.data.cache import cache_key
from wristworld_ros.data.formats.native import list_episodes, read_episode
from wristworld_ros.data.video import read_frames
from wristworld_ros.errors import UserError
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.models.wan.autoencoders import Autoencoder
from wristworld_ros.runtime.files import file_sha256, new_directory
from wristworld_ros.runtime.progress import ProgressBar


@dataclass(frozen=True)
class ClipSettings:
    """How recordings are cut into clips.

    hw: height and width that images are resized to, as the model's wrist images. frames: of a clip, 1 + a multiple of the
    autoencoder's temporal stride. per_camera: clips of one camera's video at most, spread evenly over it.
    """

    hw: tuple[int, int]
    frames: int = 17
    per_camera: int = 4


@dataclass(frozen=True)
class DecoderRecording:
    """An episode, whose wrist and anchor cameras give clips, or one video file."""

    path: Path

    def videos(self) -> Iterator[np.ndarray]:
        """The images of one camera after the other, uint8 [T, H, W, 3]."""
        if self.path.is_dir():
            episode = read_episode(self.path)
            for name in episode.names('wrist') + episode.names('anchor'):
                yield episode.rgb(name)
        else:
            yield read_frames(self.path)


@dataclass(frozen=True)
class DecoderData:
    """What the tiny decoder learns from.

    episodes, held_out: folders of episodes, or None; without held_out a tenth of the recordings is held out. videos: files
    beside the episodes. limit: episodes at most, None for all. frames, per_camera: see `ClipSettings`.
    """

    episodes: Path | None = None
    videos: tuple[str, ...] = ()
    held_out: Path | None = None
    limit: int | None = None
    frames: int = 17
    per_camera: int = 4

    def recordings(self) -> tuple[list[DecoderRecording], list[DecoderRecording]]:
        """Recordings to train on and recordings held out; errors as in `find_recordings` and `split`."""
        found = find_recordings(self.episodes, self.videos, self.limit)
        return (found, find_recordings(self.held_out, ())) if self.held_out else split(found)

    def __str__(self) -> str:
        parts = [f'the episodes of `{self.episodes.name}`'] if self.episodes else []
        parts += [f'{len(self.videos)} video{"s" * (len(self.videos) > 1)}'] if self.videos else []
        return ' and '.join(parts) + (f'; held out those of `{self.held_out.name}`' if self.held_out else '')


def find_recordings(
    episodes: Path | None, videos: Sequence[str | Path], limit: int | None = None
) -> list[DecoderRecording]:
    """The first `limit` episodes of a folder (None for all) and video files.

    Raises:
        UserError: A video file is missing.
    """
    found = [Path(p) for p in list_episodes(episodes)[:limit]] if episodes else []
    for path in map(Path, videos):
        if not path.is_file():
            raise UserError(f'{path} does not exist', 'give video files')
        found.append(path)
    return [DecoderRecording(path) for path in found]


def split(recordings: list[DecoderRecording]) -> tuple[list[DecoderRecording], list[DecoderRecording]]:
    """Hold out the last tenth, at least one.

    Raises:
        UserError: Nothing is left to train on.
    """
    if len(recordings) < 2:
        raise UserError(
            f'There are {len(recordings)} recordings to learn from', 'give at least two, of which one is held out'
        )
    held_out = max(1, len(recordings) // 10)
    return recordings[:-held_out], recordings[-held_out:]


@torch.no_grad()
def prepare_clips(
    recordings: list[DecoderRecording],
    folder: Path,
    autoencoder: Autoencoder,
    weights: Path,
    settings: ClipSettings,
    device: str,
) -> list[Path]:
    """Encode and decode clips of recordings by the full autoencoder; those that are there already are kept.

    Clips are there already if they were made from the same recording by the same weights with the same settings.

    Args:
        recordings: What is cut into clips.
        folder: Where the clips go, a directory per recording.
        autoencoder: The model's own, on `device`.
        weights: Its file.
        settings: How clips are cut.
        device: cpu or cuda.

    Returns:
        Files with latents float32 [C, n, h, w], target float16 [3, T, H, W] in -1..1 (what the full decoder makes of
        them), original uint8 [T, H, W, 3].

    Raises:
        UserError: Clips have a length that the autoencoder does not take, no recording is long enough, or the autoencoder
            gives NaN.
    """
    if (settings.frames - 1) % autoencoder.temporal_stride:
        raise UserError(
            f'Clips have {settings.frames} frames, and this autoencoder takes 1 + a multiple of '
            f'{autoencoder.temporal_stride}',
            'give such a length',
        )
    made_with = {'autoencoder': file_sha256(weights), **asdict(settings)}
    paths = []
    for recording in ProgressBar(recordings, desc=f'encoding {folder.name}', unit='recording', mininterval=5):
        target = folder / f'{recording.path.stem}-{cache_key(recording.path, **made_with)}'
        if not target.exists():
            _write_clips(recording, target, autoencoder, settings, device)
        paths += sorted(target.glob('*.npz'))
    if not paths:
        raise UserError(f'No recording has {settings.frames} frames, which a clip takes', 'give longer ones')
    return paths


def _write_clips(
    recording: DecoderRecording, target: Path, autoencoder: Autoencoder, settings: ClipSettings, device: str
) -> None:
    """All clips of one recording, in a directory that appears whole or not at all."""
    clips = (clip for video in recording.videos() for clip in _cut(video, settings))
    with new_directory(target) as folder:
        for i, clip in enumerate(clips):
            original = resize_images(clip, settings.hw)
            video = torch.from_numpy(original).permute(3, 0, 1, 2)[None].to(device).float() / 127.5 - 1
            latents = autoencoder.encode(video)
            decoded = autoencoder.decode(latents)
            if not (torch.isfinite(latents).all() and torch.isfinite(decoded).all()):
                raise UserError(f'The autoencoder gives NaN or infinity for {recording.path}', 'check its weights')
            np.savez(
                folder / f'{i:03d}.npz', latents=latents[0].cpu().numpy(),
                target=decoded[0].cpu().numpy().astype(np.float16), original=original,
            )  # fmt: skip


def _cut(video: np.ndarray, settings: ClipSettings) -> Iterator[np.ndarray]:
    count = min(settings.per_camera, len(video) // settings.frames)
    for start in np.linspace(0, len(video) - settings.frames, count).astype(int) if count else ():
        yield video[start : start + settings.frames]


def read_clip(path: Path) -> dict[str, torch.Tensor]:
    """latents float32 [1, C, n, h, w] and target float32 [1, 3, T, H, W] of one file."""
    with np.load(path) as f:
        return {name: torch.from_numpy(f[name].astype(np.float32))[None] for name in ('latents', 'target')}


class DecoderClips(Dataset):
    """Batches of random clips by number, without end, as `read_clip` gives them.

    The same seed, process (rank of the training process) and number give the same batch.
    """

    def __init__(self, paths: list[Path], batch: int, seed: int, process: int = 0):
        self.paths, self.batch, self.seed, self.process = paths, batch, seed, process

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, self.process, number))
        clips = [read_clip(self.paths[i]) for i in rng.integers(len(self.paths), size=self.batch)]
        return {name: torch.cat([clip[name] for clip in clips]) for name in clips[0]}
