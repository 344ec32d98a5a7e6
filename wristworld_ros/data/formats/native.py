"""The project's episode: one directory of calibrated multi-camera video.

`episode.json` says what it is, `tracks.npz` holds the numbers, `<camera>.mp4` the images (H.264) and
`<camera>.depth.mkv` depth (lossless FFV1, 16-bit millimetres, 0 where unknown), `<camera>.objects.mkv` which object each
pixel shows (lossless FFV1, 8 bit). World is the robot's base frame. Version 2 need not know the cameras, and says what else an
`Episode` can say; `native_writer` writes it of episodes of any format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
import numpy as np

from wristworld_ros.data.arrays import read_arrays
from wristworld_ros.data.episode import DataSet, Episode, EpisodeCamera, GripperUnit, check_indices
from wristworld_ros.data.lossless_video import (
    DEPTH_UNIT,
    read_depth_video,
    read_label_video,
    write_depth_video,
    write_label_video,
)
from wristworld_ros.data.video import VideoReader, write_video
from wristworld_ros.data.video_access import VideoFrames
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import Size, check_file, check_name, convert, json_text, read_json
from wristworld_ros.runtime.files import new_directory

VERSION, OPEN_VERSION = 1, 2  # of calibrated episodes, and of those that need not be
ROLES = ('anchor', 'wrist', 'random')
ROBOT = 255  # label of the robot in maps of objects
JSON, TRACKS = 'episode.json', 'tracks.npz'
HAND_LINK = 'panda_hand'  # whose pose an episode has unless it says otherwise
_AGAIN = 'record or copy the episode again'


@dataclass(frozen=True)
class CameraTrack:
    """What one camera recorded; what `write_episode` takes.

    name: letters, digits and underscores. role: anchor (fixed), wrist, or random (placed elsewhere at every frame).
    rgb: uint8 [T, H, W, 3]. K: float64 [T, 3, 3] pixels. T_camera_world: float64 [T, 4, 4].
    depth: float32 [T, H, W] metres along the optical axis, 0 where unknown; or None.
    objects: uint8 [T, H, W], 0 for the surroundings, `ROBOT`, else one more than the place in the episode's list of
    objects (`meta['objects']`); or None.
    """

    name: str
    role: str
    rgb: np.ndarray
    K: np.ndarray
    T_camera_world: np.ndarray
    depth: np.ndarray | None = None
    objects: np.ndarray | None = None

    def __post_init__(self):
        if self.role not in ROLES:
            raise UserError(f"Camera '{self.name}' has role '{self.role}'", f'give one of {", ".join(ROLES)}')
        if not self.name.replace('_', 'a').isalnum():
            raise UserError(f"A camera is named '{self.name}'", 'use letters, digits and underscores only')
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 4 or self.rgb.shape[-1] != 3:
            raise UserError(
                f"Camera '{self.name}' has images {self.rgb.dtype} {list(self.rgb.shape)}", 'give uint8 [T, H, W, 3]'
            )
        frames = len(self.rgb)
        expected = {'K': (frames, 3, 3), 'T_camera_world': (frames, 4, 4)}
        for key in ('depth', 'objects'):
            if getattr(self, key) is not None:
                expected[key] = self.rgb.shape[:3]
        for key, shape in expected.items():
            given = getattr(self, key).shape
            if given != shape:
                raise UserError(
                    f"Camera '{self.name}' has {key} {list(given)}", f'give {list(shape)}, which its images ask for'
                )


@dataclass(frozen=True)
class CameraEntry(EpisodeCamera):
    """One camera's entry in `episode.json`."""

    name: Annotated[str, msgspec.Meta(pattern='^[A-Za-z0-9_]+$', max_length=100)]
    role: Literal['anchor', 'wrist', 'random', 'other']
    width: Size
    height: Size
    has_depth: bool
    rgb_file: str
    depth_file: str | None
    objects_file: str | None = None

    @property
    def has_objects(self) -> bool:
        """See `EpisodeCamera`."""
        return self.objects_file is not None


@dataclass(frozen=True)
class _Head:
    """`episode.json`."""

    version: int
    task: str
    seed: int
    fps: Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)]
    success: bool | None
    frames: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
    cameras: tuple[CameraEntry, ...]
    meta: dict[str, Any]
    language: tuple[str, ...] | None = None
    gripper_unit: GripperUnit = 'metres'
    hand_link: str = HAND_LINK
    gripper_link: str = ''


