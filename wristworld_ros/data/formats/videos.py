"""Folders of videos with a JSON file per episode, or none: a mapping says which is what.

The mapping is a YAML file, in the folder (`wristworld_videos.yaml`) or anywhere with the folder as `root`. The layout of
Ctrl-World's released examples of DROID is known without one. See docs/datasets.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from wristworld_ros.data.episode import DataSet, Episode, EpisodeCamera, check_indices, role_of
from wristworld_ros.data.formats.videos_mapping import VideoCamera, VideoMapping, read_mapping
from wristworld_ros.data.lossless_video import DEPTH_UNIT
from wristworld_ros.data.matching import nearest
from wristworld_ros.data.poses import pose_from_xyz_quaternion, pose_from_xyz_rpy
from wristworld_ros.data.video_access import MissingFrameError, VideoFrames
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import read_json

_FIX = 'restore it from where it came'
_MAX_JSON = 256 << 20  # bytes: some hundred a frame
_FIELD = re.compile(r'\{(stem|folder)\}')


class CameraData(msgspec.Struct):
    """What a camera's JSON file may say, other keys aside. times_ns: of its images, on the clock of the episode. K: [9] or
    [T, 9], pixels. T_camera_base: [16] or [T, 16], camera from robot base; null where unknown."""

    times_ns: list[int] | None = None
    K: list | None = None
    T_camera_base: list | None = None


class VideoSet(DataSet):
    """A folder of videos.

    Args:
        path: The folder, with a mapping in it or in the layout of Ctrl-World; or the mapping.

    Raises:
        UserError: The mapping is missing or says something that is not there.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.mapping, self._root = read_mapping(self.path)
        self.format = 'videos with annotations' if self.mapping.annotations else 'videos'
        pattern = self.mapping.annotations or self.mapping.episodes or ''
        if not pattern or pattern.startswith('/') or '..' in Path(pattern).parts:
            raise UserError(
                f'{self.path} has no pattern of its episodes below the root', 'give annotations or episodes'
            )
        self.places = sorted(self.root.glob(pattern), key=_by_number)
        if not self.places:
            raise UserError(f'Nothing in {self.root} fits {pattern}', "correct the mapping's pattern")
        if not self.mapping.cameras:
            raise UserError(f'{self.path} names no camera', 'give at least one')

    @property
    def root(self) -> Path:
        """See `DataSet.root`: what the mapping says."""
        return self._root

    def __len__(self) -> int:
        return len(self.places)

    def episode(self, index: int) -> VideoEpisode:
        """See `DataSet.episode`."""
        place, mapping = self.places[index], self.mapping
        files = {name: self._files(place, camera) for name, camera in mapping.cameras.items()}
        videos = {name: _video(self.root / camera.video) for name, camera in files.items()}
        first = next(iter(videos.values()))
        said = read_json(place, dict[str, Any], _FIX, _MAX_JSON) if mapping.annotations else {}
        numbers = {name: _numbers(said, key, place) for name, key in _keys(mapping).items()}
        rows = min((len(values) for values in numbers.values()), default=None)
        count = len(first) if rows is None else min(len(first), -(-rows // mapping.stride))
        if not count:
            raise UserError(f'{place} has no row of numbers, or {first.path} no frame', _FIX)
        at = np.arange(count) * mapping.stride
        chosen = {name: values[at] for name, values in numbers.items()}
        stamps = np.round(first.times[:count] * 1e9).astype(np.int64)
        if mapping.stamps:
            stamps = _stamps(said, mapping.stamps, place)[at]
        tracks = {name: self._track(camera, videos[name], stamps) for name, camera in files.items()}
        return VideoEpisode(
            path=place,
            name=f'episode {place.parent.name}/{place.stem}' if mapping.annotations else f'episode {place.name}',
            cameras=tuple(
                EpisodeCamera(
                    name,
                    camera.role or role_of(name),
                    videos[name].width,
                    videos[name].height,
                    camera.depth is not None,
                )
                for name, camera in files.items()
            ),
            fps=first.rate or 10.0,
            stamps_ns=stamps,
            language=_texts(said, mapping.language),
            success=bool(said[mapping.success]) if said.get(mapping.success or '') is not None else None,
            joints=chosen.get('joints'),
            gripper=chosen['gripper'][:, 0] if 'gripper' in chosen else None,
            gripper_unit=mapping.gripper_unit,
            T_base_hand=_poses(chosen.get('hand_pose'), place),
            hand_link=mapping.hand_link if 'hand_pose' in chosen else '',
            gripper_link=mapping.gripper_link,
            actions=_actions(chosen),
            meta=_meta(said, mapping.meta, place),
            tracks=tracks,
            rows=rows,
            stride=mapping.stride,
        )

    def _files(self, place: Path, camera: VideoCamera) -> VideoCamera:
        """A camera with the files of one episode in place of their patterns."""
        names = {
            key: getattr(camera, key) and self.file(place, getattr(camera, key)) for key in ('video', 'depth', 'data')
        }
        return replace(camera, **names)

    def file(self, place: Path, pattern: str) -> str:
        """A file's path below the root, of one episode.

        Args:
            place: Of `places`.
            pattern: As in the mapping.

        Raises:
            UserError: It leads out of the root.
        """
        file = _FIELD.sub(lambda m: place.stem if m[1] == 'stem' else place.parent.name, pattern)
        if file.startswith('/') or '..' in Path(file).parts:
            raise UserError(f'{self.path} has the video {file!r}', 'keep the videos below the root')
        return file

    def _track(self, camera: VideoCamera, video: VideoFrames, stamps: np.ndarray) -> _Track:
        """Which image of a camera belongs to each frame, and what its JSON file says."""
        path = self.root / camera.data if camera.data else None
        said = read_json(path, CameraData, _FIX, _MAX_JSON) if path else CameraData()
        if said.times_ns is not None:
            times = np.asarray(said.times_ns, np.int64)
        else:
            times = stamps if self.mapping.stamps else np.round(video.times * 1e9).astype(np.int64)
        if not len(times) or (np.diff(times) < 0).any():
            raise UserError(f'{path or video.path} has no times, or they fall', _FIX)
        images = nearest(times, stamps)
        return _Track(
            video, _video(self.root / camera.depth) if camera.depth else None, images, times[images],
            _calibration(said.K, (3, 3), images, len(times), path), _calibration(said.T_camera_base, (4, 4), images, len(times), path),
        )  # fmt: skip


@dataclass(frozen=True)
class _Track:
    """One camera of an episode: its videos; by frame [T] the number of its image, when that was taken, K and T_camera_world."""

    video: VideoFrames
    depth: VideoFrames | None
    images: np.ndarray
    times_ns: np.ndarray
    K: np.ndarray | None
    T_camera_world: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class VideoEpisode(Episode):
    """An episode in a folder of videos.

    tracks: by camera. rows: of numbers that there are, None without; stride: of them, per frame.
    """

    tracks: dict[str, _Track]
    rows: int | None
    stride: int

    def read(self, camera: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `Episode.read`."""
        return self._frames(self.tracks[self.camera(camera).name].video, camera, indices, 'rgb24')

    def read_depth(self, camera: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `Episode.read_depth`."""
        depth = self.tracks[self.camera(camera).name].depth
        if depth is None:
            return super().read_depth(camera, indices)
        return self._frames(depth, camera, indices, 'gray16le').astype(np.float32) * DEPTH_UNIT

    def times_ns(self, camera: str) -> np.ndarray:
        """See `Episode.times_ns`."""
        return self.tracks[self.camera(camera).name].times_ns

    def K(self, camera: str) -> np.ndarray | None:
        """See `Episode.K`."""
        return self.tracks[self.camera(camera).name].K

    def T_camera_world(self, camera: str) -> np.ndarray | None:
        """See `Episode.T_camera_world`."""
        return self.tracks[self.camera(camera).name].T_camera_world

    def broken_frames(self, camera: str) -> list[tuple[int, str]]:
        """See `Episode.broken_frames`."""
        track, found = self.tracks[self.camera(camera).name], []
        for video in filter(None, (track.video, track.depth)):
            there = np.flatnonzero(track.images < len(video))
            found += [(int(there[i]), why) for i, why in video.broken_times(video.times[track.images[there]])]
            found += [
                (int(i), f'{video.path} has {len(video)} images') for i in np.flatnonzero(track.images >= len(video))
            ]
        return sorted(found)

    def _frames(self, video: VideoFrames, camera: str, indices: Sequence[int] | np.ndarray, pixels: str) -> np.ndarray:
        numbers = check_indices(indices, len(self))
        try:
            return video.read(self.tracks[camera].images[numbers], pixels)
        except MissingFrameError as error:
            what = f"Frame {numbers[error.place]} of {self.name}, camera '{camera}', is missing: {error.what}"
            raise MissingFrameError(what, error.fix, error.place) from None

    def counts(self) -> Iterator[str]:
        """Sentences about videos and numbers that are not equally long."""
        first = next(iter(self.tracks))
        frames = len(self.tracks[first].video)
        for name, track in self.tracks.items():
            if len(track.video) != frames:
                yield f"camera '{name}' has {len(track.video)} images, and '{first}' has {frames}."
        if self.rows is not None and -(-self.rows // self.stride) != frames:
            yield f"there are {self.rows} rows of numbers, {self.stride} per image, and '{first}' has {frames} images."


@lru_cache(maxsize=64)
def _video(path: Path) -> VideoFrames:
    return VideoFrames(path)


def _keys(mapping: VideoMapping) -> dict[str, str]:
    """Names of numbers -> their keys in the JSON files."""
    named = {'joints': mapping.joints, 'gripper': mapping.gripper, 'hand_pose': mapping.hand_pose}
    if mapping.stamps:
        named['stamps'] = mapping.stamps  # so that their number counts
    found = {name: key for name, key in named.items() if key}
    return found | {f'action {i}': key for i, key in enumerate(mapping.actions)}


def _numbers(said: dict[str, Any], key: str, path: Path) -> np.ndarray:
    """Rows of numbers, float64 [rows, N]."""
    if key not in said:
        raise UserError(f'{path} lacks {key}', 'correct the mapping, or restore the file from where it came')
    try:
        values = np.asarray(
            [[np.nan if x is None else x for x in np.atleast_1d(np.asarray(row, object))] for row in said[key]],
            np.float64,
        )
    except (TypeError, ValueError):
        raise UserError(f'{path}: {key} holds no rows of equally many numbers', _FIX) from None
    return values.reshape(len(values), -1)


def _stamps(said: dict[str, Any], key: str, path: Path) -> np.ndarray:
    """Times of the rows, int64 [rows] nanoseconds; floats would not hold them."""
    values = said.get(key)
    if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
        raise UserError(f'{path}: {key} is no list of whole nanoseconds', 'correct the mapping, or restore the file')
    stamps = np.asarray(values, np.int64)
    if (np.diff(stamps) <= 0).any():
        raise UserError(f'{path}: the times of {key} do not rise', _FIX)
    return stamps


def _calibration(
    values: list | None, shape: tuple[int, int], images: np.ndarray, count: int, path: Path | None
) -> np.ndarray | None:
    """Matrices by frame, float64 [T, *shape], of one matrix or one per image."""
    if values is None:
        return None
    try:
        numbers = np.asarray(
            [
                [np.nan if x is None else x for x in row]
                for row in (values if values and isinstance(values[0], list) else [values])
            ],
            np.float64,
        )
    except (TypeError, ValueError):
        numbers = np.empty(0)
    size = shape[0] * shape[1]
    if numbers.shape == (1, size):
        return np.tile(numbers.reshape(shape), (len(images), 1, 1))
    if numbers.shape != (count, size):
        raise UserError(
            f'{path} has matrices {list(numbers.shape)}', f'give [{size}], or [{count}, {size}], one for each image'
        )
    return numbers.reshape(-1, *shape)[images]


def _meta(said: dict[str, Any], key: str | None, path: Path) -> dict[str, Any]:
    value = said.get(key, {}) if key else {}
    if not isinstance(value, dict):
        raise UserError(f'{path}: {key} is no map', _FIX)
    return value


def _poses(values: np.ndarray | None, path: Path) -> np.ndarray | None:
    if values is None:
        return None
    if values.shape[1] not in (6, 7):
        raise UserError(
            f'{path}: a pose has {values.shape[1]} numbers', 'give 6 (x y z roll pitch yaw) or 7 (x y z qx qy qz qw)'
        )
    return pose_from_xyz_rpy(values) if values.shape[1] == 6 else pose_from_xyz_quaternion(values)


def _actions(chosen: dict[str, np.ndarray]) -> np.ndarray | None:
    parts = [values for name, values in chosen.items() if name.startswith('action ')]
    return np.concatenate(parts, axis=1) if parts else None


def _texts(said: dict[str, Any], key: str | None) -> tuple[str, ...]:
    value = said.get(key, ()) if key else ()
    texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(str(text) for text in texts if text)


def _by_number(path: Path) -> tuple[str, tuple[int, int | str]]:
    """Order of names: numbers by their value."""
    return path.parent.as_posix(), (0, int(path.stem)) if path.stem.isdigit() else (1, path.stem)
