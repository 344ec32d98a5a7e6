"""Scenes for the published training of stage 1: anchors and wrist image of one moment, out of recordings of any format."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset

from wristworld_ros.data.episode import DataSet, Episode
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.errors import UserError
from wristworld_ros.geometry import (
    encode_pose,
    fov_to_intrinsics,
    invert_rigid,
    resize_intrinsics,
    shift_principal_point,
)
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.models.vggt import Matches, input_size
from wristworld_ros.training.config_stage1 import ReconstructionData

_KEPT_BYTES = 256 << 20  # of scenes that were read, in each process


@dataclass(frozen=True)
class Scene:
    """One moment, at the size that the network sees.

    images: float32 [V, 3, H, W] in 0..1, of the anchors. wrist: float32 [3, H, W]. wrist_K: [3, 3], pixels at that size.
    cameras: [V, 9], encodings of the anchors in the first one's frame, or NaN where they are not known; wrist_pose: [9], of the
    wrist likewise. depth: [V, H, W] and wrist_depth: [H, W], metres, 0 unknown, or None.
    """

    images: Tensor
    wrist: Tensor
    wrist_K: Tensor
    cameras: Tensor
    wrist_pose: Tensor
    depth: Tensor | None = None
    wrist_depth: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory of all tensors."""
        return sum(value.nbytes for value in (getattr(self, f.name) for f in fields(self)) if value is not None)

    @cached_property
    def content(self) -> str:
        """Changes with every pixel and with the wrist's intrinsics, 32 hexadecimal digits."""
        digest = hashlib.sha256(self.wrist_K.numpy().tobytes())
        for image in (self.images, self.wrist):
            digest.update(str(tuple(image.shape)).encode() + (image * 255).round().to(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:32]


class Scenes(Dataset):
    """All scenes of a data set, by number. The first ones that are read stay in memory, as many as `_KEPT_BYTES` hold: a small data set
    is decoded once.

    Args:
        path: Recordings of any format that `open_data_set` knows, with a wrist camera.
        data: Which of them are taken, and how large.
        patch: Of the network, pixels.

    Raises:
        UserError: There are none, or an episode has too few anchors.
    """

    def __init__(self, path: Path | DataSet, data: ReconstructionData, patch: int):
        self.path, self.data, self.patch = path, data, patch
        data_set = open_data_set(path)
        self._frames = [
            (index, frame)
            for index in range(len(data_set))
            for frame in range(0, len(data_set.episode(index)), data.frame_step)
        ]
        if not self._frames:
            raise UserError(f'{data_set.path} has no frames to train on', 'give recordings with images')
        self._kept: dict[int, Scene] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def need_known(self, cameras: bool, wrist: bool) -> None:
        """Raise UserError for an episode that does not say where the anchors, or where the wrist camera, are."""
        for index in {index for index, _ in self._frames}:
            episode = _episode(self.path, index)
            names = episode.anchors(self.data.anchors)
            missing = [n for n in names if episode.K(n) is None or episode.T_camera_world(n) is None]
            if missing and (cameras or wrist):
                raise UserError(
                    f'Episode {episode.path} does not say where {missing[0]} is, and losses.cameras or pose direct needs it',
                    'set losses.cameras to 0 and losses.pose to spc, or calibrate the cameras',
                )
            if wrist and episode.T_camera_world(episode.names('wrist')[0]) is None:
                raise UserError(
                    f'Episode {episode.path} does not say where the wrist camera is, and losses.pose is direct',
                    'train by spc',
                )

    def __getitem__(self, number: int) -> Scene:
        if number in self._kept:
            return self._kept[number]
        index, frame = self._frames[number]
        scene = read_scene(_episode(self.path, index), frame, self.data, self.patch)
        if self._kept_bytes + scene.nbytes <= _KEPT_BYTES:
            self._kept[number], self._kept_bytes = scene, self._kept_bytes + scene.nbytes
        return scene


@lru_cache(maxsize=8)
def _episode(path: Path | DataSet, index: int) -> Episode:
    return open_data_set(path).episode(index)


def read_scene(episode: Episode, frame: int, data: ReconstructionData, patch: int) -> Scene:
    """One scene of an episode.

    Raises:
        UserError: The episode has no wrist camera or too few anchors, or the wrist's intrinsics are neither recorded nor given.
    """
    names, wrists = episode.anchors(data.anchors), episode.names('wrist')
    if not wrists:
        raise UserError(f'Episode {episode.path} has no wrist camera', 'train on episodes that have one')
    entry, wrist = episode.camera(names[0]), episode.camera(wrists[0])
    size = input_size((entry.height, entry.width), data.width, patch)

    def image(name: str) -> np.ndarray:
        return resize_images(episode.read(name, [frame]), size)[0]

    known = [(episode.K(name), episode.T_camera_world(name)) for name in (*names, wrist.name)]
    cameras = torch.full((len(names), 9), float('nan'))
    wrist_pose = torch.full((9,), float('nan'))
    K = _wrist_intrinsics(episode, wrist.name, frame, data, size)
    if all(k is not None and T is not None for k, T in known[:-1]):
        T = torch.from_numpy(np.stack([T[frame] for _, T in known[:-1]])).double()
        Ks = resize_intrinsics(
            torch.from_numpy(np.stack([k[frame] for k, _ in known[:-1]])).double(), (entry.height, entry.width), size
        )
        T_world_first = invert_rigid(T[0])
        cameras = encode_pose((T @ T_world_first)[:, :3], Ks, size).float()
        if known[-1][1] is not None:
            T_wrist = torch.from_numpy(known[-1][1][frame]).double() @ T_world_first
            wrist_pose = encode_pose(T_wrist[:3], K.double(), size).float()
    has_depth = wrist.has_depth and all(episode.camera(name).has_depth for name in names)

    def depth(name: str) -> Tensor:
        return torch.from_numpy(resize_images(episode.read_depth(name, [frame]), size, nearest=True)[0]).float()

    return Scene(
        torch.from_numpy(np.stack([image(name) for name in names])).permute(0, 3, 1, 2).float() / 255,
        torch.from_numpy(image(wrist.name)).permute(2, 0, 1).float() / 255,
        K.float(), cameras, wrist_pose,
        torch.stack([depth(name) for name in names]) if has_depth else None,
        depth(wrist.name) if has_depth else None,
    )  # fmt: skip


def _wrist_intrinsics(
    episode: Episode, name: str, frame: int, data: ReconstructionData, size: tuple[int, int]
) -> Tensor:
    """[3, 3] at the network's size."""
    entry, K = episode.camera(name), episode.K(name)
    hw = (entry.height, entry.width)
    if data.wrist_fov is not None:
        angle = np.radians(data.wrist_fov)
        focal = entry.width / 2 / np.tan(angle / 2)
        fov = torch.tensor([2 * np.arctan(entry.height / 2 / focal), angle], dtype=torch.float64)
        return resize_intrinsics(shift_principal_point(fov_to_intrinsics(fov, hw), -0.5), hw, size)
    if K is None:
        raise UserError(
            f'Episode {episode.path} does not record the intrinsics of its wrist camera {name!r}',
            'give data.wrist_fov, its field of view',
        )
    return resize_intrinsics(torch.from_numpy(K[frame]).double(), hw, size)


class SceneBatches(Dataset):
    """Batches by number, without end: every scene once before any comes again, in another order each time.

    Sample i of a step is the same in however many processes it is taken.

    Args:
        scenes: All of them.
        matches: Folder of `prepare_matches`; None where none are needed.
        key: Of the matcher that made them.
        batch: Scenes of one process.
        seed: Of the order.
        process: Rank of the training process.
        processes: How many there are.
    """

    def __init__(
        self, scenes: Scenes, matches: Path | None, key: str, batch: int, seed: int, process: int, processes: int
    ):
        self.scenes, self.matches, self.key, self.batch, self.seed = scenes, matches, key, batch, seed
        self.process, self.processes = process, processes

    def __getitem__(self, number: int) -> dict[str, object]:
        first = (number * self.processes + self.process) * self.batch
        chosen = [self.scenes[self._at(first + i)] for i in range(self.batch)]
        return collate_scenes(chosen, [self._matches(scene) for scene in chosen])

    def _at(self, position: int) -> int:
        epoch, index = divmod(position, len(self.scenes))
        return int(_order(self.seed, epoch, len(self.scenes))[index])

    def _matches(self, scene: Scene) -> Matches | None:
        return None if self.matches is None else read_matches(matches_path(self.matches, scene, self.key))


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def collate_scenes(scenes: list[Scene], matches: list[Matches | None]) -> dict[str, object]:
    """images [B, V, 3, H, W], wrist [B, 3, H, W], wrist_K [B, 3, 3], cameras [B, V, 9], wrist_pose [B, 9], and the scenes' matches."""
    names = ('images', 'wrist', 'wrist_K', 'cameras', 'wrist_pose')
    return {name: torch.stack([getattr(scene, name) for scene in scenes]) for name in names} | {'matches': matches}


def matches_path(folder: Path, scene: Scene, key: str) -> Path:
    """Where the matches of a scene lie: named by its content and by what made them."""
    return folder / f'{scene.content}-{key}.safetensors'


def read_matches(path: Path) -> Matches:
    """Matches of `prepare_matches`."""
    if not path.exists():
        raise UserError(f'The matches {path} are missing', 'start the training again; it makes them first')
    return Matches(**load_file(path))
