"""`wristworld`: one command with a subcommand for each thing the package does.

Each subcommand is a module in `apps/` with `add_arguments(parser)` and `run(args) -> int | None`, imported only when it is
called. Until `run` is called none of them imports torch or ROS, so that help is immediate.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

from wristworld_ros.errors import UserError

# name -> (module, one line of help)
COMMANDS = {
    'demo': ('wristworld_ros.apps.demo.command', 'run the virtual wrist live over ROS 2 topics and write a report'),
    'run': ('wristworld_ros.apps.run', 'run the virtual_wrist node'),
    'serve': ('wristworld_ros.apps.serve', 'serve wrist images to policies without ROS, over a local socket'),
    'simulate': ('wristworld_ros.apps.simulate', 'record episodes of a simulated Franka arm'),
    'calibrate': ('wristworld_ros.apps.calibrate.command', 'find where cameras are, with a board or by the arm itself'),
    'data': ('wristworld_ros.apps.data.command', 'inspect, check and convert recordings of many formats'),
    'augment': ('wristworld_ros.apps.augment.command', 'add a virtual wrist camera to recordings'),
    'convert': ('wristworld_ros.apps.convert.command', 'make a model directory from the published weights'),
    'train': ('wristworld_ros.apps.train', 'train stage 1, stage 2, a tiny decoder or a causal student'),
    'finetune': (
        'wristworld_ros.apps.finetune',
        'adapt a model to your own recordings that do have a wrist camera',
    ),
    'generate': ('wristworld_ros.apps.generate.command', 'generate the wrist video of an episode or of anchor videos'),
    'evaluate': ('wristworld_ros.apps.evaluate', 'evaluate a model on held-out episodes, next to baselines'),
    'report': ('wristworld_ros.apps.report', 'render the report of an earlier demo again'),
    'doctor': (
        'wristworld_ros.apps.doctor.command',
        'check this machine and its topics, and say how to fix what is wrong',
    ),
    'bench': ('wristworld_ros.apps.bench.command', 'measure rate, latency and memory on this machine'),
}
USER_ERROR, INTERRUPTED, OUTPUT_CLOSED = 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    A `UserError` is printed as one sentence, after its traceback where WRISTWORLD_TRACEBACK is set. Every other exception
    is a bug, and propagates with its traceback.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        The exit status: 0, 2 for a UserError, 130 for Ctrl-C, 141 where the reader of the output has ended, or what the subcommand returns.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    name = next((a for a in argv if not a.startswith('-')), None)
    if name not in COMMANDS or argv[0] != name:
        args = parser.parse_args(argv)  # help, version, or an unknown command: argparse answers and exits
        parser.print_help()
        return 0 if args.command is None else USER_ERROR
    command_parser = _Parser(prog=f'wristworld {name}', description=_sentence(COMMANDS[name][1]))
    try:
        module = importlib.import_module(COMMANDS[name][0])
        module.add_arguments(command_parser)
        status = module.run(command_parser.parse_args(argv[1:])) or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _fail(name, 'stopped.', INTERRUPTED)
    except UserError as error:
        if os.environ.get('WRISTWORLD_TRACEBACK'):
            traceback.print_exc()
        return _fail(name, str(error), USER_ERROR)
    except BrokenPipeError:
        # Whoever read the output has ended, as in `| head`. What is still to be printed would fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_CLOSED
    except OSError as error:
        # A path that a command was given and that the system refuses, where the command did not say it better itself.
        if error.filename is None or os.environ.get('WRISTWORLD_TRACEBACK'):
            raise
        return _fail(
            name, f'{os.fsdecode(error.filename)}: {error.strerror}; give another path, or change it.', USER_ERROR
        )


class _Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong with the arguments, and which option may be meant."""

    def error(self, message: str) -> NoReturn:
        unknown = re.findall(r'--[\w-]+', message) if message.startswith('unrecognized') else []
        close = [near for option in unknown for near in get_close_matches(option, self._option_string_actions, 1)]
        meant = f' (did you mean {", ".join(close)}?)' if close else ''
        self.exit(USER_ERROR, f'{self.prog}: {message.rstrip(".")}{meant}; see {self.prog} --help.\n')


def _parser() -> argparse.ArgumentParser:
    from wristworld_ros import __version__

    parser = _Parser(
        prog='wristworld',
        description='A live virtual wrist camera for robot arms that have none.',
        epilog='`wristworld COMMAND --help` shows the options of a command.',
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
