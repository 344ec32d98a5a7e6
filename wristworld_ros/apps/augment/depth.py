"""Depth of the new camera: kept on the disk while an episode is made, and coded afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wristworld_ros.apps.augment.result import DEPTH, DEPTH_CODES, depth_key
from wristworld_ros.data.formats.lerobot.depth import MAX_CODE, DepthCode
from wristworld_ros.data.formats.lerobot.stats import HistogramStats, as_lists
from wristworld_ros.data.formats.lerobot.writer import GOP
from wristworld_ros.data.lossless_video import write_code_video, write_depth_video

CODE = DepthCode()
_SPOOL = 'depth.raw'
_MILLIMETRES = 1000


class DepthSpool:
    """Depth maps of one episode, uncoded, in a file: two videos cannot be written from one stream of frames.

    Args:
        folder: Of the episode.
        hw: Height and width of the maps, pixels.
        count: Of frames.
    """

    def __init__(self, folder: Path, hw: tuple[int, int], count: int):
        self._folder, self._hw, self._count = folder, hw, count
        self._file = (folder / _SPOOL).open('wb')

    def add(self, depth: np.ndarray | None) -> None:
        """Take the next map, float32 [h, w], metres; None where nothing is known."""
        metres = np.zeros(self._hw, np.float32) if depth is None else depth
        self._file.write(np.ascontiguousarray(metres, np.float32).tobytes())

    def finish(self, key: str, fps: float, coded: bool) -> dict[str, dict[str, Any]]:
        """Write the video.

        Args:
            key: Of the camera.
            fps: Frames per second.
            coded: Whether as LeRobot codes depth (12 bits, lossless HEVC), or in millimetres (16 bits, FFV1).

        Returns:
            Statistics by the video's key, in millimetres, where it is coded.
        """
        self._file.close()
        if coded:
            stats = HistogramStats(
                CODE.decode(np.arange(MAX_CODE + 1)).astype(np.float64) * _MILLIMETRES, 1, self._count
            )
            write_code_video(self._folder / DEPTH_CODES, self._codes(stats), fps, GOP)
            found = {depth_key(key): as_lists(stats.result())}
        else:
            write_depth_video(self._folder / DEPTH, self._maps(), fps)
            found = {}
        (self._folder / _SPOOL).unlink()
        return found

    def _codes(self, stats: HistogramStats) -> Iterator[np.ndarray]:
        for number, depth in enumerate(self._maps()):
            codes = CODE.encode(depth)
            if number in stats.chosen:
                stats.add(codes)
            yield codes

    def _maps(self) -> Iterator[np.ndarray]:
        height, width = self._hw
        with (self._folder / _SPOOL).open('rb') as file:
            while data := file.read(height * width * 4):
                yield np.frombuffer(data, np.float32).reshape(height, width)
