"""The project's episode: one directory of calibrated multi-camera video.

`episode.json` says what it is, `tracks.npz` holds the numbers, `<camera>.mp4` the pictures (H.264) and
`<camera>.depth.mkv` depth (lossless FFV1, 16-bit millimetres, 0 where unknown). World is the robot's base frame.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from wristworld_ros.types import Camera

VERSION = 1
ROLES = ('anchor', 'wrist', 'scatter')
DEPTH_UNIT = 0.001  # metres
_JSON, _TRACKS = 'episode.json', 'tracks.npz'


@dataclass(frozen=True)
class CameraTrack:
    """What one camera recorded; what `write_episode` takes.

    name: letters, digits and underscores. role: anchor (fixed), wrist, or scatter (placed anew at every frame).
    rgb: uint8 [T, H, W, 3]. K: float64 [T, 3, 3] pixels. T_camera_world: float64 [T, 4, 4].
    depth: float32 [T, H, W] metres along the optical axis, 0 where unknown; or None.
    """

    name: str
    role: str
    rgb: np.ndarray
    K: np.ndarray
    T_camera_world: np.ndarray
    depth: np.ndarray | None = None

    def __post_init__(self):
        if self.role not in ROLES:
            raise ValueError(f"Camera '{self.name}' has role '{self.role}'; allowed are {', '.join(ROLES)}.")
        if not self.name.replace('_', 'a').isalnum():
            raise ValueError(f"A camera is named '{self.name}'; use letters, digits and underscores only.")
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 4 or self.rgb.shape[-1] != 3:
            raise ValueError(
                f"Camera '{self.name}' has {self.rgb.dtype} {list(self.rgb.shape)} pictures; give uint8 [T, H, W, 3]."
            )
        frames = len(self.rgb)
        wanted = {'K': (frames, 3, 3), 'T_camera_world': (frames, 4, 4)}
        if self.depth is not None:
            wanted['depth'] = self.rgb.shape[:3]
        for key, shape in wanted.items():
            if getattr(self, key).shape != shape:
                given = list(getattr(self, key).shape)
                raise ValueError(f"Camera '{self.name}' has {key} {given}; its pictures ask for {list(shape)}.")


@dataclass(frozen=True)
class CameraInfo:
    """One camera's entry in `episode.json`."""

    name: str
    role: str
    width: int
    height: int
    has_depth: bool
    rgb_file: str
    depth_file: str | None


@dataclass(frozen=True)
class Episode:
    """A stored episode; pictures and depth are decoded when asked for.

    stamps_ns: int64 [T]. tracks: every array of tracks.npz by name. meta: what the writer added.
    """

    path: Path
    task: str
    seed: int
    fps: float
    success: bool
    cameras: tuple[CameraInfo, ...]
    stamps_ns: np.ndarray
    tracks: dict[str, np.ndarray]
    meta: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def camera(self, name: str) -> CameraInfo:
        """The entry of one camera."""
        for info in self.cameras:
            if info.name == name:
                return info
        known = ', '.join(info.name for info in self.cameras)
        raise KeyError(f"Episode {self.path} has no camera '{name}'; it has {known}.")

    def names(self, role: str) -> tuple[str, ...]:
        """Names of the cameras of a role, in stored order."""
        return tuple(info.name for info in self.cameras if info.role == role)

    def rgb(self, camera: str) -> np.ndarray:
        """All pictures of a camera, uint8 [T, H, W, 3]."""
        info = self.camera(camera)
        return _read_video(self.path / info.rgb_file, 'rgb24', len(self))

    def depth(self, camera: str) -> np.ndarray:
        """Depth of a camera, float32 [T, H, W], metres along the optical axis, 0 where unknown."""
        info = self.camera(camera)
        if info.depth_file is None:
            raise KeyError(f"Camera '{camera}' of episode {self.path} was stored without depth.")
        return _read_video(self.path / info.depth_file, 'gray16le', len(self)).astype(np.float32) * DEPTH_UNIT

    def K(self, camera: str) -> np.ndarray:
        """Intrinsics of a camera, float64 [T, 3, 3], pixels; pixel i's centre is coordinate i."""
        return self.tracks[f'K_{self.camera(camera).name}']

    def T_camera_world(self, camera: str) -> np.ndarray:
        """Camera from world (robot base), float64 [T, 4, 4], OpenCV axes, metres."""
        return self.tracks[f'T_camera_world_{self.camera(camera).name}']

    def camera_at(self, camera: str, frame: int) -> Camera:
        """A camera's calibration at one frame."""
        info = self.camera(camera)
        return Camera(self.K(camera)[frame], self.T_camera_world(camera)[frame], info.width, info.height)


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
) -> Path:
    """Write an episode; it appears whole under `path` or not at all.

    Arguments:
        path: the episode's directory, which must not exist.
        stamps_ns: int64 [T], rising. tracks: more arrays by name, each [T, ...]. meta: anything JSON can hold.
        crf: H.264 quality, 0 (best) to 51.
    Returns: path.
    """
    path, frames = Path(path), len(stamps_ns)
    if path.exists():
        raise FileExistsError(f'Episode {path} exists already; remove it or choose another directory.')
    if frames == 0:
        raise ValueError(f'Episode {path} has no frames; give at least one stamp.')
    arrays = {'stamps_ns': np.asarray(stamps_ns, np.int64)}
    for name, array in (tracks or {}).items():
        if len(array) != frames:
            raise ValueError(f"Track '{name}' of episode {path} has {len(array)} entries for {frames} stamps.")
        arrays[name] = np.asarray(array)
    entries = []
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f'.{path.name}.', dir=path.parent))
    try:
        for camera in cameras:
            if len(camera.rgb) != frames:
                raise ValueError(
                    f"Camera '{camera.name}' of {path} has {len(camera.rgb)} pictures for {frames} stamps."
                )
            arrays[f'K_{camera.name}'] = np.asarray(camera.K, np.float64)
            arrays[f'T_camera_world_{camera.name}'] = np.asarray(camera.T_camera_world, np.float64)
            _write_rgb(work / f'{camera.name}.mp4', camera.rgb, fps, crf)
            if camera.depth is not None:
                _write_depth(work / f'{camera.name}.depth.mkv', camera.depth, fps)
            height, width = camera.rgb.shape[1:3]
            entries.append(
                {
                    'name': camera.name,
                    'role': camera.role,
                    'width': width,
                    'height': height,
                    'has_depth': camera.depth is not None,
                    'rgb_file': f'{camera.name}.mp4',
                    'depth_file': None if camera.depth is None else f'{camera.name}.depth.mkv',
                }
            )
        np.savez(work / _TRACKS, **arrays)
        head = {'version': VERSION, 'task': task, 'seed': int(seed), 'fps': float(fps), 'success': bool(success)}
        head |= {'frames': frames, 'cameras': entries, 'meta': meta or {}}
        (work / _JSON).write_text(json.dumps(head, indent=1))
        work.chmod(0o755)
        os.replace(work, path)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return path


