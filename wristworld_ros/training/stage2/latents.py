"""Clips as latents, made once before the generator trains on them: wrist video, condition video, and features of the anchors.

A clip is named by its content: the recording's files, the frames, the settings and the weights that encode it. Clips lie together in
shards, safetensors files that appear whole or not at all; what is there already is not made again, by whichever process it was made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from wristworld_ros.data.cache import cache_key
from wristworld_ros.data.episode import DataSet, Episode
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.errors import UserError
from wristworld_ros.geometry import resize_intrinsics
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.autoencoders import Autoencoder
from wristworld_ros.models.wan.condition_planes import condition_image
from wristworld_ros.pipeline.generate import anchor_features
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.model_directory import find_model
from wristworld_ros.pipeline.offline import encode_video
from wristworld_ros.runtime.files import clear_leftovers, file_sha256, write_atomically
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.training.config import GenerationData
from wristworld_ros.types import AnchorSet, Camera

PARTS = ('latents', 'condition', 'features')


@dataclass(frozen=True)
class Clip:
    """Consecutive frames of one episode. source: the data set, or where it lies. index: of the episode in it."""

    source: Path | DataSet
    index: int
    start: int
    frames: int


def list_clips(source: Path | DataSet, data: GenerationData) -> list[Clip]:
    """The clips of a data set, spread evenly over each episode.

    Raises:
        UserError: No episode is as long as a clip.
    """
    data_set, found = open_data_set(source), []
    for index in range(len(data_set)):
        spare = len(data_set.episode(index)) - data.frames
        if spare >= 0:
            starts = np.unique(np.linspace(0, spare, min(data.clips, spare + 1)).round().astype(int))
            found += [Clip(source, index, int(start), data.frames) for start in starts]
    if not found:
        raise UserError(
            f'No episode of {data_set.path} has {data.frames} frames', 'give a smaller data.frames, or longer episodes'
        )
    return found


class ClipEncoder:
    """Makes latents of clips as the generator will be given them in use.

    Args:
        generator: Whose anchor encoder is used.
        autoencoder: Of wrist and condition video.
        data: How clips are cut.
        weights: Changes with the weights of whatever encodes.
        model: Whose stage 1 makes condition maps; None where `data.condition` is anchor.
    """

    def __init__(
        self,
        generator: WristGenerator,
        autoencoder: Autoencoder,
        data: GenerationData,
        weights: str,
        model: WristModel | None,
    ):
        if data.condition == 'reconstruction' and model is None:
            raise UserError(
                'data.condition is reconstruction, and model.model is none',
                'give a model directory, or set it to anchor',
            )
        self.generator, self.autoencoder, self.data, self.weights, self.model = (
            generator,
            autoencoder,
            data,
            weights,
            model,
        )

    def key(self, clip: Clip, episode: Episode) -> str:
        """The clip's name, 16 hexadecimal digits."""
        settings = {name: value for name, value in asdict(self.data).items() if name not in ('clips', 'shard_mb')}
        return cache_key(episode.path, data=settings, weights=self.weights, episode=episode.name, start=clip.start)

    @torch.no_grad()
    def __call__(self, clip: Clip, episode: Episode) -> dict[str, Tensor]:
        """latents float16 [C, T, h, w], condition float16 [C', T, h, w], features float16 [V, F, clip_dim].

        Raises:
            UserError: The episode has no wrist camera, or too few anchors.
        """
        names, wrists = episode.anchors(self.data.anchors), episode.names('wrist')
        if not wrists:
            raise UserError(f'Episode {episode.path} has no wrist camera', 'train on episodes that have one')
        hw, frames = (self.data.height, self.data.width), np.arange(clip.start, clip.start + clip.frames)
        anchors = np.stack([episode.read(name, frames) for name in names])
        latents = self.autoencoder.encode(self._video(resize_images(episode.read(wrists[0], frames), hw)))
        if self.data.condition == 'anchor':
            condition = self.autoencoder.encode(
                condition_image(torch.from_numpy(resize_images(anchors[0], hw)).to(self._device)).transpose(0, 1)[None]
            )
            images = torch.from_numpy(anchors).to(self._device)
            features = anchor_features(self.generator, images)
        else:
            assert self.model is not None
            encoded = encode_video(self.model, self._sets(episode, names, wrists[0], frames, anchors))
            condition, features = encoded.condition_latents, encoded.features
        made = {'latents': latents[0], 'condition': condition[0], 'features': features[0]}
        return {name: tensor.to('cpu', torch.float16).contiguous() for name, tensor in made.items()}

    @property
    def _device(self) -> torch.device:
        return self.generator.transformer.patch_embedding.weight.device

    def _video(self, images: np.ndarray) -> Tensor:
        """uint8 [F, H, W, 3] -> [1, 3, F, H, W] in -1..1."""
        video = torch.from_numpy(np.ascontiguousarray(images)).to(self._device).permute(3, 0, 1, 2).float()
        return (video / 127.5 - 1)[None]

    def _sets(
        self, episode: Episode, names, wrist: str, frames: np.ndarray, anchors: np.ndarray
    ) -> Iterator[AnchorSet]:
        """Anchor sets, with cameras and depth where they are recorded and wanted."""
        known = self.data.knowledge == 'recorded'
        entry, to = episode.camera(wrist), (self.data.height, self.data.width)
        calibrations = [episode.calibration(name) for name in (*names, wrist)] if known else []
        has_depth = known and all(episode.camera(name).has_depth for name in names)
        for place, frame in enumerate(frames):
            extra = {}
            if known:
                K = resize_intrinsics(
                    torch.from_numpy(calibrations[-1][0][frame]), (entry.height, entry.width), to
                ).numpy()
                extra = {
                    'intrinsics': np.stack([K[frame] for K, _ in calibrations[:-1]]),
                    'T_base_anchor': np.linalg.inv(np.stack([T[frame] for _, T in calibrations[:-1]])),
                    'wrist': Camera(K, calibrations[-1][1][frame], to[1], to[0]),
                }
            if has_depth:
                extra['depth'] = np.stack([episode.read_depth(name, [frame])[0] for name in names])
            yield AnchorSet(
                int(episode.stamps_ns[frame]), tuple(names), np.ascontiguousarray(anchors[:, place]), **extra
            )


