"""The anchors' topics: whether images come, often enough, of a usable kind, with stamps that fit together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from wristworld_ros.apps.doctor.finding import Finding, error, ok, warning
from wristworld_ros.ros.topic_survey import Anchor, TopicSurvey
from wristworld_ros.settings import NodeSettings

MATCHED = 0.8  # share of the slowest camera's images that should find partners


def topic_lines(seen: TopicSurvey, settings: NodeSettings, rate: float) -> list[Finding]:
    """rate: images a second that are wanted of every anchor."""
    lines = [_anchor_line(a, seen, settings, rate) for a in seen.anchors]
    if len(seen.anchors) > 1 and all(a.images for a in seen.anchors):
        lines.append(_match_line(seen, settings))
    return lines


def _anchor_line(a: Anchor, seen: TopicSurvey, settings: NodeSettings, rate: float) -> Finding:
    other = 'compressed' if settings.transport == 'raw' else 'raw'
    suffix = '/compressed' if settings.transport == 'compressed' else ''
    if not a.publishers and _sibling(a.topic) in seen.others:
        return error(f'Nobody publishes {a.topic}, but {_sibling(a.topic)} is there', f'set transport to {other}')
    if not a.publishers:
        there = (
            f' (image topics that are there: {", ".join(seen.others)})' if seen.others else ' (no image topic is there)'
        )
        return error(
            f'Nobody publishes {a.topic}{there}',
            f'start the camera, name its topic with --remap anchor_{a.name}/image_raw{suffix}:=/its/topic, and see that its '
            'ROS_DOMAIN_ID is the same as here',
        )
    kinds = {p.kind for p in a.publishers}
    if a.wanted not in kinds:
        return error(
            f'{a.topic} carries {", ".join(sorted(kinds))}, not {a.wanted}',
            f'remap a topic of that type, or set transport to {other}',
        )
    who = ' and '.join(f'{p.node}, {p.reliability}' for p in a.publishers)
    if not a.images:
        return error(
            f'{a.topic} ({who}) brought no image in {seen.seconds:.0f} s',
            'see that the camera runs and that both sides have the same RMW_IMPLEMENTATION, and look at the lines on big images',
        )
    what = f'{a.topic}: {a.rate:.1f} images/s, {a.width}x{a.height} {a.encoding}, {who}'
    if a.bad:
        return error(f'{what}, but {a.bad}', 'have the camera publish rgb8 or bgr8')
    if len(a.publishers) > 1:
        return error(f'{what}: {len(a.publishers)} publishers on one topic', 'stop all but one, or remap them apart')
    if stale := _stale(a, settings):
        return error(f'{what}, {stale}', _clock_fix(a, settings))
    if a.rate < 0.9 * rate:
        return warning(
            f'{what}, where {rate:g} a second are wanted',
            "raise the camera's rate, use transport compressed over a network, or lower --rate if that is meant",
        )
    return ok(what)


def _sibling(topic: str) -> str:
    """Where the same images would come in the other transport."""
    return topic.removesuffix('/compressed') if topic.endswith('/compressed') else f'{topic}/compressed'


def _stale(a: Anchor, settings: NodeSettings) -> str:
    if abs(a.age) <= settings.freshness:
        return ''
    if a.age < 0:
        return f'but stamped {-a.age:.2f} s in the future, where freshness allows {settings.freshness:g} s'
    return f'but {a.age:.2f} s old when they arrive, where freshness allows {settings.freshness:g} s'


def _clock_fix(a: Anchor, settings: NodeSettings) -> str:
    if abs(a.age) > 60:
        return 'set use_sim_time (here: --use-sim-time) if the stamps are of a simulation or a bag, or stamp with the present time'
    if a.age < 0:
        return 'set the clocks of the machines by one server (chrony or PTP)'
    return 'set the clocks of the machines by one server (chrony or PTP), make the driver faster, or raise freshness'


def _match_line(seen: TopicSurvey, settings: NodeSettings) -> Finding:
    slowest = min(a.images for a in seen.anchors)
    worst = max(seen.anchors, key=lambda a: a.apart)
    what = f'{seen.sets} anchor sets in {seen.seconds:.1f} s, of {slowest} images of the slowest camera'
    if seen.sets >= MATCHED * slowest:
        return ok(what)
    apart = f'{what}; stamps of {worst.name} and {seen.anchors[0].name} lie {worst.apart:.3f} s apart (median), slop is {settings.slop:g} s'
    fix = 'trigger the cameras together, set their clocks by one server, run them at one rate, or raise slop'
    return warning(apart, fix) if seen.sets else error(apart, fix)


def calibration_lines(seen: TopicSurvey) -> list[Finding]:
    """Optional: without one the model goes by its own estimate; but one for some cameras only is for none."""
    heard = [a for a in seen.anchors if a.images or a.calibration.received]
    if not heard:
        return []
    with_one = [a for a in heard if a.calibration.calibrated]
    without = ', '.join(a.calibration.topic for a in heard if a not in with_one)
    if not with_one:
        return [ok(f'No calibration on {without}; the model estimates the cameras by itself')]
    if without:
        return [
            warning(
                f'No calibration (none came, or k[0] is 0) on {without}, so that of the other anchors is not taken either',
                'calibrate every anchor, or leave it',
            )
        ]
    lines = []
    for a in with_one:
        c = a.calibration
        what = f'{c.topic}: calibrated at {c.width}x{c.height}'
        if c.distorted:
            lines.append(
                warning(f'{what}, with distortion, which is not undone', 'where it is strong, remap to image_rect')
            )
        elif a.images and c.width and c.width * a.height != c.height * a.width:
            lines.append(
                warning(
                    f'{what}, while images are {a.width}x{a.height}, another shape',
                    'calibrate at the size that is published',
                )
            )
        else:
            lines.append(ok(what))
    return lines


def listen(settings: NodeSettings, remaps: Sequence[str], seconds: float, use_sim_time: bool = False) -> TopicSurvey:
    """Listen in a process of its own, where a broken ROS can do no harm; up to three seconds more than `seconds`, which
    go by until the cameras are found.

    remaps: FROM:=TO. Raises RuntimeError with the last words of a listener that failed.
    """
    command = [sys.executable, '-m', 'wristworld_ros.ros.topic_survey_node', '--anchors', *settings.anchors]
    command += ['--transport', settings.transport, '--slop', str(settings.slop), '--jump-back', str(settings.jump_back)]
    command += ['--seconds', str(seconds), '--ros-args', '-p', f'use_sim_time:={str(use_sim_time).lower()}']
    for rule in remaps:
        command += ['-r', rule]
    ours = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join([ours, *filter(None, [os.environ.get('PYTHONPATH')])])
    try:
        done = subprocess.run(
            command, env={**os.environ, 'PYTHONPATH': path}, capture_output=True, text=True, timeout=seconds + 60
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f'it did not end within {seconds + 60:.0f} s') from None
    for line in reversed(done.stdout.splitlines()):
        if line.startswith('{'):
            return TopicSurvey.from_json(line)
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    raise RuntimeError((said[-1] if said else f'it ended with status {done.returncode}').rstrip('.'))
