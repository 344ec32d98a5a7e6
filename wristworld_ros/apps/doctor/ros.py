"""The ROS distribution, its middleware and its network settings. Finds rclpy without importing it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from wristworld_ros.apps.doctor.finding import Finding, error, ok, warning

OLD = ('foxy', 'galactic', 'humble', 'iron')
WHEELS = {'7.1': 'jazzy', '9.1': 'kilted'}  # rclpy's versions by distribution
DEFAULT_RMW = 'rmw_fastrtps_cpp'
NO_ROS = "source /opt/ros/<distribution>/setup.bash with the Python it is built for, or pip install 'ros-rclpy[fastrtps]==9.1.*'"


@dataclass(frozen=True)
class Ros:
    """What of ROS this process can reach. rclpy: the folder it would be imported from, '' where there is none. wheel: the
    version of the pip package it comes from, '' for an installed ROS. messages: this package's own are built. rmws: the
    middleware that is installed. env: the process environment."""

    rclpy: str
    wheel: str
    messages: bool
    rmws: tuple[str, ...]
    env: Mapping[str, str]

    @property
    def distribution(self) -> str:
        """Of the rclpy that would be imported; '' where neither its version nor the environment tells."""
        if self.wheel:
            return WHEELS.get('.'.join(self.wheel.split('.')[:2]), '')
        return self.env.get('ROS_DISTRO', '')

    @property
    def rmw(self) -> str:
        """The middleware that nodes of this environment would take."""
        return self.env.get('RMW_IMPLEMENTATION') or DEFAULT_RMW

    @property
    def local(self) -> bool:
        """Whether nodes of this environment stay on this machine."""
        return self.env.get('ROS_AUTOMATIC_DISCOVERY_RANGE') == 'LOCALHOST' or self.env.get('ROS_LOCALHOST_ONLY') == '1'


def ros_lines(ros: Ros) -> list[Finding]:
    """Distribution, middleware, messages, network."""
    if not ros.rclpy:
        sourced = ros.env.get('ROS_DISTRO')
        what = (
            f'ROS {sourced} is sourced, but this Python ({sys.executable}) has no rclpy'
            if sourced
            else 'ROS 2 is not installed'
        )
        return [error(f'{what}, so there are no nodes and no topics', NO_ROS)]
    lines = [_distribution(ros), _middleware(ros)]
    if not ros.messages:
        lines.append(
            error(
                'The messages of wristworld_ros are not built',
                'colcon build and source install/setup.bash, or pip install .',
            )
        )
    return [*lines, *_network(ros.env)]


def _distribution(ros: Ros) -> Finding:
    sourced, origin = ros.env.get('ROS_DISTRO', ''), f'pip, {ros.wheel}' if ros.wheel else 'an installed ROS'
    what = f'ROS {ros.distribution or "of an unknown distribution"}: rclpy from {ros.rclpy} ({origin})'
    if ros.wheel and sourced and sourced != ros.distribution:
        return warning(
            f'{what}, while ROS {sourced} is sourced; the two do not mix',
            'use a shell without the sourced one, or a Python environment without the ros-* wheels',
        )
    if ros.distribution in OLD:
        return warning(f'{what}, older than what this package is made for', 'use Jazzy or newer')
    return ok(what)


def _middleware(ros: Ros) -> Finding:
    chosen = 'RMW_IMPLEMENTATION' if ros.env.get('RMW_IMPLEMENTATION') else 'the default'
    what = f'Middleware {ros.rmw} ({chosen})'
    if ros.rmws and ros.rmw not in ros.rmws:
        return error(
            f'{what} is not installed; there are: {", ".join(ros.rmws)}',
            f'install it (apt: ros-<distribution>-{ros.rmw.replace("_", "-")}) or unset RMW_IMPLEMENTATION',
        )
    return ok(f'{what}; all nodes should take the same')


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
                f'{what}: its ports are among those that Linux hands out by itself',
                'take a ROS_DOMAIN_ID from 0 to 101',
            )
        ]
    return [ok(what)]


def read_ros() -> Ros:
    """What this process can reach."""
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
