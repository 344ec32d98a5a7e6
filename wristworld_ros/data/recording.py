"""What a live run leaves on disk: images by stream and stamp, and what the node reported about them. No ROS.

recording.json          what was run (`head`) and the anchors' names
<stream>/<stamp>.png    or .jpg; streams are anchor_<name>, condition, wrist, true_wrist, true_objects (which object each pixel of
                        the true wrist image shows), and wrist_<mode>: what another mode made of the same sets; stamps in ns
views.jsonl             one line per wrist frame: stamp_ns, received_ns, coverage, confidence, agreement, latency, age, valid, status,
                        geometry, reason
views_<mode>.jsonl      the same of the images of wrist_<mode>, without received_ns and age
desk.jsonl              one line per wrist frame whose wrist camera was known: what else was known; see `DeskRecord`
status.jsonl            one line per status message of the node
"""

from __future__ import annotations

import errno
import logging
import math
import os
import queue
import threading
import time
from collections import deque
from functools import cached_property
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import cv2
import numpy as np

from wristworld_ros.data.images import read_image, write_image
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import check_name, json_text, read_json, read_json_lines

CONDITION, WRIST, TRUE_WRIST, TRUE_OBJECTS = 'condition', 'wrist', 'true_wrist', 'true_objects'
WAITING = 40  # images per stream that are kept until the first wrist frame comes
_PNG, _JPEG = (cv2.IMWRITE_PNG_COMPRESSION, 1), (cv2.IMWRITE_JPEG_QUALITY, 93)
log = logging.getLogger(__name__)


def replayed_stream(mode: str) -> str:
    """Name of the images that another mode made afterwards."""
    return f'{WRIST}_{mode}'


class WristRecord(TypedDict):
    """A line of views.jsonl. Numbers that were NaN or infinite are null there, and NaN in `Recording.views`."""

    stamp_ns: int
    received_ns: int
    coverage: float | None
    confidence: float | None
    agreement: float | None
    latency: float | None
    age: float | None
    valid: bool
    status: str
    geometry: NotRequired[str]
    reason: str


class DeskRecord(TypedDict):
    """A line of desk.jsonl. Matrices row by row: K in pixels of the images, T_base_anchor and T_wrist_base in metres; by anchor,
    those that are known. joints: radians and metres, empty where unknown. wrist_size: width, height."""

    stamp_ns: int
    intrinsics: dict[str, list[float]]
    T_base_anchor: dict[str, list[float]]
    joints: dict[str, float]
    wrist_K: list[float]
    T_wrist_base: list[float]
    wrist_size: list[int]


class _About(TypedDict):
    """recording.json."""

    anchors: tuple[str, ...]
    head: dict[str, Any]


class RecordingWriter:
    """Takes images and records from callbacks and writes them in a thread of its own.

    Anchor images are stored as JPEG, the others as PNG, so that metrics are exact. Nothing is written before `start()`;
    of what came earlier the newest images are kept.

    Args:
        folder: Made here.
        head: What was run; anything JSON can hold.
        anchors: Names of the anchor cameras.
        patience: Seconds that the last writes may take in `close`.

    Attributes:
        counts: Images and records that are on disk, by stream.
        dropped: Images and records that are not: they came faster than the disk takes them, or it refused them.
        problem: The sentence about what could not be written, of the latest failure; '' where there was none.

    Raises:
        UserError: The folder cannot be made or written.
    """

    def __init__(self, folder: Path, head: dict, anchors: tuple[str, ...], patience: float = 30.0):
        for name in anchors:
            check_name(name, 'An anchor')
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            about = json_text({'anchors': list(anchors), 'head': head})
            (self.folder / 'recording.json').write_text(about)
        except OSError as error:
            raise UserError(
                f'The recording {self.folder} cannot be written ({error.strerror})', 'choose another folder'
            ) from error
        self.counts: dict[str, int] = {}
        self.dropped = 0
        self.problem = ''
        self._told: set[str] = set()
        self.patience = patience
        self._waiting: dict[str, deque] = {}
        self._started = False
        self._queue: queue.Queue = queue.Queue(maxsize=600)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._write_all, name='recording', daemon=True)
        self._thread.start()

    def image(self, stream: str, stamp_ns: int, rgb: np.ndarray) -> None:
        """Store uint8 [H, W, 3] RGB; what the disk cannot take in time is dropped and counted."""
        with self._lock:
            if not self._started:
                self._waiting.setdefault(stream, deque(maxlen=WAITING)).append((stamp_ns, rgb))
                return
        self._put((stream, stamp_ns, rgb))

    def line(self, name: str, record: dict) -> None:
        """Append a record to <name>.jsonl."""
        if self._started:
            self._put((name, None, record))

    def start(self) -> None:
        """Begin to write, with the images that wait."""
        with self._lock:
            if self._started:
                return
            self._started = True
            waiting, self._waiting = self._waiting, {}
        for stream, images in waiting.items():
            for stamp_ns, rgb in images:
                self._put((stream, stamp_ns, rgb))

    def close(self) -> None:
        """Write what is left. Returns in any case: what a disk that hangs has not taken by then is dropped and counted."""
        end = time.monotonic() + self.patience
        while self._thread.is_alive() and time.monotonic() < end:
            try:
                self._queue.put(None, timeout=0.1)
                break
            except queue.Full:
                continue
        self._thread.join(max(end - time.monotonic(), 0.0))
        if self._thread.is_alive():
            self._tell(f'The disk of {self.folder} has not taken what is recorded within {self.patience:.0f} s.')
        while not self._queue.empty():
            self.dropped += self._queue.get_nowait() is not None

    def _put(self, item) -> None:
        if not self._thread.is_alive():
            self.dropped += 1
            self._tell(f'The thread that writes {self.folder} has ended; nothing more is recorded.')
            return
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self.dropped += 1
            self._tell(f'The disk of {self.folder} is slower than what is recorded, of which some is dropped.')

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._write(*item)
            except Exception as error:  # nothing may end the thread, or the queue fills up unseen
                self.dropped += 1
                reason = getattr(error, 'strerror', None) or str(error).strip() or type(error).__name__
                self._tell(f'{item[0]} cannot be written to {self.folder} ({reason}); what comes meanwhile is lost.')
            else:
                self.counts[item[0]] = self.counts.get(item[0], 0) + 1

    def _write(self, name: str, stamp_ns: int | None, value) -> None:
        if stamp_ns is None:
            _append(self.folder / f'{name}.jsonl', json_text(value, indent=None))
            return
        lossy = name.startswith('anchor_')
        path = self.folder / name / f'{stamp_ns}.{"jpg" if lossy else "png"}'
        path.parent.mkdir(exist_ok=True)
        write_image(path, value, _JPEG if lossy else _PNG)

    def _tell(self, problem: str) -> None:
        """Keep a problem, and log it the first time that it comes."""
        self.problem = problem
        if problem not in self._told:
            self._told.add(problem)
            log.warning('%s', problem)


