"""Checks of ROS: distribution, middleware, messages and network, and whether big images get through.

Big images need Fast DDS's shared memory on one machine, and the kernel's socket buffers over a network. rclpy is found
without being imported.
"""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from wristworld_ros.apps.doctor.finding import Finding, error, ok, warning
from wristworld_ros.runtime.machine import format_bytes

TOO_OLD = ('foxy', 'galactic', 'humble', 'iron')
WHEELS = {'7.1': 'jazzy', '9.1': 'kilted'}  # rclpy's versions by distribution
DEFAULT_RMW = 'rmw_fastrtps_cpp'
NO_ROS = "source /opt/ros/<distribution>/setup.bash with the Python it is built for, or pip install 'ros-rclpy[fastrtps]==9.1.*'"

VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')  # since Kilted, and until Jazzy
PROFILE = 'config/fastdds_shared_memory.xml'
SEGMENT = 512 * 2**10  # Fast DDS's own, bytes
IMAGES = 4  # that a segment should hold: two that are kept, one being written, one being read


@dataclass(frozen=True)
class Ros:
    """What of ROS this process can use.

    rclpy: the folder it would be imported from, '' where there is none. wheel: the version of the pip package it comes
    from, '' for an installed ROS. messages: whether this package's own are built. rmws: the middleware that is installed.
    env: the process environment.
    """

    rclpy: str
    wheel: str
    messages: bool
    rmws: tuple[str, ...]
    env: Mapping[str, str]

    @property
    def distribution(self) -> str:
        """Of the rclpy that would be imported; '' where neither its version nor the environment says."""
        if self.wheel:
            return WHEELS.get('.'.join(self.wheel.split('.')[:2]), '')
        return self.env.get('ROS_DISTRO', '')

    @property
    def rmw(self) -> str:
        """The middleware that nodes of this environment would use."""
        return self.env.get('RMW_IMPLEMENTATION') or DEFAULT_RMW

    @property
    def local(self) -> bool:
        """Whether nodes of this environment stay on this machine."""
        return self.env.get('ROS_AUTOMATIC_DISCOVERY_RANGE') == 'LOCALHOST' or self.env.get('ROS_LOCALHOST_ONLY') == '1'


def ros_findings(ros: Ros) -> list[Finding]:
    """Distribution, middleware, messages, network."""
    if not ros.rclpy:
        sourced = ros.env.get('ROS_DISTRO')
        what = (
            f'ROS {sourced} is sourced, but this Python ({sys.executable}) has no rclpy'
            if sourced
            else 'ROS 2 is not installed'
        )
        return [error(f'{what}, so there are no nodes and no topics', NO_ROS)]
    findings = [_distribution(ros), _middleware(ros)]
    if not ros.messages:
        findings.append(
            error(
                'The messages of wristworld_ros are not built',
                'colcon build and source install/setup.bash, or pip install .',
            )
        )
    return [*findings, *_network(ros.env)]


def _distribution(ros: Ros) -> Finding:
    sourced, origin = ros.env.get('ROS_DISTRO', ''), f'pip, {ros.wheel}' if ros.wheel else 'an installed ROS'
    what = f'ROS {ros.distribution or "of an unknown distribution"}: rclpy from {ros.rclpy} ({origin})'
    if ros.wheel and sourced and sourced != ros.distribution:
        return warning(
            f'{what}, while ROS {sourced} is sourced; the two do not mix',
            'use a shell without the sourced one, or a Python environment without the ros-* wheels',
        )
    if ros.distribution in TOO_OLD:
        return warning(f'{what}, older than what this package supports', 'use Jazzy or newer')
    return ok(what)


def _middleware(ros: Ros) -> Finding:
    chosen = 'RMW_IMPLEMENTATION' if ros.env.get('RMW_IMPLEMENTATION') else 'the default'
    what = f'Middleware {ros.rmw} ({chosen})'
    if ros.rmws and ros.rmw not in ros.rmws:
        return error(
            f'{what} is not installed; there are: {", ".join(ros.rmws)}',
            f'install it (apt: ros-<distribution>-{ros.rmw.replace("_", "-")}) or unset RMW_IMPLEMENTATION',
        )
    return ok(f'{what}; all nodes should use the same')


def _network(env: Mapping[str, str]) -> list[Finding]:
    text, reach = env.get('ROS_DOMAIN_ID') or '0', env.get('ROS_AUTOMATIC_DISCOVERY_RANGE') or 'SUBNET'
    if not text.isdigit() or int(text) > 232:
        return [error(f'ROS_DOMAIN_ID is {text!r}', 'set it to a whole number from 0 to 232, the same for all nodes')]
    what = f'ROS_DOMAIN_ID {text}, discovery range {reach}'
    if env.get('ROS_LOCALHOST_ONLY') == '1':
        what += ', ROS_LOCALHOST_ONLY 1'
    if reach == 'OFF':
        return [warning(f'{what}: no node finds another', 'set ROS_AUTOMATIC_DISCOVERY_RANGE to LOCALHOST or SUBNET')]
    if 101 < int(text) < 215:
        return [
            warning(
                f'{what}: its ports are among the ephemeral ports of Linux',
                'use a ROS_DOMAIN_ID from 0 to 101',
            )
        ]
    return [ok(what)]


