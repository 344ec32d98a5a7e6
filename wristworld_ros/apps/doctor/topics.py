"""Checks of the anchors' topics: whether images arrive, at the wanted rate, in a usable encoding, with matching stamps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from wristworld_ros.apps.doctor.finding import Finding, error, ok, warning
from wristworld_ros.apps.doctor.ros import PROFILE, VARIABLES
from wristworld_ros.errors import UserError
from wristworld_ros.ros.topic_survey import Anchor, TopicSurvey
from wristworld_ros.settings import NodeSettings

LOST = 0.05  # share of the images sent that may get lost before it is worth a word
NOTICEABLE = 2.0  # pixels of distortion
MATCHED = 0.8  # share of the slowest camera's images that should become part of an anchor set


def topic_findings(survey: TopicSurvey, settings: NodeSettings, rate: float) -> list[Finding]:
    """One finding per anchor, and one about their stamps.

    Args:
        survey: What was received.
        settings: Of the node.
        rate: Images per second that are wanted of every anchor.
    """
    findings = [_anchor_finding(a, survey, settings, rate) for a in survey.anchors]
    if len(survey.anchors) > 1 and all(a.images for a in survey.anchors):
        findings.append(_match_finding(survey, settings))
    return findings


def _anchor_finding(a: Anchor, survey: TopicSurvey, settings: NodeSettings, rate: float) -> Finding:
    other = 'compressed' if settings.transport == 'raw' else 'raw'
    suffix = '/compressed' if settings.transport == 'compressed' else ''
    if not a.publishers and _sibling(a.topic) in survey.others:
        return error(f'Nothing publishes {a.topic}, but {_sibling(a.topic)} exists', f'set transport to {other}')
    if not a.publishers:
        others = f'image topics that exist: {", ".join(survey.others)}' if survey.others else 'no image topic exists'
        return error(
            f'Nothing publishes {a.topic} ({others})',
            f'start the camera, name its topic with --remap anchor_{a.name}/image_raw{suffix}:=/its/topic, and check that its '
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
            f'{a.topic} ({who}) carried no image in {survey.seconds:.0f} s',
            'check that the camera runs and that both sides use the same RMW_IMPLEMENTATION, and see the findings on big images',
        )
    what = f'{a.topic}: {a.rate:.1f} images/s, {a.width}x{a.height} {a.encoding}, {who}'
    if a.bad:
        return error(f'{what}, but {a.bad}', a.fix)
    if len(a.publishers) > 1:
        return error(
            f'{what}: {len(a.publishers)} publishers on one topic',
            'stop all but one, or remap them to different topics',
        )
    if len(a.sizes) > 1:
        return error(
            f'{what}, but their size changes ({", ".join(a.sizes)}), and every change clears the stream',
            'set the camera to one size',
        )
    if a.stamps == 1 and a.images > 2:
        return error(
            f'{what}, but all {a.images} carry one stamp, so that each but the first is dropped',
            'have the driver stamp each image with the time of its acquisition',
        )
    if stale := _stale(a, settings):
        return error(f'{what}, {stale}', _clock_fix(a, settings))
    if (lost := a.sent - a.images) > max(1, LOST * a.sent):
        return warning(f'{what}: of about {a.sent} images that were sent, {lost} did not arrive', _loss_fix(a, survey))
    if a.rate < 0.9 * rate:
        return warning(
            f'{what}, where {rate:g} per second are wanted',
            f"raise the camera's rate, or lower --rate if this is intended; if it sends more, {_loss_fix(a, survey)}",
        )
    return ok(what)


def _loss_fix(a: Anchor, survey: TopicSurvey) -> str:
    """How to start a driver whose images get lost."""
    profile = survey.profile or PROFILE
    start = f'with Fast DDS, start the driver with {VARIABLES[0]}={profile} (until Jazzy {VARIABLES[1]})'
    if any(p.reliability != 'reliable' for p in a.publishers):
        return f'have the driver publish reliably (most have a QoS parameter), and, {start}'
    return f'{start}, or use transport compressed; see the findings on big images'


def _sibling(topic: str) -> str:
    """The topic of the same images in the other transport."""
    return topic.removesuffix('/compressed') if topic.endswith('/compressed') else f'{topic}/compressed'


def _stale(a: Anchor, settings: NodeSettings) -> str:
    if abs(a.age) <= settings.freshness:
        return ''
    if a.age < 0:
        return f'but stamped {-a.age:.2f} s in the future, where freshness allows {settings.freshness:g} s'
    return f'but {a.age:.2f} s old when they arrive, where freshness allows {settings.freshness:g} s'


def _clock_fix(a: Anchor, settings: NodeSettings) -> str:
    if abs(a.age) > 60:
        return 'set use_sim_time (here: --use-sim-time) if the stamps are of a simulation or a bag, or stamp with the current time'
    if a.age < 0:
        return 'synchronise the clocks of the machines (chrony or PTP)'
    return 'synchronise the clocks of the machines (chrony or PTP), make the driver faster, or raise freshness'


def _match_finding(survey: TopicSurvey, settings: NodeSettings) -> Finding:
    slowest = min(a.images for a in survey.anchors)
    worst = max(survey.anchors, key=lambda a: a.apart)
    what = f'{survey.sets} anchor sets in {survey.seconds:.1f} s, of {slowest} images of the slowest camera'
    if survey.sets >= MATCHED * slowest:
        return ok(what)
    lags = {a.name: a.lag for a in survey.anchors}
    last, newest = max(lags, key=lags.__getitem__), min(lags, key=lags.__getitem__)
    if (lag := lags[last] - lags[newest]) > settings.sync_window:
        what += (
            f'; stamps of {last} are {lag:.2f} s behind those of {newest}, sync_window is {settings.sync_window:g} s'
        )
        fix = 'synchronise the clocks of the cameras (chrony or PTP), or raise sync_window'
        return warning(what, fix) if survey.sets else error(what, fix)
    if worst.apart <= settings.slop:
        what += '; the stamps of those that came match, so the others came without a partner'
        fix = 'see what is said of each camera above, and run them at one rate'
        return warning(what, fix) if survey.sets else error(what, fix)
    what += f'; stamps of {worst.name} and {survey.anchors[0].name} are {worst.apart:.3f} s apart (median), slop is {settings.slop:g} s'
    fix = 'trigger the cameras together, synchronise their clocks, run them at one rate, or raise slop'
    return warning(what, fix) if survey.sets else error(what, fix)


def calibration_findings(survey: TopicSurvey, rectify: bool = False) -> list[Finding]:
    """A calibration is optional: without one the model estimates the camera.

    Args:
        survey: What was received.
        rectify: Whether the node undistorts images.
    """
    active = [a for a in survey.anchors if a.images or a.calibration.received]
    if not active:
        return []
    with_one = [a for a in active if a.calibration.calibrated]
    without = ', '.join(a.calibration.topic for a in active if a not in with_one)
    if not with_one:
        return [ok(f'No calibration on {without}; the model estimates the cameras')]
    findings = []
    if without:
        findings.append(
            warning(
                f'No calibration (none received, or k[0] is 0) on {without}, so that the model estimates it there',
                'calibrate that camera too (camera_calibration), or have its driver publish camera_info',
            )
        )
    for a in with_one:
        c = a.calibration
        what = f'{c.topic}: calibrated at {c.width}x{c.height}'
        if c.bad:
            findings.append(warning(f'{c.topic}: {c.bad}, so that it is not used', 'calibrate that camera again'))
        elif c.lens:
            fix = 'calibrate with plumb_bob, rational_polynomial or equidistant, or remap to rectified images (image_rect)'
            findings.append(warning(f'{what}, but {c.lens}, so that distortion stays', fix))
        elif c.displaced > NOTICEABLE and not rectify:
            findings.append(
                warning(
                    f'{what}, with distortion of up to {c.displaced:.0f} pixels, which is not corrected',
                    'set rectify to true, or remap to rectified images (image_rect)',
                )
            )
        elif a.images and c.width and c.width * a.height != c.height * a.width:
            findings.append(
                warning(
                    f'{what}, while images are {a.width}x{a.height}, another aspect',
                    'calibrate at the size that is published',
                )
            )
        else:
            findings.append(ok(f'{what}; it replaces the predicted intrinsics'))
    return findings


def survey_topics(
    settings: NodeSettings, remaps: Sequence[str], seconds: float, use_sim_time: bool = False
) -> TopicSurvey:
    """Listen to the anchors' topics in a process of its own, where a broken ROS does no harm.

    It takes up to three seconds more than `seconds`, until the cameras are discovered.

    Args:
        settings: Of the node.
        remaps: FROM:=TO.
        seconds: How long to listen.
        use_sim_time: Whether stamps are compared with /clock.

    Raises:
        UserError: The process failed; with the last line it printed.
    """
    command = [sys.executable, '-m', 'wristworld_ros.ros.topic_survey_node', '--settings', json.dumps(asdict(settings))]
    command += ['--seconds', str(seconds), '--ros-args', '-p', f'use_sim_time:={str(use_sim_time).lower()}']
    for rule in remaps:
        command += ['-r', rule]
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join([root, *filter(None, [os.environ.get('PYTHONPATH')])])
    env, patience = {**os.environ, 'PYTHONPATH': path}, seconds + 60
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired:
        raise _survey_error(f'it did not end within {patience:.0f} s') from None
    for line in reversed(done.stdout.splitlines()):
        if line.startswith('{'):
            return TopicSurvey.from_json(line)
    printed = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    raise _survey_error((printed[-1] if printed else f'it ended with status {done.returncode}').rstrip('.'))


def _survey_error(reason: str) -> UserError:
    return UserError(
        f'A ROS node could not listen to the topics ({reason})',
        'repair the installation of ROS (rclpy must import and initialise)',
    )
