"""What a live run leaves on disk: images by stream and stamp, and what the node reported about them. No ROS.

recording.json          what was run (`head`) and the anchors' names
<stream>/<stamp>.png    or .jpg; streams are anchor_<name>, condition, wrist, true_wrist; stamps in nanoseconds
views.jsonl             one line per wrist frame: stamp_ns, received_ns, coverage, confidence, latency, age, valid, status, reason
status.jsonl            one line per status message of the node
"""

from __future__ import annotations

import json
import queue
import threading
from collections import deque
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from wristworld_ros.errors import UserError

CONDITION, WRIST, TRUE_WRIST = 'condition', 'wrist', 'true_wrist'
WAITING = 40  # images per stream that are kept until the first wrist frame comes


class RecordingWriter:
    """Takes images and records from callbacks and writes them in a thread of its own.

    Anchor images are stored as JPEG, the others as PNG, so that metrics are exact. Nothing is written before `start()`;
    of what came earlier the newest images are kept.

    Args:
        folder: Made here.
        head: What was run; anything JSON can hold.
        anchors: Names of the anchor cameras.

    Attributes:
        counts: Images and records taken, by stream.
        dropped: Images and records that came faster than the disk takes them, or that it refused.

    Raises:
        UserError: The folder cannot be made or written.
    """

    def __init__(self, folder: Path, head: dict, anchors: tuple[str, ...]):
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            about = json.dumps({'anchors': list(anchors), 'head': head}, indent=1)
            (self.folder / 'recording.json').write_text(about + '\n')
        except OSError as error:
            raise UserError(
                f'The recording {self.folder} cannot be written ({error.strerror})', 'choose another folder'
            ) from error
        self.counts: dict[str, int] = {}
        self.dropped = 0
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
        """Write what is left."""
        self._queue.put(None)
        self._thread.join()

    def _put(self, item) -> None:
        try:
            self._queue.put_nowait(item)
            self.counts[item[0]] = self.counts.get(item[0], 0) + 1
        except queue.Full:
            self.dropped += 1

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._write(*item)
            except OSError:  # a full disk must not end the thread, or the queue fills up unseen
                self.dropped += 1

    def _write(self, name: str, stamp_ns: int | None, value) -> None:
        if stamp_ns is None:
            with open(self.folder / f'{name}.jsonl', 'a') as file:
                file.write(json.dumps(value) + '\n')
            return
        lossy = name.startswith('anchor_')
        options = [cv2.IMWRITE_JPEG_QUALITY, 93] if lossy else [cv2.IMWRITE_PNG_COMPRESSION, 1]
        path = self.folder / name / f'{stamp_ns}.{"jpg" if lossy else "png"}'
        path.parent.mkdir(exist_ok=True)
        if not cv2.imwrite(str(path), value[..., ::-1], options):
            raise OSError(f'{path} was not written')


class Recording:
    """A recording on disk.

    Attributes:
        head: What was run.
        anchors: Names of the anchor cameras.
        views: Records of the wrist frames, in order of their stamps, each stamp once.
        status: Records of the node's status messages.

    Raises:
        UserError: The folder holds no recording, or the recording has no wrist frame.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        try:
            about = json.loads((self.folder / 'recording.json').read_text())
        except (OSError, ValueError):
            raise UserError(f'{self.folder} holds no recording', 'give a folder that the demo recorded') from None
        self.head: dict = about['head']
        self.anchors: tuple[str, ...] = tuple(about['anchors'])
        self.views = self._unique(self._lines('views'))
        self.status = self._lines('status')
        if not self.views:
            raise UserError(
                f'No wrist frame was recorded in {self.folder}', 'see in its log folder what the node reported'
            )

    @property
    def has_truth(self) -> bool:
        """Whether a true wrist camera was recorded."""
        return len(self.stamps(TRUE_WRIST)) > 0

    @cached_property
    def _paths(self) -> dict[str, dict[int, Path]]:
        streams = [p for p in self.folder.iterdir() if p.is_dir()]
        return {s.name: {int(p.stem): p for p in s.iterdir() if p.stem.isdigit()} for s in streams}

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
        image = cv2.imread(str(self._paths[stream][found]))
        return None if image is None else np.ascontiguousarray(image[..., ::-1])

    def seconds(self) -> np.ndarray:
        """Times of the wrist frames since the first one, seconds, float64 [N]."""
        stamps = np.array([v['stamp_ns'] for v in self.views], np.int64)
        return (stamps - stamps[0]) * 1e-9

    def series(self, key: str) -> np.ndarray:
        """One number of every wrist frame, float64 [N]."""
        return np.array([float(v[key]) for v in self.views])

    def _lines(self, name: str) -> list[dict]:
        path = self.folder / f'{name}.jsonl'
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    @staticmethod
    def _unique(views: list[dict]) -> list[dict]:
        return [v for _, v in sorted({v['stamp_ns']: v for v in views}.items())]
