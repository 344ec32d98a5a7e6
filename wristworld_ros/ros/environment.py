"""The process around the nodes: environment variables before the first one, spinning, and the end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import rclpy
from rclpy.executors import Executor, ExternalShutdownException
from rclpy.node import Node

from wristworld_ros.errors import UserError

SomeNode = TypeVar('SomeNode', bound=Node)
PACKAGE = 'wristworld_ros'
PROFILE_VARIABLES = {'old': 'FASTRTPS_DEFAULT_PROFILES_FILE', 'new': 'FASTDDS_DEFAULT_PROFILES_FILE'}


def prepare() -> None:
    """Let share look-ups find packages that pip installed, and give Fast DDS enough shared memory for images.

    Wheels do not set AMENT_PREFIX_PATH; a sourced ROS installation does, and stays first. A profile that the user has
    chosen stays. Call it before rclpy.init().
    """
    prefixes = [p for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    if (Path(sys.prefix) / 'share/ament_index').is_dir() and sys.prefix not in prefixes:
        os.environ['AMENT_PREFIX_PATH'] = os.pathsep.join([*prefixes, sys.prefix])
    profile = share() / 'config/fastdds_shared_memory.xml'
    if profile.is_file() and not any(name in os.environ for name in PROFILE_VARIABLES.values()):
        os.environ[profile_variable()] = str(profile)


def profile() -> str:
    """The file of Fast DDS's profile that nodes of this environment use; '' for none."""
    return next((os.environ[name] for name in PROFILE_VARIABLES.values() if os.environ.get(name)), '')


def profile_variable() -> str:
    """The variable in which Fast DDS looks for its profile; it was renamed after Jazzy."""
    return PROFILE_VARIABLES['old' if os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy') else 'new']


def share() -> Path:
    """The folder that holds config/ and launch/: that of the source tree when run from there, otherwise the installed one."""
    source = Path(__file__).resolve().parents[2]
    if (source / 'package.xml').is_file():
        return source
    for prefix in [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]:
        if prefix and (Path(prefix) / 'share' / PACKAGE).is_dir():
            return Path(prefix) / 'share' / PACKAGE
    return source


def init(args: list[str] | None = None) -> None:
    """rclpy.init() for a process of its own: signals end `spin`, however many come, and never raise KeyboardInterrupt.

    Raises:
        UserError: A ROS argument cannot be read, as with an empty parameter file.
    """
    if threading.current_thread() is threading.main_thread():
        # rclpy's own handler comes before this one and shuts the context down. Python's would raise wherever it happens to be.
        signal.signal(signal.SIGINT, lambda *_: None)
    try:
        rclpy.init(args=args)
    except Exception as error:
        what = ' '.join(str(error).split()).rstrip('.')
        raise UserError(
            f'The ROS arguments cannot be read ({what})', 'see that every parameter file is YAML and not empty'
        ) from error


def make(node: Callable[[], SomeNode]) -> SomeNode | None:
    """A node, or None where a signal came while it was made, which any call of rclpy may report in its own way."""
    try:
        return node()
    except UserError:
        raise
    except Exception:
        if rclpy.ok():
            raise
        return None


def spin(executor: Executor, until: Callable[[], bool] = lambda: False) -> None:
    """Spin until SIGINT or SIGTERM, or until a condition holds after a callback. What is under way when the signal comes
    may fail because of it; that is not an error."""
    try:
        while executor.context.ok() and not until():
            executor.spin_once()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():
            raise


def leave(status: int) -> NoReturn:
    """End the process now.

    Once the nodes are gone nothing is left to clean up. An interpreter that shuts down with torch loaded takes a second or
    more, and may crash while a thread of the model is still in native code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
