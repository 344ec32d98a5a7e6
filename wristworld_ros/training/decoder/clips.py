"""Clips for the light decoder: what a model's own autoencoder makes of recorded pictures, on disk.

The light decoder learns the autoencoder's pictures, not the recorded ones: what the encoder lost is not its to invent.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import IterableDataset
from tqdm import tqdm

from wristworld_ros.data.formats.native import list_episodes, read_episode
from wristworld_ros.data.video import Videos
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.models.wan.autoencoders import Autoencoder


@dataclass(frozen=True)
class ClipSettings:
    """frames: of a clip, 1 + a multiple of the autoencoder's temporal stride. most: clips of one camera's video, spread
    evenly over it. hw: pixels that the pictures are resized to, as the model's wrist images are."""

    hw: tuple[int, int]
    frames: int = 17
    most: int = 4


@dataclass(frozen=True)
class Recorded:
    """An episode, whose wrist and anchor cameras give clips, or one video file."""

    path: Path

    def cameras(self) -> Iterator[np.ndarray]:
        """The pictures of one camera after the other, uint8 [T, H, W, 3]."""
        if self.path.is_dir():
            episode = read_episode(self.path)
            for name in episode.names('wrist') + episode.names('anchor'):
                yield episode.rgb(name)
        else:
            yield np.concatenate(list(Videos([self.path])))


def recordings(episodes: Path | None, videos: Sequence[str | Path], limit: int = 0) -> list[Recorded]:
    """Episodes of a folder (the first `limit`; 0 for all) and video files. Raises FileNotFoundError for a missing one."""
    found = list_episodes(episodes)[: limit or None] if episodes else []
    for path in map(Path, videos):
        if not path.is_file():
            raise FileNotFoundError(f'{path} is not there; give video files.')
        found.append(path)
    return [Recorded(path) for path in found]


def split(recorded: list[Recorded]) -> tuple[list[Recorded], list[Recorded]]:
    """The last tenth, at least one, is held out. Raises ValueError where nothing is left to train on."""
    if len(recorded) < 2:
        raise ValueError(
            f'There are {len(recorded)} recordings to learn from; give at least two, of which one is held out.'
        )
    held_out = max(1, len(recorded) // 10)
    return recorded[:-held_out], recorded[-held_out:]


@torch.no_grad()
def prepare_clips(
    recorded: list[Recorded], folder: Path, autoencoder: Autoencoder, weights: Path, settings: ClipSettings, device: str
) -> list[Path]:
    """Encode and decode clips of recordings by the full autoencoder; those that are there already are kept.

    weights: the autoencoder's file, whose hash tells whether the clips there are its own. Each file holds latents float32
    [C, n, h, w], target float16 [3, T, H, W] in -1..1 (what the full decoder makes of them), original uint8 [T, H, W, 3].
    Raises ValueError, one sentence, where the folder holds clips of another autoencoder or other settings, and where no
    recording is long enough.
    """
    if (settings.frames - 1) % autoencoder.temporal_stride:
        raise ValueError(
            f'Clips have {settings.frames} frames; this autoencoder takes 1 + a multiple of {autoencoder.temporal_stride}.'
        )
    made = {'autoencoder': hashlib.sha256(weights.read_bytes()).hexdigest(), **asdict(settings)}
    made = json.loads(json.dumps(made))
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / 'clips.json'
    if note.exists() and json.loads(note.read_text()) != made:
        raise ValueError(f'{folder} holds clips of another model or of other sizes; give another --out, or remove it.')
    note.write_text(json.dumps(made))
    paths = []
    for one in tqdm(recorded, desc=f'encoding {folder.name}', unit='recording', mininterval=5):
        key = hashlib.sha256(str(one.path.resolve()).encode()).hexdigest()[:12]
        target = folder / f'{one.path.stem}-{key}'
        if not target.exists():
            _write_clips(one, target, autoencoder, settings, device)
        paths += sorted(target.glob('*.npz'))
    if not paths:
        raise ValueError(f'No recording has {settings.frames} frames, which a clip takes; give longer ones.')
    return paths


def _write_clips(
    recorded: Recorded, target: Path, autoencoder: Autoencoder, settings: ClipSettings, device: str
) -> None:
    """All clips of one recording, in a directory that appears whole."""
    part = target.with_name(f'.{target.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    clips = (clip for pictures in recorded.cameras() for clip in _cut(pictures, settings))
    for i, clip in enumerate(clips):
        original = resize_images(clip, settings.hw)
        video = torch.from_numpy(original).permute(3, 0, 1, 2)[None].to(device).float() / 127.5 - 1
        latents = autoencoder.encode(video)
        decoded = autoencoder.decode(latents)
        if not (torch.isfinite(latents).all() and torch.isfinite(decoded).all()):
            raise ValueError(f'The autoencoder gives NaN or infinity for {recorded.path}; check its weights.')
        np.savez(
            part / f'{i:03d}.npz', latents=latents[0].cpu().numpy(), target=decoded[0].cpu().numpy().astype(np.float16),
            original=original,
        )  # fmt: skip
    os.replace(part, target)


def _cut(pictures: np.ndarray, settings: ClipSettings) -> Iterator[np.ndarray]:
    count = min(settings.most, len(pictures) // settings.frames)
    for start in np.linspace(0, len(pictures) - settings.frames, count).astype(int) if count else ():
        yield pictures[start : start + settings.frames]


def read_clip(path: Path) -> dict[str, torch.Tensor]:
    """latents float32 [1, C, n, h, w] and target float32 [1, 3, T, H, W] of one file."""
    with np.load(path) as f:
        return {name: torch.from_numpy(f[name].astype(np.float32))[None] for name in ('latents', 'target')}


class DecoderClips(IterableDataset):
    """An endless stream of batches of random clips, as `read_clip` gives them."""

    def __init__(self, paths: list[Path], batch: int, seed: int):
        self.paths, self.batch, self.seed = paths, batch, seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        while True:
            clips = [read_clip(self.paths[i]) for i in rng.integers(len(self.paths), size=self.batch)]
            yield {name: torch.cat([clip[name] for clip in clips]) for name in clips[0]}
