"""`wristworld demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

from wristworld_ros.apps.demo.settings import DemoSettings
from wristworld_ros.options import add_options, from_options
from wristworld_ros.settings import StreamSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command; those of the stream come from `StreamSettings`."""
    parser.add_argument(
        '--anchors', nargs='+', type=Path, metavar='VIDEO',
        help='Synchronised videos of one scene, one per anchor camera. Default: the simulated Franka arm.',
    )  # fmt: skip
    parser.add_argument('--wrist', type=Path, metavar='VIDEO', help='Video of the real wrist camera, for comparison.')
    parser.add_argument(
        '--out', type=Path, default=Path('reports'), help='Where the report folder is made. Default: reports.'
    )
    add_options(parser.add_argument_group('the demonstration'), DemoSettings)
    add_options(parser.add_argument_group('the stream'), StreamSettings)


def run(args: argparse.Namespace) -> int:
    """Run it; the last line printed is the report's folder."""
    from wristworld_ros.apps.demo.run import run_demo

    demo, stream = from_options(DemoSettings, args), from_options(StreamSettings, args)
    print(run_demo(demo, stream, args.anchors or [], args.wrist, args.out))
    return 0
