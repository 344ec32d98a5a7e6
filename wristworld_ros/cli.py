"""`wristworld`: one command with a subcommand for each thing the package does.

Each subcommand is a module with `add_arguments(parser)` and `run(args) -> int | None`, imported only when it is called,
so that help comes at once and nothing loads torch or ROS that does not need it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

# name -> (module, one line of help)
COMMANDS = {
    'demo': ('wristworld_ros.apps.demo.command', 'run the virtual wrist live over ROS 2 topics and write a report'),
    'run': ('wristworld_ros.apps.run', 'run the virtual_wrist node'),
    'simulate': ('wristworld_ros.apps.simulate', 'record episodes of a simulated Franka arm'),
    'convert': ('wristworld_ros.apps.convert.command', "make a model directory of the published release's weights"),
    'train': ('wristworld_ros.apps.train', 'train stage 1, stage 2 or both'),
    'generate': ('wristworld_ros.apps.generate.command', 'make the wrist video of an episode or of anchor videos'),
    'evaluate': ('wristworld_ros.apps.evaluate', 'measure a model on held-out episodes, beside baselines'),
    'report': ('wristworld_ros.apps.demo.report_command', 'make the page of an earlier demo anew'),
    'doctor': (
        'wristworld_ros.apps.doctor.command',
        'look at this machine and its topics: what is amiss and how to mend it',
    ),
    'bench': ('wristworld_ros.apps.bench.command', 'measure rate, latency and memory on this machine'),
}
USER_ERROR, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status: 0, 2 for what the user can mend, 130 for Ctrl-C.

    Such an error is one sentence on stderr; with WRISTWORLD_TRACEBACK set its traceback follows.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    name = next((a for a in argv if not a.startswith('-')), None)
    if name not in COMMANDS or argv[0] != name:
        args = parser.parse_args(argv)  # help, version, or an unknown command: argparse answers and exits
        parser.print_help()
        return 0 if args.command is None else USER_ERROR
    command_parser = argparse.ArgumentParser(prog=f'wristworld {name}', description=_sentence(COMMANDS[name][1]))
    try:
        module = importlib.import_module(COMMANDS[name][0])
        module.add_arguments(command_parser)
        return module.run(command_parser.parse_args(argv[1:])) or 0
    except KeyboardInterrupt:
        return _fail(name, 'stopped.', INTERRUPTED)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get('WRISTWORLD_TRACEBACK'):
            raise
        return _fail(name, str(error), USER_ERROR)


def _parser() -> argparse.ArgumentParser:
    from wristworld_ros import __version__

    parser = argparse.ArgumentParser(
        prog='wristworld',
        description='A live virtual wrist camera for robot arms that have none.',
        epilog='`wristworld COMMAND --help` tells the options of a command.',
    )
    parser.add_argument('--version', action='version', version=f'wristworld_ros {__version__}')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', title='commands')
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + '.'


def _fail(name: str, sentence: str, status: int) -> int:
    print(f'wristworld {name}: {sentence}', file=sys.stderr)
    return status


if __name__ == '__main__':
    sys.exit(main())
