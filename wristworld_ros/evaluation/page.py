"""One HTML page of an evaluation: its table, and the rows' videos of some episodes side by side, in the file itself."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wristworld_ros.data.video import write_video
from wristworld_ros.errors import require_package
from wristworld_ros.evaluation.table import LEGEND, EvaluationTable
from wristworld_ros.runtime.files import write_text

PAGE = 'page.html'
_SIDE = 192  # pixels of a video's height
_GAP = 4
_CRF = 20


@dataclass(frozen=True)
class ShownEpisode:
    """name: of the episode. fps: of its videos. videos: caption -> uint8 [T, h, w, 3], all of T frames, from left to right."""

    name: str
    fps: float
    videos: dict[str, np.ndarray]


def require_page_packages() -> None:
    """Raise MissingPackageError where a library that the page needs is not installed."""
    require_package('jinja2', 'view', 'The page of the evaluation (--page 0 leaves it out)')


def write_page(folder: Path, table: EvaluationTable, episodes: Sequence[ShownEpisode]) -> Path:
    """Write `folder/page.html`, whole or not at all; the same table and videos give the same bytes.

    Args:
        folder: Exists.
        table: What was measured.
        episodes: What is shown.

    Returns:
        The page's path.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    header, rows = table.cells()
    text = environment.get_template('page.html.j2').render(
        head=table.head, header=header, rows=rows, legend=LEGEND,
        episodes=[(e.name, list(zip(e.videos, _widths(e), strict=True)), _data_uri(e)) for e in episodes],
    )  # fmt: skip
    write_text(folder / PAGE, text)
    return folder / PAGE


def side_by_side(videos: Sequence[np.ndarray]) -> np.ndarray:
    """Videos uint8 [T, h, w, 3] of any sizes in one, of even sides, with gaps of white between them."""
    parts = []
    for video in videos:
        size = (_width(video), _SIDE)
        small = np.stack([cv2.resize(image, size, interpolation=cv2.INTER_LINEAR) for image in video])
        parts.append(np.pad(small, ((0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=255))
    return np.concatenate(parts, axis=2)


def _width(video: np.ndarray) -> int:
    """Of a video at the common height, even."""
    return 2 * round(_SIDE * video.shape[2] / video.shape[1] / 2)


def _widths(episode: ShownEpisode) -> list[float]:
    """Per cent of the whole that each video takes, for the captions above them."""
    widths = np.array([_width(video) + _GAP for video in episode.videos.values()], np.float64)
    return [round(float(w), 3) for w in 100 * widths / widths.sum()]


def _data_uri(episode: ShownEpisode) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'videos.mp4'
        write_video(path, iter(side_by_side(list(episode.videos.values()))), episode.fps, crf=_CRF)
        return 'data:video/mp4;base64,' + base64.b64encode(path.read_bytes()).decode()
