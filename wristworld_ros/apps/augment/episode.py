"""One episode: through the stream, and into a folder of its own with all that the set will get of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from wristworld_ros.apps.augment.anchors import AnchorEpisode, anchor_episode, believed_places, settings_kinematics
from wristworld_ros.apps.augment.depth import DepthSpool
from wristworld_ros.apps.augment.identity import episode_key
from wristworld_ros.apps.augment.result import COLUMNS, LOSSLESS, RESULT, STATS, VIDEO, EpisodeResult, column_names
from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.apps.augment.sources import open_source
from wristworld_ros.data.formats.lerobot.stats import HistogramStats, as_lists, vector_stats
from wristworld_ros.data.formats.lerobot.writer import CRF, GOP, LEVELS, PRESET
from wristworld_ros.data.poses import inverse
from wristworld_ros.data.video import write_lossless_video, write_video
from wristworld_ros.errors import UserError
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.input_files import json_text, read_json
from wristworld_ros.models.config import ModelConfig
from wristworld_ros.pipeline.model_directory import find_model, load_model
from wristworld_ros.pipeline.virtual_wrist import VirtualWrist
from wristworld_ros.robot.known_cameras import resized_camera
from wristworld_ros.runtime.files import WriteError, new_directory
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import Camera, FrameStatus, WristFrame


@dataclass(frozen=True)
class Job:
    """What every worker process needs. source: the set's path. work: where finished episodes are kept. run: of
    `identity.run_identity`."""

    source: Path
    work: Path
    stream: StreamSettings
    settings: AugmentSettings
    anchors: tuple[str, ...]
    run: dict[str, Any]


class EpisodeWorker:
    """Makes episodes, one after the other, with one model; what an earlier run has finished is taken.

    Args:
        job: What is made.
    """

    def __init__(self, job: Job):
        self._job, self._source = job, open_source(job.source)
        self._config = ModelConfig.read(find_model(job.stream.model) / 'config.json')
        self._wrist: VirtualWrist | None = None
        self._kinematics = settings_kinematics(job.settings)

    def __call__(self, place: int) -> EpisodeResult:
        """Make an episode by its place in the set.

        Raises:
            UserError: The model cannot be used, its tables cannot be read, or the disk refuses.
        """
        job, number = self._job, self._source.number(place)
        folder = job.work / f'episode_{number:06d}-{episode_key(job.run, self._source.depends(place, job.anchors))}'
        if (folder / RESULT).is_file():
            return replace(read_json(folder / RESULT, EpisodeResult), reused=True)
        started = time.perf_counter()
        with new_directory(folder, marker=RESULT) as making:
            track, problem = self._episode(place, making)
            result = track.result(number, folder.name, problem)
            result = replace(result, seconds=round(time.perf_counter() - started, 3))
            (making / RESULT).write_text(json_text(asdict(result)))
        return result

    def _episode(self, place: int, folder: Path) -> tuple[_Track, str]:
        """Make an episode, of black images where its own cannot be read; also returns why, or ''."""
        job, stream = self._job, self._stream()
        count, fps = self._source.length(place), self._source.fps
        try:
            episode = self._source.data.episode(place)
            count, fps = len(episode), episode.fps
            places, doubts = believed_places(episode, job.settings, self._kinematics)
            source = anchor_episode(
                episode, job.settings, self._config.wrist_hw, job.stream.wrist_fov, self._kinematics, places
            )
            return self._make(folder, count, fps, self._frames(stream, source), doubts), ''
        except WriteError:
            raise
        except UserError as error:
            return self._make(folder, count, fps, self._black_frames(count)), f'{error.what}.'

    @cached_property
    def _hw(self) -> tuple[int, int]:
        return self._job.settings.image_hw or self._config.wrist_hw

    def _frames(self, stream: VirtualWrist, source: AnchorEpisode) -> Iterator[_Frame]:
        for frame in stream_frames(stream, source):
            yield _Frame.of(frame, self._hw)
        if stream.oom_fallback.triggered():  # what the next episode gets must not depend on what ran out in this one
            self._wrist = None

    def _black_frames(self, count: int) -> Iterator[_Frame]:
        height, width = self._hw
        K = np.array([[height, 0, (width - 1) / 2], [0, height, (height - 1) / 2], [0, 0, 1]], np.float64)
        for _ in range(count):
            black = np.zeros((height, width, 3), np.uint8)
            yield _Frame(black, Camera(K, np.eye(4), width, height), np.eye(4), FrameStatus.REQUIRED_MISSING)

    def _stream(self) -> VirtualWrist:
        if self._wrist is None:
            s = self._job.stream
            model = load_model(s.model, s.device, s.precision, s.decoder)
            model.configure_process(s.threads)
            self._wrist = VirtualWrist(model, s)
        return self._wrist

    def _make(
        self, folder: Path, count: int, fps: float, frames: Iterator[_Frame], doubts: tuple[str, ...] = ()
    ) -> _Track:
        """Write everything of an episode but its result; nothing of one that cannot even be counted."""
        settings, track = self._job.settings, _Track(self._hw, doubts)
        if not count:
            return track
        crf = CRF[settings.codec] if settings.crf is None else settings.crf
        images = HistogramStats(LEVELS, 3, count)
        depth = DepthSpool(folder, self._hw, count) if settings.depth else None

        def coded() -> Iterator[np.ndarray]:
            for number, frame in enumerate(frames):
                track.add(frame)
                if depth is not None:
                    depth.add(frame.depth)
                if number in images.chosen:
                    images.add(frame.image)
                yield frame.image

        if self._source.lossless:
            write_lossless_video(folder / LOSSLESS, coded(), fps)
        else:
            preset = PRESET[settings.codec]
            write_video(folder / VIDEO, coded(), fps, crf, preset, faststart=False, codec=settings.codec, gop=GOP)
        columns = track.columns(settings.out_key)
        np.savez(folder / COLUMNS, **columns)  # type: ignore[arg-type]
        stats = {key: as_lists(vector_stats(values)) for key, values in columns.items()}
        stats[settings.out_key] = as_lists(images.result())
        if depth is not None:
            stats |= depth.finish(settings.out_key, fps, self._source.codes_depth)
        (folder / STATS).write_text(json_text(stats))
        return track


def stream_frames(stream: VirtualWrist, source: AnchorEpisode) -> Iterator[WristFrame]:
    """A frame for every frame of an episode, as a stream gives them that begins with it.

    Where the last chunk is not full, the last anchor set fills it; what it shows beyond the episode is dropped.
    """
    stream.reset()
    left, last, step = len(source), None, round(1e9 / source.episode.fps)
    for last in source.sets():
        for frame in stream.push(last):
            left -= 1
            yield frame
    while left and last is not None:
        last = replace(last, stamp_ns=last.stamp_ns + step)
        for frame in stream.push(last):
            if left:
                left -= 1
                yield frame


@dataclass(frozen=True)
class _Frame:
    """A frame as it is stored. image: uint8 [h, w, 3]. camera: of it, in its world. T_camera_anchor: float64 [4, 4], to it from the
    first anchor camera. in_base: whether its world is the robot's base; None for a frame without a camera. depth: float32 [h, w], metres,
    0 where nothing is seen; None where it has none."""

    image: np.ndarray
    camera: Camera
    T_camera_anchor: np.ndarray
    status: FrameStatus
    confidence: float = 0.0
    coverage: float = 0.0
    in_base: bool | None = None
    depth: np.ndarray | None = None

    @classmethod
    def of(cls, frame: WristFrame, hw: tuple[int, int]) -> _Frame:
        status, world = frame.verdict.status, frame.reconstruction.world
        T_anchor_world = frame.reconstruction.anchors[0].T_camera_world
        return cls(
            resize_images(frame.image[None], hw)[0],
            resized_camera(frame.camera, hw),
            frame.camera.T_camera_world @ np.linalg.inv(T_anchor_world),
            status, frame.confidence, frame.coverage, None if status.is_blank else world == 'base',
            None if frame.depth is None else resize_images(frame.depth.float().cpu().numpy()[None], hw, nearest=True)[0],
        )  # fmt: skip


class _Track:
    """Everything of an episode's frames but their images."""

    def __init__(self, hw: tuple[int, int], doubts: tuple[str, ...] = ()):
        self._hw, self._frames, self._doubts = hw, list[_Frame](), doubts

    def add(self, frame: _Frame) -> None:
        self._frames.append(replace(frame, image=np.empty(0, np.uint8), depth=None))

    @property
    def _in_base(self) -> bool | None:
        told = [frame.in_base for frame in self._frames if frame.in_base is not None]
        return all(told) if told else None

    @property
    def _largest_step(self) -> float:
        """Metres between the places of the camera in neighbouring frames, in the first anchor's frame, at most."""
        poses = [inverse(f.T_camera_anchor) for f in self._frames if f.in_base is not None]
        return max((float(np.linalg.norm(b[:3, 3] - a[:3, 3])) for a, b in pairwise(poses)), default=0.0)

    @staticmethod
    def _mean(values: list[float]) -> float:
        return round(float(np.mean(values)), 4) if values else 0.0

    def columns(self, key: str) -> dict[str, np.ndarray]:
        """Columns [T, N] by name. T_camera_base is the pose in the frame's own world, which need not be the base: see `_in_base`."""
        frames, names = self._frames, column_names(key)
        statuses = np.array([frame.status for frame in frames], np.int64)
        return {
            names['valid']: statuses[:, None] == FrameStatus.VALID,
            names['status']: statuses[:, None],
            names['confidence']: np.array([[frame.confidence] for frame in frames], np.float32),
            names['K']: np.stack([frame.camera.K.reshape(9) for frame in frames]).astype(np.float64),
            names['T_camera_anchor']: np.stack([frame.T_camera_anchor.reshape(16) for frame in frames]),
            names['T_camera_base']: np.stack([frame.camera.T_camera_world.reshape(16) for frame in frames]),
        }

    def result(self, episode: int, folder: str, problem: str) -> EpisodeResult:
        statuses = Counter(frame.status.name for frame in self._frames)
        return EpisodeResult(
            episode, folder, len(self._frames), self._hw[1], self._hw[0],
            valid=statuses[FrameStatus.VALID.name],
            confidence=self._mean([frame.confidence for frame in self._frames]),
            coverage=self._mean([frame.coverage for frame in self._frames]),
            step=round(self._largest_step, 4), statuses=dict(sorted(statuses.items())), in_base=self._in_base, problem=problem,
            doubts=self._doubts,
        )  # fmt: skip
