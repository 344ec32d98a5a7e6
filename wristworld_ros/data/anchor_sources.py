"""Recorded anchor images that belong together: several videos side by side, or an episode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wristworld_ros.data.episode import Episode
from wristworld_ros.data.sets import open_episode
from wristworld_ros.data.video import VideoReader
from wristworld_ros.errors import UserError
from wristworld_ros.types import AnchorSet

SLOP = 0.05  # seconds, as the virtual_wrist node's own default
_TICK = 0.002  # seconds that a container's rounding of times may take from a frame


class SynchronizedVideos:
    """Videos that were started together, matched by the times of their frames.

    Args:
        paths: One video per camera; the first one is the clock.
        slop: Frames whose times differ by at most this show one moment, seconds.
        rate: Frames per second of files whose frames have no times.

    Attributes:
        readers: One per video; their `damage` is told below.
        names: The files' names without ending; where two are alike, video0, video1, ...
        rate: Frames per second of the first video.
        frames: Most moments that there can be as far as the files say, or None.
        skipped: Frames of the first video without a partner within the slop, in the latest iteration.

    Raises:
        UserError: A file cannot be used; see `VideoReader`.
    """

    def __init__(self, paths: Sequence[str | Path], slop: float = SLOP, rate: float | None = None):
        if not paths:
            raise UserError('No videos are given', 'give one per camera')
        self.readers = tuple(VideoReader(path, rate) for path in paths)
        self.slop, self.skipped = slop, 0
        stems = tuple(reader.path.stem for reader in self.readers)
        self.names = stems if len(set(stems)) == len(stems) else tuple(f'video{i}' for i in range(len(stems)))
        self.rate: float = self.readers[0].rate or 10.0
        self.frames = self.readers[0].frames

    @property
    def damage(self) -> list[str]:
        """Sentences about what the latest iteration has lost, of all videos."""
        return [sentence for reader in self.readers for sentence in reader.damage]

    def __iter__(self) -> Iterator[tuple[float, tuple[np.ndarray, ...]]]:
        """Moments of the first video that every other one has a frame of: seconds, and uint8 [H, W, 3] per video.

        Raises:
            UserError: At the end, when there was no such moment, or a video cannot be decoded at all.
        """
        self.skipped = matched = 0
        others = [_Cursor(reader) for reader in self.readers[1:]]
        for seconds, image in self.readers[0]:
            found = [cursor.nearest(seconds) for cursor in others]
            if all(abs(time - seconds) <= self.slop + 1e-6 for time, _ in found):
                matched += 1
                yield seconds, (image, *(other for _, other in found))
            elif any(cursor.at_end and cursor.now[0] < seconds - self.slop for cursor in others):
                break
            else:
                self.skipped += 1
        if not matched:
            raise UserError(
                f'No frame of {self.readers[0].path} has a partner within {self.slop:g} s in all other videos',
                'give videos that were started together, or a larger slop',
            )

    def resampled(self, rate: float) -> Iterator[tuple[float, tuple[np.ndarray, ...]]]:
        """Every 1 / rate seconds, each video's newest frame: some are skipped or repeated where rates differ.

        The shortest video ends it. Sizes may differ between the videos.
        """
        cursors = [_Cursor(reader) for reader in self.readers]
        for i in range(round(1e12)):
            seconds = i / rate
            found = [cursor.newest(seconds) for cursor in cursors]
            if any(cursor.at_end and cursor.now[0] < seconds - _TICK for cursor in cursors):
                return
            yield seconds, tuple(image for _, image in found)


class _Cursor:
    """A video's frames at times that only rise; two frames are held at once."""

    def __init__(self, reader: VideoReader):
        self._frames = iter(reader)
        self.now = next(self._frames)  # a reader gives one frame or raises
        self._next = next(self._frames, None)

    @property
    def at_end(self) -> bool:
        return self._next is None

    def nearest(self, seconds: float) -> tuple[float, np.ndarray]:
        while self._next is not None and abs(self._next[0] - seconds) <= abs(self.now[0] - seconds):
            self._advance()
        return self.now

    def newest(self, seconds: float) -> tuple[float, np.ndarray]:
        while self._next is not None and self._next[0] <= seconds + _TICK:
            self._advance()
        return self.now

    def _advance(self) -> None:
        assert self._next is not None
        self.now, self._next = self._next, next(self._frames, None)


@dataclass(frozen=True)
class AnchorRecording:
    """A recording's anchors, for a model to see.

    source: what they come from. names: of the cameras. fps: frames per second. frames: how many at most, None when unknown.
    T_anchor_world: float64 [T, 4, 4] of the first anchor, world (robot base) to its camera, where it is calibrated.
    """

    source: Episode | SynchronizedVideos
    names: tuple[str, ...]
    fps: float
    frames: int | None
    T_anchor_world: np.ndarray | None = None

    def anchor_sets(self) -> Iterator[AnchorSet]:
        """One anchor set per frame, in order, decoded while they are asked for."""
        for i, (stamp_ns, images) in enumerate(self._moments()):
            if self.frames is not None and i >= self.frames:
                return
            yield AnchorSet(stamp_ns, self.names, np.stack(images))

    @property
    def damage(self) -> list[str]:
        """Sentences about what the latest pass has lost: frames that could not be decoded or had no partner."""
        if isinstance(self.source, Episode):
            return []
        told, skipped = self.source.damage, self.source.skipped
        if skipped:
            told.append(
                f'{skipped} frames of {self.source.readers[0].path} had no partner within {self.source.slop:g} s.'
            )
        return told

    def _moments(self) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
        if isinstance(self.source, SynchronizedVideos):
            for seconds, images in self.source:
                yield round(seconds * 1e9), images
        else:
            videos = [self.source.rgb_frames(name) for name in self.names]
            yield from zip(map(int, self.source.stamps_ns), zip(*videos))


def open_recording(
    paths: Sequence[str | Path],
    anchors: int | None = None,
    frames: int | None = None,
    slop: float = SLOP,
    episode: int | None = None,
) -> AnchorRecording:
    """Open an episode of a data set, or one video per anchor camera.

    Args:
        paths: The episode's directory or the data set, of any format that is read, or the videos.
        anchors: Only the first so many cameras of an episode; None takes all.
        frames: Only the first so many frames; None takes all.
        slop: Frames of several videos whose times differ by at most this belong together, seconds.
        episode: Which episode of a data set that has several, counted from 0.

    Raises:
        UserError: Something cannot be opened, is missing, or does not fit together.
    """
    paths = [Path(path).expanduser() for path in paths]
    if any(path.is_dir() for path in paths):
        if len(paths) > 1:
            raise UserError(f'{len(paths)} paths are given, and not all are videos', 'give one episode, or videos only')
        source = open_episode(paths[0], episode)
        names = source.anchors(anchors)
        count = min(frames or len(source), len(source))
        T_anchor_world = source.T_camera_world(names[0])
        if T_anchor_world is not None:
            T_anchor_world = T_anchor_world[:count]
        return AnchorRecording(source, names, source.fps, count, T_anchor_world)
    videos = SynchronizedVideos(paths, slop)
    sizes = [(reader.width, reader.height) for reader in videos.readers]
    for reader, size in zip(videos.readers, sizes):
        if size != sizes[0]:
            raise UserError(
                f'{reader.path} is {size[0]}x{size[1]} and {videos.readers[0].path} {sizes[0][0]}x{sizes[0][1]}',
                'bring the videos to one size',
            )
    known = [count for count in (frames, videos.frames) if count]
    return AnchorRecording(videos, videos.names, videos.rate, min(known, default=None))
