"""`wristworld doctor`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict

from wristworld_ros.apps.doctor import gpu, ros, topics, transport, versions, weights
from wristworld_ros.apps.doctor.finding import STATES, Finding, error, exit_status, from_error
from wristworld_ros.options import add_options, from_options
from wristworld_ros.ros.topic_survey import TopicSurvey
from wristworld_ros.settings import NodeSettings, check

IMAGE_HW = (480, 640)  # pixels, where none was seen
SETTINGS = (
    'model', 'device', 'precision', 'graphs', 'anchors', 'transport', 'slop', 'freshness', 'jump_back', 'chunk', 'history',
    'guidance', 'decoder', 'on_out_of_memory',
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to look at: the settings that the node would run with."""
    parser.epilog = (
        'Exit status: 0 when all is well, 1 with warnings only, 2 with an error. Topics are listened to on the ROS_DOMAIN_ID and '
        'with the discovery range of this shell; start the cameras first.'
    )
    parser.add_argument('--json', action='store_true', help='Print the same as JSON.')
    parser.add_argument(
        '--seconds',
        type=float,
        default=2.0,
        metavar='X',
        help='How long to listen to the anchors; 0 leaves it out. Default: 2.0.',
    )
    parser.add_argument(
        '--rate', type=float, default=5.0, metavar='HZ', help='Images a second wanted of each anchor. Default: 5.0.'
    )
    parser.add_argument(
        '--remap',
        nargs='+',
        default=[],
        metavar='FROM:=TO',
        help='Topic remappings, as in anchor_left/image_raw:=/camera/color/image_raw.',
    )
    parser.add_argument('--use-sim-time', action='store_true', help='Judge stamps by /clock.')
    add_options(parser.add_argument_group('settings of the node'), NodeSettings, only=SETTINGS)


def run(args: argparse.Namespace) -> int:
    """Look, print, and return 0, 1 or 2."""
    settings: NodeSettings = from_options(NodeSettings, args)
    check(settings)
    if len(set(settings.anchors)) < len(settings.anchors):
        raise ValueError(f'--anchors got {" ".join(settings.anchors)}; give no name twice.')
    for rule in args.remap:
        if ':=' not in rule:
            raise ValueError(f'--remap got {rule!r}; it takes FROM:=TO.')
    found: list[tuple[str, Finding]] = []
    section = ''
    for title, lines in examine(settings, args.remap, args.seconds, args.rate, args.use_sim_time):
        found += [(title, line) for line in lines]
        if args.json or not lines:
            continue
        if title != section:
            print(('\n' if section else '') + title)
        section = title
        print('\n'.join(f'  {line}' for line in lines), flush=True)
    status = exit_status(line for _, line in found)
    counts = {state: sum(line.state == state for _, line in found) for state in STATES}
    if args.json:
        print(
            json.dumps(
                {'status': STATES[status], 'lines': [{'section': t} | asdict(line) for t, line in found]}, indent=2
            )
        )
    else:
        print(f'\n{counts["ok"]} OK, {counts["warning"]} warnings, {counts["error"]} errors.')
    return status


def examine(
    settings: NodeSettings, remaps: list[str], seconds: float, rate: float, use_sim_time: bool
) -> Iterator[tuple[str, list[Finding]]]:
    """Every section with its lines, as soon as they are known."""
    driver = gpu.read_driver()
    device = 'cpu'
    try:
        torch = gpu.read_torch()
    except (ImportError, OSError) as e:
        yield (
            'GPU and driver',
            [error(f'torch cannot be imported ({e})', "pip install 'torch>=2.4' for your GPU (pytorch.org)")],
        )
    else:
        device = 'cuda' if torch.gpus and settings.device != 'cpu' else 'cpu'
        yield 'GPU and driver', gpu.gpu_lines(settings.device, driver, torch, gpu.card_on_bus())
    yield 'Versions', versions.version_lines(versions.python_version(), versions.read_versions())
    try:
        lines, headers = weights.weight_lines(settings.model)
    except ImportError as e:
        lines, headers = [error(f'The networks cannot be imported ({e})', 'mend the lines above first')], {}
    yield 'Weights', lines

    reach = ros.read_ros()
    lines = ros.ros_lines(reach)
    yield 'ROS', lines
    seen: TopicSurvey | None = None
    if reach.rclpy and reach.messages and seconds > 0:
        try:
            seen = topics.listen(settings, remaps, seconds, use_sim_time)
        except RuntimeError as e:
            yield (
                'ROS',
                [
                    error(
                        f'A ROS node could not listen ({e})',
                        'mend the installation of ROS (rclpy must import and init)',
                    )
                ],
            )
    anchors = seen.anchors if seen else ()
    if headers:
        yield 'Memory', _memory(settings, device, driver, anchors)
    if seen:
        image = max((a.size for a in anchors), default=0) or 3 * IMAGE_HW[0] * IMAGE_HW[1]
        rmem, cameras = transport.read_rmem_max(), len(anchors)
        yield 'Big images', transport.transport_lines(reach.rmw, seen.profile, rmem, image, cameras, reach.local)
        yield 'Topics', topics.topic_lines(seen, settings, rate)
        yield 'Calibration', topics.calibration_lines(seen)


def _memory(settings: NodeSettings, device: str, driver: tuple[gpu.Gpu, ...], anchors: tuple) -> list[Finding]:
    from wristworld_ros.apps.doctor import memory  # with torch, which may be missing
    from wristworld_ros.models.config import ModelConfig, find_model
    from wristworld_ros.pipeline.check_memory import free_ram
    from wristworld_ros.pipeline.model_directory import choose_precision
    from wristworld_ros.runtime.memory_estimate import need

    hw = max(((a.height, a.width) for a in anchors if a.width), default=IMAGE_HW)
    try:
        config = ModelConfig.read(find_model(settings.model) / 'config.json')
        half = choose_precision(config, settings.precision, device).itemsize
        needed = need(config, settings, len(settings.anchors), hw, half)
    except (KeyError, ValueError) as e:
        return [from_error(e)]
    light = bool(getattr(config, 'tiny_decoder', None))
    steps_applied = memory.applicable(settings.on_out_of_memory, device, settings.graphs, settings.history, light)
    return memory.memory_lines(needed, device, free_ram(), driver[0].free if driver else 0, steps_applied)
