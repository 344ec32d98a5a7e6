"""An episode as the stream takes it: anchor sets with whatever the recording knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.apps.augment.wrist import EpisodeWrist, episode_wrist
from wristworld_ros.data.episode import Episode
from wristworld_ros.data.poses import inverse
from wristworld_ros.errors import UserError
from wristworld_ros.geometry import resize_intrinsics
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.robot.claims import check_claims, claimed_cameras
from wristworld_ros.robot.episode_kinematics import EpisodeKinematics, read_kinematics
from wristworld_ros.types import AnchorSet, Camera

_BLOCK = 16  # frames that are decoded at once


@dataclass(frozen=True)
class AnchorEpisode:
    """One episode and the cameras of it that the model sees.

    keys: of the anchors; all images are brought to the size of the first one's. wrist: the wrist camera, where it is known how it is
    mounted. kinematics: of the robot, where its description is given. places: T_base_camera, float64 [4, 4], of the anchors whose place
    is believed, where it was checked; None takes what the set has.
    """

    episode: Episode
    keys: tuple[str, ...]
    knowledge: str
    wrist: EpisodeWrist | None = None
    kinematics: EpisodeKinematics | None = None
    places: dict[str, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.episode)

    def check(self) -> None:
        """Raise UserError where the episode lacks what settings ask for, before anything is decoded."""
        self._wrists()
        if self.wrist is not None:
            self.wrist.mounted()

    def sets(self) -> Iterator[AnchorSet]:
        """One anchor set per frame, in order, decoded while they are asked for.

        Raises:
            UserError: A frame of a camera is missing or cannot be decoded.
        """
        K, T_base_anchor = self._calibration()
        mounted = self.wrist and self.wrist.mounted()
        wrists = self._wrists()
        kinematics = None if self.knowledge == 'images' else self.kinematics
        positions = kinematics.positions(self.episode) if kinematics else []
        for start in range(0, len(self), _BLOCK):
            frames = np.arange(start, min(start + _BLOCK, len(self)))
            images = np.stack([self._resized(self.episode.read(key, frames)) for key in self.keys], axis=1)
            depth = self._depth(frames)
            for place, frame in enumerate(frames):
                yield AnchorSet(
                    int(self.episode.stamps_ns[frame]), self.keys, images[place],
                    intrinsics=None if K is None else K[frame],
                    depth=None if depth is None else depth[place],
                    T_base_anchor=None if T_base_anchor is None else T_base_anchor[frame],
                    wrist=None if wrists is None else wrists[frame],
                    robot_points=kinematics.surface(positions[frame]) if kinematics else None,
                    mounted=mounted,
                )  # fmt: skip

    @property
    def _hw(self) -> tuple[int, int]:
        first = self.episode.camera(self.keys[0])
        return first.height, first.width

    def _resized(self, images: np.ndarray, nearest: bool = False) -> np.ndarray:
        return resize_images(images, self._hw, nearest)

    def _calibration(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """K [T, V, 3, 3] and T_base_anchor [T, V, 4, 4], NaN where unknown; None where all of it is."""
        if self.knowledge == 'images':
            return None, None
        K, T = np.full((len(self), len(self.keys), 3, 3), np.nan), np.full((len(self), len(self.keys), 4, 4), np.nan)
        for view, key in enumerate(self.keys):
            camera, known, pose = self.episode.camera(key), self.episode.K(key), self._T_camera_base(key)
            if known is not None:
                K[:, view] = resize_intrinsics(torch.from_numpy(known), (camera.height, camera.width), self._hw).numpy()
            if pose is not None:
                T[:, view] = inverse(pose)
        return (K if np.isfinite(K).any() else None), (T if np.isfinite(T).any() else None)

    def _T_camera_base(self, key: str) -> np.ndarray | None:
        if self.places is None:
            return self.episode.T_camera_world(key)
        return np.tile(inverse(self.places[key]), (len(self), 1, 1)) if key in self.places else None

    def _wrists(self) -> list[Camera | None] | None:
        """The wrist camera of every frame, where the model may be told."""
        return None if self.wrist is None or self.knowledge == 'images' else self.wrist.cameras()

    def _depth(self, frames: np.ndarray) -> np.ndarray | None:
        """Depth float32 [N, V, H, W] of some frames, 0 where unknown; None where no anchor has any."""
        has = [self.episode.camera(key).has_depth for key in self.keys]
        if self.knowledge == 'images' or not any(has):
            return None
        out = np.zeros((len(frames), len(self.keys), *self._hw), np.float32)
        for view, key in enumerate(self.keys):
            if has[view]:
                out[:, view] = self._resized(self.episode.read_depth(key, frames), nearest=True)
        return out


def anchor_episode(
    episode: Episode,
    settings: AugmentSettings,
    wrist_hw: tuple[int, int],
    wrist_fov: float | None,
    kinematics: EpisodeKinematics | None = None,
    places: dict[str, np.ndarray] | None = None,
) -> AnchorEpisode:
    """An episode as settings want it.

    Args:
        episode: The episode.
        settings: Of the command.
        wrist_hw: Size of the model's wrist images.
        wrist_fov: Vertical field of view of a mounted wrist camera, degrees; None for 75.
        kinematics: Of `read_kinematics`, where settings name a description.
        places: Of `believed_places`.

    Raises:
        UserError: It has no such camera, or the wrist camera's mount is no pose.
    """
    wrist = episode_wrist(episode, settings, wrist_hw, wrist_fov, kinematics)
    return AnchorEpisode(episode, chosen_anchors(episode, settings), settings.knowledge, wrist, kinematics, places)


def believed_places(
    episode: Episode, settings: AugmentSettings, kinematics: EpisodeKinematics | None
) -> tuple[dict[str, np.ndarray] | None, tuple[str, ...]]:
    """Places of anchors that the arm in their images confirms; None where settings do not ask for that. Also a sentence about each that it
    does not.

    Raises:
        UserError: The joints are not the robot's, or images cannot be read.
    """
    if settings.places == 'given' or settings.knowledge == 'images' or kinematics is None:
        return None, ()
    claims, checks = claimed_cameras(episode), check_claims(episode, kinematics)
    doubted = {check.what: check.sentence for check in checks if check.doubt}
    return {name: T for name, T in claims.items() if name not in doubted}, tuple(doubted.values())


def settings_kinematics(settings: AugmentSettings) -> EpisodeKinematics | None:
    """Kinematics of the robot that settings name; None where they name none.

    Raises:
        UserError: Its description cannot be read.
    """
    return None if settings.urdf is None else read_kinematics(settings.urdf, settings.base_link)


def chosen_anchors(episode: Episode, settings: AugmentSettings) -> tuple[str, ...]:
    """Keys of the anchors that settings name, else of all anchor cameras.

    Raises:
        UserError: There is none, or one that is named does not exist, has no images, or is named twice.
    """
    if settings.anchors is None:
        keys = episode.names('anchor')
        if not keys:
            raise UserError(f'{episode.path} has no anchor camera', 'name cameras with --anchors')
        return keys
    keys = tuple(settings.anchors.split(','))
    for key in keys:
        episode.camera(key)
    if len(set(keys)) < len(keys):
        raise UserError(f'--anchors is {settings.anchors}, which names one camera twice', 'name each once')
    return keys
