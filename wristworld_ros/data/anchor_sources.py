"""What a wrist video can be made for: an episode of our format, or a set of synchronised anchor videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wristworld_ros.data.formats.native import Episode, read_episode
from wristworld_ros.data.video import Videos
from wristworld_ros.types import AnchorSet


@dataclass(frozen=True)
class Recording:
    """A recording's anchors. source: what it was made from. frames: at most, 0 for unknown.

    T_anchor_world: float64 [T, 4, 4] of the first anchor, world (robot base) to its camera, where it is calibrated.
    """

    source: Episode | Videos
    names: tuple[str, ...]
    fps: float
    frames: int
    T_anchor_world: np.ndarray | None = None

    def anchor_sets(self) -> Iterator[AnchorSet]:
        """One anchor set a frame, in order."""
        for i, images in enumerate(self._pictures()):
            if self.frames and i >= self.frames:
                return
            yield AnchorSet(self._stamp(i), self.names, np.ascontiguousarray(images))

    def _pictures(self) -> Iterator[np.ndarray]:
        if isinstance(self.source, Videos):
            return iter(self.source)
        return iter(np.stack([self.source.rgb(name) for name in self.names], axis=1))

    def _stamp(self, i: int) -> int:
        return round(i * 1e9 / self.fps) if isinstance(self.source, Videos) else int(self.source.stamps_ns[i])


def open_recording(paths: Sequence[Path], anchors: int = 0, frames: int = 0) -> Recording:
    """Open one episode directory, or one video for each anchor camera. anchors, frames: only the first so many; 0 takes
    all. Raises ValueError or OSError, one sentence, for what cannot be opened."""
    paths = [Path(path).expanduser() for path in paths]
    if any(path.is_dir() for path in paths):
        if len(paths) > 1:
            raise ValueError(f'{len(paths)} paths were given and not all are videos; give one episode, or videos only.')
        episode = read_episode(paths[0])
        names = episode.names('anchor')
        if len(names) < max(anchors, 1):
            raise ValueError(f'Episode {paths[0]} has {len(names)} anchor cameras; {max(anchors, 1)} are asked for.')
        names = names[:anchors] if anchors else names
        if len({(episode.camera(name).width, episode.camera(name).height) for name in names}) > 1:
            raise ValueError(f'The anchors of {paths[0]} differ in size; record them at one size.')
        count = min(frames, len(episode)) if frames else len(episode)
        return Recording(episode, names, episode.fps, count, episode.T_camera_world(names[0])[:count])
    videos = Videos(paths)
    names = videos.names
    if len(set(names)) < len(names):
        names = tuple(f'anchor{i}' for i in range(len(names)))
    known = [n for n in (frames, videos.frames) if n]
    return Recording(videos, names, videos.fps, min(known, default=0))
