"""`wristworld serve`: the wrist camera for programs without ROS, over a socket."""

from __future__ import annotations

import argparse
import signal

from wristworld_ros.apps.processes import remappings
from wristworld_ros.options import add_options, from_options
from wristworld_ros.policy.settings import BridgeSettings
from wristworld_ros.setting import check


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_options(parser, BridgeSettings)
    parser.add_argument(
        '--remap',
        nargs='+',
        default=[],
        metavar='FROM:=TO',
        help='Topic remappings, as in wrist/view:=/other/view.',
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    settings = from_options(BridgeSettings, args)
    check(settings)
    ros_args = remappings(args.remap)
    from wristworld_ros.policy.bridge import FrameServer
    from wristworld_ros.policy.wrist_camera import WristCamera

    # Blocked before there are threads, so that the signals wait for this one.
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    name = settings.namespace, settings.node
    with (
        WristCamera(*name, settings.max_age, settings.use_sim_time, ros_args) as camera,
        FrameServer(camera, settings) as server,
    ):
        print(f'Wrist images are served on {server.address}; Ctrl-C ends.', flush=True)
        signal.sigwait(ends)
    return 0
