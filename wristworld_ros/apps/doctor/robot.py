"""What the doctor says of the robot: TF frames, depth of the anchors, joint states and description, and a node that runs.

All of it is optional for the node, so that nothing of a kind is ok; part of it, or what cannot be used, is a warning, and an
error where a setting requires it.
"""

from __future__ import annotations

from collections.abc import Callable

from wristworld_ros.apps.doctor.finding import Finding, error, ok, warning
from wristworld_ros.robot.calibration_file import Calibration
from wristworld_ros.ros.robot_survey import Depth, Frame, RobotSurvey, RunningWrist
from wristworld_ros.settings import NodeSettings

AHEAD_S = 0.02  # stamps that lie farther in the future are of another clock
APART_S = 0.02  # in so long a moving arm goes a centimetre
LEAST_VALID = 0.3  # share of the pixels that should have depth
LEAST_RATE = 5.0  # joint states per second: between two of them the arm is taken to move straight
TRUE_M = 0.01  # residual of a good calibration, at most
ONE_CLOCK = 'synchronise the clocks of the machines (chrony or PTP), and set use_sim_time on all nodes or on none'
WITHOUT_MESHES = 'install the package that holds them (franka_description) on the machine of the node, and wristworld-ros[robot], which reads them'


def robot_sections(
    survey: RobotSurvey, settings: NodeSettings, calibration: Calibration | None = None
) -> list[tuple[str, list[Finding]]]:
    """Titles and findings.

    Args:
        survey: What was heard.
        settings: Of the node.
        calibration: Of the calibration file that the settings name, where it can be used.
    """
    return [
        ('Frames', frame_findings(survey, settings, calibration)),
        ('Depth', depth_findings(survey, settings)),
        ('Robot', robot_findings(survey, settings)),
        ('Virtual wrist', [f for wrist in survey.wrists for f in wrist_findings(wrist, settings)]),
    ]


def frame_findings(
    survey: RobotSurvey, settings: NodeSettings, calibration: Calibration | None = None
) -> list[Finding]:
    """Whether the places of anchors and hand are known in the base frame at the time of images; arguments as above."""
    if settings.use_tf == 'never':
        return []
    unusable = _unusable(settings.use_tf)
    if not survey.tf:
        what = 'Nothing comes on /tf and /tf_static'
        if settings.use_tf == 'require':
            return [
                error(
                    what,
                    'start robot_state_publisher, and publish the places of the anchors (static_transform_publisher)',
                )
            ]
        return [ok(f'{what}; the model estimates where the cameras are')]
    if not survey.base:
        fix = f'set base_frame (here: --base-frame) to the base of the robot (frames without a parent: {_few(survey.roots)})'
        return [unusable(f'TF has no frame {settings.base_frame}, which is base_frame', fix)]
    placed = {f'anchor_{name}' for name in calibration.anchors} if calibration else set()  # it wins over TF
    findings = [_frame_finding(frame, settings, unusable) for frame in survey.frames if frame.use not in placed]
    mounted = calibration is not None and calibration.wrist is not None
    if settings.wrist_mount is None and settings.wrist_camera_frame is None and not mounted:
        what = f'Where the wrist camera is mounted on {settings.hand_frame} is not given, so that the model estimates its pose'
        findings.append(
            unusable(
                what, 'set wrist_mount (x y z qx qy qz qw), wrist_camera_frame where TF has it, or calibration_file'
            )
        )
    return findings


def _frame_finding(frame: Frame, settings: NodeSettings, unusable: Callable[[str, str], Finding]) -> Finding:
    if frame.bad:
        return unusable(f'The place of {frame.use} is not known: {frame.bad}', frame.fix)
    parent = f' under {frame.parents[0]}' if frame.parents else ''
    what = f'{frame.name} ({frame.use}){parent}'
    if frame.static:
        return ok(f'{what}: static')
    if frame.age < -AHEAD_S:
        return warning(f'{what}: its transforms are stamped {-frame.age:.2f} s in the future', ONE_CLOCK)
    if frame.wait > settings.tf_timeout:
        fix = 'publish TF at a higher rate, or raise tf_timeout'
        return warning(
            f'{what}: transforms come {1e3 * frame.wait:.0f} ms after the images of their time, and tf_timeout is '
            f'{1e3 * settings.tf_timeout:.0f} ms',
            fix,
        )
    return ok(f'{what}: {1e3 * frame.age:.0f} ms old when it comes')


def depth_findings(survey: RobotSurvey, settings: NodeSettings) -> list[Finding]:
    """One finding per anchor, or one about all where there is no depth at all."""
    if settings.use_depth == 'never' or not survey.depth:
        return []
    if any(depth.publishers for depth in survey.depth):
        return [_depth_finding(depth, settings) for depth in survey.depth]
    what = f'Nothing publishes {_few(tuple(depth.topic for depth in survey.depth))}'
    if survey.depth_topics:
        name = survey.depth[0].name
        fix = f'name the one that is registered to colour: --remap anchor_{name}/depth/image_raw:=/its/topic'
        return [_unusable(settings.use_depth)(f'{what}, but there is depth on {_few(survey.depth_topics)}', fix)]
    if settings.use_depth == 'require':
        return [error(what, 'start the depth streams, or set use_depth to auto')]
    return [ok(f'{what}; depth is predicted')]