def read_episode(path: str | Path) -> Episode:
    """Open an episode directory; pictures are left on disk until asked for."""
    path = Path(path)
    for name in (_JSON, _TRACKS):
        if not (path / name).is_file():
            raise FileNotFoundError(
                f'{path} is no episode: {name} is missing; give a directory that write_episode made.'
            )
    try:
        head = json.loads((path / _JSON).read_text())
    except ValueError as error:
        raise ValueError(f'{path / _JSON} is no valid JSON ({error}); record the episode again.') from error
    if head.get('version') != VERSION:
        raise ValueError(f'{path} has format version {head.get("version")}; this program reads {VERSION}; convert it.')
    cameras = tuple(CameraInfo(**entry) for entry in head['cameras'])
    for info in cameras:
        for name in filter(None, (info.rgb_file, info.depth_file)):
            if not (path / name).is_file():
                raise FileNotFoundError(
                    f"{path} lacks {name} of camera '{info.name}'; record or copy the episode again."
                )
    with np.load(path / _TRACKS) as file:
        tracks = {name: file[name] for name in file.files}
    stamps = tracks.pop('stamps_ns')
    return Episode(
        path, head['task'], head['seed'], head['fps'], head['success'], cameras, stamps, tracks, head['meta']
    )


def list_episodes(root: str | Path) -> list[Path]:
    """Directories of the complete episodes directly under `root`, in order of name."""
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f'{root} is no directory; give the directory that holds the episodes.')
    return sorted(path.parent for path in root.glob(f'*/{_JSON}') if not path.parent.name.startswith('.'))


def _write_rgb(path: Path, rgb: np.ndarray, fps: float, crf: int) -> None:
    height, width = rgb.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f'{path.name} would be {width}x{height} pixels; H.264 needs even numbers, so resize or crop.')
    options = {'crf': str(crf), 'preset': 'fast', 'threads': '1', 'colorprim': 'bt709', 'g': '24'}
    with av.open(str(path), 'w') as file:
        stream = file.add_stream('libx264', rate=Fraction(fps).limit_denominator(1000), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        _encode(file, stream, rgb, 'rgb24')


def _write_depth(path: Path, depth: np.ndarray, fps: float) -> None:
    millimetres = np.clip(np.nan_to_num(depth) / DEPTH_UNIT + 0.5, 0, 65535).astype(np.uint16)
    with av.open(str(path), 'w') as file:
        stream = file.add_stream('ffv1', rate=Fraction(fps).limit_denominator(1000), options={'threads': '1'})
        stream.width, stream.height, stream.pix_fmt = depth.shape[2], depth.shape[1], 'gray16le'
        _encode(file, stream, millimetres, 'gray16le')


def _encode(file, stream, pictures: np.ndarray, kind: str) -> None:
    for picture in pictures:
        for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=kind)):
            file.mux(packet)
    for packet in stream.encode():
        file.mux(packet)


def _read_video(path: Path, kind: str, frames: int) -> np.ndarray:
    try:
        with av.open(str(path)) as file:
            file.streams.video[0].thread_count = 1
            pictures = [frame.to_ndarray(format=kind) for frame in file.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f'{path} cannot be decoded ({error}); record or copy the episode again.') from error
    if len(pictures) != frames:
        raise ValueError(f'{path} holds {len(pictures)} frames, its episode says {frames}; record or copy it again.')
    return np.stack(pictures)
