"""What an episode truly shows, at the model's wrist size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from wristworld_ros.data.formats.native import Episode
from wristworld_ros.geometry import resize_intrinsics
from wristworld_ros.types import AnchorSet, Camera


@dataclass(frozen=True)
class GroundTruth:
    """One episode, decoded.

    stamps_ns: int64 [T]. names: V anchors. images: uint8 [V, T, H, W, 3]; depth: float32 [V, T, H, W], metres, or None.
    K: [V, T, 3, 3], T_anchor_world: [V, T, 4, 4]. wrist: uint8 [T, h, w, 3]; wrist_depth: [T, h, w] or None;
    wrist_K: [T, 3, 3], of that size; T_wrist_world: [T, 4, 4].
    """

    stamps_ns: np.ndarray
    names: tuple[str, ...]
    images: np.ndarray
    depth: np.ndarray | None
    K: np.ndarray
    T_anchor_world: np.ndarray
    wrist: np.ndarray
    wrist_depth: np.ndarray | None
    wrist_K: np.ndarray
    T_wrist_world: np.ndarray

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def anchor_set(self, frame: int) -> AnchorSet:
        """What a model may see of one frame: the images alone."""
        return AnchorSet(int(self.stamps_ns[frame]), self.names, np.ascontiguousarray(self.images[:, frame]))

    def wrist_camera(self, frame: int) -> Camera:
        """The true wrist camera at one frame."""
        height, width = self.wrist.shape[1:3]
        return Camera(self.wrist_K[frame], self.T_wrist_world[frame], width, height)


def read_ground_truth(episode: Episode, wrist_hw: tuple[int, int], anchors: int = 0, frames: int = 0) -> GroundTruth:
    """Decode an episode. wrist_hw: the model's wrist size. anchors, frames: only the first so many; 0 takes all.

    Raises ValueError, one sentence, when the episode has no wrist camera, fewer anchors, or anchors of several sizes.
    """
    names, wrists = episode.names('anchor'), episode.names('wrist')
    if not wrists:
        raise ValueError(f'Episode {episode.path} has no wrist camera, so there is nothing to compare with.')
    if len(names) < max(anchors, 1):
        raise ValueError(f'Episode {episode.path} has {len(names)} anchor cameras; {max(anchors, 1)} are asked for.')
    names = names[:anchors] if anchors else names
    infos = [episode.camera(name) for name in (*names, wrists[0])]
    if len({(i.width, i.height) for i in infos[:-1]}) > 1:
        raise ValueError(f'The anchors of {episode.path} differ in size; record them at one size.')
    count = min(frames, len(episode)) if frames else len(episode)
    wrist = wrists[0]
    K = resize_intrinsics(torch.from_numpy(episode.K(wrist)), (infos[-1].height, infos[-1].width), wrist_hw).numpy()
    return GroundTruth(
        stamps_ns=episode.stamps_ns[:count],
        names=names,
        images=np.stack([episode.rgb(name)[:count] for name in names]),
        depth=_depth(episode, names, count),
        K=np.stack([episode.K(name)[:count] for name in names]),
        T_anchor_world=np.stack([episode.T_camera_world(name)[:count] for name in names]),
        wrist=_resized(episode.rgb(wrist)[:count], wrist_hw, cv2.INTER_AREA),
        wrist_depth=_resized(episode.depth(wrist)[:count], wrist_hw, cv2.INTER_NEAREST)
        if infos[-1].has_depth
        else None,
        wrist_K=K[:count],
        T_wrist_world=episode.T_camera_world(wrist)[:count],
    )


def _depth(episode: Episode, names: tuple[str, ...], count: int) -> np.ndarray | None:
    if not all(episode.camera(name).has_depth for name in names):
        return None
    return np.stack([episode.depth(name)[:count] for name in names])


def _resized(images: np.ndarray, hw: tuple[int, int], how: int) -> np.ndarray:
    if images.shape[1:3] == tuple(hw):
        return images
    return np.stack([cv2.resize(image, hw[::-1], interpolation=how) for image in images])
