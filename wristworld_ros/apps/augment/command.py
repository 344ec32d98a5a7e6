"""`wristworld augment`."""

from __future__ import annotations

import argparse
from pathlib import Path

from wristworld_ros.apps.augment.settings import STREAM, AugmentSettings, PlanSettings
from wristworld_ros.options import add_options, from_options
from wristworld_ros.setting import check
from wristworld_ros.settings import StreamSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command; those of the model come from `StreamSettings`."""
    parser.add_argument(
        'source', type=Path, help='A LeRobot data set (v3.0, v2.1), ROS 2 bags or a folder of videos; only read.'
    )
    parser.add_argument('target', type=Path, help='Directory of the set with the new camera.')
    add_options(parser, AugmentSettings)
    add_options(parser.add_argument_group('the model'), StreamSettings, only=STREAM)
    add_options(parser.add_argument_group('a plan for more episodes'), PlanSettings)


def run(args: argparse.Namespace) -> int:
    """Augment; the exit status is 1 where an episode could not be read."""
    stream = StreamSettings(**{name: getattr(args, name) for name in STREAM})
    settings, plan = from_options(AugmentSettings, args), from_options(PlanSettings, args)
    for record in (stream, settings, plan):
        check(record)
    if plan.plan is not None:
        from wristworld_ros.apps.augment.plan import measured, plan_text

        print(plan_text(measured(args.target, settings.out_key), plan))
        return 0
    from wristworld_ros.errors import require_package

    require_package('pyarrow', 'data', 'Augmenting a data set')
    from wristworld_ros.apps.augment.run import augment

    report = augment(args.source, args.target, settings, stream)
    for sentence in report.problems:
        print(sentence)
    frames, valid = sum(one.frames for one in report.episodes), sum(one.valid for one in report.episodes)
    print(
        f'{report.target}: {len(report.episodes)} episodes, {frames} frames, {valid / max(frames, 1):.0%} of them valid.'
    )
    if report.page is not None:
        print(report.page)
    if report.made:
        print(
            f'{report.made} episodes made here in {report.seconds:.1f} s: {report.made / report.seconds:.3g} episodes and '
            f'{report.frames / report.seconds:.3g} frames a second with {settings.workers} worker{"s" * (settings.workers > 1)} and batches of '
            f'{settings.batch}; {report.working_rate(settings.workers):.3g} frames a second without start and end.'
        )
    return 1 if report.problems else 0
