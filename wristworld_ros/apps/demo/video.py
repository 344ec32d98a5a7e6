"""Anchors, condition map, generated wrist of every mode and true wrist side by side: a video, its poster and a contact sheet."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from wristworld_ros.apps.demo.measures import SLOP_S, recorded_modes
from wristworld_ros.data.recording import CONDITION, TRUE_WRIST, WRIST, Recording
from wristworld_ros.data.video import write_video
from wristworld_ros.geometry.images import resize_images

TILE = 272  # height of an image, pixels
GAP, LABELS, FOOT = 12, 34, 34
PAPER, MISSING, INK, MUTED = (15, 20, 28), (32, 39, 50), (235, 239, 245), (138, 150, 168)
ACCENT, ALARM = (88, 150, 255), (240, 92, 80)
TITLES = {CONDITION: 'condition map', WRIST: 'generated wrist', TRUE_WRIST: 'true wrist'}


class Layout:
    """Where each stream's image goes; the same for every frame of a recording.

    Several modes stand beside the truth in a row of their own, below what the live run was given; or, with `one_row`, beside the
    anchors alone.
    """

    def __init__(self, recording: Recording, one_row: bool = False):
        self.recording, self.modes = recording, recorded_modes(recording)
        anchors = [f'anchor_{name}' for name in recording.anchors]
        made = [*(self.modes.values() or [WRIST]), *([TRUE_WRIST] if recording.has_truth else [])]
        if one_row and self.modes:
            rows = [anchors + made]
        else:
            rows = [[*anchors, CONDITION], made] if self.modes else [[*anchors, CONDITION, *made]]
        widths = [[self._width(stream) for stream in row] for row in rows]
        self.width = max(sum(row) + GAP * (len(row) + 1) for row in widths)
        self.width += self.width % 2  # even, as H.264 wants it
        self.boxes: dict[str, tuple[int, int, int]] = {}  # stream -> x, y, width
        for i, row in enumerate(rows):
            x, y = (self.width - sum(widths[i]) - GAP * (len(row) - 1)) // 2, LABELS + i * (TILE + LABELS)
            for stream, width in zip(row, widths[i], strict=True):
                self.boxes[stream] = (x, y, width)
                x += width + GAP
        self._feet = len(rows)  # lines of text below: a narrow picture has no room for both sides of one
        self.height = len(rows) * (LABELS + TILE) + self._feet * FOOT
        self.height += self.height % 2
        self.background = self._background()

    def _width(self, stream: str) -> int:
        stamps = self.recording.stamps(stream)
        sample = self.recording.nearest(stream, int(stamps[len(stamps) // 2])) if len(stamps) else None
        return round(TILE * (sample.shape[1] / sample.shape[0] if sample is not None else 1.0))

    def _background(self) -> np.ndarray:
        names = {stream: mode.upper() for mode, stream in self.modes.items()}
        if self.modes:
            live = names[WRIST]
            names |= {WRIST: f'{live}, live', CONDITION: f'condition map, {live}'}
        labels = []
        for stream, (x, y, width) in self.boxes.items():
            title = names.get(stream) or TITLES.get(stream, stream.replace('_', ' '))
            labels.append((x + width / 2, y - LABELS / 2, title, ACCENT if stream == WRIST else INK, 15, 'mm'))
        blank = np.full((self.height, self.width, 3), PAPER, np.uint8)
        return _write_texts(blank, labels, bold=True)

    def frame(self, view: dict, seconds: float, quality: str) -> np.ndarray:
        """One frame, uint8 [height, width, 3]: the images of a wrist frame's stamp, and its figures below them.

        Args:
            view: A record of `Recording.views`.
            seconds: Its time since the first one.
            quality: What is measured of it, in words; '' for nothing.
        """
        composed = self.background.copy()
        made = self.modes.values() or [WRIST]
        for stream, (x, y, width) in self.boxes.items():
            image = self.recording.nearest(stream, view['stamp_ns'], 1e-6 if stream in made else SLOP_S)
            if image is None:
                composed[y : y + TILE, x : x + width] = MISSING
            else:
                composed[y : y + TILE, x : x + width] = resize_images(image[None], (TILE, width))[0]
        x, y, width = self.boxes[WRIST]
        color = ACCENT if view['valid'] else ALARM
        cv2.rectangle(composed, (x - 2, y - 2), (x + width + 1, y + TILE + 1), color, 3)
        facts = [
            f'{view["age"] * 1e3:.0f} ms after the stamp',
            f'coverage {view["coverage"]:.0%}',
            f'confidence {view["confidence"]:.0%}',
        ]
        facts += [quality] if quality else []
        foot, top = self.height - FOOT / 2, self.height - self._feet * FOOT
        left = f'{seconds:5.1f} s' if view['valid'] else f'{seconds:5.1f} s    invalid: {view["reason"]}'
        texts = [(GAP, top + FOOT / 2, left, MUTED if view['valid'] else ALARM, 14, 'lm')]
        texts.append((self.width - GAP, foot, '   ·   '.join(facts), MUTED, 14, 'rm'))
        return _write_texts(composed, texts, top=top)


def write_side_by_side(
    recording: Recording,
    layout: Layout,
    path: Path,
    quality: dict[int, str],
    on_frame: Callable[[], object] = lambda: None,
) -> None:
    """Write the video at a constant rate near that of the wrist frames; a frame is shown until the next one comes.

    Args:
        recording: Of the demo.
        layout: Where its images go.
        path: Of an MP4 file (H.264, yuv420p).
        quality: What is measured of frames, in words, by stamp.
        on_frame: Called for every frame written; `video_frames` says how many there will be.
    """
    rate, times = _clock(recording)

    def frames() -> Iterator[np.ndarray]:
        seconds, shown = recording.seconds(), -1
        image = layout.background
        for time in times:
            newest = int(np.searchsorted(seconds, time + 1e-6, side='right')) - 1
            if newest != shown:
                image, shown = _frame(recording, layout, newest, quality), newest
            yield image
            on_frame()

    write_video(path, frames(), rate, crf=20)


def video_frames(recording: Recording) -> int:
    """Frames that `write_side_by_side` writes."""
    return len(_clock(recording)[1])


def write_contact_sheet(recording: Recording, path: Path, quality: dict[int, str], rows: int = 5) -> None:
    """Write a PNG of frames spread evenly over the recording, under one row of labels."""
    layout = Layout(recording, one_row=True)
    chosen = np.linspace(0, len(recording.views) - 1, min(rows, len(recording.views)) + 2).round().astype(int)[1:-1]
    strips = [layout.background[:LABELS]]
    strips += [_frame(recording, layout, int(index), quality)[LABELS - 4 :] for index in chosen]
    cv2.imwrite(str(path), np.concatenate(strips)[..., ::-1])


def write_poster(recording: Recording, layout: Layout, path: Path, quality: dict[int, str]) -> None:
    """Write a PNG of one frame, from the middle of the recording."""
    cv2.imwrite(str(path), _frame(recording, layout, len(recording.views) // 2, quality)[..., ::-1])


def _frame(recording: Recording, layout: Layout, index: int, quality: dict[int, str]) -> np.ndarray:
    view = recording.views[index]
    return layout.frame(view, float(recording.seconds()[index]), quality.get(view['stamp_ns'], ''))


def _clock(recording: Recording) -> tuple[int, np.ndarray]:
    """Frames per second of the video, and the times of its frames in seconds."""
    seconds = recording.seconds()
    gap = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.1
    rate = int(np.clip(round(1 / max(gap, 1e-3)), 5, 30))
    return rate, np.arange(int(seconds[-1] * rate + 1e-6) + 1) / rate


@functools.cache
def _font(size: int, bold: bool):
    """DejaVu Sans, which comes with matplotlib."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return ImageFont.truetype(str(Path(get_data_path()) / 'fonts/ttf' / name), size)


def _write_texts(image: np.ndarray, texts: list[tuple], top: int = 0, bold: bool = False) -> np.ndarray:
    """Write (x, y, text, colour, size, anchor) onto the rows of an image from `top` on, in place; returns it."""
    from PIL import Image, ImageDraw

    strip = Image.fromarray(image[top:])
    pen = ImageDraw.Draw(strip)
    for x, y, text, color, size, anchor in texts:
        pen.text((x, y - top), text, fill=color, font=_font(size, bold), anchor=anchor)
    image[top:] = np.asarray(strip)
    return image