def transport_findings(rmw: str, profile: str, rmem_max: int, image: int, cameras: int, local: bool) -> list[Finding]:
    """Whether images of this size get through.

    Args:
        rmw: The middleware.
        profile: Fast DDS's profile file, '' for none.
        rmem_max: The kernel's limit on socket buffers, bytes; 0 where it is not known.
        image: Bytes of the largest anchor image.
        cameras: How many there are.
        local: Whether discovery stays on this machine.
    """
    fast = rmw.startswith('rmw_fastrtps')
    findings = [profile_finding(profile, image)] if fast else []
    if rmw.startswith('rmw_zenoh') or (fast and local):
        return findings
    if not rmem_max:
        return [*findings, ok('The kernel does not report its limit on socket buffers (net.core.rmem_max)')]
    burst = cameras * image
    what = f"The kernel's socket buffers may hold {format_bytes(rmem_max)} (net.core.rmem_max), a set of {cameras} images {format_bytes(burst)}"
    if rmem_max < burst:
        where = 'from other machines' if fast else 'over sockets, which this middleware uses for all of them,'
        size = max(2 ** (2 * burst - 1).bit_length(), 8 * 2**20)
        return [
            *findings,
            warning(
                f'{what}: images {where} may be lost',
                f'sudo sysctl -w net.core.rmem_max={size} (and in /etc/sysctl.d to keep it), or use transport compressed',
            ),
        ]
    return [*findings, ok(what)]


def profile_finding(profile: str, image: int) -> Finding:
    """Of Fast DDS's profile; cameras need one too, since images are kept in the sender's memory."""
    use = f'set {VARIABLES[0]} (until Jazzy {VARIABLES[1]}) to {PROFILE} of this package, for cameras too'
    if not profile:
        return warning(
            f'Fast DDS has no profile; its default of {format_bytes(SEGMENT)} of shared memory drops big images', use
        )
    try:
        segments, builtin = read_profile(Path(profile))
    except (OSError, ET.ParseError) as e:
        return error(f"Fast DDS's profile {profile} cannot be read ({e})", use)
    if builtin:
        segments = [*segments, SEGMENT]
    if not segments:
        return warning(f"Fast DDS's profile {profile} has no shared memory", use)
    what = (
        f"Fast DDS's profile {profile}: {format_bytes(max(segments))} of shared memory, images of {format_bytes(image)}"
    )
    if max(segments) < IMAGES * image:
        return warning(f'{what}: room for fewer than {IMAGES}, so that some are lost', use)
    return ok(f'{what}; the cameras should use it too')


def read_profile(path: Path) -> tuple[list[int], bool]:
    """Sizes of the shared-memory segments in a profile, bytes, and whether Fast DDS's own transports are used as well."""
    root = ET.parse(path).getroot()
    segments = []
    for transport in root.findall('.//{*}transport_descriptor'):
        if (transport.findtext('{*}type') or '').strip() == 'SHM':
            segments.append(int(transport.findtext('{*}segment_size') or SEGMENT))
    builtin = (root.findtext('.//{*}useBuiltinTransports') or 'true').strip() != 'false'
    return segments, builtin


def read_rmem_max(path: Path = Path('/proc/sys/net/core/rmem_max')) -> int:
    """The kernel's limit on socket buffers, bytes; 0 where the system does not say."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def read_ros() -> Ros:
    """What this process can use."""
    try:
        spec = util.find_spec('rclpy')
    except ImportError:
        spec = None
    folder = str(Path(spec.origin).parent) if spec and spec.origin else ''
    wheel = ''
    try:
        found = metadata.distribution('ros-rclpy')
        if folder and Path(str(found.locate_file('rclpy'))).resolve() == Path(folder).resolve():
            wheel = found.version
    except metadata.PackageNotFoundError:
        pass
    messages = util.find_spec('wristworld_ros.msg') is not None
    return Ros(folder, wheel, messages, _installed_rmws(), dict(os.environ))


def _installed_rmws() -> tuple[str, ...]:
    """Middleware by the ament index of every prefix."""
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    index = 'share/ament_index/resource_index/rmw_typesupport'
    return tuple(sorted({p.name for prefix in prefixes if prefix for p in Path(prefix, index).glob('rmw_*')}))
