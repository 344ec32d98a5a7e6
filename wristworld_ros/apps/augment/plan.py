"""What a large set would take: hours by number of GPUs, storage and cost, from what a finished run has measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wristworld_ros.apps.augment.settings import PlanSettings
from wristworld_ros.data.formats.lerobot.columns import short_name
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.table import aligned
from wristworld_ros.input_files import read_json

_FOLDERS = ('meta/wristworld', 'wristworld')  # of the manifest, by format
_COUNTS = (1, 2, 4, 8, 16, 32, 64)  # GPUs
_COLUMNS = 1 + 8 + 4 + 8 * (9 + 16 + 16)  # bytes of a frame's columns, before the tables compress them


@dataclass(frozen=True)
class Measured:
    """Of a finished run. frames: mean of an episode. ms: of one worker for a frame. frame_bytes: of the new videos, per frame.
    load_seconds: from the start of the run to its end beyond what the workers spent on episodes. on: machine and settings, in words."""

    frames: float
    ms: float
    frame_bytes: float
    load_seconds: float
    on: str


@dataclass(frozen=True)
class Plan:
    """frames, worker_hours, gigabytes: of everything. rows: GPUs, hours and cost."""

    episodes: int
    frames: float
    worker_hours: float
    gigabytes: float
    rows: list[tuple[int, float, float]]


def measured(target: Path, key: str) -> Measured:
    """What a finished run measured.

    Args:
        target: The set that it wrote.
        key: Of its camera.

    Raises:
        UserError: There is no such set, or the run that finished it made no episode itself.
    """
    name = short_name(key)
    place = next((target / folder for folder in _FOLDERS if (target / folder / f'{name}.seconds.json').is_file()), None)
    if place is None:
        raise UserError(
            f'{target} has no {name}.seconds.json, so nothing was measured',
            'augment some episodes first, and give that set',
        )
    fix = 'augment some episodes again'
    took = read_json(place / f'{name}.seconds.json', dict[str, Any], fix)
    manifest = read_json(place / f'{name}.json', dict[str, Any], fix)
    own = [one['seconds'] for one in took['episodes'] if one['made']]
    if not own or not took['frames_made']:
        raise UserError(f'The last run on {target} found everything made, so it measured nothing', fix)
    files = [path for path in target.rglob('*') if path.is_file() and {key, name} & set(path.relative_to(target).parts)]
    total, workers, settings = manifest['totals'], took['workers'], manifest['settings']
    return Measured(
        frames=total['frames'] / total['episodes'],
        ms=1e3 * sum(own) / took['frames_made'],
        frame_bytes=sum(path.stat().st_size for path in files) / total['frames'],
        load_seconds=max(took['seconds'] - sum(own) / min(workers, len(own)), 0.0),
        on=f'{manifest["model"]["name"]}, {manifest["device"]} ({took["machine"]["processor"]}), {workers} worker{"s" * (workers > 1)}, '
        f'batch {settings["batch"]}, {took["frames_made"]} frames of {total["episodes"]} episodes',
    )  # fmt: skip


def make_plan(found: Measured, settings: PlanSettings) -> Plan:
    """The plan for `settings.plan` episodes."""
    assert settings.plan is not None
    frames = settings.plan * (settings.plan_frames or found.frames)
    hours = frames * (settings.plan_ms or found.ms) / 3.6e6
    gigabytes = frames * (found.frame_bytes + _COLUMNS) / 1e9
    rows = []
    for count in _COUNTS:
        each = hours / (count * settings.plan_workers) + found.load_seconds / 3600
        rows.append((count, each, each * count * settings.plan_price))
    return Plan(settings.plan, frames, hours, gigabytes, rows)


def plan_text(found: Measured, settings: PlanSettings) -> str:
    """The plan with every assumption that it rests on, as text."""
    plan = make_plan(found, settings)
    workers = 'one worker' if settings.plan_workers == 1 else f'{settings.plan_workers} workers'
    lines = [
        f'{plan.episodes:,} episodes, {plan.frames:,.0f} frames: {plan.worker_hours:,.0f} hours of one worker, {plan.gigabytes:,.0f} GB beside the '
        f'source, and as much again until the run has ended.',
        aligned(
            ['GPUs', 'hours', 'days', 'cost'],
            [[f'{n}', f'{h:,.1f}', f'{h / 24:,.1f}', f'{c:,.0f}'] for n, h, c in plan.rows],
        ),
        f'Measured: {found.on}: {found.ms:.1f} ms of a worker per frame, {found.frame_bytes:,.0f} bytes of video per frame, '
        f'{found.frames:.0f} frames an episode, {found.load_seconds:.0f} s of start and end.',
        'Assumed:',
        f'- {_frames(settings)}',
        f'- {_speed(found, settings)}',
        f'- {workers} per GPU, and workers do not slow each other: reading, decoding and coding keep up, on about one core for each.',
        f'- {settings.plan_price:g} per GPU and hour.',
        f'- {_COLUMNS} bytes of columns per frame, as tables hold them without compression.',
        '- No episode is made twice: a worker that dies costs one group of episodes.',
    ]
    return '\n'.join(lines)


def _frames(settings: PlanSettings) -> str:
    if settings.plan_frames is None:
        return 'Episodes are as long as those that were measured (--plan-frames).'
    return f'Episodes have {settings.plan_frames:g} frames in the mean (--plan-frames).'


def _speed(found: Measured, settings: PlanSettings) -> str:
    if settings.plan_ms is None:
        return f'A worker of the plan is as fast as the one that was measured, {found.ms:.1f} ms per frame (--plan-ms).'
    return (
        f'A worker of the plan takes {settings.plan_ms:g} ms per frame (--plan-ms), which was not measured here: the measured one took '
        f'{found.ms:.1f} ms.'
    )