def prepare_clips(
    clips: list[Clip], encoder: ClipEncoder, folder: Path, process: int = 0, processes: int = 1
) -> list[str]:
    """Encode this process's share of the clips that are in no shard yet; returns the keys of all clips.

    Args:
        clips: All of them.
        encoder: Makes their latents.
        folder: Of the shards.
        process: Rank of this process.
        processes: How many share the work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if process == 0:
        clear_leftovers(folder)
    there, waiting, size = set(shard_index(folder)), {}, 0
    keys = [encoder.key(clip, _open(clip)) for clip in clips]
    share = list(zip(keys, clips, strict=True))[process::processes]
    todo = [(key, clip) for key, clip in share if key not in there]
    for key, clip in ProgressBar(todo, desc='latents', unit='clip', mininterval=5, disable=process > 0):
        tensors = encoder(clip, _open(clip))
        waiting |= {f'{key}/{name}': tensor for name, tensor in tensors.items()}
        size += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if size >= encoder.data.shard_mb << 20:
            _write_shard(folder, waiting)
            waiting, size = {}, 0
    if waiting:
        _write_shard(folder, waiting)
    return keys


def shard_index(folder: Path) -> dict[str, Path]:
    """Key of every clip in a folder of shards -> its shard."""
    found = {}
    for path in sorted(folder.glob('[!.]*.safetensors')):  # those that begin with a dot are being written
        with safe_open(path, 'pt') as shard:
            names = shard.keys()
            found |= dict.fromkeys((name.partition('/')[0] for name in names), path)
    return found


def read_clip(path: Path, key: str) -> dict[str, Tensor]:
    """One clip of a shard, float32; see `ClipEncoder`."""
    with safe_open(path, 'pt') as shard:
        return {name: shard.get_tensor(f'{key}/{name}').float() for name in PARTS}


class EncodedClips(Dataset):
    """Batches of encoded clips by number, without end, in an order that is another one in each round.

    Sample i of a step is the same in however many processes it is taken.

    Args:
        folder: Of the shards.
        keys: Of the clips.
        batch: Clips of one process.
        seed: Of the order.
        process: Rank of the training process.
        processes: How many there are.
    """

    def __init__(self, folder: Path, keys: list[str], batch: int, seed: int, process: int = 0, processes: int = 1):
        index = shard_index(folder)
        self._clips = [(index[key], key) for key in keys]
        self.batch, self.seed, self.process, self.processes = batch, seed, process, processes

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        first = (number * self.processes + self.process) * self.batch
        samples = [self._sample(first + i) for i in range(self.batch)]
        return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}

    def clip(self, number: int) -> dict[str, Tensor]:
        """A clip as it is, with a batch dimension."""
        return {name: value[None] for name, value in read_clip(*self._clips[number]).items()}

    def _sample(self, position: int) -> dict[str, Tensor]:
        epoch, place = divmod(position, len(self._clips))
        return read_clip(*self._clips[int(_order(self.seed, epoch, len(self._clips))[place])])


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def weights_identity(model: str) -> str:
    """Changes with the weights of a model, by name or directory."""
    return ''.join(file_sha256(path) for path in sorted(find_model(model).glob('*.safetensors')))


def _write_shard(folder: Path, tensors: dict[str, Tensor]) -> None:
    name = hashlib.sha256(''.join(sorted(tensors)).encode()).hexdigest()[:16]
    with write_atomically(folder / f'{name}.safetensors') as part:
        save_file(tensors, part)


def _open(clip: Clip) -> Episode:
    return open_data_set(clip.source).episode(clip.index)
