"""What an episode truly shows, at the model's wrist size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from wristworld_ros.data.episode import Episode
from wristworld_ros.errors import UserError
from wristworld_ros.geometry import resize_intrinsics
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.types import AnchorSet, Camera


@dataclass(frozen=True)
class GroundTruth:
    """One episode, decoded.

    stamps_ns: int64 [T]. names: V anchors. images: uint8 [V, T, H, W, 3]; depth: float32 [V, T, H, W], metres, or None.
    K: [V, T, 3, 3], T_anchor_world: [V, T, 4, 4]. wrist: uint8 [T, h, w, 3]; wrist_depth: [T, h, w] or None;
    wrist_K: [T, 3, 3], of that size; T_wrist_world: [T, 4, 4]. objects: uint8 [T, h, w], what each pixel of the wrist camera
    shows, or None; see `CameraTrack`. joints: float64 [T, 7], radians, and gripper: [T], metres between the fingers; or None. hand: the
    simulator's name of the gripper. T_hand_wrist: float64 [4, 4], where the wrist camera is mounted, or None.
    calibrated: whether K and poses are known; they are NaN otherwise.
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
    objects: np.ndarray | None = None
    joints: np.ndarray | None = None
    gripper: np.ndarray | None = None
    hand: str = 'franka'
    T_hand_wrist: np.ndarray | None = None
    calibrated: bool = True

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def anchor_set(self, frame: int) -> AnchorSet:
        """What a model may see of one frame: only the images."""
        return AnchorSet(int(self.stamps_ns[frame]), self.names, np.ascontiguousarray(self.images[:, frame]))

    def mounted_camera(self, frame: int) -> Camera | None:
        """The wrist camera on the hand, at one frame."""
        if self.T_hand_wrist is None:
            return None
        return replace(self.wrist_camera(frame), T_camera_world=np.linalg.inv(self.T_hand_wrist))

    def wrist_camera(self, frame: int) -> Camera:
        """The true wrist camera at one frame."""
        height, width = self.wrist.shape[1:3]
        return Camera(self.wrist_K[frame], self.T_wrist_world[frame], width, height)


def read_ground_truth(
    episode: Episode,
    wrist_hw: tuple[int, int],
    anchors: int | None = None,
    frames: int | None = None,
    need_calibration: bool = True,
    indices: np.ndarray | None = None,
) -> GroundTruth:
    """Decode an episode.

    Args:
        episode: With a wrist camera, and all cameras calibrated.
        wrist_hw: The model's wrist size, height and width, to which the wrist images are brought.
        anchors: Only the first so many anchor cameras; None takes all.
        frames: Only the first so many frames; None takes all.
        need_calibration: False also takes an episode of whose cameras one has no calibration, as images alone.
        indices: Numbers of the frames to take, rising, in place of the first so many; None takes those.

    Raises:
        UserError: The episode has no wrist camera, fewer anchors, anchors of several sizes, or a camera without calibration.
    """
    names, wrists = episode.anchors(anchors), episode.names('wrist')
    if not wrists:
        raise UserError(
            f'Episode {episode.path} has no wrist camera, so there is nothing to compare with',
            'give episodes with a wrist camera',
        )
    wrist = episode.camera(wrists[0])
    taken = np.arange(min(frames or len(episode), len(episode))) if indices is None else np.asarray(indices)
    known = need_calibration or all(_is_calibrated(episode, name) for name in (*names, wrist.name))
    unknown = np.full((len(episode), 3, 3), np.nan), np.full((len(episode), 4, 4), np.nan)
    *calibrations, (wrist_K, T_wrist_world) = [
        episode.calibration(name) if known else unknown for name in (*names, wrist.name)
    ]
    wrist_K = resize_intrinsics(torch.from_numpy(wrist_K), (wrist.height, wrist.width), wrist_hw).numpy()
    has_depth = all(episode.camera(name).has_depth for name in names)

    def rgb(name: str) -> np.ndarray:
        return episode.rgb(name, len(taken)) if indices is None else episode.read(name, taken)

    def depth(name: str) -> np.ndarray:
        return episode.depth(name, len(taken)) if indices is None else episode.read_depth(name, taken)

    def objects(name: str) -> np.ndarray:
        return episode.objects(name, int(taken[-1]) + 1)[taken]

    return GroundTruth(
        stamps_ns=episode.stamps_ns[taken],
        names=names,
        images=np.stack([rgb(name) for name in names]),
        depth=np.stack([depth(name) for name in names]) if has_depth else None,
        K=np.stack([K[taken] for K, _ in calibrations]),
        T_anchor_world=np.stack([T[taken] for _, T in calibrations]),
        wrist=resize_images(rgb(wrist.name), wrist_hw),
        wrist_depth=resize_images(depth(wrist.name), wrist_hw, nearest=True) if wrist.has_depth else None,
        wrist_K=wrist_K[taken],
        T_wrist_world=T_wrist_world[taken],
        objects=resize_images(objects(wrist.name), wrist_hw, nearest=True) if wrist.has_objects else None,
        joints=None if episode.joints is None else episode.joints[taken],
        gripper=episode.gripper[taken] if episode.gripper is not None and episode.gripper_unit == 'metres' else None,
        hand=_simulated_hand(episode),
        T_hand_wrist=None if (mount := episode.meta.get('T_hand_wrist')) is None else np.array(mount),
        calibrated=known,
    )


def _simulated_hand(episode: Episode) -> str:
    """The simulator's name of the gripper that an episode was recorded with."""
    settings = episode.meta.get('settings', {})
    return settings.get('gripper', 'franka') if settings.get('rig', 'free') == 'free' else settings['rig']


def _is_calibrated(episode: Episode, camera: str) -> bool:
    return episode.K(camera) is not None and episode.T_camera_world(camera) is not None
