"""`wristworld simulate`: episodes of a simulated Franka arm."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wristworld_ros.options import add_options, from_options

FAILED = 1  # exit status where not every episode is there


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command; those of scenes and cameras come from `SimulatorSettings`."""
    from wristworld_ros.sim.settings import SimulatorSettings

    parser.add_argument('out', type=Path, help='Folder of the episodes; those that are there already are left alone.')
    parser.add_argument(
        '--episodes', type=int, default=10, metavar='N', help='How many episodes the folder shall hold. Default: 10.'
    )
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='Another seed gives other scenes. Default: 0.')
    parser.add_argument(
        '--workers', type=_workers, default=None, metavar='N', help='Processes; auto takes one per core. Default: auto.'
    )
    add_options(parser.add_argument_group('scenes and cameras'), SimulatorSettings)


def run(args: argparse.Namespace) -> int:
    """Render what is missing; 1 where an episode is missing still."""
    from wristworld_ros.sim.settings import SimulatorSettings
    from wristworld_ros.sim.simulate import SimulateError, simulate

    settings, status = from_options(SimulatorSettings, args), 0
    try:
        report = simulate(args.out, args.episodes, seed=args.seed, workers=args.workers, settings=settings)
    except SimulateError as error:
        report, status = error.report, FAILED
        print(f'wristworld simulate: {error}', file=sys.stderr)
    through = f' (OpenGL through {report.opengl})' if report.opengl else ''
    print(
        f'{report.rendered} episodes rendered in {report.seconds:.0f} s{through}, {report.skipped} were there already, '
        f'{len(report.failed)} failed: {args.out}'
    )
    return status


def _workers(text: str) -> int | None:
    return None if text == 'auto' else int(text)


_workers.__name__ = "int or 'auto'"  # argparse names it in "invalid ... value"
