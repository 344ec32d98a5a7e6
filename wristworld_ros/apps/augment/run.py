"""A whole run: what is to be done, the workers, and the set that comes of it."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from wristworld_ros.apps.augment.anchors import anchor_episode, chosen_anchors, settings_kinematics
from wristworld_ros.apps.augment.engine import Engine, run_tasks
from wristworld_ros.apps.augment.episode import EpisodeWorker, Job, episode_groups
from wristworld_ros.apps.augment.identity import run_identity
from wristworld_ros.apps.augment.page import require_page_packages, write_page
from wristworld_ros.apps.augment.pool import LocalEngine
from wristworld_ros.apps.augment.ray_engine import RayEngine
from wristworld_ros.apps.augment.result import EpisodeResult
from wristworld_ros.apps.augment.settings import AugmentSettings
from wristworld_ros.apps.augment.source import AugmentSource
from wristworld_ros.apps.augment.sources import open_source
from wristworld_ros.data.episode import DataSet, Episode
from wristworld_ros.data.formats.lerobot.columns import short_name
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import json_text
from wristworld_ros.runtime import machine
from wristworld_ros.runtime.files import check_apart, clear_leftovers, new_directory
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.settings import StreamSettings


@dataclass(frozen=True)
class AugmentReport:
    """What a run did. episodes: of all episodes, in order. seconds: of this run. made, frames: episodes and frames that it made
    itself; the others an earlier one had. page: where it is; None where none was asked for."""

    target: Path
    episodes: list[EpisodeResult]
    seconds: float
    made: int
    frames: int
    page: Path | None = None

    def working_rate(self, workers: int) -> float:
        """Frames a second of so many workers while they made episodes: without their start, and without the writing of the set."""
        spent = sum(one.seconds for one in self.episodes if not one.reused)
        return workers * self.frames / spent if spent else 0.0

    @property
    def problems(self) -> list[str]:
        """Sentences about episodes that could not be read."""
        return [f'Episode {one.episode}: {one.problem}' for one in self.episodes if one.problem]


def augment(
    source: Path,
    target: Path,
    settings: AugmentSettings,
    stream: StreamSettings,
    progress: bool = True,
) -> AugmentReport:
    """Write a data set with a virtual wrist camera more; it appears whole or not at all.

    Args:
        source: The set, which is only read.
        target: The new set's directory.
        settings: What is read and written.
        stream: Of the model.
        progress: Whether a bar is shown.

    Raises:
        UserError: The source is of no format that gets a camera, or cannot get this one; the target exists; the model cannot be
            used; a table cannot be read, or the disk refuses.
    """
    source, target = Path(source).expanduser().absolute(), Path(target).expanduser().absolute()
    if settings.page:
        require_page_packages()
    stream, engine = engine_for(settings, stream)
    given = _open(source, target)
    data, anchors = given.data, _check(given, settings, stream)
    run = run_identity(stream, settings, anchors)
    work = target.with_name(f'.{target.name}.work')
    started = time.perf_counter()
    with new_directory(target, settings.force, given.marker(settings)) as folder, _work_folder(work):
        job = Job(source, work, stream, replace(settings, anchors=','.join(anchors)), anchors, run)
        results = _make_episodes(job, given, engine, progress)
        given.write(folder, results, work, settings, anchors)
        report = AugmentReport(
            target, results, time.perf_counter() - started, sum(not one.reused for one in results),
            sum(one.frames for one in results if not one.reused),
        )  # fmt: skip
        place = folder / given.folder
        _write_manifest(place, given, run, report, settings)
        page = None
        if settings.page:
            page = f'{short_name(settings.out_key)}.html'
            write_page(place / page, given.reopened(folder), data.path.name, given.camera(settings), run, results)
    shutil.rmtree(work, ignore_errors=True)
    return report if page is None else replace(report, page=target / given.folder / page)


def _open(source: Path, target: Path) -> AugmentSource:
    given = open_source(source)
    for place in (source, given.data.root):
        check_apart(place, target)
    return given


def _check(given: AugmentSource, settings: AugmentSettings, stream: StreamSettings) -> tuple[str, ...]:
    """Whether the set can get this camera; returns the keys of the anchors."""
    given.check(settings)
    episode = _first_episode(given.data)
    anchors = chosen_anchors(episode, settings)
    anchor_episode(episode, settings, (2, 2), stream.wrist_fov, settings_kinematics(settings)).check()
    return anchors


def _first_episode(data: DataSet) -> Episode:
    """The first one that can be opened."""
    for place in range(len(data)):
        try:
            return data.episode(place)
        except UserError as error:
            first = error
    raise first


@contextmanager
def _work_folder(work: Path) -> Iterator[None]:
    """The folder of finished episodes: what a killed run left half done in it is cleared, and a run that fails leaves none without an
    episode. The target's lock, which is held, guards it."""
    work.mkdir(parents=True, exist_ok=True)
    clear_leftovers(work)
    try:
        yield
    finally:
        with suppress(OSError):  # it is not empty
            work.rmdir()