def _depth_finding(depth: Depth, settings: NodeSettings) -> Finding:
    unusable = _unusable(settings.use_depth)
    if not depth.publishers:
        fix = f'start its depth stream, or name it with --remap anchor_{depth.name}/depth/image_raw:=/its/topic'
        return unusable(f'Nothing publishes {depth.topic}', fix)
    if not depth.images:
        return unusable(depth.bad, depth.fix)
    what = f'{depth.topic}: {depth.width}x{depth.height} {depth.encoding} of {depth.frame or "no frame"}'
    if depth.bad:
        return unusable(f'{what}, but: {depth.bad}', depth.fix)
    what += f', {depth.valid:.0%} of the pixels, {depth.near:.2f} to {depth.far:.2f} m'
    if abs(depth.apart) > APART_S:
        side = 'older' if depth.apart > 0 else 'newer'
        return warning(
            f'{what}, but {1e3 * abs(depth.apart):.0f} ms {side} than colour, in which the arm moves',
            'have the driver synchronise depth and colour (RealSense: enable_sync:=true)',
        )
    if depth.valid < LEAST_VALID:
        return warning(
            f'{what}, which are few', "check the emitter, the exposure, and that the scene is within the camera's range"
        )
    return ok(what)


def robot_findings(survey: RobotSurvey, settings: NodeSettings) -> list[Finding]:
    """Joint states and robot description."""
    if settings.use_robot_model == 'never':
        return []
    joints, description, unusable = survey.joints, survey.description, _unusable(settings.use_robot_model)
    if not joints.names and not description.received and settings.use_robot_model != 'require':
        return [ok('Neither /joint_states nor /robot_description; the arm is taken as the anchors show it')]
    findings = []
    if joints.names:
        what = f'/joint_states: {len(joints.names)} joints, {joints.rate:.1f} messages/s, {1e3 * joints.age:.0f} ms old when they come'
        if joints.age < -AHEAD_S:
            findings.append(warning(f'{what}, which is in the future', ONE_CLOCK))
        elif joints.rate < LEAST_RATE:
            findings.append(warning(f'{what}, which is seldom', f'publish them {LEAST_RATE:g} times a second or more'))
        else:
            findings.append(ok(what))
    if description.bad:
        return [*findings, unusable(f"The robot's surface is not known: {description.bad}", description.fix)]
    what = f'/robot_description: {len(description.links)} links, {len(description.joints)} joints'
    if description.missing:
        return [*findings, warning(f'{what}, but meshes are missing ({_few(description.missing)})', WITHOUT_MESHES)]
    return [*findings, ok(f"{what}; the robot's surface is known at the time of images")]


def wrist_findings(wrist: RunningWrist, settings: NodeSettings) -> list[Finding]:
    """What a virtual wrist that runs says of itself."""
    node = wrist.topic.removesuffix('/status')
    if not wrist.active:
        return [
            warning(f'{node} is not active', f'ros2 lifecycle set {node} activate, or start it with autostart:=true')
        ]
    findings = []
    if wrist.reason:
        findings.append(warning(f'{node} makes no valid frames', wrist.reason.rstrip('.')))
    if wrist.lacks:
        findings.append(warning(f'{node} makes frames from {wrist.geometry}', ' '.join(wrist.lacks).rstrip('.')))
    else:
        findings.append(ok(f'{node} makes frames from {wrist.geometry}'))
    known = {name: metres for name, metres in zip(wrist.anchors, wrist.residuals, strict=False) if metres is not None}
    if known:
        findings.append(_residual_finding(node, known, settings.max_residual))
    return findings


def _residual_finding(node: str, residuals: dict[str, float], most: float | None) -> Finding:
    shown = ', '.join(f'{name} {1e3 * metres:.1f} mm' for name, metres in residuals.items())
    what = f'{node} sees the robot so far from where TF and joint states put it: {shown}'
    worst = max(residuals, key=residuals.__getitem__)
    fix = f'calibrate anchor_{worst} again (wristworld calibrate robot); it may have been moved'
    if most is not None and residuals[worst] > most:
        return error(f'{what}, and max_residual is {1e3 * most:.0f} mm', fix)
    if residuals[worst] > TRUE_M:
        return warning(f'{what}, and a good calibration is within {1e3 * TRUE_M:.0f} mm', fix)
    return ok(what)


def _unusable(use: str) -> Callable[[str, str], Finding]:
    """What is said where something cannot be used."""
    return error if use == 'require' else warning


def _few(names: tuple[str, ...]) -> str:
    return ', '.join(names[:5]) + (', ...' if len(names) > 5 else '') if names else 'none'