@dataclass(frozen=True, kw_only=True)
class NativeEpisode(Episode):
    """A stored episode.

    seed: what it can be repeated from. tracks: every array of tracks.npz by name. meta: what the writer added.
    """

    cameras: tuple[CameraEntry, ...]
    seed: int
    tracks: dict[str, np.ndarray]

    def read(self, camera: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `Episode.read`."""
        return self._frames(self._entry(camera).rgb_file, indices, 'rgb24')

    def read_depth(self, camera: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `Episode.read_depth`."""
        entry = self._entry(camera)
        if entry.depth_file is None:
            return super().read_depth(camera, indices)
        return self._frames(entry.depth_file, indices, 'gray16le').astype(np.float32) * DEPTH_UNIT

    def rgb_frames(self, camera: str) -> Iterator[np.ndarray]:
        """Images of a camera one by one, uint8 [H, W, 3], decoded while they are asked for.

        Raises:
            UserError: The video is damaged or has another number of frames than the episode.
        """
        path = self.path / self._entry(camera).rgb_file
        reader = VideoReader(path, threads=1)
        count = 0
        for _, image in reader:
            count += 1
            yield image
        self._check_count(path, count, reader.damage)

    def rgb(self, camera: str, stop: int | None = None) -> np.ndarray:
        """The first `stop` images of a camera (None: all of them), uint8 [T, H, W, 3]; errors as in `rgb_frames`."""
        return np.stack(list(islice(self.rgb_frames(camera), stop)))

    def depth(self, camera: str, stop: int | None = None) -> np.ndarray:
        """Depth of a camera's first `stop` frames (None: all of them), as in `read_depth`."""
        entry = self._entry(camera)
        if entry.depth_file is None:
            return super().read_depth(camera, ())
        maps = read_depth_video(self.path / entry.depth_file, stop)
        self._check_count(self.path / entry.depth_file, len(maps), expected=self._count(stop))
        return maps

    def objects(self, camera: str, stop: int | None = None) -> np.ndarray:
        """What each pixel of a camera's first `stop` frames shows, uint8 [T, H, W]; see `CameraTrack`."""
        entry = self._entry(camera)
        if entry.objects_file is None:
            return super().objects(camera, stop)
        maps = read_label_video(self.path / entry.objects_file, stop)
        self._check_count(self.path / entry.objects_file, len(maps), expected=self._count(stop))
        return maps

    def broken_frames(self, camera: str) -> list[tuple[int, str]]:
        """See `Episode.broken_frames`."""
        entry, found = self._entry(camera), []
        for file in filter(None, (entry.rgb_file, entry.depth_file)):
            frames = VideoFrames(self.path / file)
            found += frames.broken_times(frames.times[: len(self)])
            found += [(i, f'{frames.path} has {len(frames)} frames') for i in range(len(frames), len(self))]
        return sorted(found)

    def times_ns(self, camera: str) -> np.ndarray:
        """See `Episode.times_ns`."""
        return self.tracks.get(f'times_ns_{self.camera(camera).name}', self.stamps_ns)

    def K(self, camera: str) -> np.ndarray | None:
        """See `Episode.K`."""
        return self.tracks.get(f'K_{self.camera(camera).name}')

    def T_camera_world(self, camera: str) -> np.ndarray | None:
        """See `Episode.T_camera_world`."""
        return self.tracks.get(f'T_camera_world_{self.camera(camera).name}')

    def _entry(self, camera: str) -> CameraEntry:
        return cast(CameraEntry, self.camera(camera))

    def _frames(self, file: str, indices: Sequence[int] | np.ndarray, pixels: str) -> np.ndarray:
        numbers = check_indices(indices, len(self))
        frames = VideoFrames(self.path / file)
        self._check_count(frames.path, len(frames))
        return frames.read(numbers, pixels)

    def _check_count(
        self, path: Path, count: int, damage: list[str] | None = None, expected: int | None = None
    ) -> None:
        expected = len(self) if expected is None else expected
        if count != expected or damage:
            told = f' ({damage[0].rstrip(".")})' if damage else ''
            raise UserError(f'{path} gives {count} of the {expected} frames of its episode{told}', _AGAIN)


def write_episode(
    path: str | Path,
    *,
    task: str,
    seed: int,
    fps: float,
    success: bool,
    stamps_ns: np.ndarray,
    cameras: list[CameraTrack],
    tracks: dict[str, np.ndarray] | None = None,
    meta: dict | None = None,
    crf: int = 12,
    hand_link: str = HAND_LINK,
    gripper_link: str = '',
) -> Path:
    """Write an episode; it appears whole under `path` or not at all.

    Args:
        path: The episode's directory, which must not exist.
        task: What the robot does.
        seed: What the recording can be repeated from.
        fps: Frames per second of the videos; the stamps are the frames' times.
        success: Whether the task was done.
        stamps_ns: int64 [T], rising.
        cameras: Of T frames each.
        tracks: More arrays by name, each [T, ...].
        meta: Anything JSON can hold.
        crf: H.264 quality, 0 (best) to 51.
        hand_link: The link that the track T_base_hand is of.
        gripper_link: The link that is the gripper's own frame, see `Episode`.

    Returns:
        path.

    Raises:
        UserError: The directory exists, lengths differ, or something cannot be written.
    """
    path, frames = Path(path), len(stamps_ns)
    if path.exists():
        raise UserError(f'Episode {path} exists already', 'remove it or choose another directory')
    if frames == 0:
        raise UserError(f'Episode {path} has no frames', 'give at least one stamp')
    arrays: dict[str, Any] = {'stamps_ns': np.asarray(stamps_ns, np.int64)}
    for name, array in (tracks or {}).items():
        if len(array) != frames:
            raise UserError(f"Track '{name}' of {path} has {len(array)} entries", f'give {frames}, one for each stamp')
        arrays[name] = np.asarray(array)
    for camera in cameras:
        if len(camera.rgb) != frames:
            raise UserError(
                f"Camera '{camera.name}' of {path} has {len(camera.rgb)} images", f'give {frames}, one for each stamp'
            )
        arrays[f'K_{camera.name}'] = np.asarray(camera.K, np.float64)
        arrays[f'T_camera_world_{camera.name}'] = np.asarray(camera.T_camera_world, np.float64)
    with new_directory(path) as work:
        entries = [asdict(_write_camera(work, camera, fps, crf)) for camera in cameras]
        np.savez(work / TRACKS, **arrays)
        head = {'version': VERSION, 'task': task, 'seed': int(seed), 'fps': float(fps), 'success': bool(success)}
        head |= {'frames': frames, 'cameras': entries, 'meta': meta or {}}
        if hand_link != HAND_LINK:
            head['hand_link'] = hand_link
        if gripper_link:
            head['gripper_link'] = gripper_link
        (work / JSON).write_text(json_text(head))
    return path


def _write_camera(folder: Path, camera: CameraTrack, fps: float, crf: int) -> CameraEntry:
    rgb_file, depth_file, objects_file = f'{camera.name}.mp4', None, None
    write_video(folder / rgb_file, camera.rgb, fps, crf, faststart=False)
    if camera.depth is not None:
        depth_file = f'{camera.name}.depth.mkv'
        write_depth_video(folder / depth_file, camera.depth, fps)
    if camera.objects is not None:
        objects_file = f'{camera.name}.objects.mkv'
        write_label_video(folder / objects_file, camera.objects, fps)
    height, width = camera.rgb.shape[1:3]
    has_depth = depth_file is not None
    role = cast(Any, camera.role)  # `CameraTrack` has checked it
    return CameraEntry(camera.name, role, width, height, has_depth, rgb_file, depth_file, objects_file)


def read_episode(path: str | Path) -> NativeEpisode:
    """Open an episode directory; images are left on disk until asked for.

    Raises:
        UserError: It is not an episode, lacks a file, or has one that does not hold what an episode's does.
    """
    path = Path(path)
    for name in (JSON, TRACKS):
        if not (path / name).exists():
            raise UserError(f'{path} is not an episode: {name} is missing', 'give a directory that holds an episode')
    raw = read_json(path / JSON, dict[str, Any], _AGAIN)
    if raw.get('version') not in (VERSION, OPEN_VERSION):
        raise UserError(
            f'{path} has format version {raw.get("version")}, and this program reads {VERSION} and {OPEN_VERSION}',
            'record the episode again',
        )
    head = convert(raw, _Head, str(path / JSON), _AGAIN)
    _check_files(path, head)
    tracks = read_arrays(path / TRACKS, _AGAIN)
    _check_tracks(path / TRACKS, tracks, head)
    stamps = tracks.pop('stamps_ns')
    return NativeEpisode(
        path=path,
        name=f'episode {path.name}',
        cameras=head.cameras,
        fps=head.fps,
        stamps_ns=stamps,
        language=(head.task,) if head.language is None else head.language,
        success=head.success,
        joints=tracks.get('joints'),
        gripper=tracks.get('gripper'),
        gripper_unit=head.gripper_unit,
        T_base_hand=tracks.get('T_base_hand'),
        hand_link=head.hand_link if 'T_base_hand' in tracks else '',
        gripper_link=head.gripper_link,
        actions=tracks.get('actions'),
        meta=head.meta,
        seed=head.seed,
        tracks=tracks,
    )


def _check_files(path: Path, head: _Head) -> None:
    """Every camera has a name of its own, and its files are there, in the episode's directory."""
    if len({info.name for info in head.cameras}) < len(head.cameras):
        raise UserError(f'{path / JSON} names a camera twice', _AGAIN)
    for info in head.cameras:
        for name in filter(None, (info.rgb_file, info.depth_file, info.objects_file)):
            check_name(name, f"A file of camera '{info.name}' of {path}")
            if not (path / name).exists():
                raise UserError(f"{path} lacks {name} of camera '{info.name}'", _AGAIN)
            check_file(path / name, _AGAIN)


def _check_tracks(path: Path, tracks: dict[str, np.ndarray], head: _Head) -> None:
    """Every array has an entry per frame; stamps rise, and the cameras' calibrations are numbers. Of version 2 a camera need not have
    any, and its pose may be unknown at some frames."""
    wanted: dict[str, tuple[int, ...]] = {'stamps_ns': ()}
    for info in head.cameras:
        wanted |= {f'K_{info.name}': (3, 3), f'T_camera_world_{info.name}': (4, 4)}
    for name, shape in wanted.items():
        if name not in tracks and name != 'stamps_ns' and head.version == OPEN_VERSION:
            continue
        if name not in tracks:
            raise UserError(f'{path} lacks {name}', _AGAIN)
        found = tracks[name]
        if found.shape != (head.frames, *shape):
            raise UserError(f'{path}: {name} is {list(found.shape)}, and {[head.frames, *shape]} is wanted', _AGAIN)
        if name == 'stamps_ns':
            numbers = found.dtype == np.int64
        else:
            may_be_unknown = head.version == OPEN_VERSION and name.startswith('T_')
            numbers = found.dtype.kind == 'f' and (may_be_unknown or np.isfinite(found).all())
        if not numbers:
            raise UserError(f'{path}: {name} holds something else than finite numbers ({found.dtype})', _AGAIN)
    if (np.diff(tracks['stamps_ns']) <= 0).any():
        raise UserError(f'{path}: the stamps do not rise', _AGAIN)
    for name, array in tracks.items():
        if array.shape[:1] != (head.frames,):
            raise UserError(f'{path}: {name} is {list(array.shape)}, and {head.frames} entries are wanted', _AGAIN)


def list_episodes(root: str | Path) -> list[Path]:
    """Directories of the complete episodes directly under `root`, in order of name."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f'{root} is not a directory', 'give the directory that holds the episodes')
    return sorted(path.parent for path in root.glob(f'*/{JSON}') if not path.parent.name.startswith('.'))


class NativeSet(DataSet):
    """A directory of episodes of the package's own format, or one such episode.

    Raises:
        UserError: It holds no episode.
    """

    format = 'wristworld episodes'

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.paths = [self.path] if is_episode(self.path) else list_episodes(self.path)
        if not self.paths:
            raise UserError(f'There are no episodes in {self.path}', 'give a directory that holds episodes')

    def __len__(self) -> int:
        return len(self.paths)

    def episode(self, index: int) -> NativeEpisode:
        """See `DataSet.episode`."""
        return read_episode(self.paths[index])


def is_episode(path: Path) -> bool:
    """Whether a directory is one of the package's own episodes, whole or not."""
    return (path / JSON).is_file()