def engine_for(settings: AugmentSettings, stream: StreamSettings) -> tuple[StreamSettings, Engine]:
    """The engine that settings ask for, and the stream with the device that its workers have: this machine's says nothing of those of a
    cluster.

    Raises:
        UserError: Ray is not installed, or device and share of a GPU contradict each other.
    """
    if settings.engine == 'local':
        return stream, LocalEngine()
    on_gpu = stream.device.startswith('cuda')
    gpus = float(on_gpu) if settings.gpus is None else settings.gpus
    if stream.device != 'auto' and on_gpu != (gpus > 0):
        raise UserError(
            f'Setting device is {stream.device}, and each worker gets {gpus:g} of a GPU', 'change --device or --gpus'
        )
    return replace(stream, device='cuda' if gpus > 0 else 'cpu'), RayEngine(settings.address, gpus, stream.threads or 1)


def _make_episodes(job: Job, given: AugmentSource, engine: Engine, progress: bool) -> list[EpisodeResult]:
    os.environ.setdefault('SVT_LOG', '1')  # the AV1 encoder's own chatter: errors alone
    found: dict[int, EpisodeResult] = {}
    frames = 0
    groups = episode_groups(given, job.settings.batch)

    def named(group: int) -> str:
        numbers = [str(given.number(place)) for place in groups[group]]
        return f'Episode{"s" * (len(numbers) > 1)} {", ".join(numbers)}'

    with engine, ProgressBar(total=len(given.data), desc='augmenting', unit='episode', disable=not progress) as bar:

        def lost(group: int, how: str) -> None:
            bar.write(f'A worker process ended ({how}); its work is done again: {named(group).lower()}.')

        done = run_tasks(engine, partial(EpisodeWorker, job), range(len(groups)), job.settings.workers, lost, named)
        for group, results in done:
            found |= dict(zip(groups[group], results, strict=True))
            frames += sum(result.frames for result in results)
            bar.set_postfix_str(f'{frames} frames', refresh=False)
            bar.update(len(results))
    return [found[place] for place in range(len(given.data))]


def _write_manifest(
    place: Path, given: AugmentSource, run: dict[str, Any], report: AugmentReport, settings: AugmentSettings
) -> None:
    """The manifest, which is the same for every run with the same result; and what this run took, which is not."""
    name = short_name(settings.out_key)
    place.mkdir(parents=True, exist_ok=True)
    statuses = Counter[str]()
    for one in report.episodes:
        statuses.update(one.statuses)
    frames = sum(one.frames for one in report.episodes)
    manifest = run | {
        'source': given.described(),
        'totals': {
            'episodes': len(report.episodes), 'frames': frames, 'valid_share': _share(statuses['VALID'], frames),
            'statuses': dict(sorted(statuses.items())),
        },
        'episodes': [_entry(one) for one in report.episodes],
    }  # fmt: skip
    (place / f'{name}.json').write_text(json_text(manifest))
    took = {
        'machine': machine.describe(), 'engine': settings.engine, 'workers': settings.workers, 'seconds': round(report.seconds, 3),
        'episodes_made': report.made, 'frames_made': report.frames,
        'episodes': [{'episode': one.episode, 'seconds': one.seconds, 'made': not one.reused} for one in report.episodes],
    }  # fmt: skip
    (place / f'{name}.seconds.json').write_text(json_text(took))


def _entry(one: EpisodeResult) -> dict[str, Any]:
    entry = {
        'episode': one.episode, 'frames': one.frames, 'valid_share': _share(one.valid, one.frames),
        'mean_confidence': one.confidence, 'mean_coverage': one.coverage,
        'largest_step_m': one.step, 'statuses': one.statuses, 'in_base': one.in_base,
    }  # fmt: skip
    entry |= {'not_used': list(one.doubts)} if one.doubts else {}
    return entry | ({'problem': one.problem} if one.problem else {})


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
