"""Anchors, condition map, generated wrist and true wrist side by side: a video, its poster and a contact sheet."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from wristworld_ros.data.recording import CONDITION, TRUE_WRIST, WRIST, Recording
from wristworld_ros.data.video import write_video
from wristworld_ros.geometry.images import resize_images

TILE = 272  # height of an image, pixels
GAP, LABELS, FOOT = 12, 34, 40
PAPER, MISSING, INK, MUTED = (15, 20, 28), (32, 39, 50), (235, 239, 245), (138, 150, 168)
ACCENT, ALARM = (88, 150, 255), (240, 92, 80)
TITLES = {CONDITION: 'condition map', WRIST: 'generated wrist', TRUE_WRIST: 'true wrist'}
SLOP_S = 0.06


class Layout:
    """Where each stream's image goes; the same for every frame of a recording."""

    def __init__(self, recording: Recording):
        self.recording = recording
        streams = [*(f'anchor_{a}' for a in recording.anchors), CONDITION, WRIST]
        streams += [TRUE_WRIST] if recording.has_truth else []
        self.boxes: dict[str, tuple[int, int, int]] = {}  # stream -> x, y, width
        x = GAP
        for stream in streams:
            stamps = recording.stamps(stream)
            sample = recording.nearest(stream, int(stamps[len(stamps) // 2])) if len(stamps) else None
            aspect = sample.shape[1] / sample.shape[0] if sample is not None else 1.0
            width = round(TILE * aspect)
            self.boxes[stream] = (x, LABELS, width)
            x += width + GAP
        self.width, self.height = x + x % 2, LABELS + TILE + FOOT  # even, as H.264 wants it
        self.background = self._background()

    def _background(self) -> np.ndarray:
        labels = []
        for stream, (x, _, width) in self.boxes.items():
            title = TITLES.get(stream, stream.replace('_', ' '))
            labels.append((x + width / 2, LABELS / 2, title, ACCENT if stream == WRIST else INK, 15, 'mm'))
        blank = np.full((self.height, self.width, 3), PAPER, np.uint8)
        return _write_texts(blank, labels, bold=True)

    def frame(self, view: dict, seconds: float, psnr: float | None) -> np.ndarray:
        """One frame, uint8 [height, width, 3]: the images of a wrist frame's stamp, and its figures below them.

        Args:
            view: A record of `Recording.views`.
            seconds: Its time since the first one.
            psnr: Against the true wrist camera, dB, or None.
        """
        composed = self.background.copy()
        for stream, (x, y, width) in self.boxes.items():
            slop = 1e-6 if stream == WRIST else SLOP_S
            image = self.recording.nearest(stream, view['stamp_ns'], slop)
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
        facts += [f'PSNR {psnr:.1f} dB'] if psnr is not None else []
        foot = self.height - FOOT / 2
        left = f'{seconds:5.1f} s' if view['valid'] else f'{seconds:5.1f} s    invalid: {view["reason"]}'
        texts = [(GAP, foot, left, MUTED if view['valid'] else ALARM, 14, 'lm')]
        texts.append((self.width - GAP, foot, '   ·   '.join(facts), MUTED, 14, 'rm'))
        return _write_texts(composed, texts, top=self.height - FOOT)


def write_side_by_side(
    recording: Recording,
    layout: Layout,
    path: Path,
    psnr: dict[int, float],
    on_frame: Callable[[], object] = lambda: None,
) -> None:
    """Write the video at a constant rate near that of the wrist frames; a frame is shown until the next one comes.

    Args:
        recording: Of the demo.
        layout: Where its images go.
        path: Of an MP4 file (H.264, yuv420p).
        psnr: PSNR by stamp, dB, of the frames that have one.
        on_frame: Called for every frame written; `video_frames` says how many there will be.
    """
    rate, times = _clock(recording)

    def frames() -> Iterator[np.ndarray]:
        seconds, shown = recording.seconds(), -1
        image = layout.background
        for time in times:
            newest = int(np.searchsorted(seconds, time + 1e-6, side='right')) - 1
            if newest != shown:
                image, shown = _frame(recording, layout, newest, psnr), newest
            yield image
            on_frame()

    write_video(path, frames(), rate, crf=20)


def video_frames(recording: Recording) -> int:
    """Frames that `write_side_by_side` writes."""
    return len(_clock(recording)[1])


def write_contact_sheet(recording: Recording, layout: Layout, path: Path, psnr: dict[int, float], rows: int = 5) -> None:
    """Write a PNG of frames spread evenly over the recording, under one row of labels."""
    chosen = np.linspace(0, len(recording.views) - 1, min(rows, len(recording.views)) + 2).round().astype(int)[1:-1]
    strips = [layout.background[:LABELS]]
    strips += [_frame(recording, layout, int(index), psnr)[LABELS - 4 :] for index in chosen]
    cv2.imwrite(str(path), np.concatenate(strips)[..., ::-1])


def write_poster(recording: Recording, layout: Layout, path: Path, psnr: dict[int, float]) -> None:
    """Write a PNG of one frame, from the middle of the recording."""
    cv2.imwrite(str(path), _frame(recording, layout, len(recording.views) // 2, psnr)[..., ::-1])


def _frame(recording: Recording, layout: Layout, index: int, psnr: dict[int, float]) -> np.ndarray:
    view = recording.views[index]
    return layout.frame(view, float(recording.seconds()[index]), psnr.get(view['stamp_ns']))


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
