"""Episodes: through the model, and each into a folder of its own with all that the set will get of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from wristworld_ros.apps.augment.anchors import AnchorEpisode, anchor_episode, believed_places, settings_kinematics
from wristworld_ros.apps.augment.depth import DepthSpool
from wristworld_ros.apps.augment.identity import episode_key, group_key
from wristworld_ros.apps.augment.result import COLUMNS, LOSSLESS, RESULT, STATS, VIDEO, EpisodeResult, column_names
from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.apps.augment.source import AugmentSource
from wristworld_ros.apps.augment.sources import open_source
from wristworld_ros.apps.augment.streams import EpisodeStreams
from wristworld_ros.data.formats.lerobot.stats import HistogramStats, as_lists, vector_stats
from wristworld_ros.data.formats.lerobot.writer import CRF, GOP, LEVELS, PRESET
from wristworld_ros.data.lossless_video import write_lossless_video
from wristworld_ros.data.poses import inverse
from wristworld_ros.data.video import write_video
from wristworld_ros.errors import UserError
from wristworld_ros.geometry.images import resize_images
from wristworld_ros.input_files import json_text, read_json
from wristworld_ros.models.config import ModelConfig
from wristworld_ros.pipeline.model_directory import find_model, load_model
from wristworld_ros.robot.known_cameras import resized_camera
from wristworld_ros.runtime.files import WriteError, new_directory
from wristworld_ros.runtime.overlap import Channel, ReaderGoneError
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import Camera, FrameStatus, WristFrame

_FRAMES_WAITING = 16  # to be written, of an episode


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
    """Makes groups of episodes, one group after the other, with one model; what an earlier run has finished is taken.

    The episodes of a group go side by side through the model (`EpisodeStreams`), and each is written by a thread of its own.

    Args:
        job: What is made.
    """

    def __init__(self, job: Job):
        self._job, self._source = job, open_source(job.source)
        self._config = ModelConfig.read(find_model(job.stream.model) / 'config.json')
        self._groups = episode_groups(self._source, job.settings.batch)
        self._kinematics = settings_kinematics(job.settings)
        self._shared: EpisodeStreams | None = None

    def __call__(self, group: int) -> list[EpisodeResult]:
        """Make a group by its number among `episode_groups`.

        Raises:
            UserError: The model cannot be used, its tables cannot be read, or the disk refuses.
        """
        folders = self._folders(self._groups[group])
        done = {place: folder for place, folder in folders.items() if (folder / RESULT).is_file()}
        results = {place: replace(read_json(at / RESULT, EpisodeResult), reused=True) for place, at in done.items()}
        if len(done) < len(folders):
            # Others of the group run along, for the last bits depend on the batch, but are not written again.
            results |= self._made(folders, done)
        return [results[place] for place in folders]

    def _folders(self, places: tuple[int, ...]) -> dict[int, Path]:
        """Where the episodes of a group are kept, by place in the set."""
        job, source = self._job, self._source
        keys = [episode_key(job.run, source.depends(place, job.anchors)) for place in places]
        return {
            place: job.work / f'episode_{source.number(place):06d}-{group_key(key, keys)}'
            for place, key in zip(places, keys, strict=True)
        }

    def _made(self, folders: dict[int, Path], done: Container[int]) -> dict[int, EpisodeResult]:
        """Make those of a group's episodes that are not done."""
        streams, seconds = self._streams(), dict.fromkeys(folders, 0.0)
        sources, doubts, problems = self._sources(folders)
        channels = {place: Channel[_Frame](_FRAMES_WAITING) for place in folders if place not in done}
        with ThreadPoolExecutor(len(channels), 'write') as threads:
            writing = {}
            for place, channel in channels.items():
                writing[place] = threads.submit(
                    self._written, place, sources.get(place), doubts.get(place, ()), folders[place], channel, seconds
                )
            end: BaseException = RuntimeError('A stream gave fewer frames than its episode has.')
            try:
                for place in problems.keys() & channels.keys():
                    channels[place].close(problems[place])
                self._feed(streams, sources, channels, seconds)
            except ReaderGoneError as error:
                end = error  # what ended the thread that reads says more
            except BaseException:
                end = ReaderGoneError()  # no UserError: that would stand for an episode that cannot be read
                raise
            finally:
                for channel in channels.values():  # of no effect on those whose episode is complete
                    channel.close(end)
        if streams.gave_something_up:  # what the next group gets must not depend on what ran out in this one
            streams.close()
            self._shared = None
        failed = [error for one in writing.values() if (error := one.exception()) is not None]
        if failed:
            raise next((error for error in failed if not isinstance(error, ReaderGoneError)), failed[0])
        return {place: one.result() for place, one in writing.items()}

    def _feed(
        self,
        streams: EpisodeStreams,
        sources: dict[int, AnchorEpisode],
        channels: dict[int, Channel[_Frame]],
        seconds: dict[int, float],
    ) -> None:
        """Make the frames of some episodes and hand them to the threads that write them; adds up the time that each has a share of."""
        left = {place: len(source) for place, source in sources.items()}
        since = time.perf_counter()
        for found in streams.frames(sources):
            now = time.perf_counter()
            for place, frames in found.items():
                seconds[place] += (now - since) / len(found)
                if place not in channels:
                    continue
                if isinstance(frames, UserError):
                    channels[place].close(frames)
                    continue
                for frame in frames[: left[place]]:
                    channels[place].put(_Frame.of(frame, self._hw))
                left[place] -= len(frames[: left[place]])
                if not left[place]:
                    channels[place].close()
            since = now

    def _sources(
        self, places: Iterable[int]
    ) -> tuple[dict[int, AnchorEpisode], dict[int, tuple[str, ...]], dict[int, UserError]]:
        """Episodes as the model takes them, what is doubted of them, and why some cannot be opened."""
        sources, doubts, problems = {}, {}, {}
        wrist_hw, fov = self._config.wrist_hw, self._job.stream.wrist_fov
        for place in places:
            try:
                episode = self._source.data.episode(place)
                believed, doubts[place] = believed_places(episode, self._job.settings, self._kinematics)
                sources[place] = anchor_episode(episode, self._job.settings, wrist_hw, fov, self._kinematics, believed)
            except UserError as error:
                problems[place] = error
        return sources, doubts, problems

    def _written(
        self,
        place: int,
        source: AnchorEpisode | None,
        doubts: tuple[str, ...],
        folder: Path,
        frames: Channel[_Frame],
        seconds: dict[int, float],
    ) -> EpisodeResult:
        """Write an episode while its frames come: of black images where its own cannot be read."""
        try:
            number, problem = self._source.number(place), ''
            count, fps = self._source.length(place) if source is None else len(source), self._source.fps
            fps = fps if source is None else source.episode.fps
            with new_directory(folder, marker=RESULT) as making:
                try:
                    track = self._make(making, count, fps, frames, doubts)
                    if source is None:
                        list(frames)  # nothing, and why
                except WriteError:
                    raise
                except UserError as error:
                    track, problem = self._make(making, count, fps, self._black_frames(count)), f'{error.what}.'
                result = track.result(number, folder.name, problem)
                result = replace(result, seconds=round(seconds[place], 3))
                (making / RESULT).write_text(json_text(asdict(result)))
            return result
        finally:
            frames.leave()

    @cached_property
    def _hw(self) -> tuple[int, int]:
        return self._job.settings.image_hw or self._config.wrist_hw

    def _black_frames(self, count: int) -> Iterator[_Frame]:
        height, width = self._hw
        K = np.array([[height, 0, (width - 1) / 2], [0, height, (height - 1) / 2], [0, 0, 1]], np.float64)
        for _ in range(count):
            black = np.zeros((height, width, 3), np.uint8)
            yield _Frame(black, Camera(K, np.eye(4), width, height), np.eye(4), FrameStatus.REQUIRED_MISSING)

    def _streams(self) -> EpisodeStreams:
        if self._shared is None:
            s = self._job.stream
            model = load_model(s.model, s.device, s.precision, s.decoder)
            model.configure_process(s.threads)
            self._shared = EpisodeStreams(model, s, max(map(len, self._groups)))
        return self._shared

    def _make(
        self, folder: Path, count: int, fps: float, frames: Iterable[_Frame], doubts: tuple[str, ...] = ()
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


def episode_groups(source: AugmentSource, size: int) -> list[tuple[int, ...]]:
    """Places of the episodes that are made side by side, those of similar length, so that a batch stays full to the end."""
    count = len(source.data)
    order = sorted(range(count), key=lambda place: (source.length(place), place)) if size > 1 else list(range(count))
    return [tuple(order[start : start + size]) for start in range(0, count, size)]


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
