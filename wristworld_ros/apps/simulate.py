"""`wristworld simulate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from wristworld_ros.options import add_options, from_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command; those of the scenes come from `SimulatorSettings`."""
    from wristworld_ros.sim.settings import SimulatorSettings

    parser.add_argument('out', type=Path, help='Folder of the episodes; those that are there already are left alone.')
    parser.add_argument(
        '--episodes', type=int, default=10, metavar='N', help='How many episodes the folder shall hold. Default: 10.'
    )
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='Another seed gives other scenes. Default: 0.')
    parser.add_argument(
        '--workers', type=int, default=0, metavar='N', help='Processes; 0 takes one a core. Default: 0.'
    )
    add_options(parser.add_argument_group('scenes and cameras'), SimulatorSettings)


def run(args: argparse.Namespace) -> int:
    """Render what is missing; 1 when an episode failed."""
    from wristworld_ros.sim.settings import SimulatorSettings
    from wristworld_ros.sim.simulate import simulate

    if args.episodes < 1:
        raise ValueError(f'--episodes is {args.episodes}; it takes 1 or more.')
    settings = from_options(SimulatorSettings, args)
    report = simulate(args.out, args.episodes, seed=args.seed, workers=args.workers, settings=settings)
    print(
        f'{report.rendered} episodes rendered in {report.seconds:.0f} s, {report.skipped} were there already, '
        f'{len(report.failed)} failed: {args.out}'
    )
    return 1 if report.failed else 0
