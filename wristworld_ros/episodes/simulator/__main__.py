"""python -m wristworld_ros.episodes.simulator --out DIR --episodes N [any field of SimulatorSettings]"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import fields

from wristworld_ros.episodes.simulator.run import simulate
from wristworld_ros.episodes.simulator.settings import SimulatorSettings


def main(arguments: list[str] | None = None) -> int:
    """Render a set of episodes; 0 when every one is there."""
    parser = argparse.ArgumentParser(prog='python -m wristworld_ros.episodes.simulator', description=simulate.__doc__)
    parser.add_argument('--out', required=True, help='directory of the set')
    parser.add_argument('--episodes', type=int, required=True)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, default=0, help='processes; 0: one a core')
    defaults = SimulatorSettings()
    for field in fields(SimulatorSettings):
        default, option = getattr(defaults, field.name), '--' + field.name.replace('_', '-')
        if isinstance(default, bool):
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=default)
        else:
            parser.add_argument(option, type=type(default), default=default, help=f'default {default}')
    given = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.INFO)
    settings = SimulatorSettings(**{field.name: given.pop(field.name) for field in fields(SimulatorSettings)})
    report = simulate(settings=settings, **given)
    print(
        f'{report.rendered} episodes rendered, {report.skipped} were there, {len(report.failed)} failed, '
        f'{report.seconds:.0f} s'
    )
    return 1 if report.failed else 0


if __name__ == '__main__':
    sys.exit(main())
