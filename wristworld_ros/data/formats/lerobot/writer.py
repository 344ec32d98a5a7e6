"""Writes episodes of any format as a LeRobot data set, v3.0 or v2.1, with the statistics that the format wants.

An episode is decoded and checked frame by frame before anything of it is added, so that a damaged one is left out whole. Coded frames
of another LeRobot data set are taken as they are where nothing asks for other ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from wristworld_ros.data.episode import Episode, EpisodeCamera
from wristworld_ros.data.formats.lerobot import features as feature_of
from wristworld_ros.data.formats.lerobot.depth import MAX_CODE, DepthCode
from wristworld_ros.data.formats.lerobot.features import Column, camera_key, depth_key, written_cameras
from wristworld_ros.data.formats.lerobot.layout import INFO, V21, V30
from wristworld_ros.data.formats.lerobot.reader import LeRobotEpisode
from wristworld_ros.data.formats.lerobot.stats import HistogramStats, Stats, vector_stats
from wristworld_ros.data.formats.lerobot.tables import numbers
from wristworld_ros.data.formats.lerobot.tree import AddedEpisode, Tree, TreeV21, TreeV30
from wristworld_ros.data.lossless_video import write_code_video
from wristworld_ros.data.video import write_video
from wristworld_ros.data.video_copy import can_join
from wristworld_ros.data.writing import WriteReport, write_each
from wristworld_ros.errors import UserError
from wristworld_ros.runtime.files import new_directory

Version = Literal['v3.0', 'v2.1']
Codec = Literal['keep', 'h264', 'av1']
CRF = {'h264': 18, 'av1': 30}
PRESET = {'h264': 'fast', 'av1': '10'}
GOP = 2  # as lerobot's own, so that every frame is found at once
_BLOCK = 32  # frames that are decoded at once
LEVELS = np.arange(256) / 255


@dataclass(frozen=True)
class WriteSettings:
    """How episodes are written.

    version: of the format. fps: frames per second, a whole number; None takes the first episode's, rounded. codec: of the videos;
    'keep' takes coded frames as they are where that is possible, and else 'h264'. crf: their quality; None is the codec's own.
    robot_type: what the set says of the robot; None takes the first episode's.
    """

    version: Version = V30
    fps: int | None = None
    codec: Codec = 'keep'
    crf: int | None = None
    robot_type: str | None = None

    @property
    def encoder(self) -> str:
        """The codec of what has to be coded."""
        return 'h264' if self.codec == 'keep' else self.codec


@dataclass(frozen=True)
class _Video:
    """One video of an episode that is about to be added: the file that holds its frames, and when they begin in it, seconds."""

    key: str
    path: Path
    start: float
    stats: Stats


def write_lerobot(
    path: str | Path,
    episodes: Iterable[Callable[[], Episode]],
    settings: WriteSettings | None = None,
    replace: bool = False,
    on_episode: Callable[[], object] = lambda: None,
) -> WriteReport:
    """Write a data set; it appears whole or not at all.

    Args:
        path: Its directory, which must not exist.
        episodes: What opens each of them.
        settings: How.
        replace: Whether an older data set in its place gives way.
        on_episode: Called after each episode.

    Returns:
        What was written and what was not.

    Raises:
        UserError: No episode could be written, or the disk refuses.
    """
    report = WriteReport()
    with new_directory(Path(path), replace, INFO) as folder:
        writer = _Writer(folder, settings or WriteSettings(), report)
        write_each(Path(path), episodes, writer.add, report, on_episode)
        writer.finish()
    return report


class _Writer:
    def __init__(self, folder: Path, settings: WriteSettings, report: WriteReport):
        self._folder, self._settings, self._report = folder, settings, report
        self._tree: Tree | None = None
        self._cameras: dict[str, EpisodeCamera] = {}
        self._columns: dict[str, dict[str, Any]] = {}
        self._depth: dict[str, DepthCode] = {}
        self._fps = 0
        self._scratch = folder / '.scratch'

    def add(self, episode: Episode) -> None:
        """Add an episode, whole or not at all.

        Raises:
            UserError: It cannot be read, or does not fit the ones before.
        """
        if self._tree is None:
            self._begin(episode)
        frames = regular_frames(episode.stamps_ns, self._fps)
        columns = feature_of.episode_columns(episode, frames)
        self._check_same(episode, columns)
        try:
            videos = [self._video(episode, camera, frames) for camera in self._cameras.values()]
            videos += [self._depth_video(episode, self._cameras[key], frames) for key in self._depth]
            self._commit(episode, frames, columns, videos)
        finally:
            for part in self._scratch.glob('*') if self._scratch.exists() else ():
                part.unlink()

    def finish(self) -> None:
        """Write what says what the set holds."""
        assert self._tree is not None
        self._tree.close()
        if self._scratch.exists():
            self._scratch.rmdir()
        videos = {}
        for key, camera in self._cameras.items():
            videos[key] = feature_of.video_feature(camera, self._fps, video_details(self._tree.first_video(key)))
        for key, code in self._depth.items():
            camera = self._cameras[key]
            name = depth_key(camera)
            videos[name] = feature_of.video_feature(
                camera, self._fps, video_details(self._tree.first_video(name)), code
            )
        self._tree.finish(videos)

    def _begin(self, episode: Episode) -> None:
        settings = self._settings
        self._fps = settings.fps or max(round(episode.fps), 1)
        cameras = {camera_key(camera): camera for camera in written_cameras(episode)}
        if not cameras:
            raise UserError(f'{episode.path} has no camera in {episode.name}', 'give episodes with cameras')
        depth = {key: _depth_code(episode, camera) for key, camera in cameras.items() if camera.has_depth}
        columns = feature_of.episode_columns(episode, np.arange(len(episode)))
        if depth and settings.version == V21:
            self._report.notes.append(f'Depth is left out, for LeRobot {V21} has no depth videos.')
            depth = {}
        if any(camera.role == 'random' for camera in episode.cameras):
            self._report.notes.append('Cameras that stand elsewhere at every frame are left out.')
        index = feature_of.index_columns(self._fps, 0, 0, np.zeros(1, np.int64))
        self._columns = {key: column.feature for key, column in columns.items()}
        robot = settings.robot_type or episode.meta.get('robot_type')
        kind: type[Tree] = TreeV30 if settings.version == V30 else TreeV21
        keys = [*cameras, *(depth_key(cameras[key]) for key in depth)]
        described = self._columns | {key: column.feature for key, column in index.items()}
        self._cameras, self._depth = cameras, depth
        self._tree = kind(self._folder, self._fps, described, keys, robot)

    def _check_same(self, episode: Episode, columns: dict[str, Column]) -> None:
        """Every episode of a set has the same cameras and columns."""
        given = {camera_key(camera): camera for camera in written_cameras(episode)}
        for key, camera in self._cameras.items():
            other = given.get(key)
            if other is None or (other.width, other.height) != (camera.width, camera.height):
                now = f'is {other.width}x{other.height}' if other else 'is missing'
                raise UserError(
                    f"camera '{key}' {now}, and the first episode's is {camera.width}x{camera.height}", 'leave it out'
                )
            if key in self._depth and not other.has_depth:
                raise UserError(f"camera '{key}' has no depth, and the first episode's has", 'leave it out')
        shapes = {key: tuple(feature['shape']) for key, feature in self._columns.items()}
        found = {key: column.shape for key, column in columns.items()}
        if found != shapes:
            differing = sorted(key for key in {*found, *shapes} if found.get(key) != shapes.get(key))
            raise UserError(
                f'its {differing[0]} is {found.get(differing[0])}, and {shapes.get(differing[0])} in the first episode',
                'leave it out',
            )

    def _video(self, episode: Episode, camera: EpisodeCamera, frames: np.ndarray) -> _Video:
        """Decode all images of a camera, count them, and code them where they are not taken as they are."""
        key, stats = camera_key(camera), HistogramStats(LEVELS, 3, len(frames))
        images = _counted(_images(episode, camera.name, frames), stats)
        codec = self._settings.encoder
        crf = CRF[codec] if self._settings.crf is None else self._settings.crf

        def encode(target: Path) -> None:
            write_video(target, images, self._fps, crf, PRESET[codec], faststart=False, codec=codec, gop=GOP)

        return self._taken(episode, camera.name, key, frames, images, encode, stats)

    def _depth_video(self, episode: Episode, camera: EpisodeCamera, frames: np.ndarray) -> _Video:
        key, code = depth_key(camera), self._depth[camera_key(camera)]
        stats = HistogramStats(code.decode(np.arange(MAX_CODE + 1)).astype(np.float64) * 1000, 1, len(frames))
        codes = _counted((code.encode(depth) for depth in _blocks(episode.read_depth, camera.name, frames)), stats)

        def encode(target: Path) -> None:
            write_code_video(target, codes, self._fps, GOP)

        stored = episode.source.depth_of.get(camera.name, '') if isinstance(episode, LeRobotEpisode) else ''
        return self._taken(episode, stored, key, frames, codes, encode, stats)

    def _taken(
        self,
        episode: Episode,
        stored_key: str,
        key: str,
        frames: np.ndarray,
        images: Iterator[np.ndarray],
        encode: Callable[[Path], None],
        stats: HistogramStats,
    ) -> _Video:
        stored = self._stored(episode, stored_key, frames)
        if stored:
            for _ in images:  # decoded all the same: to be counted, and to know that they can be
                pass
            return _Video(key, *stored, stats.result())
        target = self._scratch / f'{key}.mp4'
        encode(target)
        return _Video(key, target, 0.0, stats.result())

    def _stored(self, episode: Episode, key: str, frames: np.ndarray) -> tuple[Path, float] | None:
        """Where coded frames of a LeRobot data set lie that can be taken as they are, and when they begin, seconds."""
        if self._settings.codec != 'keep' or not isinstance(episode, LeRobotEpisode):
            return None
        part = episode.row.videos.get(key)
        if part is None or round(episode.fps) != self._fps or not np.array_equal(frames, np.arange(len(episode))):
            return None
        source = episode.path / part.file
        return (source, part.start) if can_join(source, part.start, len(frames), self._fps) else None

    def _commit(self, episode: Episode, frames: np.ndarray, columns: dict[str, Column], videos: list[_Video]) -> None:
        assert self._tree is not None
        report = self._report
        texts = feature_of.frame_tasks(episode, frames)
        tasks = np.array([self._tree.task_number(text) for text in texts])
        columns = columns | feature_of.index_columns(self._fps, report.episodes, report.frames, tasks)
        stats = {video.key: video.stats for video in videos}
        for key, column in columns.items():
            if column.feature['dtype'] != 'string':
                stats[key] = vector_stats(numbers(column.values, key))
        places = {video.key: (video.path, video.start) for video in videos}
        told = tuple(dict.fromkeys(texts))
        self._tree.add(AddedEpisode(report.episodes, report.frames, len(frames), told, columns, places, stats))
        report.episodes += 1
        report.frames += len(frames)


def regular_frames(stamps_ns: np.ndarray, fps: float) -> np.ndarray:
    """Numbers of the frames, int64 [N], that lie nearest to times at one constant rate, from the first frame to the last.

    Where the recording has that rate, give or take half a frame, these are all frames, each once.
    """
    seconds = (stamps_ns - stamps_ns[0]) / 1e9
    count = len(stamps_ns)
    if (np.abs(seconds * fps - np.arange(count)) < 0.5).all():
        return np.arange(count)
    times = np.arange(int(np.floor(seconds[-1] * fps + 1e-6)) + 1) / fps
    behind = np.searchsorted(seconds, times).clip(1, max(count - 1, 1))
    before = behind - 1
    return np.where(
        times - seconds[before] <= seconds[behind.clip(max=count - 1)] - times, before, behind.clip(max=count - 1)
    )


def _images(episode: Episode, camera: str, frames: np.ndarray) -> Iterator[np.ndarray]:
    whole = np.array_equal(frames, np.arange(len(episode)))
    return episode.rgb_frames(camera) if whole else _blocks(episode.read, camera, frames)


def _blocks(read: Callable[[str, np.ndarray], np.ndarray], camera: str, frames: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(frames), _BLOCK):
        yield from read(camera, frames[start : start + _BLOCK])


def _counted(images: Iterable[np.ndarray], stats: HistogramStats) -> Iterator[np.ndarray]:
    for number, image in enumerate(images):
        if number in stats.chosen:
            stats.add(image)
        yield image


def _depth_code(episode: Episode, camera: EpisodeCamera) -> DepthCode:
    """The code of a LeRobot data set's own depth video, else the format's default."""
    if isinstance(episode, LeRobotEpisode) and camera.name in episode.source.depth_of:
        return episode.source.depth_code(episode.source.depth_of[camera.name]) or DepthCode()
    return DepthCode()


def video_details(path: Path) -> dict[str, str]:
    """`codec` and `pix_fmt` of a video, as `features.video_feature` takes them."""
    with av.open(str(path)) as file:
        context = file.streams.video[0].codec_context
        return {'codec': context.codec.canonical_name, 'pix_fmt': context.pix_fmt or ''}
