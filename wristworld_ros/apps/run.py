"""`wristworld run`: the virtual_wrist node with settings as options, for machines without `ros2 launch`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace

from wristworld_ros.apps.processes import ros_parameters
from wristworld_ros.options import add_options, from_options
from wristworld_ros.settings import NodeSettings, check


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every setting of the node, and ROS remappings."""
    add_options(parser, NodeSettings, defaults=replace(NodeSettings(), autostart=True))
    parser.add_argument(
        '--remap',
        nargs='+',
        default=[],
        metavar='FROM:=TO',
        help='Topic remappings, as in anchor_left/image_raw:=/camera/color/image_raw.',
    )


def run(args: argparse.Namespace) -> int:
    """Run the node until Ctrl-C; its exit status is ours."""
    settings = from_options(NodeSettings, args)
    check(settings)
    arguments = ros_parameters(settings)
    for rule in args.remap:
        if ':=' not in rule:
            raise ValueError(f'--remap got {rule!r}; it takes FROM:=TO.')
        arguments += ['-r', rule]
    process = subprocess.Popen([sys.executable, '-m', 'wristworld_ros.ros.virtual_wrist_node', *arguments])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the node got it too, and ends by itself
            continue
