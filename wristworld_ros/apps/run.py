"""`wristworld run`: the virtual_wrist node with settings as options, for machines without `ros2 launch`."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from typing import NoReturn

from wristworld_ros.apps.processes import remappings, ros_parameters
from wristworld_ros.options import add_options, from_options
from wristworld_ros.setting import check
from wristworld_ros.settings import NodeSettings


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


def run(args: argparse.Namespace) -> NoReturn:
    """Become the node: it takes this process over, so signals reach it and its exit status is the command's."""
    settings = from_options(NodeSettings, args)
    check(settings)
    arguments = ros_parameters(settings) + remappings(args.remap)
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')  # as scripts/virtual_wrist does
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, '-m', 'wristworld_ros.ros.virtual_wrist_node', *arguments])