def _append(path: Path, line: str) -> None:
    """Append a line as a whole: what a full disk cuts short is taken back."""
    with open(path, 'ab', buffering=0) as file:
        start, data = file.tell(), line.encode()
        try:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(start)
            raise


_FIX = 'give a folder that the demo recorded'


class Recording:
    """A recording on disk.

    Attributes:
        head: What was run.
        anchors: Names of the anchor cameras.
        views: Records of the wrist frames, in order of their stamps, each stamp once.
        status: Records of the node's status messages.
        damage: Sentences about what a recorder that was killed has left incomplete.

    Raises:
        UserError: The folder holds no recording, or the recording has no wrist frame.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        about_file = self.folder / 'recording.json'
        if not about_file.exists():
            raise UserError(f'{self.folder} holds no recording', _FIX)
        about = read_json(about_file, _About, _FIX)
        self.head: dict = about['head']
        self.anchors: tuple[str, ...] = tuple(about['anchors'])
        for name in self.anchors:
            check_name(name, f'An anchor of {about_file}')
        self.damage: list[str] = []
        self.views = self._unique(self._lines('views', WristRecord))
        self.status = self._lines('status', dict[str, Any])
        if not self.views:
            raise UserError(
                f'No wrist frame was recorded in {self.folder}', 'see in its log folder what the node reported'
            )

    @cached_property
    def desk(self) -> dict[int, DeskRecord]:
        """What was known of the wrist frames, by their stamps; empty where nothing was recorded of it."""
        if not (self.folder / 'desk.jsonl').exists():
            return {}
        return {record['stamp_ns']: record for record in self._lines('desk', DeskRecord)}

    def replayed(self, mode: str) -> list[dict[str, Any]]:
        """Records of the frames that another mode made afterwards; empty where none did."""
        return self._lines(f'views_{mode}', dict[str, Any]) if (self.folder / f'views_{mode}.jsonl').exists() else []

    @property
    def has_truth(self) -> bool:
        """Whether a true wrist camera was recorded."""
        return len(self.stamps(TRUE_WRIST)) > 0

    @cached_property
    def _paths(self) -> dict[str, dict[int, Path]]:
        streams = [p for p in self.folder.iterdir() if p.is_dir()]
        return {
            s.name: {int(p.stem): p for p in s.iterdir() if p.stem.isdecimal() and len(p.stem) < 20} for s in streams
        }

    @cached_property
    def _stamps(self) -> dict[str, np.ndarray]:
        return {name: np.array(sorted(paths), np.int64) for name, paths in self._paths.items()}

    def stamps(self, stream: str) -> np.ndarray:
        """Stamps of a stream's images, int64, rising."""
        return self._stamps.get(stream, np.zeros(0, np.int64))

    def nearest(self, stream: str, stamp_ns: int, slop_s: float = 0.06) -> np.ndarray | None:
        """The image nearest to a stamp, uint8 [H, W, 3] RGB; None where none lies within the slop."""
        stamps = self.stamps(stream)
        if not len(stamps):
            return None
        found = int(stamps[np.abs(stamps - stamp_ns).argmin()])
        if abs(found - stamp_ns) > slop_s * 1e9:
            return None
        try:
            return read_image(self._paths[stream][found])
        except UserError as error:
            log.warning('%s', error)
            return None

    def seconds(self) -> np.ndarray:
        """Times of the wrist frames since the first one, seconds, float64 [N]."""
        stamps = np.array([v['stamp_ns'] for v in self.views], np.int64)
        return (stamps - stamps[0]) * 1e-9

    def series(self, key: str) -> np.ndarray:
        """One number of every wrist frame, float64 [N]."""
        return np.array([float(v[key]) for v in self.views])

    def _lines(self, name: str, kind: Any) -> list:
        path = self.folder / f'{name}.jsonl'
        records, cut = read_json_lines(path, kind, _FIX)
        if cut:
            self.damage.append(f'The last line of {path} was cut short and is left out.')
            log.warning('%s', self.damage[-1])
        return records

    @staticmethod
    def _unique(views: list[WristRecord]) -> list[dict[str, Any]]:
        by_stamp = {view['stamp_ns']: view for view in views}
        return [{k: math.nan if v is None else v for k, v in by_stamp[stamp].items()} for stamp in sorted(by_stamp)]
