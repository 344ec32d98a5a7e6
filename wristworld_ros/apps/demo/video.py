"""Side by side: anchors, condition map, generated wrist, true wrist. A video, its poster and a contact sheet."""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from wristworld_ros.data.recording import CONDITION, TRUE_WRIST, WRIST, Recording

TILE = 272  # height of a picture, pixels
GAP, LABELS, FOOT = 12, 34, 40
PAPER, INK, MUTED, ACCENT, ALARM = (15, 20, 28), (235, 239, 245), (138, 150, 168), (88, 150, 255), (240, 92, 80)
TITLES = {CONDITION: 'condition map', WRIST: 'generated wrist', TRUE_WRIST: 'true wrist'}
SLOP_S = 0.06


class Layout:
    """Where each stream's picture goes; the same for every frame of a recording."""

    def __init__(self, recording: Recording):
        self.recording = recording
        streams = [*(f'anchor_{a}' for a in recording.anchors), CONDITION, WRIST]
        streams += [TRUE_WRIST] if recording.has_truth else []
        self.boxes: dict[str, tuple[int, int, int]] = {}
        x = GAP
        for stream in streams:
            stamps = recording.stamps(stream)
            sample = recording.nearest(stream, int(stamps[len(stamps) // 2])) if len(stamps) else None
            aspect = sample.shape[1] / sample.shape[0] if sample is not None else 1.0
            width = round(TILE * aspect)
            self.boxes[stream] = (x, LABELS, width)
            x += width + GAP
        self.width, self.height = x + x % 2, LABELS + TILE + FOOT
        self.background = self._background()

    def _background(self) -> np.ndarray:
        labels = []
        for stream, (x, _, width) in self.boxes.items():
            title = TITLES.get(stream, stream.replace('_', ' '))
            labels.append((x + width / 2, LABELS / 2, title, ACCENT if stream == WRIST else INK, 15, 'mm'))
        canvas = np.full((self.height, self.width, 3), PAPER, np.uint8)
        return _write(canvas, labels, bold=True)

    def frame(self, view: dict, seconds: float, psnr: float | None) -> np.ndarray:
        """One frame, uint8 [height, width, 3]: the pictures of a wrist frame's stamp and what is known of it."""
        canvas = self.background.copy()
        for stream, (x, y, width) in self.boxes.items():
            slop = 1e-6 if stream == WRIST else SLOP_S
            picture = self.recording.nearest(stream, view['stamp_ns'], slop)
            if picture is None:
                canvas[y : y + TILE, x : x + width] = (32, 39, 50)
                continue
            how = cv2.INTER_AREA if picture.shape[0] > TILE else cv2.INTER_CUBIC
            canvas[y : y + TILE, x : x + width] = cv2.resize(picture, (width, TILE), interpolation=how)
        x, y, width = self.boxes[WRIST]
        color = ACCENT if view['fit'] else ALARM
        cv2.rectangle(canvas, (x - 2, y - 2), (x + width + 1, y + TILE + 1), color, 3)
        facts = [
            f'{view["age"] * 1e3:.0f} ms after the stamp',
            f'coverage {view["coverage"]:.0%}',
            f'confidence {view["confidence"]:.0%}',
        ]
        facts += [f'PSNR {psnr:.1f} dB'] if psnr is not None else []
        foot = self.height - FOOT / 2
        left = f'{seconds:5.1f} s' if view['fit'] else f'{seconds:5.1f} s    not fit: {view["reason"]}'
        texts = [(GAP, foot, left, MUTED if view['fit'] else ALARM, 14, 'lm')]
        texts.append((self.width - GAP, foot, '   ·   '.join(facts), MUTED, 14, 'rm'))
        return _write(canvas, texts, top=self.height - FOOT)


def write_video(
    recording: Recording, layout: Layout, path: Path, psnr: dict[int, float], tick: Callable[[], None] = lambda: None
) -> Path:
    """H.264 (yuv420p) at a constant rate near that of the wrist frames; a late frame is held. psnr: by stamp.

    tick is called once for every frame written; `video_frames` says how many there will be.
    """
    rate, times = _clock(recording)
    stamps, chosen = recording.seconds(), -1
    picture = layout.background
    with av.open(str(path), 'w', options={'movflags': '+faststart'}) as file:
        stream = file.add_stream(
            'libx264', rate=Fraction(rate), options={'crf': '20', 'preset': 'veryfast', 'threads': '2'}
        )
        stream.width, stream.height, stream.pix_fmt = layout.width, layout.height, 'yuv420p'
        for time in times:
            newest = int(np.searchsorted(stamps, time + 1e-6, side='right')) - 1
            if newest != chosen:
                view, chosen = recording.views[newest], newest
                picture = layout.frame(view, stamps[newest], psnr.get(view['stamp_ns']))
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')):
                file.mux(packet)
            tick()
        for packet in stream.encode():
            file.mux(packet)
    return path


def video_frames(recording: Recording) -> int:
    """Frames that `write_video` writes."""
    return len(_clock(recording)[1])


def contact_sheet(recording: Recording, layout: Layout, path: Path, psnr: dict[int, float], rows: int = 5) -> Path:
    """PNG of frames spread evenly over the recording, under one row of labels."""
    chosen = np.linspace(0, len(recording.views) - 1, min(rows, len(recording.views)) + 2).round().astype(int)[1:-1]
    seconds = recording.seconds()
    strips = [layout.background[:LABELS]]
    for index in chosen if len(chosen) else [0]:
        view = recording.views[index]
        strips.append(layout.frame(view, seconds[index], psnr.get(view['stamp_ns']))[LABELS - 4 :])
    cv2.imwrite(str(path), np.concatenate(strips)[..., ::-1])
    return path


def poster(recording: Recording, layout: Layout, path: Path, psnr: dict[int, float]) -> Path:
    """PNG of one frame, of the middle of the recording."""
    index = len(recording.views) // 2
    view = recording.views[index]
    frame = layout.frame(view, recording.seconds()[index], psnr.get(view['stamp_ns']))
    cv2.imwrite(str(path), frame[..., ::-1])
    return path


def _clock(recording: Recording) -> tuple[int, np.ndarray]:
    """Frames a second, and the times of the video's frames."""
    seconds = recording.seconds()
    gap = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.1
    rate = int(np.clip(round(1 / max(gap, 1e-3)), 5, 30))
    return rate, np.arange(int(seconds[-1] * rate + 1e-6) + 1) / rate


@functools.cache
def _font(size: int, bold: bool):
    """DejaVu Sans, which matplotlib brings."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return ImageFont.truetype(str(Path(get_data_path()) / 'fonts/ttf' / name), size)


def _write(canvas: np.ndarray, texts: list[tuple], top: int = 0, bold: bool = False) -> np.ndarray:
    """Draw (x, y, text, colour, size, anchor) onto the rows from `top` on."""
    from PIL import Image, ImageDraw

    strip = Image.fromarray(canvas[top:])
    draw = ImageDraw.Draw(strip)
    for x, y, text, color, size, anchor in texts:
        draw.text((x, y - top), text, fill=color, font=_font(size, bold), anchor=anchor)
    canvas[top:] = np.asarray(strip)
    return canvas
