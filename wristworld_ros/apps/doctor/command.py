"""`wristworld doctor`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from wristworld_ros.apps.doctor.finding import STATES, Finding, error, exit_status, from_error
from wristworld_ros.errors import UserError
from wristworld_ros.options import add_options, from_options
from wristworld_ros.setting import check, setting
from wristworld_ros.settings import NodeSettings

IMAGE_HW = (480, 640)  # pixels, where no image was received
NODE_SETTINGS = (
    'model', 'device', 'precision', 'graphs', 'anchors', 'transport', 'slop', 'sync_window', 'max_image_pixels', 'max_aspect',
    'input_reliability', 'input_depth', 'freshness', 'jump_back', 'chunk', 'history', 'guidance', 'decoder', 'on_out_of_memory',
    'anchor_frame', 'base_frame', 'hand_frame', 'wrist_mount', 'wrist_mount_frame', 'wrist_camera_frame', 'use_depth', 'use_tf', 'use_robot_model',
    'tf_timeout', 'max_residual', 'rectify', 'calibration_file',
)  # fmt: skip


@dataclass(frozen=True)
class DoctorSettings:
    """How topics are checked."""

    seconds: float | None = setting(
        2.0, 'How long to listen to the anchors, seconds; never leaves topics out.', low=0.1, high=3600.0, none='never'
    )
    rate: float = setting(5.0, 'Images per second wanted of each anchor.', low=0.0, high=1000.0)
    remap: list = setting([], 'Topic remappings FROM:=TO, as in anchor_left/image_raw:=/camera/color/image_raw.')
    use_sim_time: bool = setting(False, 'Compare stamps with /clock.')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is checked: the settings that the node would run with."""
    parser.epilog = (
        'Exit status: 0 when everything is ok, 1 with warnings only, 2 with an error. Topics are looked for in the '
        'ROS_DOMAIN_ID and discovery range of this shell; start the cameras first.'
    )
    parser.add_argument('--json', action='store_true', help='Print the same as JSON.')
    add_options(parser.add_argument_group('topics'), DoctorSettings)
    add_options(parser.add_argument_group('settings of the node'), NodeSettings, only=NODE_SETTINGS)


def run(args: argparse.Namespace) -> int:
    """Check, print, and return 0, 1 or 2."""
    settings, doctor = from_options(NodeSettings, args), from_options(DoctorSettings, args)
    check(settings)
    check(doctor)
    if len(set(settings.anchors)) < len(settings.anchors):
        raise UserError(
            f'--anchors is {" ".join(settings.anchors)}, with a name twice', 'give each camera a name of its own'
        )
    for rule in doctor.remap:
        if ':=' not in rule:
            raise UserError(f'--remap got {rule!r}', 'write FROM:=TO')
    found: list[tuple[str, Finding]] = []
    section = ''
    for title, findings in examine(settings, doctor):
        found += [(title, finding) for finding in findings]
        if args.json or not findings:
            continue
        if title != section:
            print(('\n' if section else '') + title)
        section = title
        print('\n'.join(f'  {finding}' for finding in findings), flush=True)
    status = exit_status(finding for _, finding in found)
    if args.json:
        records = [{'section': title} | asdict(finding) for title, finding in found]
        print(json.dumps({'status': STATES[status], 'findings': records}, indent=2))
    else:
        counts = {state: sum(finding.state == state for _, finding in found) for state in STATES}
        print(f'\n{counts["ok"]} OK, {counts["warning"]} warnings, {counts["error"]} errors.')
    return status


def examine(settings: NodeSettings, doctor: DoctorSettings) -> Iterator[tuple[str, list[Finding]]]:
    """Every section's title and findings, as soon as they are known."""
    from wristworld_ros.apps.doctor import calibration, machine, robot, ros, topics, weights

    driver = machine.read_driver()
    device = 'cpu'
    try:
        torch = machine.read_torch()
    except (ImportError, OSError) as e:
        finding = error(f'torch cannot be imported ({e})', "pip install 'torch>=2.4' for your GPU (pytorch.org)")
        yield 'GPU and driver', [finding]
    else:
        device = 'cuda' if torch.gpus and settings.device != 'cpu' else 'cpu'
        yield 'GPU and driver', machine.gpu_findings(settings.device, driver, torch, machine.card_on_bus())
    yield 'Versions', machine.version_findings(*machine.read_versions())
    try:
        findings, headers = weights.weight_findings(settings.model)
    except ImportError as e:
        findings, headers = [error(f'The networks cannot be imported ({e})', 'fix the errors above first')], {}
    yield 'Weights', findings

    file, file_findings = calibration.read_file(settings)
    found_ros = ros.read_ros()
    yield 'ROS', ros.ros_findings(found_ros)
    survey = None
    if found_ros.rclpy and found_ros.messages and doctor.seconds is not None:
        try:
            survey = topics.survey_topics(
                calibration.mounted_by(settings, file), doctor.remap, doctor.seconds, doctor.use_sim_time
            )
        except UserError as e:
            yield 'ROS', [from_error(e)]
    anchors = survey.anchors if survey else ()
    if headers:
        image_hw = max(((a.height, a.width) for a in anchors if a.width), default=IMAGE_HW)
        yield 'Memory', _memory(settings, device, driver[0].free if driver else 0, image_hw)
    if survey:
        image = max((a.size for a in anchors), default=0) or 3 * IMAGE_HW[0] * IMAGE_HW[1]
        rmem_max = ros.read_rmem_max()
        yield (
            'Big images',
            ros.transport_findings(found_ros.rmw, survey.profile, rmem_max, image, len(anchors), found_ros.local),
        )
        yield 'Topics', topics.topic_findings(survey, settings, doctor.rate)
        yield 'Calibration', topics.calibration_findings(survey, settings.rectify)
    yield 'Calibration', file_findings
    if survey:
        yield from robot.robot_sections(survey.robot, settings, file)


def _memory(settings: NodeSettings, device: str, gpu_free: int, image_hw: tuple[int, int]) -> list[Finding]:
    """Only for a model whose configuration could be read; imports torch."""
    from wristworld_ros.apps.doctor.machine import applicable_steps, memory_findings
    from wristworld_ros.models.config import ModelConfig
    from wristworld_ros.pipeline.memory_check import estimate_for
    from wristworld_ros.pipeline.model_directory import find_model
    from wristworld_ros.runtime.machine import free_ram

    try:
        config = ModelConfig.read(find_model(settings.model) / 'config.json')
        needed, _ = estimate_for(replace(settings, device=device), len(settings.anchors), image_hw)
    except UserError as e:
        return [from_error(e)]
    has_tiny_decoder = bool(config.tiny_decoder) and settings.decoder != 'tiny'
    steps = applicable_steps(settings.on_out_of_memory, device, settings.graphs, settings.history, has_tiny_decoder)
    return memory_findings(needed, device, free_ram(), gpu_free, steps)
